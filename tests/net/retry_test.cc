#include "net/retry.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

constexpr RetryPolicy kPolicy{.base = 100ms, .longest = 1s, .attempts = 6};

std::optional<Duration> delay(int attempt, double jitter = 1, std::optional<Duration> retry_after = std::nullopt,
                              ErrorCode error = ErrorCode::kUnreachable) {
  return retry_delay(kPolicy, error, attempt, jitter, retry_after);
}

TEST(Retry, EachWaitIsTwiceTheOneBefore) {
  EXPECT_EQ(delay(1), 100ms);
  EXPECT_EQ(delay(2), 200ms);
  EXPECT_EQ(delay(3), 400ms);
}

TEST(Retry, NoWaitIsLongerThanTheLongest) { EXPECT_EQ(delay(5), 1s); }

TEST(Retry, TheJitterTakesAtMostHalfOfIt) {
  EXPECT_EQ(delay(1, 0), 50ms);
  EXPECT_EQ(delay(1, 0.5), 75ms);
}

TEST(Retry, AfterTheLastAttemptItIsGivenUp) {
  EXPECT_NE(delay(5), std::nullopt);
  EXPECT_EQ(delay(6), std::nullopt);
  EXPECT_EQ(delay(7), std::nullopt);
}

TEST(Retry, AServerThatNamesATimeIsObeyed) {
  EXPECT_EQ(delay(1, 1, 7s), 7s);
  EXPECT_EQ(delay(1, 1, 0s), 100ms);
}

TEST(Retry, NamingATimeDoesNotAddAttempts) { EXPECT_EQ(delay(6, 1, 7s), std::nullopt); }

TEST(Retry, OnlyWhatMayEndOtherwiseIsTriedAgain) {
  for (const ErrorCode e : {ErrorCode::kUnreachable, ErrorCode::kTimedOut, ErrorCode::kBadResponse}) {
    EXPECT_TRUE(delay(1, 1, std::nullopt, e)) << to_string(e);
  }
  for (const ErrorCode e : {ErrorCode::kNotFound, ErrorCode::kForbidden, ErrorCode::kUnauthorized, ErrorCode::kStale,
                            ErrorCode::kNoRanges, ErrorCode::kTls, ErrorCode::kInvalid, ErrorCode::kCancelled}) {
    EXPECT_FALSE(delay(1, 1, std::nullopt, e)) << to_string(e);
  }
}

TEST(Retry, VeryManyAttemptsDoNotOverflow) {
  const RetryPolicy endless{.base = 100ms, .longest = 5s, .attempts = 1'000'000};
  EXPECT_EQ(retry_delay(endless, ErrorCode::kUnreachable, 999'999, 1, std::nullopt), 5s);
}

}  // namespace
}  // namespace wormhole
