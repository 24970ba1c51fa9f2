// What else is fetched, from the reads of one file so far: values in, values out.
#include "fs/readahead.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kSize = 1024 * kMiB;
constexpr uint64_t kRead = 128 * kKiB;  // a request of the kernel's default read-ahead
constexpr uint64_t kStep = 256 * kKiB;  // in which a window of up to 4 MiB is refilled
constexpr bool kStalled = true;

class ReadaheadTest : public ::testing::Test {
 protected:
  // What is proposed behind a cursor; a stride's ranges are looked at by propose().
  ByteRange read(uint64_t offset, bool stalled = false, uint64_t length = kRead) {
    const auto ranges = propose(offset, stalled, length).ranges;
    EXPECT_LE(ranges.size(), 1u);
    return ranges.empty() ? ByteRange{} : ranges.front();
  }
  Readahead::Proposal propose(uint64_t offset, bool stalled = false, uint64_t length = kRead) {
    return readahead_.on_read({offset, std::min(offset + length, size_)}, size_, stalled, bounds_);
  }
  // Reads on from `from` to `to`, without a stall; returns the end of all that was proposed.
  uint64_t read_on(uint64_t from, uint64_t to) {
    uint64_t end = 0;
    for (uint64_t at = from; at < to; at += kRead) end = std::max(end, read(at).end);
    return end;
  }

  uint64_t size_ = kSize;
  WindowBounds bounds_{.pipe = 0, .most = 16 * kMiB};
  Readahead readahead_{{.first_window = kMiB}};
};

// --- who gets a window ---------------------------------------------------------------------------------------------

TEST_F(ReadaheadTest, AFirstReadAtTheBeginGetsTheFirstWindow) { EXPECT_EQ(read(0), (ByteRange{kRead, kMiB})); }

TEST_F(ReadaheadTest, AFirstReadElsewhereGetsNothing) { EXPECT_TRUE(read(100 * kMiB).empty()); }

TEST_F(ReadaheadTest, TheSecondReadInSequenceGetsTheFirstWindow) {
  read(100 * kMiB);
  EXPECT_EQ(read(100 * kMiB + kRead), (ByteRange{100 * kMiB + 2 * kRead, 101 * kMiB + kStep}));
}

TEST_F(ReadaheadTest, RandomReadsGetNothing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    // No two of a run lie within the tolerance of a sequence.
    const uint64_t at = (4 * static_cast<uint64_t>(i % 200) + 2) * kMiB + random() % kMiB;
    EXPECT_TRUE(read(at, kStalled, 4 * kKiB).empty()) << i;
  }
}

// --- how a window is used ------------------------------------------------------------------------------------------

TEST_F(ReadaheadTest, WhatWasProposedIsNotProposedAgain) {
  uint64_t end = read(0).end;
  for (uint64_t at = kRead; at < 8 * kMiB; at += kRead) {
    const ByteRange next = read(at);
    if (next.empty()) continue;
    EXPECT_EQ(next.begin, end);
    end = next.end;
  }
  EXPECT_GE(end, 8 * kMiB);
}

TEST_F(ReadaheadTest, AWindowIsRefilledInStepsThatAreWorthARequest) {
  read(0);
  for (uint64_t at = kRead; at < 8 * kMiB; at += kRead) {
    const ByteRange next = read(at);
    EXPECT_TRUE(next.empty() || (next.size() >= kStep && next.end % kStep == 0)) << at;
    EXPECT_TRUE(next.empty() || next.end > at + kRead + kMiB - kStep) << at;  // the window is kept full
  }
}

TEST_F(ReadaheadTest, AReaderWhoNeverStallsKeepsTheWindowHeHas) {
  EXPECT_LE(read_on(0, 64 * kMiB), 64 * kMiB + kMiB);
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, TheWindowDoublesWhenAReaderWhoReadsOnStalls) {
  bounds_.pipe = kMiB;
  read(0, kStalled);
  EXPECT_EQ(readahead_.window(), kMiB);  // the first read always waits
  read(kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 2 * kMiB);
  read(2 * kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 4 * kMiB);
  read(3 * kRead);
  EXPECT_EQ(readahead_.window(), 4 * kMiB);
}

TEST_F(ReadaheadTest, TheWindowIsBounded) {
  for (uint64_t i = 0; i < 20; ++i) read(i * kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 16 * kMiB);
  EXPECT_LE(read_on(20 * kRead, 40 * kRead), 40 * kRead + 16 * kMiB);
}

TEST_F(ReadaheadTest, WhileTheWireIsNotKnownTheWindowGrowsFaster) {
  read(0, kStalled);
  read(kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 4 * kMiB);
}

TEST_F(ReadaheadTest, AStallOpensTheWindowToWhatTheWireHolds) {
  bounds_.pipe = 6 * kMiB;
  read(0, kStalled);
  EXPECT_EQ(readahead_.window(), kMiB);  // the first read says nothing yet
  read(kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 6 * kMiB);
  read(2 * kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 12 * kMiB);
}

