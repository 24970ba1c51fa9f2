// What the bytes of a file must be, as a manifest says it.
//
// Thread: values, any; never changed after they are made.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "base/hash256.h"
#include "cache/index_format.h"

namespace wormhole {

// Where the hash trees of a manifest lie (manifest/hash_tree.h).
struct TreesFile {
  std::string url;
  uint64_t size = 0;  // bytes

  bool operator==(const TreesFile&) const = default;
};

// The version of a file that the cache has bytes of, and that another has followed. Most of its blocks may be the new
// one's as well (inherited_blocks.h).
struct Predecessor {
  ContentKey content;
  Ino file = 0;  // its number

  bool operator==(const Predecessor&) const = default;
};

static_assert(std::is_trivially_copyable_v<Predecessor>);

struct Content {
  Hash256 hash;
  uint64_t tree = 0;  // where its hash tree begins in `trees`; without meaning for a file of one block
  std::shared_ptr<const TreesFile> trees;
  std::optional<Predecessor> predecessor{};  // says nothing about what the bytes must be, and is not compared

  bool operator==(const Content& other) const {
    const bool same_trees = trees == other.trees || (trees && other.trees && *trees == *other.trees);
    return hash == other.hash && tree == other.tree && same_trees;
  }
};

using ContentRef = std::shared_ptr<const Content>;  // null: not known

}  // namespace wormhole
