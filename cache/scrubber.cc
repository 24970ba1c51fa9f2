#include "cache/scrubber.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace wormhole {
namespace {

// Bit rot is rare, and a disk that reads its cache once a week wears no faster.
constexpr int64_t kRestSeconds = 7 * 24 * 3600;

// Regions that are looked up at once, and after how many the position is recorded: 256 MiB are read again after a
// crash.
constexpr size_t kBatch = 64;

// What a tick that comes late may make up for.
constexpr Duration kMostAllowed = std::chrono::seconds(2);

}  // namespace

Scrubber::Scrubber(ScrubberOptions options, Index& index, Checks checks, Metrics& metrics, const Clock& clock)
    : options_(options),
      index_(index),
      checks_(std::move(checks)),
      metrics_(metrics),
      clock_(clock),
      record_(index.scrubbed()),
      after_unclean_end_(!index.was_clean()) {}

void Scrubber::tick() {
  const TimePoint now = clock_.now();
  const Duration since = last_tick_ == TimePoint{} ? Duration{0} : std::min<Duration>(now - last_tick_, kMostAllowed);
  last_tick_ = now;
  if (stopped_ || options_.rate == 0) return;
  if (!running_ && is_due()) begin_pass();
  if (!running_) return;
  const auto more =
      static_cast<int64_t>(static_cast<double>(options_.rate) * std::chrono::duration<double>(since).count());
  allowance_ = std::min(allowance_ + more, static_cast<int64_t>(options_.rate) * 2);
  go_on();
}

bool Scrubber::is_due() const {
  return after_unclean_end_ || record_.next != RegionKey{} || clock_.unix_seconds() - record_.ended_at >= kRestSeconds;
}

void Scrubber::begin_pass() {
  running_ = true;
  failures_ = index_.failures();
  if (after_unclean_end_) record_.next = {};
  next_.clear();
}

void Scrubber::go_on() {
  if (going_on_) return;  // a check that was through at once: the loop goes on by itself
  going_on_ = true;
  while (running_ && !stopped_ && !checking_ && allowance_ > 0) check_next();
  going_on_ = false;
}

void Scrubber::check_next() {
  if (next_.empty()) {
    next_ = index_.regions_from(record_.next, kBatch);
    std::reverse(next_.begin(), next_.end());
  }
  if (next_.empty()) return end_pass();
  const RegionKey key = next_.back();
  next_.pop_back();
  record_.next = {key.ino, key.region + 1};
  if (++since_recorded_ % kBatch == 0) index_.put_scrubbed(record_);
  checking_ = true;
  checks_.check_region(key, [this](uint64_t bytes) {
    checking_ = false;
    allowance_ -= static_cast<int64_t>(bytes);
    metrics_.bytes_scrubbed.fetch_add(bytes, std::memory_order_relaxed);
    go_on();
  });
}

void Scrubber::all_checked(uint64_t failures) {
  failures_ = failures;
  end_pass();
}

void Scrubber::end_pass() {
  running_ = false;
  record_ = {{}, clock_.unix_seconds()};
  index_.put_scrubbed(record_);
  if (!after_unclean_end_) return;
  after_unclean_end_ = false;
  if (index_.failures() != failures_) return;
  index_.trust_again();
  checks_.trust_index(failures_);
  log::info("every cached block has been checked since the unclean end");
}

}  // namespace wormhole
