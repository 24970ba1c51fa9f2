// What counts as a pass, what goes, and how much of what is hot stays: values in, values out.
#include "cache/eviction_policy.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/block.h"
#include "tests/support/cache_models.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::LruModel;
using test::PolicyModel;
using test::RegionRead;
using Queue = EvictionPolicy::Queue;
using Verdict = EvictionPolicy::Verdict;
using Occupancy = EvictionPolicy::Occupancy;

constexpr uint64_t kKiB = 1 << 10;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;
constexpr TimePoint kStart{10h};
constexpr Ino kFile = 7;
constexpr RegionKey kRegion{kFile, 3};
constexpr uint64_t kBegin = kRegion.region * kRegionSize;
constexpr Occupancy kFull{kGiB, 9 * kGiB};

class EvictionPolicyTest : public testing::Test {
 protected:
  // Reads the region from begin to end in requests of `request`, `pause` after each.
  void pass(RegionKey region = kRegion, uint64_t request = 128 * kKiB, Duration pause = 1ms) {
    for (uint64_t at = 0; at < kRegionSize; at += request) {
      policy_.accessed(region.ino, ByteRange::of(region.region * kRegionSize + at, request), now_);
      now_ += pause;
    }
  }
  void passes(unsigned times, RegionKey region = kRegion) {
    for (unsigned i = 0; i < times; ++i, now_ += 5s) pass(region);
  }
  unsigned count(RegionKey region = kRegion) const { return policy_.count(region); }

  EvictionPolicy policy_;
  TimePoint now_ = kStart;
};

// --- what counts -----------------------------------------------------------------------------------------------------

TEST_F(EvictionPolicyTest, ThePassThatBringsARegionCountsNothing) {
  policy_.accessed(kFile, ByteRange::of(kBegin, kMiB), now_);
  now_ += 300ms;  // until the first block is stored
  EXPECT_EQ(policy_.queue_for_new(kRegion, kFull, now_), Queue::kSmall);
  for (uint64_t at = kMiB; at < kRegionSize; at += kMiB) {
    policy_.accessed(kFile, ByteRange::of(kBegin + at, kMiB), now_ += 5s);
  }
  EXPECT_EQ(count(), 0u);
}

TEST_F(EvictionPolicyTest, WhatWasFetchedAheadCountsNothingWhenItIsReadForTheFirstTime) {
  policy_.queue_for_new(kRegion, kFull, now_);
  now_ += 10s;
  pass();
  EXPECT_EQ(count(), 0u);
}

TEST_F(EvictionPolicyTest, EachFurtherPassCountsOnceUpToThree) {
  pass();
  policy_.queue_for_new(kRegion, kFull, now_);
  for (const unsigned expected : {1u, 2u, 3u, 3u}) {
    now_ += 5s;
    pass();
    EXPECT_EQ(count(), expected);
  }
}

TEST_F(EvictionPolicyTest, ASlowPassIsOnePass) {
  pass(kRegion, 128 * kKiB, 6s);  // 20 KB/s
  EXPECT_EQ(count(), 1u);
}

TEST_F(EvictionPolicyTest, RequestsThatOvertakeEachOtherAreOnePass) {
  for (uint64_t at = 0; at < kRegionSize; at += 512 * kKiB) {
    for (const uint64_t piece : {2, 0, 3, 1}) {
      policy_.accessed(kFile, ByteRange::of(kBegin + at + piece * 128 * kKiB, 128 * kKiB), now_ += 1ms);
    }
  }
  EXPECT_EQ(count(), 1u);
}

TEST_F(EvictionPolicyTest, ReadersCloseBehindEachOtherAreOnePass) {
  for (int reader = 0; reader < 8; ++reader) pass();
  EXPECT_EQ(count(), 1u);
}

TEST_F(EvictionPolicyTest, AReaderWhoJumpsAboutCountsOnceInTwoSeconds) {
  std::mt19937_64 random(1);
  for (const TimePoint end = now_ + 1500ms; now_ < end; now_ += 1ms) {
    policy_.accessed(kFile, ByteRange::of(kBegin + random() % 1024 * 4096, 4096), now_);
  }
  EXPECT_EQ(count(), 1u);
  for (const TimePoint end = now_ + 8s; now_ < end; now_ += 1ms) {
    policy_.accessed(kFile, ByteRange::of(kBegin + random() % 1024 * 4096, 4096), now_);
  }
  EXPECT_EQ(count(), 3u);
}

