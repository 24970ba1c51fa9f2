// What TCP may have under way: values in, values out.
#include "net/receive_window.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A wire of 1 GB/s and 60 ms.
constexpr uint64_t kRate = 1000 * kMiB;
constexpr uint64_t kPipe = 60 * kMiB;

double all(int connections, bool idle, double out_of_order) {
  return static_cast<double>(receive_window(kRate, kPipe, connections, idle, out_of_order)) * connections;
}

TEST(ReceiveWindow, AllOfThemTogetherHoldAPipeAndAPartOfTheQueue) {
  for (const int n : {1, 4, 16, 64}) EXPECT_NEAR(all(n, false, 0) / kPipe, 1.4, 0.01) << n;
}

TEST(ReceiveWindow, IdleConnectionsMakeUpForThoseThatWait) { EXPECT_NEAR(all(16, true, 0) / kPipe, 1.6, 0.01); }

TEST(ReceiveWindow, WhatComesOutOfOrderNeedsRoomOfItsOwn) {
  EXPECT_NEAR(all(16, false, 0.5) / kPipe, 2.8, 0.01);
  EXPECT_NEAR(all(16, false, 0.99) / kPipe, 1.4 / 0.45, 0.01);
}

TEST(ReceiveWindow, ASlowWireHoldsAQuarterOfASecond) {
  EXPECT_EQ(receive_window(12 * kMiB, kMiB, 1, false, 0), 3 * kMiB);
  EXPECT_EQ(receive_window(kMiB, kMiB / 10, 1, false, 0), 2 * kMiB);
  EXPECT_EQ(receive_window(kRate, kMiB, 1, false, 0), 8 * kMiB);
}

TEST(ReceiveWindow, OfAnUnknownWireTheFirstMegabytesAreBound) {
  EXPECT_EQ(receive_window(0, 0, 16, false, 0), kMiB / 2);
}

TEST(ReceiveWindow, EachHasRoomForALittle) { EXPECT_EQ(receive_window(kMiB, kMiB, 1000, false, 0), 128 * 1024u); }

}  // namespace
}  // namespace wormhole
