// A bound on bytes per second: values in, values out.
#include "net/rate_limit.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

TEST(RateLimitTest, WithoutALimitItIsAlwaysOpen) {
  RateLimit limit(0);
  limit.take(uint64_t{1} << 40);
  EXPECT_TRUE(limit.open(TimePoint{} + 1h));
}

TEST(RateLimitTest, OverSecondsItIsWhatWasAskedFor) {
  RateLimit limit(1'000'000);
  TimePoint now = TimePoint{} + 1h;
  uint64_t taken = 0;
  for (int ms = 0; ms < 10'000; ++ms, now += 1ms) {
    while (limit.open(now)) {
      limit.take(16'000);
      taken += 16'000;
    }
  }
  EXPECT_NEAR(static_cast<double>(taken), 10e6, 0.4e6);
}

TEST(RateLimitTest, AnIdleHourIsNotSavedUp) {
  RateLimit limit(1'000'000);
  TimePoint now = TimePoint{} + 1h;
  EXPECT_TRUE(limit.open(now));
  now += 1h;
  uint64_t taken = 0;
  while (limit.open(now)) {
    limit.take(1000);
    taken += 1000;
  }
  EXPECT_LE(taken, 251'000u);
}

}  // namespace
}  // namespace wormhole
