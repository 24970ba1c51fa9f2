#include "fs/readahead.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kSize = 1024 * kMiB;
constexpr uint64_t kRead = 128 * kKiB;

class ReadaheadTest : public testing::Test {
 protected:
  ByteRange read(uint64_t offset, uint64_t length = kRead, bool stalled = false, uint64_t size = kSize) {
    return readahead_.on_read(ByteRange::of(offset, length), size, stalled);
  }
  // Reads on from `offset` for `bytes`; the union of what is proposed must be one range.
  ByteRange stream(uint64_t offset, uint64_t bytes, bool stalled) {
    ByteRange all;
    for (uint64_t at = offset; at < offset + bytes; at += kRead) {
      const ByteRange more = read(at, kRead, stalled);
      if (more.empty()) continue;
      if (!all.empty()) {
        EXPECT_EQ(more.begin, all.end);
      }
      all = all.empty() ? more : ByteRange{all.begin, more.end};
    }
    return all;
  }

  Readahead readahead_{ReadaheadOptions{1 * kMiB, 16 * kMiB}};
};

TEST_F(ReadaheadTest, TheFirstReadAtTheBeginStartsAStream) { EXPECT_EQ(read(0), (ByteRange{kRead, kRead + kMiB})); }

TEST_F(ReadaheadTest, AReadInTheMiddleFetchesNothingElse) { EXPECT_TRUE(read(500 * kMiB, 4 * kKiB).empty()); }

TEST_F(ReadaheadTest, RandomReadsFetchNothingElse) {
  for (const uint64_t at : {900, 10, 450, 333, 720, 80, 610, 205}) EXPECT_TRUE(read(at * kMiB, 4 * kKiB, true).empty());
}

TEST_F(ReadaheadTest, TheSecondReadInSequenceStartsAStream) {
  read(500 * kMiB);
  EXPECT_EQ(read(500 * kMiB + kRead), (ByteRange{500 * kMiB + 2 * kRead, 501 * kMiB + 2 * kRead}));
}

TEST_F(ReadaheadTest, AReaderWhoNeverWaitsKeepsTheSmallWindow) {
  stream(0, 64 * kMiB, false);
  EXPECT_EQ(readahead_.window(), kMiB);
}

TEST_F(ReadaheadTest, TheWindowDoublesWhenTheReaderHadToWait) {
  read(0);
  read(kRead, kRead, true);
  EXPECT_EQ(readahead_.window(), 2 * kMiB);
  read(2 * kRead, kRead, true);
  EXPECT_EQ(readahead_.window(), 4 * kMiB);
}

TEST_F(ReadaheadTest, TheWindowHasAnEnd) {
  stream(0, 64 * kMiB, true);
  EXPECT_EQ(readahead_.window(), 16 * kMiB);
}

TEST_F(ReadaheadTest, WhatIsProposedHasNoGapsAndNoOverlaps) {
  const ByteRange all = stream(0, 32 * kMiB, true);
  EXPECT_EQ(all.begin, kRead);
  EXPECT_GE(all.end, 32 * kMiB);
}

TEST_F(ReadaheadTest, NothingIsProposedBehindTheEnd) {
  const uint64_t size = 300 * kKiB;
  EXPECT_EQ(read(0, kRead, false, size), (ByteRange{kRead, size}));
  EXPECT_TRUE(read(kRead, kRead, true, size).empty());
  EXPECT_TRUE(read(2 * kRead, size - 2 * kRead, true, size).empty());
}

// The kernel sends its read-ahead as several requests at once, and they overtake each other.
TEST_F(ReadaheadTest, ReadsOutOfOrderStayInTheStream) {
  read(0, kRead);
  read(2 * kRead, kRead, true);
  read(kRead, kRead, true);
  read(3 * kRead, kRead, true);
  EXPECT_EQ(readahead_.window(), 8 * kMiB);
}

TEST_F(ReadaheadTest, TwoReadersOfOneFileHaveAStreamEach) {
  read(0);
  read(500 * kMiB);
  for (uint64_t i = 1; i < 40; ++i) {
    const ByteRange low = read(i * kRead);
    const ByteRange high = read(500 * kMiB + i * kRead);
    if (!low.empty()) {
      EXPECT_LT(low.end, 100 * kMiB);
    }
    if (!high.empty()) {
      EXPECT_GT(high.begin, 500 * kMiB);
    }
  }
}

TEST_F(ReadaheadTest, ARandomReadInBetweenDoesNotEndAStream) {
  stream(0, 8 * kMiB, true);
  const uint64_t window = readahead_.window();
  read(700 * kMiB, 4 * kKiB, true);
  read(8 * kMiB);
  EXPECT_EQ(readahead_.window(), window);
}

TEST_F(ReadaheadTest, WhatIsGivenBackIsProposedAgain) {
  const ByteRange first = read(0);
  readahead_.give_back(first.begin + 256 * kKiB);
  const ByteRange again = read(kRead);
  EXPECT_EQ(again.begin, first.begin + 256 * kKiB);
}

}  // namespace
}  // namespace wormhole
