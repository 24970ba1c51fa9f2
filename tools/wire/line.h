// One direction of an emulated wire: a queue in front of a line of fixed rate and length.
//
//   offer ──► [ queue, at most so many bytes ] ──► rate ──► delay ──► take
//              full: what comes is dropped                   loss: by chance, from a seed
//
// A packet that stands for many segments is queued, dropped and lost segment by segment, and leaves as few packets as
// possible.
//
// Thread: one. It has no clock of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <random>

#include "tools/wire/packet.h"

namespace wormhole::wire {

using Nanoseconds = std::chrono::nanoseconds;
using Time = std::chrono::time_point<std::chrono::steady_clock, Nanoseconds>;

struct Conditions {
  uint64_t bits_per_second = 0;  // 0: no limit
  Nanoseconds delay{0};          // one way
  uint64_t queue_bytes = 4 << 20;
  double loss = 0;  // the chance of each segment, 0 to 1
  uint64_t seed = 1;
};

struct Counts {
  uint64_t segments = 0;  // arrived or will
  uint64_t bytes = 0;     // of those, on the wire
  uint64_t lost = 0;
  uint64_t dropped = 0;  // the queue was full
};

class Line {
 public:
  explicit Line(const Conditions& conditions) : conditions_(conditions), chance_(conditions.seed) {}

  void offer(Time now, const Packet& packet);
  // When the next packet arrives; nothing when none is under way.
  std::optional<Time> next_arrival() const;
  // A packet that has arrived by `now`.
  std::optional<Packet> take(Time now);

  const Counts& counts() const { return counts_; }

 private:
  struct UnderWay {
    Time arrival;
    Packet packet;
  };

  bool admit(Time now, size_t size);

  const Conditions conditions_;
  std::mt19937_64 chance_;
  std::deque<UnderWay> under_way_;  // in the order of arrival: the line keeps order
  Time idle_from_{};                // the last byte that was admitted has left the queue then
  Counts counts_;
};

}  // namespace wormhole::wire
