#include "net/protocol_choice.h"

#include <algorithm>

namespace wormhole {
namespace {

// Smaller bodies are slow start and nothing else.
constexpr uint64_t kSmallestSample = 256 * 1024;
// What a decision rests on: enough that slow start is over on the new connections.
constexpr uint64_t kEnoughBytes = 8 << 20;
constexpr int kEnoughSamples = 4;
// Share of the requests that tries the other way.
constexpr uint64_t kTrialEvery = 8;
constexpr Duration kTrialPause = std::chrono::seconds(30);
// How much faster the other way has to be.
constexpr double kMargin = 1.2;
// Below this share of the rate that it was chosen for, the decision is looked at again.
constexpr double kMuchSlower = 0.6;
// What settles it before enough has come.
constexpr double kFarSlower = 3;
constexpr double kNewSampleWeight = 0.3;
constexpr Duration kFirstBlock = std::chrono::minutes(1);
constexpr Duration kLongestBlock = std::chrono::hours(1);

}  // namespace

bool ProtocolChoice::may_use_quic(TimePoint now) const {
  if (!tls_ || quic_is_blocked(now)) return false;
  return asked_ == HttpVersion::k3 || (asked_ == HttpVersion::kAuto && offered_);
}

bool ProtocolChoice::on_trial(TimePoint now) const {
  if (decided_ == TimePoint{} || now - decided_ >= kTrialPause) return true;
  const Way& w = ways_[chosen_ == Transport::kQuic ? 1 : 0];
  return w.samples >= kEnoughSamples && w.rate < rate_when_chosen_ * kMuchSlower;
}

Transport ProtocolChoice::next(TimePoint now, bool may_try) {
  if (!may_use_quic(now)) return Transport::kTcp;
  if (asked_ == HttpVersion::k3) return Transport::kQuic;
  return may_try && on_trial(now) && ++requests_ % kTrialEvery == 0 ? other(chosen_) : chosen_;
}

void ProtocolChoice::arrived(Transport transport, uint64_t bytes, Duration time, TimePoint now) {
  if (bytes < kSmallestSample || time <= Duration{}) return;
  Way& w = way(transport);
  const double rate = static_cast<double>(bytes) / std::chrono::duration<double>(time).count();
  w.rate = w.samples == 0 ? rate : w.rate + kNewSampleWeight * (rate - w.rate);
  w.bytes += bytes;
  ++w.samples;
  if (asked_ == HttpVersion::kAuto && may_use_quic(now) && on_trial(now)) decide(now);
}

void ProtocolChoice::decide(TimePoint now) {
  for (const Way& w : ways_) {
    if (w.bytes < kEnoughBytes || w.samples < kEnoughSamples) return;
  }
  if (way(other(chosen_)).rate > way(chosen_).rate * kMargin) chosen_ = other(chosen_);
  rate_when_chosen_ = way(chosen_).rate;
  decided_ = now;
  for (Way& w : ways_) w = {w.rate, 0, 0};
}

bool ProtocolChoice::runs(Transport transport, double rate, double other_rate, TimePoint now) {
  if (asked_ != HttpVersion::kAuto || rate * kFarSlower >= other_rate) return false;
  chosen_ = other(transport);
  rate_when_chosen_ = other_rate;
  decided_ = now;
  for (Way& w : ways_) w = {w.rate, 0, 0};
  return true;
}

void ProtocolChoice::failed(Transport transport, TimePoint now) {
  if (transport != Transport::kQuic) return;
  block_ = block_ == Duration{} ? kFirstBlock : std::min(block_ * 8, kLongestBlock);
  blocked_until_ = now + block_;
  chosen_ = Transport::kTcp;
  decided_ = now;
}

bool offers_http3(std::string_view alt_svc, const std::string& port) {
  return alt_svc.find("h3=\":" + port + "\"") != std::string_view::npos;
}

}  // namespace wormhole
