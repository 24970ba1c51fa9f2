// BLAKE3, and the nodes of its tree. The door to libblake3.
//
// BLAKE3 hashes chunks of 1 KiB and joins them two by two into a tree whose root is the hash (specification, section
// 2.4). Each subtree of 64 chunks, aligned, is a block of 64 KiB: so the hash of a file can be told from one node for
// each of its blocks, and a block be checked against the hash of the file by a few nodes of the way up (hash_tree.h).
//
// Thread: values, any; a Blake3 belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/block.h"
#include "base/hash256.h"

namespace wormhole {

// What `b3sum` says of the bytes.
Hash256 blake3(std::span<const std::byte> bytes);
Hash256 blake3(std::string_view bytes);

// The same, piece by piece.
class Blake3 {
 public:
  Blake3();
  ~Blake3();
  Blake3(Blake3&&) noexcept;
  Blake3& operator=(Blake3&&) noexcept;

  void update(std::span<const std::byte> bytes);
  Hash256 finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The node of a block of a file that has more than one. REQUIRES: 1 to 64 KiB; less than 64 KiB only for the last one.
Hash256 blake3_block(std::span<const std::byte> bytes, BlockIndex block);

// The node above `nodes`, which follow each other: all stand for the same number of blocks, a power of two, but the
// last, which may stand for fewer. With `root` it is the hash of the file. REQUIRES: one or more; of a root, two or
// more.
Hash256 blake3_parent(std::span<const Hash256> nodes, bool root);

}  // namespace wormhole
