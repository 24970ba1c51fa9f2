// What the wire to one server gives, measured in passing: goodput, and the time from a request to its first byte.
//
// Goodput: bytes per second of half a second in which something was under way all the time; the largest of them counts,
// and loses a tenth with every later one in which the wire was the limit, so that a path that has become slower is
// noticed within seconds and an application that reads slowly is not taken for a slow wire (as the windowed maximum of
// BBR, https://datatracker.ietf.org/doc/draft-ietf-ccwg-bbr/). Round trip: the least of the last 32 first-byte times of
// requests on open connections; it contains the server's own time, which is just as much to be hidden.
//
// Thread: any one; values in, values out.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace wormhole {

class LinkMeter {
 public:
  // Before anything was measured: what an earlier run knew (0 when nothing).
  LinkMeter(uint64_t rate, Duration round_trip) : rate_(rate), known_round_trip_(round_trip) {}

  enum class Load : uint8_t { kIdle, kSome, kSaturated };  // nothing under way; something; more than there is room for
  // To be called several times a second: what has come since the last call, under which load.
  void observe(uint64_t bytes, Load load, TimePoint now);
  void first_byte(Duration after);

  uint64_t rate() const { return rate_; }  // bytes per second; 0: not known
  Duration round_trip() const;             // zero: not known
  // What the wire holds: rate x round trip, bytes; 0: not known.
  uint64_t pipe() const {
    return static_cast<uint64_t>(static_cast<double>(rate_) * std::chrono::duration<double>(round_trip()).count());
  }

 private:
  uint64_t rate_;
  TimePoint window_begin_{};
  uint64_t window_bytes_ = 0;
  bool window_saturated_ = false;
  Duration known_round_trip_;
  std::array<Duration, 32> first_bytes_{};
  size_t count_ = 0;
};

}  // namespace wormhole
