// Reads what is cached, slowly and all the time, and forgets blocks whose checksum is wrong: bits rot, and a block that
// nobody reads would be found wrong only when it is needed and the server is gone.
//
// A pass goes over all regions on record in the order of their keys, and goes on where it was after a remount. After an
// unclean end it begins at once and at the begin: when it is through, every block is trusted again, and the next clean
// end is one. Otherwise one begins a week after the last has ended.
//
// The cache may have several owners: a region is checked by its own.
//
// Thread: one engine's.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_function.h"
#include "cache/index.h"

namespace wormhole {

struct ScrubberOptions {
  uint64_t rate = 32 << 20;  // bytes per second; 0: never
};

class Scrubber {
 public:
  // What it has the caches do, as the functions of BlockCache.
  using Checked = UniqueFunction<void(uint64_t bytes), 16>;  // small, so that it fits into a message
  struct Checks {
    std::function<void(RegionKey, Checked)> check_region;  // `Checked` is called on the scrubber's thread
    std::function<void(uint64_t failures)> trust_index;    // of all caches
  };
  // All references outlive the scrubber, and what it has begun (stop()).
  Scrubber(ScrubberOptions options, Index& index, Checks checks, Metrics& metrics, const Clock& clock);

  // About once a second.
  void tick();
  // Somebody else has checked every region; the index had failed `failures` times when he began. As the end of a pass.
  void all_checked(uint64_t failures);
  // Nothing new is begun.
  void stop() { stopped_ = true; }

 private:
  bool is_due() const;
  void begin_pass();
  void go_on();
  void check_next();
  void end_pass();

  const ScrubberOptions options_;
  Index& index_;
  const Checks checks_;
  Metrics& metrics_;
  const Clock& clock_;

  ScrubRecord record_;      // as the index has it, or will
  bool after_unclean_end_;  // the pass must see every block in this run
  bool running_ = false;
  bool checking_ = false;  // a region is being read
  bool going_on_ = false;
  bool stopped_ = false;
  uint64_t failures_ = 0;  // of the index, when the pass began
  int64_t allowance_ = 0;  // bytes that may be read now
  TimePoint last_tick_{};
  std::vector<RegionKey> next_;  // in reverse order
  unsigned since_recorded_ = 0;
};

}  // namespace wormhole
