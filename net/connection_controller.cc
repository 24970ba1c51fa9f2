#include "net/connection_controller.h"

#include <algorithm>

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A measurement: long enough to average over round trips and over the gaps between parts.
constexpr Duration kWindow = seconds(1);
// New connections are in slow start; what they bring counts from here on.
constexpr Duration kSettling = milliseconds(500);

constexpr double kGainWorthMore = 1.05;
constexpr double kLossWorthFewer = 0.98;

// What is over in a few seconds is only disturbed by a trial. After one that did not pay the next comes later and
// later.
constexpr Duration kFirstPause = seconds(10);
constexpr Duration kLongestPause = seconds(60);

constexpr int kFewest = 4;  // below it a stream depends on the luck of single connections

double per_second(uint64_t bytes, Duration time) {
  return static_cast<double>(bytes) / std::chrono::duration<double>(time).count();
}

}  // namespace

ConnectionController::ConnectionController(int start, int most)
    : most_(std::max(1, most)), allowed_(std::clamp(start, 1, most_)), pause_(kFirstPause) {}

void ConnectionController::observe(uint64_t bytes, bool saturated, TimePoint now) {
  if (!saturated) {
    // Nothing can be said about a number that is not used. A trial goes on when there is work again.
    window_begin_ = {};
    return;
  }
  if (window_begin_ == TimePoint{}) return restart_window(now);
  if (now <= window_begin_) return;  // settling
  window_bytes_ += bytes;
  const Duration measured = now - window_begin_;
  if (measured < kWindow) return;
  const double rate = per_second(window_bytes_, measured);
  restart_window(now);
  if (state_ == State::kTrial) return judge_trial(rate, now);
  rate_before_ = rate;
  if (last_trial_ == TimePoint{}) last_trial_ = now;  // the first window is slow start
  if (now - last_trial_ >= pause_) begin_trial(now);
}

void ConnectionController::begin_trial(TimePoint now) {
  before_ = allowed_;
  const int next = upwards_ ? allowed_ + std::max(1, allowed_ / 2) : allowed_ - std::max(1, allowed_ / 3);
  allowed_ = std::clamp(next, std::min(kFewest, most_), most_);
  last_trial_ = now;
  if (allowed_ == before_) {  // at an end already
    upwards_ = !upwards_;
    return;
  }
  state_ = State::kTrial;
  window_begin_ = now + kSettling;
  window_bytes_ = 0;
}

void ConnectionController::judge_trial(double rate, TimePoint now) {
  state_ = State::kSteady;
  last_trial_ = now;
  const bool pays = rate >= rate_before_ * (upwards_ ? kGainWorthMore : kLossWorthFewer);
  if (pays) {
    pause_ = kFirstPause;  // and the same way again
    rate_before_ = rate;
    return;
  }
  allowed_ = before_;
  upwards_ = !upwards_;
  pause_ = std::min(pause_ * 2, kLongestPause);
}

void ConnectionController::back_off(TimePoint now) {
  allowed_ = std::max(1, allowed_ / 2);
  state_ = State::kSteady;
  upwards_ = true;
  last_trial_ = now;
  pause_ = kLongestPause;
  window_begin_ = {};
}

void ConnectionController::restart_window(TimePoint now) {
  window_begin_ = now;
  window_bytes_ = 0;
}

}  // namespace wormhole
