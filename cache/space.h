// How much the cache holds, may hold, and should give back. The limit is hard: what is being written counts before it
// is written, and what is evicted counts until its place on the disk is free.
//
// Eviction begins below the limit, so that there is room when blocks arrive, and ends lower still, so that it comes in
// batches.
//
// Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"

namespace wormhole {

struct SpaceOptions {
  std::string path;              // of a directory on the cache's file system
  uint64_t limit = 10ull << 30;  // bytes
  double min_free = 0.05;        // share of the file system that stays free
};

class Space {
 public:
  // `metrics` outlives the space; its bytes_cached is what the index knows.
  Space(SpaceOptions options, const Metrics& metrics) : options_(std::move(options)), metrics_(metrics) {}

  // Takes room for `bytes` that are to be written; false when there is none. give_back() when the index knows them, or
  // when they could not be written.
  bool reserve(uint64_t bytes, TimePoint now);
  void give_back(uint64_t bytes) { reserved_.fetch_sub(bytes, std::memory_order_relaxed); }

  // Bytes that the index forgets now and that lie on the disk a moment longer.
  void begin_eviction(uint64_t bytes) { reserved_.fetch_add(bytes, std::memory_order_relaxed); }
  void end_eviction(uint64_t bytes) { give_back(bytes); }

  // Bytes that should be evicted now; 0 when there is room enough.
  uint64_t excess(TimePoint now);

  uint64_t limit() const { return options_.limit; }

  // What the options and the disk allow now.
  struct State {
    uint64_t limit = 0;
    uint64_t holds = 0;      // more than this is not kept for long: the rest is room for what arrives, or the disk's
    uint64_t disk_free = 0;  // of the file system
    uint64_t min_free = 0;   // of that it keeps
  };
  State state() const;

 private:
  uint64_t used() const;
  uint64_t headroom() const;
  // Bytes by which the file system has less free than it should.
  uint64_t shortage(TimePoint now);

  const SpaceOptions options_;
  const Metrics& metrics_;
  std::atomic<uint64_t> reserved_{0};
  Mutex mutex_;
  TimePoint looked_at_ GUARDED_BY(mutex_){};
  uint64_t shortage_ GUARDED_BY(mutex_) = 0;
};

}  // namespace wormhole
