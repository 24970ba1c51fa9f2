// How many bytes TCP may have under way on each connection, so that all of them together fill the wire and no more.
//
// A server answers a request on a connection that has paused for a round trip with all of its congestion window at
// once. Sixteen of them overrun the queue of the slowest line, lose packets together and are slow together: at 1
// Gbit/s, 50 ms and a queue of 4 MB a tenth of the goodput, and bytes that come in bursts. A receiver can prevent it:
// what all windows together let under way is bounded to 1.6 x rate x round trip (BBR's cap on what is in flight, from
// the receiver's side; Spring et al., "Receiver based management of low bandwidth access links", 2000).
//
// 1.6: below the pipe and a queue of two thirds of it; and enough for a rate that was measured too low to grow by as
// much every half second. For half a second in eight the bound is wider: so a wire that has become longer shows, which
// a bound that is too small would hide for ever. Small pipes are not bounded at all.
//
// Thread: any; values in, values out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace wormhole {

// In bytes, for each of `connections` that receive now. `pipe`: what the wire holds, bytes, > 0. `at`: any clock that
// goes on.
inline uint64_t receive_window(uint64_t pipe, int connections, TimePoint at) {
  using std::chrono::milliseconds;
  constexpr double kGain = 1.6;
  constexpr double kProbeGain = 2;
  constexpr double kLeastPipe = 8 << 20;   // what the queues of today's lines take
  constexpr uint64_t kLeast = 128 * 1024;  // for each connection: its share changes faster than TCP follows
  constexpr int64_t kHalfSeconds = 16;
  const auto half_seconds = std::chrono::duration_cast<milliseconds>(at.time_since_epoch()).count() / 500;
  const double gain = half_seconds % kHalfSeconds == 0 ? kProbeGain : kGain;
  const double window = std::max(static_cast<double>(pipe) * gain, kLeastPipe);
  return std::max(kLeast, static_cast<uint64_t>(window) / static_cast<uint64_t>(std::max(1, connections)));
}

}  // namespace wormhole