TEST_F(ReadaheadTest, TheWindowGrowsWhileAReaderWaitsToo) {
  read(0, kStalled);
  const auto more = readahead_.on_wait({0, kRead}, size_, bounds_);
  EXPECT_TRUE(more.sequential);
  ASSERT_EQ(more.ranges.size(), 1u);
  EXPECT_EQ(more.ranges.front(), (ByteRange{kMiB, 4 * kMiB}));
  EXPECT_TRUE(readahead_.on_wait({500 * kMiB, 500 * kMiB + kRead}, size_, bounds_).ranges.empty());  // nobody's
}

TEST_F(ReadaheadTest, ARandomReaderWhoWaitsGetsNoWindow) {
  read(100 * kMiB, kStalled);
  EXPECT_TRUE(readahead_.on_wait({100 * kMiB, 100 * kMiB + kRead}, size_, bounds_).ranges.empty());
}

TEST_F(ReadaheadTest, AWindowShrinksWithItsBound) {
  for (uint64_t i = 0; i < 20; ++i) read(i * kRead, kStalled);
  bounds_.most = 2 * kMiB;
  read(20 * kRead);
  EXPECT_EQ(readahead_.window(), 2 * kMiB);
}

TEST_F(ReadaheadTest, WindowsThatWereInVainMakeTheNextOnesBeginSmaller) {
  for (uint64_t i = 0; i < 30; ++i) {  // headers of records: two reads and away; never equal distances
    read((i * 20 + i * i % 7) * kMiB);
    read((i * 20 + i * i % 7) * kMiB + kRead);
  }
  EXPECT_LT(readahead_.window(), kMiB);
  EXPECT_GE(readahead_.window(), 128 * kKiB);
  // Somebody who reads on gets the usual one again.
  read_on(900 * kMiB, 904 * kMiB);
  read(950 * kMiB);
  read(950 * kMiB + kRead);
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, AfterARestTheWindowBeginsSmall) {
  for (uint64_t i = 0; i < 20; ++i) read(i * kRead, kStalled);
  readahead_.rest();
  EXPECT_EQ(read(20 * kRead), (ByteRange{21 * kRead, (21 * kRead + kMiB) / kStep * kStep}));
}

// --- strides -------------------------------------------------------------------------------------------------------

