// The nodes of a file's BLAKE3 tree that a manifest keeps, so that any block can be checked against the hash of the
// file: those of the blocks (64 KiB), and of every 64th, 4096th, ... of these (4 MiB, 256 MiB, ...), up to the level
// that has no more than 64. A reader of one block needs one *group* of up to 64 nodes (2 KiB) of each level.
//
//   level 0   a node for each block
//   level 1   a node for each 64 of level 0
//   ...
//   top       2 to 64 nodes, whose parent is the file's hash
//
// In the file they lie top level first. A file of one block has no tree: its hash is the block's.
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/block.h"
#include "base/byte_range.h"
#include "base/hash256.h"

namespace wormhole {

inline constexpr uint64_t kTreeFanout = 64;

// Where the nodes of a file of `size` bytes lie.
class HashTreeShape {
 public:
  explicit HashTreeShape(uint64_t size);

  uint64_t blocks() const { return blocks_; }
  // 0 for a file of one block or none.
  size_t levels() const { return nodes_.size(); }
  uint64_t nodes(size_t level) const { return nodes_[level]; }
  // Of all nodes.
  uint64_t bytes() const { return bytes_; }

  // The group of `level` that has the block's node in it, counted from 0.
  uint64_t group_of(size_t level, BlockIndex block) const;
  // Its nodes, as bytes of the tree.
  ByteRange group_range(size_t level, uint64_t group) const;
  // Of all groups that lie in these bytes of the tree, the upper levels first.
  std::vector<ByteRange> groups_in(ByteRange bytes) const;

 private:
  uint64_t blocks_;
  std::vector<uint64_t> nodes_;  // of each level, level 0 first
  uint64_t bytes_ = 0;
};

// Groups that came from anywhere, each checked against the one above it, and so against the file's hash.
//
// Thread: the owner's.
class HashTree {
 public:
  HashTree(uint64_t size, const Hash256& file);

  const HashTreeShape& shape() const { return shape_; }
  const Hash256& file() const { return file_; }

  // What must still be added before the block can be checked: bytes of the tree, the upper levels first. Empty:
  // nothing.
  std::vector<ByteRange> missing(BlockIndex block) const;
  // Whether the group that begins there can be checked: the one above it is known, or it is the top.
  bool can_add(ByteRange range) const;
  // Takes a group that missing() has named; `bytes` are those of `range`. Upper levels must be added before lower ones.
  // False: it does not belong to the file, and was not taken.
  bool add(ByteRange range, std::span<const std::byte> bytes);

  // REQUIRES: missing() is empty. Whether the bytes are the block's.
  bool matches(BlockIndex block, std::span<const std::byte> bytes) const;
  // The node of a block; of a file of one block its hash. REQUIRES: missing() is empty.
  const Hash256& node(BlockIndex block) const;

 private:
  using Group = std::vector<Hash256>;
  const Group* group(size_t level, BlockIndex block) const;
  std::optional<std::pair<size_t, uint64_t>> group_at(ByteRange range) const;
  const Hash256* parent_of(size_t level, uint64_t group) const;

  const HashTreeShape shape_;
  const Hash256 file_;
  std::vector<std::unordered_map<uint64_t, Group>> levels_;  // those that are known; level 0 first
};

// Of a file that is hashed, its blocks in any order.
//
// Thread: set() any, for different blocks at the same time; the rest the owner's, when all have been set.
class HashTreeBuilder {
 public:
  // REQUIRES: more than one block.
  explicit HashTreeBuilder(uint64_t size);
  void set(BlockIndex block, const Hash256& node) { nodes_[block] = node; }
  // The file's hash, and the tree's bytes appended to `out`.
  Hash256 finish(std::vector<std::byte>* out) const;

 private:
  HashTreeShape shape_;
  std::vector<Hash256> nodes_;
};

// Whether these are the bytes of the tree of the file, all of them.
bool is_tree_of(uint64_t size, const Hash256& file, std::span<const std::byte> tree);

}  // namespace wormhole
