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

// How much one connection of `rate` bytes per second should carry with one request: 0.8 s of it, as a power of two from
// 256 KiB to 8 MiB. Shorter parts lose more of the connection's time between request and first byte; longer ones keep
// a reader waiting who has jumped, and a lost connection costs more. 0 when the rate is not known.
uint64_t part_size_of(uint64_t rate);

// As split_range, but what comes near the end of the object is cut finer: no part is larger than its share if the rest
// (from its begin to `size`) were dealt out to `connections`, so that all of them end together. Not below a
// quarter of a part, nor 256 KiB: each request costs a round trip. (Guided self-scheduling: Polychronopoulos and Kuck,
// 1987.)
std::vector<ByteRange> split_to_end(ByteRange range, uint64_t part_size, uint64_t size, int connections);

// How large a part is when `window` bytes are to be in flight: a sixteenth, for as many connections, as a power of
// two between 256 KiB (below it the request's overhead shows; 1 MiB once the window is larger than 4 MiB, for a request
// costs each connection a round trip) and 4 MiB (beyond it a lost connection costs much).
uint64_t part_size_for(uint64_t window);

}  // namespace wormhole
