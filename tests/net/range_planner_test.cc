#include "net/range_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;

TEST(RangePlanner, ARangeIsCutAtMultiplesOfThePartSize) {
  EXPECT_THAT(split_range({0, 300}, 100), ElementsAre(ByteRange{0, 100}, ByteRange{100, 200}, ByteRange{200, 300}));
}

TEST(RangePlanner, ThePartsOfNeighbouringRangesMeetAtTheSamePlaces) {
  EXPECT_THAT(split_range({50, 250}, 100), ElementsAre(ByteRange{50, 100}, ByteRange{100, 200}, ByteRange{200, 250}));
}

TEST(RangePlanner, ARangeWithinAPartIsOne) {
  EXPECT_THAT(split_range({110, 190}, 100), ElementsAre(ByteRange{110, 190}));
}

TEST(RangePlanner, AnEmptyRangeHasNoParts) { EXPECT_THAT(split_range({100, 100}, 100), IsEmpty()); }

TEST(RangePlanner, APartIsASixteenthOfTheWindow) {
  EXPECT_EQ(part_size_for(16 * kMiB), kMiB);
  EXPECT_EQ(part_size_for(32 * kMiB), 2 * kMiB);
}

TEST(RangePlanner, APartIsAPowerOfTwo) { EXPECT_EQ(part_size_for(31 * kMiB), kMiB); }

TEST(RangePlanner, APartIsNeitherTooSmallNorTooLarge) {
  EXPECT_EQ(part_size_for(0), 256 * kKiB);
  EXPECT_EQ(part_size_for(kMiB), 256 * kKiB);
  EXPECT_EQ(part_size_for(1024 * kMiB), 4 * kMiB);
}

}  // namespace
}  // namespace wormhole
