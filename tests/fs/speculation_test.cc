// What is fetched on an idle wire, and how much of it at most: values in, values out.
#include "fs/speculation.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/block.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1024 * kMiB;
constexpr uint64_t kRate = 100'000'000;

// A reader, and a cache that has all that was demanded or guessed.
class Reader {
 public:
  explicit Reader(uint64_t size) : size_(size), speculation_(size) {}

  void read(uint64_t offset) {
    const BlockIndex b = block_of(offset);
    ++asked_;
    if (guessed_.erase(b) > 0) speculation_.hit(kBlockSize);
    if (!have_.insert(b).second) return;
    speculation_.demanded(block_range(b, size_));
    demanded_ += kBlockSize;
  }
  // As much as is proposed, at most `most` bytes.
  void guess(uint64_t most, uint64_t rate = kRate) {
    for (uint64_t taken = 0; taken < most;) {
      const ByteRange r = speculation_.next(kMiB, rate);
      if (r.empty()) return;
      ASSERT_LE(r.end, size_);
      ASSERT_EQ(r.begin % kBlockSize, 0u);
      taken += r.size();
      for (BlockIndex b = block_of(r.begin); b <= block_of(r.end - 1); ++b) {
        if (!have_.insert(b).second) continue;
        guessed_.insert(b);
        speculation_.guessed(block_range(b, size_));
      }
    }
  }
  uint64_t fetched() const { return have_.size() * kBlockSize; }
  uint64_t demanded() const { return demanded_; }
  uint64_t asked() const { return asked_; }
  Speculation& speculation() { return speculation_; }

 private:
  const uint64_t size_;
  Speculation speculation_;
  std::set<BlockIndex> have_, guessed_;
  uint64_t demanded_ = 0;
  uint64_t asked_ = 0;
};

TEST(SpeculationTest, AFewReadsGuessNothing) {
  Reader r(512 * kMiB);
  for (uint64_t i = 0; i < 15; ++i) r.read(i * 30 * kMiB);
  r.guess(kGiB);
  EXPECT_EQ(r.fetched(), r.demanded());
}

TEST(SpeculationTest, AFileThatTheWireCarriesInSecondsIsFetchedWhole) {
  Reader r(512 * kMiB);
  for (uint64_t i = 0; i < 16; ++i) r.read(i * 30 * kMiB);
  r.guess(10 * kGiB);
  EXPECT_EQ(r.fetched(), 512 * kMiB);
}

TEST(SpeculationTest, TheSurroundingsOfTheLatestReadsComeFirst) {
  Reader r(512 * kMiB);
  for (uint64_t i = 0; i < 16; ++i) r.read(i * 30 * kMiB);
  EXPECT_TRUE(r.speculation().next(2 * kMiB, kRate).contains(450 * kMiB));
  EXPECT_TRUE(r.speculation().next(2 * kMiB, kRate).contains(420 * kMiB));
}

TEST(SpeculationTest, OfALargeFileThreeTimesWhatWasAskedForIsFetchedAtMost) {
  std::mt19937_64 random(1);
  Reader r(64 * kGiB);
  for (int i = 0; i < 5000; ++i) {
    r.read(random() % (64 * kGiB));
    r.guess(10 * kMiB);
    ASSERT_LE(r.fetched(), 4 * r.asked() * kBlockSize);
  }
  EXPECT_LE(r.fetched(), 31 * r.asked() * kBlockSize / 10);  // chance hits pay for a few more
}

TEST(SpeculationTest, WhileTheRateIsNotKnownHalfASecondOfAFastWireIsFetched) {
  Reader r(512 * kMiB);
  for (uint64_t i = 0; i < 16; ++i) r.read(i * 30 * kMiB);
  r.guess(kGiB, 0);
  EXPECT_EQ(r.fetched(), 64 * kMiB + r.demanded());
}

TEST(SpeculationTest, GuessesThatAreReadPayForMoreInLargerSteps) {
  std::mt19937_64 random(2);
  Reader r(64 * kGiB);
  // Works in one place of 64 MiB after the other.
  for (uint64_t place = 0; place < 10; ++place) {
    for (int i = 0; i < 2000; ++i) {
      r.read(place * 5 * kGiB + random() % (64 * kMiB));
      r.guess(2 * kMiB);
    }
  }
  EXPECT_GT(r.speculation().step(), kMiB);
  EXPECT_GE(r.fetched(), 3 * r.demanded());
  EXPECT_LE(r.fetched(), 12 * 64 * kMiB);
}

TEST(SpeculationTest, GuessesThatNobodyReadsMakeSmallerSteps) {
  std::mt19937_64 random(3);
  Reader r(64 * kGiB);
  for (int i = 0; i < 3000; ++i) {
    r.read(random() % (64 * kGiB));
    r.guess(kMiB);
  }
  EXPECT_LT(r.speculation().step(), kMiB);
}

}  // namespace
}  // namespace wormhole
