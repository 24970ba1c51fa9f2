// What goes when the cache is full. Keys, bytes and time points in, verdicts out: no disk, no index.
//
// The unit is a region, with as many bytes as are present of it: 4 MiB of a large file, all of a small one. The
// algorithm is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023).
// A new region enters the *small* queue, a tenth of the bytes. What is at its head goes, unless it has been read again
// meanwhile: then it moves to the *main* queue, whose head goes if nobody has read it since the last look, and to the
// back if somebody has. What left the small queue is remembered for a while as a *ghost* (a fingerprint, no bytes):
// if it is fetched again, it enters main. So one pass over a huge file goes through the small queue and leaves main
// alone.
//
// The two queues are kept by the caller, in the index, in order of entry: reads move nothing. Here is what does not
// depend on the size of the cache: a table of counters, the ghosts, and the passes under way; about 2 MiB in all.
//
// What counts is a *pass*, not a read: a program that reads a region from its begin to its end, in many requests, has
// read it once. And the pass that brought a region into the cache counts nothing. docs/EVICTION.md has the reasons and
// the figures.
//
// Thread: accessed(), accessed_whole() and count() any, lock-free. Everything else one at a time: the index thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/byte_range.h"
#include "base/clock.h"
#include "cache/index_format.h"

namespace wormhole {

class EvictionPolicy {
 public:
  enum class Queue : uint8_t { kSmall, kMain };

  // The bytes that the queues have now.
  struct Occupancy {
    uint64_t small = 0;
    uint64_t main = 0;
    uint64_t total() const { return small + main; }
  };

  EvictionPolicy();

  // --- reads -----------------------------------------------------------------------------------------------------

  // `range` of the file was read; wherever its bytes came from, and whether or not they are in the cache yet.
  void accessed(Ino ino, ByteRange range, TimePoint now);

  // A file whose single reads are not seen (the kernel serves it, so all of it is in the cache) was opened. Counts as a
  // pass over each of its regions; some 10 ns for each.
  void accessed_whole(Ino ino, uint64_t size, TimePoint now);

  // --- entry -----------------------------------------------------------------------------------------------------

  // The region is about to have its first block: which queue it enters, at the back. Later blocks change nothing but
  // the bytes.
  Queue queue_for_new(RegionKey key, Occupancy occupancy, TimePoint now);

  // --- eviction --------------------------------------------------------------------------------------------------

  // Whose head is to be judged next, of two queues that are not both empty.
  static Queue examine_next(Occupancy occupancy);

  enum class Verdict : uint8_t {
    kEvict,       // it goes
    kToMain,      // from the head of small to the back of main
    kBackToMain,  // from the head of main to its back
  };
  // Of the head of `queue`, with so many bytes. What has been counted is used up by it: the caller does as it says.
  // A thousand verdicts in a row have at least one kEvict among them, whatever was read.
  Verdict judge(Queue queue, RegionKey key, uint64_t bytes);

  // --- over a restart ----------------------------------------------------------------------------------------------

  // Counters and ghosts: 32 KiB for an empty one, 2 MiB at most. Zeros are left out.
  std::string encode() const;
  // Takes over what encode() gave. False, and nothing is changed, when it is anything else.
  bool restore(std::string_view bytes);

  // --- for tests and statistics --------------------------------------------------------------------------------------

  // Passes counted of the region, 0 to 3.
  unsigned count(RegionKey key) const;
  bool has_ghost(RegionKey key, Occupancy occupancy) const;
  // What one policy has allocated, for all its life.
  static constexpr size_t memory();

 private:
  // 2 bits each. 4 Mi of them: a cache of 1 TB has 240 000 regions of 4 MiB, of which one in twenty then shares its
  // counter; with millions of small files several share one, and together stay longer.
  static constexpr size_t kCounters = 4 << 20;
  static constexpr size_t kCountersPerWord = 32;
  static constexpr size_t kCounterWords = kCounters / kCountersPerWord;

  // A bucket is a cache line. 128 Ki ghosts remember the last 512 GiB of whole regions that went unread.
  static constexpr size_t kGhostsPerBucket = 8;
  static constexpr size_t kGhostBuckets = 16 << 10;
  // Ghosts grow old by the bytes that became ghosts after them, in steps of 64 KiB: 32 bits last for 256 TiB.
  static constexpr uint64_t kGhostAgeStep = 64 << 10;

  // As many regions as may be read within a minute: 32 GiB in large files. One that is overwritten by another counts
  // a pass twice.
  static constexpr size_t kPasses = 8 << 10;

  struct alignas(64) GhostBucket {
    std::array<uint64_t, kGhostsPerBucket> entries{};  // fingerprint (high half) and age; 0: none
  };

  static bool is_alive(uint64_t ghost, uint64_t clock, Occupancy occupancy);
  uint64_t ghost_clock() const { return ghost_bytes_ / kGhostAgeStep; }
  void enter_ghost(uint64_t hash, uint64_t bytes);
  bool take_ghost(uint64_t hash, Occupancy occupancy);

  bool begins_pass(uint64_t hash, ByteRange range, TimePoint now);
  unsigned count_of(uint64_t hash) const;
  void increment(uint64_t hash);
  void decrement(uint64_t hash, unsigned by);

  std::unique_ptr<std::atomic<uint64_t>[]> counters_;
  std::unique_ptr<std::atomic<uint64_t>[]> passes_;
  std::unique_ptr<GhostBucket[]> ghosts_;
  uint64_t ghost_bytes_ = 0;  // that became ghosts, ever
  unsigned spared_ = 0;       // verdicts since the last kEvict
};

constexpr size_t EvictionPolicy::memory() {
  return kCounterWords * sizeof(uint64_t) + kPasses * sizeof(uint64_t) + kGhostBuckets * sizeof(GhostBucket);
}

}  // namespace wormhole
