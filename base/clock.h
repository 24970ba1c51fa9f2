// Time that tests can hold. Policies get time points as values; loops get a Clock.
//
// Thread: any.
#pragma once

#include <chrono>
#include <cstdint>

namespace wormhole {

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; for deadlines, waits and rates.
  virtual TimePoint now() const = 0;
  // Seconds since the epoch; for what is kept over a restart and compared with the dates of servers.
  virtual int64_t unix_seconds() const = 0;
};

class SystemClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
  int64_t unix_seconds() const override {
    return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace wormhole
