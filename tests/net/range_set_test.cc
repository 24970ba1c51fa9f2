#include "net/range_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RangeSet set_of(std::initializer_list<ByteRange> ranges) {
  RangeSet set;
  for (const ByteRange range : ranges) set.add(range);
  return set;
}

TEST(RangeSet, JoinsNeighboursAndOverlaps) {
  EXPECT_THAT(set_of({{10, 20}, {30, 40}}).ranges(), ElementsAre(ByteRange{10, 20}, ByteRange{30, 40}));
  EXPECT_THAT(set_of({{10, 20}, {20, 30}}).ranges(), ElementsAre(ByteRange{10, 30}));
  EXPECT_THAT(set_of({{20, 30}, {10, 20}}).ranges(), ElementsAre(ByteRange{10, 30}));
  EXPECT_THAT(set_of({{10, 20}, {30, 40}, {15, 35}}).ranges(), ElementsAre(ByteRange{10, 40}));
  EXPECT_THAT(set_of({{10, 40}, {20, 30}}).ranges(), ElementsAre(ByteRange{10, 40}));
  EXPECT_THAT(set_of({{10, 20}, {30, 40}, {0, 50}}).ranges(), ElementsAre(ByteRange{0, 50}));
  EXPECT_THAT(set_of({{10, 10}}).ranges(), IsEmpty());
}

TEST(RangeSet, KnowsWhatIsMissing) {
  EXPECT_THAT(set_of({}).missing({0, 10}), ElementsAre(ByteRange{0, 10}));
  EXPECT_THAT(set_of({{0, 10}}).missing({0, 10}), IsEmpty());
  EXPECT_THAT(set_of({{2, 4}, {6, 8}}).missing({0, 10}),
              ElementsAre(ByteRange{0, 2}, ByteRange{4, 6}, ByteRange{8, 10}));
  EXPECT_THAT(set_of({{2, 4}, {6, 20}}).missing({3, 10}), ElementsAre(ByteRange{4, 6}));
  EXPECT_THAT(set_of({}).missing({0, 0}), IsEmpty());
}

TEST(RangeSet, AgreesWithASetOfBytes) {
  std::minstd_rand random(1);
  for (int round = 0; round < 200; ++round) {
    RangeSet set;
    std::vector<bool> bytes(64);
    for (int i = 0; i < 12; ++i) {
      const uint64_t begin = random() % 60, end = begin + random() % 5;
      set.add({begin, end});
      for (uint64_t b = begin; b < end; ++b) bytes[b] = true;
    }
    EXPECT_EQ(set.size(), static_cast<uint64_t>(std::count(bytes.begin(), bytes.end(), true)));
    std::vector<bool> again(64);
    for (const ByteRange r : set.ranges()) std::fill(again.begin() + int(r.begin), again.begin() + int(r.end), true);
    EXPECT_EQ(again, bytes);
    for (const ByteRange r : set.missing({0, 64})) EXPECT_FALSE(set.contains({r.begin, r.begin + 1}));
    for (uint64_t b = 0; b < 64; ++b) EXPECT_EQ(set.contains({b, b + 1}), bytes[b]);
  }
}

}  // namespace
}  // namespace wormhole
