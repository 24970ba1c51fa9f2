#include "manifest/hash_tree.h"

#include <gtest/gtest.h>

#include <random>

#include "manifest/blake3.h"

namespace wormhole {
namespace {

struct Tree {
  std::vector<std::byte> content;
  std::vector<std::byte> tree;
  Hash256 hash;

  explicit Tree(uint64_t size, uint32_t seed = 1) : content(size) {
    std::mt19937 chance(seed);
    for (std::byte& b : content) b = static_cast<std::byte>(chance());
    HashTreeBuilder builder(size);
    for (BlockIndex b = 0; b < block_count(size); ++b) builder.set(b, blake3_block(block(b), b));
    hash = builder.finish(&tree);
  }
  std::span<const std::byte> block(BlockIndex b) const {
    const ByteRange range = block_range(b, content.size());
    return std::span(content).subspan(range.begin, range.size());
  }
  std::span<const std::byte> part(ByteRange range) const { return std::span(tree).subspan(range.begin, range.size()); }
};

TEST(HashTreeTest, AFileOfOneBlockNeedsNone) {
  const std::string content(1000, 'x');
  HashTree tree(1000, blake3(content));
  EXPECT_EQ(tree.shape().levels(), 0u);
  EXPECT_EQ(tree.shape().bytes(), 0u);
  EXPECT_TRUE(tree.missing(0).empty());
  EXPECT_TRUE(tree.matches(0, std::as_bytes(std::span(content))));
  EXPECT_FALSE(tree.matches(0, std::as_bytes(std::span(content)).first(999)));
}

TEST(HashTreeTest, LevelsHaveAnEntryForEach64OfTheOneBelow) {
  const HashTreeShape shape(uint64_t{1} << 40);  // 1 TiB
  ASSERT_EQ(shape.levels(), 4u);
  EXPECT_EQ(shape.nodes(0), uint64_t{1} << 24);
  EXPECT_EQ(shape.nodes(3), 64u);
  EXPECT_EQ(shape.group_range(3, 0), (ByteRange{0, 2048}));
  EXPECT_EQ(shape.group_range(2, 0), (ByteRange{2048, 4096}));
}

TEST(HashTreeTest, TheHashIsTheFiles) {
  for (const uint64_t size :
       {kBlockSize + 1, 64 * kBlockSize, 64 * kBlockSize + 1, 65 * kBlockSize, 200 * kBlockSize + 7}) {
    const Tree t(size);
    EXPECT_EQ(t.hash, blake3(t.content)) << size;
    EXPECT_EQ(t.tree.size(), HashTreeShape(size).bytes()) << size;
  }
}

TEST(HashTreeTest, ABlockIsCheckedWithAGroupOfEachLevel) {
  const Tree t(200 * kBlockSize + 7);
  HashTree tree(t.content.size(), t.hash);
  for (const BlockIndex block : {150u, 3u, 200u}) {
    const auto missing = tree.missing(block);
    ASSERT_EQ(missing.size(), block == 150 ? 2u : 1u);
    for (const ByteRange& range : missing) ASSERT_TRUE(tree.add(range, t.part(range)));
    EXPECT_TRUE(tree.missing(block).empty());
    EXPECT_TRUE(tree.matches(block, t.block(block)));
    EXPECT_FALSE(tree.matches(block, t.block(block - 1)));
  }
}

TEST(HashTreeTest, OneWrongBitAnywhereIsRefused) {
  const Tree t(200 * kBlockSize + 7);
  for (size_t at = 0; at < t.tree.size(); at += 37) {
    Tree wrong = t;
    wrong.tree[at] ^= std::byte{4};
    HashTree tree(t.content.size(), t.hash);
    bool refused = false;
    for (BlockIndex block = 0; block < block_count(t.content.size()); block += kTreeFanout) {
      for (const ByteRange& range : tree.missing(block)) {
        if (!tree.add(range, wrong.part(range))) {
          refused = true;
          break;
        }
      }
    }
    ASSERT_TRUE(refused) << at;
  }
}

TEST(HashTreeTest, AWholeTreeIsCheckedAtOnce) {
  const Tree t(200 * kBlockSize + 7);
  EXPECT_TRUE(is_tree_of(t.content.size(), t.hash, t.tree));
  EXPECT_FALSE(is_tree_of(t.content.size(), blake3("another"), t.tree));
  EXPECT_FALSE(is_tree_of(t.content.size(), t.hash, std::span(t.tree).first(t.tree.size() - 32)));
  EXPECT_FALSE(is_tree_of(1000, t.hash, {}));
  for (size_t at = 0; at < t.tree.size(); at += 31) {
    std::vector<std::byte> wrong = t.tree;
    wrong[at] ^= std::byte{1};
    ASSERT_FALSE(is_tree_of(t.content.size(), t.hash, wrong)) << at;
  }
}

TEST(HashTreeTest, WhatIsNoGroupIsRefused) {
  const Tree t(200 * kBlockSize + 7);
  HashTree tree(t.content.size(), t.hash);
  const ByteRange top = tree.missing(0).front();
  EXPECT_FALSE(tree.add({top.begin, top.end - 1}, t.part({top.begin, top.end - 1})));
  EXPECT_FALSE(tree.add({t.tree.size(), t.tree.size() + 32}, std::vector<std::byte>(32)));
  const ByteRange below = tree.missing(0).back();
  EXPECT_FALSE(tree.add(below, t.part(below))) << "before the one above it";
  EXPECT_TRUE(tree.add(top, t.part(top)));
  EXPECT_TRUE(tree.add(below, t.part(below)));
}

}  // namespace
}  // namespace wormhole