TEST_F(EvictionPolicyTest, ASmallFileThatIsReadAgainCounts) {
  policy_.accessed(kFile, {0, 100}, now_);
  policy_.queue_for_new({kFile, 0}, kFull, now_);
  policy_.accessed(kFile, {0, 100}, now_ += 1s);
  EXPECT_EQ(count({kFile, 0}), 0u);
  policy_.accessed(kFile, {0, 100}, now_ += 3s);
  EXPECT_EQ(count({kFile, 0}), 1u);
}

TEST_F(EvictionPolicyTest, AReaderWhoGoesOnAfterAMinuteBeginsAPass) {
  policy_.accessed(kFile, ByteRange::of(kBegin, kMiB), now_);
  policy_.accessed(kFile, ByteRange::of(kBegin + kMiB, kMiB), now_ += 61s);
  EXPECT_EQ(count(), 2u);
}

TEST_F(EvictionPolicyTest, AReadOverTwoRegionsCountsInBoth) {
  policy_.accessed(kFile, ByteRange::of(kRegionSize - kMiB, 2 * kMiB), now_);
  EXPECT_EQ(count({kFile, 0}), 1u);
  EXPECT_EQ(count({kFile, 1}), 1u);
  EXPECT_EQ(count({kFile, 2}), 0u);
}

TEST_F(EvictionPolicyTest, TheOpenOfAFileThatTheKernelServesCountsForEachOfItsRegions) {
  policy_.accessed_whole(kFile, 2 * kRegionSize + 1, now_);
  policy_.accessed_whole(kFile, 2 * kRegionSize + 1, now_ + 1s);
  for (const uint64_t region : {0, 1, 2}) EXPECT_EQ(count({kFile, region}), 1u);
  EXPECT_EQ(count({kFile, 3}), 0u);
  policy_.accessed_whole(kFile, 2 * kRegionSize + 1, now_ + 3s);
  EXPECT_EQ(count({kFile, 2}), 2u);
}

// --- threads ---------------------------------------------------------------------------------------------------------

