#include "base/buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace wormhole {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class BufferTest : public ::testing::Test {
 protected:
  Metrics metrics_;
  BufferPool pool_{8 * kMiB, metrics_};
};

TEST_F(BufferTest, ABufferIsPageAlignedAndAtLeastAsLargeAsAsked) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{4097}, size_t{65536}, size_t{100'000}, size_t{17 * kMiB}}) {
    const BufferRef b = pool_.allocate(size);
    EXPECT_GE(b->capacity(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b->data()) % 4096, 0u) << size;
    std::memset(b->data(), 1, b->capacity());
  }
}

TEST_F(BufferTest, AWholeBlockIsNotRoundedUp) { EXPECT_EQ(pool_.allocate(65536)->capacity(), 65536u); }

TEST_F(BufferTest, WhatIsOutIsCounted) {
  EXPECT_EQ(pool_.outstanding(), 0u);
  BufferRef a = pool_.allocate(65536);
  BufferRef b = pool_.allocate(5000);
  EXPECT_EQ(pool_.outstanding(), 65536u + 8192);
  EXPECT_EQ(metrics_.buffer_bytes, 65536 + 8192);
  a.reset();
  EXPECT_EQ(pool_.outstanding(), 8192u);
  b.reset();
  EXPECT_EQ(pool_.outstanding(), 0u);
}

TEST_F(BufferTest, ABufferIsBackWhenItsLastUserLetsGo) {
  BufferRef reader = pool_.allocate(65536);
  BufferRef disk = reader;
  reader.reset();
  EXPECT_EQ(pool_.outstanding(), 65536u);
  disk.reset();
  EXPECT_EQ(pool_.outstanding(), 0u);
}

TEST_F(BufferTest, ThereIsRoomUpToTheBudget) {
  EXPECT_TRUE(pool_.has_room(8 * kMiB));
  EXPECT_FALSE(pool_.has_room(8 * kMiB + 1));
  const BufferRef b = pool_.allocate(kMiB);
  EXPECT_TRUE(pool_.has_room(7 * kMiB));
  EXPECT_FALSE(pool_.has_room(7 * kMiB + 1));
}

TEST_F(BufferTest, ABufferIsGivenEvenAboveTheBudget) {
  std::vector<BufferRef> all;
  for (int i = 0; i < 10; ++i) all.push_back(pool_.allocate(kMiB));
  EXPECT_EQ(pool_.outstanding(), 10 * kMiB);
  EXPECT_FALSE(pool_.has_room(1));
}

TEST_F(BufferTest, ABufferThatCameBackIsTheNextOneOfItsSize) {
  BufferRef first = pool_.allocate(65536);
  const std::byte* memory = first->data();
  first.reset();
  const BufferRef second = pool_.allocate(60'000);
  EXPECT_EQ(second->data(), memory);
}

TEST_F(BufferTest, ABufferOfAnotherSizeIsNotReused) {
  BufferRef first = pool_.allocate(65536);
  const std::byte* memory = first->data();
  first.reset();
  EXPECT_NE(pool_.allocate(4096)->data(), memory);
}

TEST_F(BufferTest, UnusedMemoryIsKeptUpToHalfOfTheBudget) {
  std::vector<BufferRef> burst;
  std::set<const std::byte*> seen;
  for (int i = 0; i < 8; ++i) {
    burst.push_back(pool_.allocate(kMiB));
    seen.insert(burst.back()->data());
    *burst.back()->data() = std::byte{0xaa};
  }
  burst.clear();
  // Four of them are still there with their contents; what is mapped afresh is zero.
  int kept = 0;
  for (int i = 0; i < 8; ++i) {
    burst.push_back(pool_.allocate(kMiB));
    kept += *burst.back()->data() == std::byte{0xaa} ? 1 : 0;
  }
  EXPECT_EQ(kept, 4);
}

TEST_F(BufferTest, ManyThreadsMayAllocateAndRelease) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 500; ++i) {
        const BufferRef b = pool_.allocate(4096u << (i % 5));
        std::memset(b->data(), t, 64);
        for (int k = 0; k < 64; ++k) ASSERT_EQ(b->data()[k], static_cast<std::byte>(t));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(pool_.outstanding(), 0u);
}

}  // namespace
}  // namespace wormhole
