// base/block.h and base/byte_range.h: arithmetic at the edges.
#include "base/block.h"

#include <gtest/gtest.h>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

TEST(ByteRange, IsHalfOpen) {
  const ByteRange r = ByteRange::of(10, 5);
  EXPECT_EQ(r, (ByteRange{10, 15}));
  EXPECT_EQ(r.size(), 5u);
  EXPECT_TRUE(r.contains(10));
  EXPECT_TRUE(r.contains(14));
  EXPECT_FALSE(r.contains(15));
  EXPECT_FALSE(r.contains(9));
}

TEST(ByteRange, OneWithoutBytesIsEmpty) {
  EXPECT_TRUE(ByteRange{}.empty());
  EXPECT_TRUE((ByteRange{7, 7}).empty());
  EXPECT_FALSE((ByteRange{7, 8}).empty());
}

TEST(ByteRange, ContainsARangeUpToItsOwnEdges) {
  const ByteRange r{10, 20};
  EXPECT_TRUE(r.contains(r));
  EXPECT_TRUE(r.contains(ByteRange{12, 20}));
  EXPECT_FALSE(r.contains(ByteRange{9, 20}));
  EXPECT_FALSE(r.contains(ByteRange{10, 21}));
}

TEST(ByteRange, NeighboursDoNotOverlap) {
  EXPECT_FALSE((ByteRange{0, 10}).overlaps(ByteRange{10, 20}));
  EXPECT_FALSE((ByteRange{10, 20}).overlaps(ByteRange{0, 10}));
  EXPECT_TRUE((ByteRange{0, 11}).overlaps(ByteRange{10, 20}));
  EXPECT_TRUE((ByteRange{12, 13}).overlaps(ByteRange{10, 20}));
}

TEST(ByteRange, TheIntersectionIsTheCommonPart) {
  EXPECT_EQ((ByteRange{0, 15}).intersect(ByteRange{10, 20}), (ByteRange{10, 15}));
  EXPECT_EQ((ByteRange{10, 20}).intersect(ByteRange{0, 100}), (ByteRange{10, 20}));
}

TEST(ByteRange, WithoutACommonPartTheIntersectionIsEmpty) {
  EXPECT_EQ((ByteRange{0, 10}).intersect(ByteRange{10, 20}), ByteRange{});
  EXPECT_EQ((ByteRange{0, 10}).intersect(ByteRange{30, 40}), ByteRange{});
}

TEST(Block, AnOffsetBelongsToTheBlockItLiesIn) {
  EXPECT_EQ(block_of(0), 0u);
  EXPECT_EQ(block_of(kBlockSize - 1), 0u);
  EXPECT_EQ(block_of(kBlockSize), 1u);
}

TEST(Block, TheLastBlockCountsHoweverShortItIs) {
  EXPECT_EQ(block_count(0), 0u);
  EXPECT_EQ(block_count(1), 1u);
  EXPECT_EQ(block_count(kBlockSize), 1u);
  EXPECT_EQ(block_count(kBlockSize + 1), 2u);
}

TEST(Block, TheLastBlockIsAsLongAsTheBytesThatAreLeft) {
  EXPECT_EQ(block_range(0, kBlockSize + 1), (ByteRange{0, kBlockSize}));
  EXPECT_EQ(block_range(1, kBlockSize + 1), (ByteRange{kBlockSize, kBlockSize + 1}));
  EXPECT_EQ(block_range(0, 5), (ByteRange{0, 5}));
}

TEST(Block, ARangeIsWidenedToWholeBlocks) {
  const uint64_t size = 10 * kBlockSize;
  EXPECT_EQ(align_to_blocks({1, 2}, size), (ByteRange{0, kBlockSize}));
  EXPECT_EQ(align_to_blocks({kBlockSize - 1, kBlockSize + 1}, size), (ByteRange{0, 2 * kBlockSize}));
  EXPECT_EQ(align_to_blocks({kBlockSize, 2 * kBlockSize}, size), (ByteRange{kBlockSize, 2 * kBlockSize}));
}

TEST(Block, ARangeIsWidenedToTheEndOfTheObjectAndNotBeyond) {
  const uint64_t size = 2 * kBlockSize + 7;
  EXPECT_EQ(align_to_blocks({2 * kBlockSize + 1, 2 * kBlockSize + 2}, size), (ByteRange{2 * kBlockSize, size}));
}

TEST(Block, ARegionHasOneBitInAWordForEachBlock) {
  EXPECT_EQ(kBlocksPerRegion, 64u);
  EXPECT_EQ(kRegionSize, kBlocksPerRegion * kBlockSize);
}

}  // namespace
}  // namespace wormhole
