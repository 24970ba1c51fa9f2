#include "net/link_meter.h"

#include <algorithm>

namespace wormhole {
namespace {

constexpr Duration kWindow = std::chrono::milliseconds(500);
constexpr Duration kShortest = std::chrono::milliseconds(200);
constexpr uint64_t kEnough = 1 << 20;

uint64_t rate_of(uint64_t bytes, Duration time) {
  return static_cast<uint64_t>(static_cast<double>(bytes) / std::chrono::duration<double>(time).count());
}

}  // namespace

void LinkMeter::observe(uint64_t bytes, Load load, TimePoint now) {
  if (load == Load::kIdle) {
    // A file that was there in less than a window says something too, if it was not tiny.
    if (window_begin_ != TimePoint{} && now - window_begin_ >= kShortest && window_bytes_ + bytes >= kEnough)
      rate_ = std::max(rate_, rate_of(window_bytes_ + bytes, now - window_begin_));
    window_begin_ = {};
    return;
  }
  if (window_begin_ == TimePoint{}) {
    window_begin_ = now;
    window_bytes_ = 0;
    window_saturated_ = true;
  }
  window_bytes_ += bytes;
  window_saturated_ &= load == Load::kSaturated;
  const Duration measured = now - window_begin_;
  if (measured < kWindow) return;
  rate_ = std::max(rate_of(window_bytes_, measured), window_saturated_ ? rate_ / 10 * 9 : rate_);
  window_begin_ = now;
  window_bytes_ = 0;
  window_saturated_ = true;
}

void LinkMeter::first_byte(Duration after) { first_bytes_[count_++ % first_bytes_.size()] = after; }

Duration LinkMeter::round_trip() const {
  if (count_ == 0) return known_round_trip_;
  return *std::min_element(first_bytes_.begin(),
                           first_bytes_.begin() + static_cast<std::ptrdiff_t>(std::min(count_, first_bytes_.size())));
}

}  // namespace wormhole