TEST_F(ReadaheadTest, AReaderOfEveryNthPlaceGetsTheNextPlacesAndNothingBetween) {
  const uint64_t step = 10 * kMiB;
  for (uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(propose(i * step + kMiB, kStalled, 4 * kKiB).ranges.empty()) << i;
  const auto next = propose(3 * step + kMiB, kStalled, 4 * kKiB);
  EXPECT_TRUE(next.sequential);
  ASSERT_FALSE(next.ranges.empty());
  for (size_t i = 0; i < next.ranges.size(); ++i) {
    const uint64_t at = (4 + i) * step + kMiB;
    EXPECT_EQ(next.ranges[i], (ByteRange{at, at + 4 * kKiB})) << i;
  }
}

TEST_F(ReadaheadTest, AStrideThatStallsIsFetchedFurtherAhead) {
  const uint64_t step = 2 * kMiB;
  size_t places = 0;
  for (uint64_t i = 0; i < 40; ++i) places += propose(i * step, kStalled, 4 * kKiB).ranges.size();
  EXPECT_GT(places, 100u);
  EXPECT_LE(places, 40u + 256u);
}

TEST_F(ReadaheadTest, AReaderWhoGoesBackwardsIsReadAheadBackwards) {
  uint64_t first = kSize;
  for (uint64_t i = 1; i <= 40; ++i) {
    for (const ByteRange& r : propose(kSize - i * kRead, kStalled).ranges) first = std::min(first, r.begin);
  }
  EXPECT_LT(first, kSize - 60 * kRead);
}

TEST_F(ReadaheadTest, AStrideEndsWithTheFile) {
  for (uint64_t i = 0; i < 10; ++i) {
    for (const ByteRange& r : propose(900 * kMiB + i * 12 * kMiB, false, 4 * kKiB).ranges) EXPECT_LE(r.end, kSize);
  }
  for (uint64_t i = 0; i < 5; ++i) {
    for (const ByteRange& r : propose((5 - i) * 100 * kKiB, false, 4 * kKiB).ranges) EXPECT_LE(r.end, kSize);
  }
}

TEST_F(ReadaheadTest, NothingIsProposedBehindTheEnd) {
  size_ = kMiB / 2;
  EXPECT_EQ(read(0), (ByteRange{kRead, size_}));
  EXPECT_TRUE(read(kRead).empty());
  EXPECT_TRUE(read(size_ - 1).empty());
}

TEST_F(ReadaheadTest, AFileThatIsReadWholeAtOnceLeavesNothingToPropose) {
  size_ = 1000;
  EXPECT_TRUE(read(0).empty());
}

// --- what the kernel does to a sequence ----------------------------------------------------------------------------

TEST_F(ReadaheadTest, ReadsThatAreSwappedOnTheirWayAreStillASequence) {
  read(0);
  read(2 * kRead);
  EXPECT_TRUE(read(kRead).empty());
  const uint64_t end = read_on(3 * kRead, 16 * kRead);
  EXPECT_GE(end, 16 * kRead);
  EXPECT_LE(end, 16 * kRead + kMiB);
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, ABytewiseReaderIsASequenceToo) {
  uint64_t proposed = 0;
  for (uint64_t at = 0; at < 3 * kMiB; at += 4096) {
    const ByteRange r = read(at, false, 4096);
    if (!r.empty()) {
      EXPECT_GE(r.begin, proposed);
      proposed = r.end;
    }
  }
  EXPECT_GE(proposed, 3 * kMiB);
  EXPECT_LE(proposed, 4 * kMiB + 4096);
}

TEST_F(ReadaheadTest, AReaderWhoSkipsALittleStaysInHisSequence) {
  read(0);
  read(kRead);
  EXPECT_TRUE(read(kRead * 2 + 64 * kKiB).empty());
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, AReaderWhoJumpsFarBeginsAnew) {
  read_on(0, 2 * kMiB);
  EXPECT_TRUE(read(500 * kMiB).empty());
  EXPECT_EQ(read(500 * kMiB + kRead).begin, 500 * kMiB + 2 * kRead);
}

// --- several readers -----------------------------------------------------------------------------------------------

TEST_F(ReadaheadTest, TwoReadersWhoTakeTurnsHaveAWindowEach) {
  const uint64_t other = 500 * kMiB;
  uint64_t end_a = 0;
  uint64_t end_b = 0;
  for (uint64_t at = 0; at < 8 * kMiB; at += kRead) {
    const ByteRange a = read(at);
    const ByteRange b = read(other + at);
    if (!a.empty()) {
      EXPECT_TRUE(end_a == 0 || a.begin == end_a);
      end_a = a.end;
    }
    if (!b.empty()) {
      EXPECT_TRUE(end_b == 0 || b.begin == end_b);
      end_b = b.end;
    }
  }
  EXPECT_GE(end_a, 8 * kMiB);
  EXPECT_GE(end_b, other + 8 * kMiB);
}

TEST_F(ReadaheadTest, TheStallOfOneReaderDoesNotGrowTheWindowOfAnother) {
  bounds_.pipe = kMiB;
  read(0);
  read(500 * kMiB);
  read(500 * kMiB + kRead);
  read(500 * kMiB + 2 * kRead, kStalled);
  EXPECT_EQ(readahead_.window(), 2 * kMiB);
  read(kRead);
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, OneReaderTooManyTakesThePlaceOfTheOneWhoReadLongestAgo) {
  // Distances that differ, or they would be a stride.
  const uint64_t places[] = {0, 100, 210, 330, 460, 600, 750, 820};
  for (const uint64_t at : places) read(at * kMiB);
  for (size_t i = 1; i < std::size(places); ++i) EXPECT_FALSE(read(places[i] * kMiB + kRead).empty()) << i;
  read(900 * kMiB);
  EXPECT_FALSE(read(900 * kMiB + kRead).empty());
  EXPECT_TRUE(read(210 * kMiB + 2 * kRead).empty());  // known: its window is full
  EXPECT_TRUE(read(50 * kMiB).empty());               // not where reader 0 was
}

// --- no memory -----------------------------------------------------------------------------------------------------

TEST_F(ReadaheadTest, WhatIsGivenBackIsProposedAgain) {
  const ByteRange first = read(0);
  readahead_.give_back(first.begin + 256 * kKiB);
  const ByteRange again = read(kRead);
  EXPECT_EQ(again.begin, first.begin + 256 * kKiB);
  EXPECT_EQ(again.end, 2 * kRead + kMiB);
}

TEST_F(ReadaheadTest, WhatIsGivenBackWholeIsProposedBehindTheReader) {
  const ByteRange first = read(0);
  readahead_.give_back(first.begin);
  EXPECT_EQ(read(kRead), (ByteRange{2 * kRead, 2 * kRead + kMiB}));
}

// Any reads: what is proposed lies behind the read, in the file, and no further than the largest window.
TEST_F(ReadaheadTest, WhateverIsReadTheProposalStaysInItsBounds) {
  std::mt19937_64 random(7);
  for (int run = 0; run < 50; ++run) {
    Readahead readahead{{.first_window = kMiB}};
    const uint64_t size = 1 + random() % (64 * kMiB);
    uint64_t at = 0;
    for (int i = 0; i < 500; ++i) {
      if (random() % 4 == 0) at = random() % size;
      const ByteRange r{at, std::min(size, at + 1 + random() % kMiB)};
      for (const ByteRange& p : readahead.on_read(r, size, random() % 2 == 0, bounds_).ranges) {
        ASSERT_FALSE(p.empty());
        ASSERT_LE(p.end, size);
        ASSERT_LE(p.end, r.end + 16 * kMiB + 2 * kMiB);  // a read may lie before its cursor
        if (random() % 5 == 0) readahead.give_back(p.begin + random() % p.size());
      }
      at = r.end < size ? r.end : 0;
    }
  }
}

}  // namespace
}  // namespace wormhole