TEST_F(EvictionPolicyTest, NoCountIsLostBetweenThreads) {
  constexpr uint64_t kEach = 2000;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (Ino ino = 1; ino <= 4; ++ino) {
    threads.emplace_back([this, ino] {
      for (unsigned i = 0; i < 3; ++i) policy_.accessed_whole(ino, kEach * kRegionSize, kStart + i * 5s);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Ino ino = 1; ino <= 4; ++ino) {
    for (uint64_t region = 0; region < kEach; ++region) ASSERT_EQ(count({ino, region}), 3u);
  }
}

TEST_F(EvictionPolicyTest, ThreadsThatReadTheSameAtTheSameTimeCountOnce) {
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int n = 0; n < 20'000; ++n) policy_.accessed(kFile, ByteRange::of(kBegin, 4096), kStart);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count(), 1u);
}

TEST_F(EvictionPolicyTest, VerdictsAndReadsAtTheSameTimeKeepTheCountersOfOthers) {
  // 32 counters share a word; whatever happens to the others, those of regions that rest must not change.
  policy_.accessed_whole(1, 50'000 * kRegionSize, kStart);
  std::vector<unsigned> before;
  for (uint64_t region = 0; region < 50'000; ++region) before.push_back(count({1, region}));
  std::thread reader([this] {
    for (int i = 0; i < 200'000; ++i) policy_.accessed(2, ByteRange::of(0, 4096), kStart + i * 3s);
  });
  for (int i = 0; i < 200'000; ++i) policy_.judge(Queue::kMain, {2, 0}, kRegionSize);
  reader.join();
  EXPECT_LE(count({2, 0}), 3u);
  size_t changed = 0;
  for (uint64_t region = 0; region < 50'000; ++region) changed += count({1, region}) != before[region] ? 1 : 0;
  EXPECT_LE(changed, 1u);  // one may share the very counter
}

// --- verdicts --------------------------------------------------------------------------------------------------------

TEST_F(EvictionPolicyTest, FromSmallGoesWhatWasNotReadTwiceAgain) {
  EXPECT_EQ(policy_.judge(Queue::kSmall, kRegion, kRegionSize), Verdict::kEvict);
  passes(1);
  EXPECT_EQ(policy_.judge(Queue::kSmall, kRegion, kRegionSize), Verdict::kEvict);
  EXPECT_EQ(count(), 0u);
  passes(2);
  EXPECT_EQ(policy_.judge(Queue::kSmall, kRegion, kRegionSize), Verdict::kToMain);
  EXPECT_EQ(count(), 0u);
  passes(3);
  EXPECT_EQ(policy_.judge(Queue::kSmall, kRegion, kRegionSize), Verdict::kToMain);
  EXPECT_EQ(count(), 1u);
}

TEST_F(EvictionPolicyTest, InMainEachPassIsGoodForOneMoreRound) {
  passes(2);
  EXPECT_EQ(policy_.judge(Queue::kMain, kRegion, kRegionSize), Verdict::kBackToMain);
  EXPECT_EQ(policy_.judge(Queue::kMain, kRegion, kRegionSize), Verdict::kBackToMain);
  EXPECT_EQ(policy_.judge(Queue::kMain, kRegion, kRegionSize), Verdict::kEvict);
}

TEST_F(EvictionPolicyTest, SomethingGoesHoweverMuchIsRead) {
  constexpr uint64_t kRegions = 5000;
  for (const Queue queue : {Queue::kSmall, Queue::kMain}) {
    for (unsigned i = 0; i < 3; ++i) policy_.accessed_whole(kFile, kRegions * kRegionSize, now_ += 5s);
    unsigned spared = 0;
    while (policy_.judge(queue, {kFile, spared}, kRegionSize) != Verdict::kEvict) ASSERT_LT(++spared, 1000u);
    EXPECT_GT(spared, 256u);
  }
}

TEST(EvictionPolicy, TheSmallQueueIsExaminedWhileItHasATenth) {
  EXPECT_EQ(EvictionPolicy::examine_next({100 * kMiB, 0}), Queue::kSmall);
  EXPECT_EQ(EvictionPolicy::examine_next({0, 100 * kMiB}), Queue::kMain);
  EXPECT_EQ(EvictionPolicy::examine_next({0, 5}), Queue::kMain);
  EXPECT_EQ(EvictionPolicy::examine_next({10 * kMiB, 90 * kMiB}), Queue::kSmall);
  EXPECT_EQ(EvictionPolicy::examine_next({9 * kMiB, 91 * kMiB}), Queue::kMain);
}

// --- ghosts ----------------------------------------------------------------------------------------------------------

TEST_F(EvictionPolicyTest, WhatComesBackSoonEntersMainOnce) {
  policy_.judge(Queue::kSmall, kRegion, kRegionSize);
  EXPECT_TRUE(policy_.has_ghost(kRegion, kFull));
  EXPECT_EQ(policy_.queue_for_new(kRegion, kFull, now_), Queue::kMain);
  EXPECT_FALSE(policy_.has_ghost(kRegion, kFull));
  EXPECT_EQ(policy_.queue_for_new(kRegion, kFull, now_), Queue::kSmall);
}

TEST_F(EvictionPolicyTest, WhatLeavesMainIsNoGhost) {
  policy_.judge(Queue::kMain, kRegion, kRegionSize);
  EXPECT_FALSE(policy_.has_ghost(kRegion, kFull));
}

TEST_F(EvictionPolicyTest, AGhostLastsForAsManyBytesAsMainMayHave) {
  policy_.judge(Queue::kSmall, kRegion, kRegionSize);
  uint64_t bytes = 0;
  for (uint64_t other = 0; bytes <= 9 * kGiB - 2 * kRegionSize; ++other, bytes += kRegionSize) {
    policy_.judge(Queue::kSmall, {100, other}, kRegionSize);
  }
  EXPECT_TRUE(policy_.has_ghost(kRegion, kFull));
  for (uint64_t other = 0; other < 4; ++other) policy_.judge(Queue::kSmall, {200, other}, kRegionSize);
  EXPECT_FALSE(policy_.has_ghost(kRegion, kFull));
}

TEST_F(EvictionPolicyTest, OfTooManyGhostsTheLatestStay) {
  constexpr uint64_t kFiles = 1'000'000;
  for (Ino ino = 1; ino <= kFiles; ++ino) policy_.judge(Queue::kSmall, {ino, 0}, 10'000);
  uint64_t latest = 0, others = 0;
  for (Ino ino = 1; ino <= kFiles; ++ino) {
    (ino > kFiles - 50'000 ? latest : others) += policy_.has_ghost({ino, 0}, {kGiB, 99 * kGiB}) ? 1 : 0;
  }
  EXPECT_GT(latest, 49'500u);
  EXPECT_LE(latest + others, 128u * 1024);
}

TEST_F(EvictionPolicyTest, WhatWasNeverThereIsHardlyEverAGhost) {
  for (Ino ino = 1; ino <= 200'000; ++ino) policy_.judge(Queue::kSmall, {ino, 0}, 10'000);
  uint64_t wrong = 0;
  for (Ino ino = 1'000'000; ino < 1'200'000; ++ino) wrong += policy_.has_ghost({ino, 0}, kFull) ? 1 : 0;
  EXPECT_LE(wrong, 1u);
}

// --- over a restart --------------------------------------------------------------------------------------------------

TEST_F(EvictionPolicyTest, CountersAndGhostsSurviveARestart) {
  passes(2);
  policy_.judge(Queue::kSmall, {50, 0}, kGiB);
  policy_.judge(Queue::kSmall, {51, 0}, 9 * kGiB);
  EvictionPolicy next;
  ASSERT_TRUE(next.restore(policy_.encode()));
  EXPECT_EQ(next.count(kRegion), 2u);
  EXPECT_TRUE(next.has_ghost({51, 0}, kFull));
  EXPECT_TRUE(next.has_ghost({50, 0}, kFull));
  next.judge(Queue::kSmall, {52, 0}, kGiB);  // the age of ghosts goes on
  EXPECT_FALSE(next.has_ghost({50, 0}, kFull));
  EXPECT_EQ(EvictionPolicy().encode().size(), 32u * kKiB + 32);
}

TEST_F(EvictionPolicyTest, RubbishChangesNothing) {
  passes(2);
  const std::string good = policy_.encode();
  EvictionPolicy other;
  other.judge(Queue::kSmall, kRegion, kRegionSize);
  const std::string before = other.encode();

  EXPECT_FALSE(other.restore(""));
  EXPECT_FALSE(other.restore(std::string(100, '\xff')));
  EXPECT_FALSE(other.restore(std::string(good.size(), '\0')));
  EXPECT_FALSE(other.restore(good + "x"));
  EXPECT_FALSE(other.restore(good + std::string(8, '\0')));
  for (const size_t length : {size_t{8}, size_t{24}, good.size() - 8, good.size() - 1}) {
    EXPECT_FALSE(other.restore(good.substr(0, length))) << length;
  }
  for (size_t at = 0; at < good.size(); at += at < 32 ? 1 : 997) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EXPECT_FALSE(other.restore(bad)) << at;
  }
  EXPECT_EQ(other.encode(), before);
}

TEST_F(EvictionPolicyTest, TheMemoryIsTheSameForAnyCache) {
  static_assert(EvictionPolicy::memory() <= 2 * kMiB + 64 * kKiB);
  std::mt19937_64 random(3);
  for (int i = 0; i < 1'000'000; ++i) {
    const RegionKey key{random(), random()};
    policy_.accessed(key.ino, ByteRange::of(random() % (1ull << 50), kMiB), now_ += 1ms);
    policy_.judge(Queue::kSmall, key, 10'000);
  }
  EXPECT_LE(policy_.encode().size(), 2 * kMiB + 33 * kKiB);
}

// --- a whole cache ---------------------------------------------------------------------------------------------------

constexpr uint64_t kCapacity = 1000 * kRegionSize;
constexpr uint64_t kHuge = 3000;  // regions of a file that does not fit

RegionRead read_of(Ino ino, uint64_t region) { return {{ino, region}, kRegionSize}; }

// Reads of 900 hot regions, in a cache of 1000.
class HotReads {
 public:
  RegionRead next() { return read_of(1, random_() % 900); }

 private:
  std::mt19937_64 random_{11};
};

// Of `reads` hot reads, how many percent were hits; before each, `scan` reads a region of its file.
template <typename Model, typename Scan>
double hot_hits(Model& cache, HotReads& hot, int reads, Scan scan) {
  int hits = 0;
  for (int i = 0; i < reads; ++i) {
    scan(cache);
    hits += cache.read(hot.next()) ? 1 : 0;
  }
  return 100.0 * hits / reads;
}

struct ScanFigures {
  double before, during, after;
};

// Somebody reads `scanned` regions, over and over a file of `size`, so many of them for each hot read.
template <typename Model>
ScanFigures read_hot_while_scanning(uint64_t size, uint64_t scanned, int for_each_hot) {
  Model cache(kCapacity);
  HotReads hot;
  const auto nothing = [](Model&) {};
  hot_hits(cache, hot, 20'000, nothing);
  ScanFigures figures{};
  figures.before = hot_hits(cache, hot, 2000, nothing);
  uint64_t at = 0;
  figures.during = hot_hits(cache, hot, static_cast<int>(scanned) / for_each_hot, [&](Model& model) {
    for (int i = 0; i < for_each_hot; ++i) model.read(read_of(2, at++ % size));
  });
  figures.after = hot_hits(cache, hot, 500, nothing);
  return figures;
}

TEST(EvictionPolicyInACache, APassOverAHugeFileLeavesWhatIsHot) {
  const auto policy = read_hot_while_scanning<PolicyModel>(kHuge, kHuge, 5);
  const auto lru = read_hot_while_scanning<LruModel>(kHuge, kHuge, 5);
  EXPECT_GT(policy.before, 99.0);
  EXPECT_GT(lru.before, 99.0);
  EXPECT_GT(policy.during, 98.0);
  EXPECT_LT(lru.during, 40.0);
  EXPECT_GT(policy.after, 98.0);
  EXPECT_LT(lru.after, 50.0);
}

TEST(EvictionPolicyInACache, SoDoTwoPassesInARow) {
  const auto policy = read_hot_while_scanning<PolicyModel>(kHuge, 2 * kHuge, 5);
  const auto lru = read_hot_while_scanning<LruModel>(kHuge, 2 * kHuge, 5);
  EXPECT_GT(policy.during, 98.0);
  EXPECT_LT(lru.during, 40.0);
  EXPECT_GT(policy.after, 98.0);
}

// All of it is remembered when it comes for the second time, and enters main: no worse than LRU, which has it all too.
TEST(EvictionPolicyInACache, TwoPassesOverAFileThatWouldFitLeaveMoreThanLruDoes) {
  const auto policy = read_hot_while_scanning<PolicyModel>(800, 1600, 2);
  const auto lru = read_hot_while_scanning<LruModel>(800, 1600, 2);
  EXPECT_GT(policy.during, 75.0);
  EXPECT_GT(policy.during, lru.during);
  EXPECT_GT(policy.after, lru.after);
}

TEST(EvictionPolicyInACache, WhatIsReadAgainAndAgainDrivesOutWhatWasHotOnce) {
  PolicyModel policy(kCapacity);
  HotReads hot;
  hot_hits(policy, hot, 20'000, [](PolicyModel&) {});
  std::mt19937_64 random(12);
  for (int i = 0; i < 8000; ++i) policy.read(read_of(3, random() % 900));
  int hits = 0;
  for (int i = 0; i < 2000; ++i) hits += policy.read(read_of(3, random() % 900)) ? 1 : 0;
  EXPECT_GT(hits, 1900);
}

TEST(EvictionPolicyInACache, ALoopThatDoesNotFitHitsAllTheSame) {
  PolicyModel policy(kCapacity);
  LruModel lru(kCapacity);
  int hits = 0, lru_hits = 0;
  for (uint64_t i = 0; i < 10 * 1200; ++i) {
    hits += policy.read(read_of(1, i % 1200)) ? 1 : 0;
    lru_hits += lru.read(read_of(1, i % 1200)) ? 1 : 0;
  }
  EXPECT_GT(hits, 10 * 1200 * 4 / 10);
  EXPECT_EQ(lru_hits, 0);
}

TEST(EvictionPolicyInACache, TheSmallQueueHasATenthOfTheBytesWhateverTheSizes) {
  PolicyModel policy(kCapacity);
  std::mt19937_64 random(13);
  // Popular regions, single reads, and small files of all sizes.
  for (int i = 0; i < 60'000; ++i) {
    policy.read(read_of(1, random() % 950));
    policy.read(read_of(2, static_cast<uint64_t>(i)));
    policy.read({{1000 + random() % 100'000, 0}, 100 + random() % 200'000});
    if (i < 20'000) continue;
    const Occupancy now = policy.occupancy();
    ASSERT_LE(now.total(), kCapacity);
    ASSERT_GE(now.total(), kCapacity - 2 * kRegionSize);
    ASSERT_GE(now.small, kCapacity * 8 / 100);
    ASSERT_LE(now.small, kCapacity * 12 / 100);
  }
}

}  // namespace
}  // namespace wormhole
