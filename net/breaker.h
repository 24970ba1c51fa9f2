// Keeps requests away from a server that does not answer: after three failures in a row it rests, 2 s at first, then
// twice as long each time up to two minutes; then one request finds out whether it is back (Nygard, "Release It!",
// the circuit breaker). A dead mirror costs its latency once, not with every read.
//
// Thread: any one; values in, values out.
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace wormhole {

class Breaker {
 public:
  // Whether a request may go there. After a rest the first one that asks is the trial, until it ends.
  bool allows(TimePoint now) const { return failures_ < kLimit || (now >= until_ && !trial_); }
  void started(TimePoint now) { trial_ = failures_ >= kLimit && now >= until_; }
  void succeeded() {
    failures_ = 0;
    rest_ = kFirstRest;
    trial_ = false;
  }
  void failed(TimePoint now) {
    trial_ = false;
    if (resting(now)) return;  // requests that were under way together fail together
    if (++failures_ < kLimit) return;
    until_ = now + rest_;
    rest_ = std::min(rest_ * 2, kLongestRest);
  }
  bool resting(TimePoint now) const { return failures_ >= kLimit && now < until_; }

 private:
  static constexpr int kLimit = 3;
  static constexpr Duration kFirstRest = std::chrono::seconds(2);
  static constexpr Duration kLongestRest = std::chrono::minutes(2);

  int failures_ = 0;
  bool trial_ = false;
  TimePoint until_{};
  Duration rest_ = kFirstRest;
};

}  // namespace wormhole
