// A block: the unit of presence, checksum and verification of cached bytes. The last block of an object is as
// long as the bytes that are left. A fetch is a range of many blocks.
//
// Thread: values, any.
#pragma once

#include <cstdint>

#include "base/byte_range.h"

namespace wormhole {

// 64 KiB: at 50 ms and 1 Gbit/s the transfer of one block (0.5 ms) is small beside the round trip, so random readers
// stay bound by latency; and a 4 MiB region has exactly 64 of them, one bit each in one word.
inline constexpr uint64_t kBlockSize = 64 * 1024;

// The blocks of one region share one index record (cache/index_format.h).
inline constexpr uint64_t kBlocksPerRegion = 64;
inline constexpr uint64_t kRegionSize = kBlockSize * kBlocksPerRegion;

using BlockIndex = uint64_t;

inline BlockIndex block_of(uint64_t offset) { return offset / kBlockSize; }

// Number of blocks of an object of `size` bytes.
inline uint64_t block_count(uint64_t size) { return (size + kBlockSize - 1) / kBlockSize; }

// The bytes of `block` in an object of `size` bytes.
inline ByteRange block_range(BlockIndex block, uint64_t size) {
  return ByteRange{block * kBlockSize, std::min((block + 1) * kBlockSize, size)};
}

// `range` widened to whole blocks of an object of `size` bytes.
inline ByteRange align_to_blocks(ByteRange range, uint64_t size) {
  return ByteRange{range.begin / kBlockSize * kBlockSize,
                   std::min((range.end + kBlockSize - 1) / kBlockSize * kBlockSize, size)};
}

}  // namespace wormhole
