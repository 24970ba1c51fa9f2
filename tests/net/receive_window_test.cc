// What TCP may have under way: values in, values out.
#include "net/receive_window.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(ReceiveWindow, AllOfThemTogetherHoldAPipeAndAPartOfTheQueue) {
  constexpr uint64_t kPipe = 60 * kMiB;
  for (const int n : {1, 4, 16, 64}) {
    const uint64_t all = receive_window(kPipe, n, false, 0) * static_cast<uint64_t>(n);
    EXPECT_GT(all, kPipe * 13 / 10) << n;
    EXPECT_LT(all, kPipe * 15 / 10) << n;
  }
}

TEST(ReceiveWindow, IdleConnectionsMakeUpForThoseThatWait) {
  EXPECT_GT(receive_window(60 * kMiB, 16, true, 0), receive_window(60 * kMiB, 16, false, 0));
  EXPECT_LT(receive_window(60 * kMiB, 16, true, 0) * 16, 60 * kMiB * 17 / 10);
}

TEST(ReceiveWindow, WhatComesOutOfOrderNeedsRoomOfItsOwn) {
  const uint64_t without = receive_window(60 * kMiB, 16, false, 0);
  EXPECT_NEAR(static_cast<double>(receive_window(60 * kMiB, 16, false, 0.5)), 2.0 * static_cast<double>(without), 2);
  EXPECT_NEAR(static_cast<double>(receive_window(60 * kMiB, 16, false, 0.99)), static_cast<double>(without) / 0.45, 4);
}

TEST(ReceiveWindow, ASmallPipeIsNotBound) {
  EXPECT_EQ(receive_window(100'000, 1, false, 0), 8 * kMiB);
  EXPECT_EQ(receive_window(100'000, 8, false, 0), kMiB);
}

TEST(ReceiveWindow, OfAnUnknownPipeTheFirstMegabytesAreBound) { EXPECT_EQ(receive_window(0, 16, false, 0), kMiB / 2); }

TEST(ReceiveWindow, EachHasRoomForALittle) { EXPECT_EQ(receive_window(kMiB, 1000, false, 0), 128 * 1024u); }

}  // namespace
}  // namespace wormhole
