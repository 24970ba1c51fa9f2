// A bound on what comes over the wire (limit-rate=): a token bucket that holds a quarter of a second.
//
// Thread: any one; values in, values out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace wormhole {

class RateLimit {
 public:
  explicit RateLimit(uint64_t bytes_per_second)  // 0: no limit
      : rate_(bytes_per_second), tokens_(static_cast<double>(bytes_per_second) / 4) {}

  // May something be taken now? What is then taken may exceed what is there; the debt is paid by waiting.
  bool open(TimePoint now) {
    if (rate_ == 0) return true;
    if (last_ != TimePoint{})
      tokens_ = std::min(static_cast<double>(rate_) / 4,
                         tokens_ + static_cast<double>(rate_) * std::chrono::duration<double>(now - last_).count());
    last_ = now;
    return tokens_ > 0;
  }
  void take(uint64_t bytes) { tokens_ -= static_cast<double>(bytes); }

 private:
  const uint64_t rate_;
  double tokens_;
  TimePoint last_{};
};

}  // namespace wormhole
