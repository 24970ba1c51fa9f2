// From a range to the requests that fetch it. Values in, values out.
//
// Thread: any.
#pragma once

#include <cstdint>
#include <vector>

#include "base/byte_range.h"

namespace wormhole {

// Cuts `range` at multiples of `part_size` (a multiple of the block size), so that parts of neighbouring ranges meet at
// the same places whoever asked for them.
std::vector<ByteRange> split_range(ByteRange range, uint64_t part_size);

// How large a part is when `window` bytes are to be in flight: a sixteenth, for as many connections, as a power of
// two between 256 KiB (below it the request's overhead shows) and 4 MiB (beyond it a lost connection costs much).
uint64_t part_size_for(uint64_t window);

}  // namespace wormhole
