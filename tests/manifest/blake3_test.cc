#include "manifest/blake3.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/pattern.h"

namespace wormhole {
namespace {

// The input of the official test vectors: 0, 1, ..., 250, 0, 1, ...
std::vector<std::byte> official_input(size_t size) {
  std::vector<std::byte> out(size);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i % 251);
  return out;
}

TEST(Blake3Test, OfficialVectors) {
  EXPECT_EQ(blake3("").hex(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
  EXPECT_EQ(blake3(official_input(1)).hex(), "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
  EXPECT_EQ(blake3(official_input(1025)).hex(), "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444");
}

TEST(Blake3Test, PieceByPieceIsTheSame) {
  const auto input = official_input(300'001);
  Blake3 pieces;
  pieces.update(std::span(input).first(65'537));
  pieces.update(std::span(input).subspan(65'537));
  EXPECT_EQ(pieces.finish(), blake3(input));
}

// The hash told from the nodes of the blocks is the hash of the bytes, whatever the length of the last block.
TEST(Blake3Test, NodesOfBlocksMakeTheHash) {
  for (const uint64_t blocks : {2u, 3u, 4u, 5u, 7u, 8u, 63u, 64u}) {
    for (const uint64_t last :
         {1u, 63u, 64u, 65u, 1023u, 1024u, 1025u, 2048u, 2049u, 3073u, 5000u, 32768u, 37'889u, 65'535u, 65'536u}) {
      const uint64_t size = (blocks - 1) * kBlockSize + last;
      const auto input = official_input(size);
      std::vector<Hash256> nodes;
      for (BlockIndex b = 0; b < blocks; ++b) {
        const ByteRange range = block_range(b, size);
        nodes.push_back(blake3_block(std::span(input).subspan(range.begin, range.size()), b));
      }
      ASSERT_EQ(blake3_parent(nodes, true), blake3(input)) << blocks << " blocks, the last of " << last;
    }
  }
}

TEST(Blake3Test, TheSameBytesElsewhereAreAnotherNode) {
  const auto input = official_input(kBlockSize);
  EXPECT_NE(blake3_block(input, 0), blake3_block(input, 1));
  EXPECT_NE(blake3_block(input, 0), blake3(input));
}

}  // namespace
}  // namespace wormhole
