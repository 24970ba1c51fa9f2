// Lets two files have one place on the disk for bytes that are the same in both: on XFS and Btrfs, which keep such a
// place until the last of them writes to it.
//
// The kernel compares the bytes itself, with both files locked: what differs, because one of them has changed since
// somebody looked, stays as it is.
//
// Thread: any; it may wait for the disk.
#pragma once

#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/byte_range.h"

namespace wormhole {

// `range` of both; only whole blocks of the file system can be shared. Returns how many bytes are; 0 where the file
// system cannot, or they lie on two of them. `to` must be open for writing.
inline uint64_t share_place(int from, int to, ByteRange range) {
  constexpr uint64_t kAtOnce = 16 << 20;  // more is refused
  // The answer follows the request.
  alignas(8) std::array<std::byte, sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info)> memory;
  auto* const asked = reinterpret_cast<file_dedupe_range*>(memory.data());
  auto* const answer = reinterpret_cast<file_dedupe_range_info*>(memory.data() + sizeof(file_dedupe_range));
  uint64_t shared = 0;
  while (!range.empty()) {
    memory.fill({});
    asked->src_offset = range.begin;
    asked->src_length = std::min(range.size(), kAtOnce);
    asked->dest_count = 1;
    answer->dest_fd = to;
    answer->dest_offset = range.begin;
    if (::ioctl(from, FIDEDUPERANGE, asked) != 0 || answer->status != FILE_DEDUPE_RANGE_SAME ||
        answer->bytes_deduped == 0)
      break;
    shared += answer->bytes_deduped;
    range.begin += answer->bytes_deduped;
  }
  return shared;
}

}  // namespace wormhole
