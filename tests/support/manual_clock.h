// Time that moves when the test says so.
//
// Thread: any.
#pragma once

#include <atomic>

#include "base/clock.h"

namespace wormhole::test {

class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return start_ + Duration(elapsed_.load()); }
  int64_t unix_seconds() const override {
    return kStartSeconds + std::chrono::duration_cast<std::chrono::seconds>(Duration(elapsed_.load())).count();
  }
  void advance(Duration by) { elapsed_ += by.count(); }

  static constexpr int64_t kStartSeconds = 1'800'000'000;

 private:
  // The real time, so that who sleeps until a time point sleeps about right.
  const TimePoint start_ = std::chrono::steady_clock::now();
  std::atomic<Duration::rep> elapsed_{0};
};

}  // namespace wormhole::test
