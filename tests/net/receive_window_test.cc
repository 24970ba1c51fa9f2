// What TCP may have under way: values in, values out.
#include "net/receive_window.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kMiB = 1 << 20;
constexpr TimePoint kNormal = TimePoint{} + 1s;  // not in the half second that probes

TEST(ReceiveWindow, AllOfThemTogetherHoldAPipeAndAPartOfTheQueue) {
  constexpr uint64_t kPipe = 60 * kMiB;
  for (const int n : {1, 4, 16, 64}) {
    const uint64_t all = receive_window(kPipe, n, kNormal) * static_cast<uint64_t>(n);
    EXPECT_GT(all, kPipe * 3 / 2) << n;
    EXPECT_LT(all, kPipe * 17 / 10) << n;
  }
}

TEST(ReceiveWindow, ASmallPipeIsNotBound) {
  EXPECT_EQ(receive_window(100'000, 1, kNormal), 8 * kMiB);
  EXPECT_EQ(receive_window(100'000, 8, kNormal), kMiB);
}

TEST(ReceiveWindow, EachHasRoomForALittle) { EXPECT_EQ(receive_window(kMiB, 1000, kNormal), 128 * 1024u); }

TEST(ReceiveWindow, HalfASecondInEightItIsWider) {
  int wide = 0;
  for (int i = 0; i < 160; ++i)
    wide += receive_window(60 * kMiB, 16, TimePoint{} + i * 500ms) > 60 * kMiB / 16 * 18 / 10;
  EXPECT_EQ(wide, 10);
}

}  // namespace
}  // namespace wormhole
