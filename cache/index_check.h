// Whether an index that nobody has open is sound: LMDB's pages can be walked, every record is what it should be and is
// found by its key, and the sums and queues agree with the regions.
//
// LMDB trusts its file: on pages with flipped bits, or cut off, it crashes. So the look that comes before it is opened
// happens in a process of its own, whose death says the same as an error.
//
// Thread: any.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace wormhole {

struct IndexReport {
  uint64_t objects = 0;
  uint64_t regions = 0;
  uint64_t bytes = 0;  // of the blocks that are present
};

// kCorrupt, with what is wrong. May crash where the file is damaged.
// REQUIRES: nobody writes to it meanwhile.
Result<IndexReport> check_index(const std::string& path);

// In a process of its own. kCorrupt when it finds something or dies of it; another error when there could be no look.
Status check_index_apart(const std::string& path);

enum class IndexFound : uint8_t {
  kSound,
  kNone,     // there is none yet
  kDamaged,  // it is deleted
};
// What a mount does first. A large index is looked at only when it `may_be_damaged`, so that a mount does not wait for
// long.
Result<IndexFound> delete_if_damaged(const std::string& path, bool may_be_damaged);

}  // namespace wormhole
