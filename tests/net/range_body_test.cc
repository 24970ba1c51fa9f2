// Bytes that come in order, from two places, twice, or all of these.
#include "net/range_body.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

constexpr ByteRange kRange{1000, 1100};

class RangeBodyTest : public ::testing::Test {
 protected:
  RangeBodyTest() {
    for (size_t i = 0; i < truth_.size(); ++i) truth_[i] = static_cast<char>('a' + i % 26);
  }
  void add(uint64_t begin, uint64_t end) { body_.add(begin, truth_.substr(begin - kRange.begin, end - begin)); }
  std::string front() const { return {reinterpret_cast<const char*>(buffer_), static_cast<size_t>(body_.arrived())}; }

  std::string truth_ = std::string(kRange.size(), ' ');
  std::byte buffer_[100] = {};
  RangeBody body_{kRange, buffer_};
};

TEST_F(RangeBodyTest, InOrderTheFrontGrows) {
  add(1000, 1010);
  EXPECT_EQ(body_.arrived(), 10u);
  EXPECT_EQ(body_.first_gap(), (ByteRange{1010, 1100}));
  add(1010, 1100);
  EXPECT_TRUE(body_.complete());
  EXPECT_TRUE(body_.first_gap().empty());
  EXPECT_EQ(front(), truth_);
}

TEST_F(RangeBodyTest, WhatComesBehindAGapCountsWhenTheGapIsClosed) {
  add(1000, 1010);
  add(1050, 1080);
  EXPECT_EQ(body_.arrived(), 10u);
  EXPECT_EQ(body_.first_gap(), (ByteRange{1010, 1050}));
  add(1010, 1050);
  EXPECT_EQ(body_.arrived(), 80u);
  EXPECT_EQ(body_.first_gap(), (ByteRange{1080, 1100}));
  EXPECT_EQ(front(), truth_.substr(0, 80));
}

TEST_F(RangeBodyTest, WhatIsThereBehindAGapIsKnown) {
  add(1050, 1080);
  EXPECT_TRUE(body_.has({1060, 1070}));
  EXPECT_FALSE(body_.has({1040, 1060}));
  EXPECT_FALSE(body_.has({1000, 1010}));
  EXPECT_EQ(body_.gap_from(1020), (ByteRange{1020, 1050}));
  EXPECT_EQ(body_.gap_from(1060), (ByteRange{1080, 1100}));
  add(1000, 1010);
  EXPECT_EQ(body_.gap_from(1000), (ByteRange{1010, 1050}));
}

TEST_F(RangeBodyTest, BytesThatWereToldOfAreNotWrittenAgain) {
  add(1000, 1050);
  body_.add(1020, std::string(60, '?'));
  EXPECT_EQ(front().substr(0, 50), truth_.substr(0, 50));
  EXPECT_EQ(body_.arrived(), 80u);
}

TEST_F(RangeBodyTest, AnyPiecesInAnyOrderMakeTheWhole) {
  std::mt19937 random(3);
  for (int run = 0; run < 300; ++run) {
    std::fill(std::begin(buffer_), std::end(buffer_), std::byte{0});
    body_ = RangeBody{kRange, buffer_};
    uint64_t last = 0;
    while (!body_.complete()) {
      const uint64_t begin = kRange.begin + random() % 100;
      add(begin, begin + 1 + random() % (kRange.end - begin));
      ASSERT_GE(body_.arrived(), last);
      last = body_.arrived();
      ASSERT_EQ(front(), truth_.substr(0, last));
      ASSERT_EQ(body_.first_gap().empty(), body_.complete());
    }
  }
}

}  // namespace
}  // namespace wormhole
