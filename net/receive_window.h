// How many bytes TCP may have under way on each connection, so that all of them together fill the wire and no more.
//
// A server answers a request on a connection that has paused for a round trip with all of its congestion window at
// once. Sixteen of them overrun the queue of the slowest line, lose packets together, and deliver nothing together
// until those have come again: at 1 Gbit/s, 50 ms and a queue of 4 MB a tenth of the goodput, and bytes that come in
// bursts. A receiver can prevent it: what all windows together let under way is bounded to 1.4 x rate x round trip
// (BBR's cap on what is in flight, from the receiver's side; Spring et al., "Receiver based management of low bandwidth
// access links", 2000).
//
// 1.4: the pipe and a queue of less than half of it; and enough for a rate that was measured too low to grow by as much
// with each measurement. What is fetched only because the wire is idle gets 1.6, because a sixth of its connections
// waits for a first byte at any time. Not less than what takes a quarter of a second, from 2 to 8 MiB: for a rate that
// was measured too low, and still a queue that nobody minds. 8 MiB while nothing is known.
//
// Where packets are lost for other reasons than a full queue, a window also holds what has come behind a lost one, and
// lets nothing more under way until that has come again. So the bound is divided by the share of segments that come in
// order, down to 0.45. Measured at 1 Gbit/s, 50 ms: at 0.1 % loss a quarter comes out of order, and twice the pipe
// carries most (107 MB/s; 101 with 1.4, 105 with 3); at 1 % three quarters, and three times the pipe does (95; 77 with
// 1.4). Without loss a bound of 2 puts a fifth out of order, of 3 a half, by its own losses: less than would keep it
// there, so it comes down again.
//
// Thread: any; values in, values out.
#pragma once

#include <algorithm>
#include <cstdint>

namespace wormhole {

// In bytes, for each of `connections` that receive now. `rate` of the wire, bytes per second, 0: not known; `pipe`:
// what it holds, bytes. `idle`: all they bring is fetched because the wire is idle. `out_of_order`: share of segments,
// [0, 1].
inline uint64_t receive_window(uint64_t rate, uint64_t pipe, int connections, bool idle, double out_of_order) {
  constexpr double kGain = 1.4;
  constexpr double kIdleGain = 1.6;
  constexpr double kLeastInOrder = 0.45;
  constexpr uint64_t kLeastOfAll = 2 << 20;
  constexpr uint64_t kUnknown = 8 << 20;   // what the queues of today's lines take
  constexpr uint64_t kLeast = 128 * 1024;  // for each connection: its share changes faster than TCP follows
  const double gain = (idle ? kIdleGain : kGain) / std::max(1 - out_of_order, kLeastInOrder);
  const uint64_t floor = rate == 0 ? kUnknown : std::clamp(rate / 4, kLeastOfAll, kUnknown);
  const uint64_t window = std::max(floor, static_cast<uint64_t>(static_cast<double>(pipe) * gain));
  return std::max(kLeast, window / static_cast<uint64_t>(std::max(1, connections)));
}

}  // namespace wormhole
