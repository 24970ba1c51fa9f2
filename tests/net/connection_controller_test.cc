// The hill climb on goodput: values in, values out, against links that are formulas.
#include "net/connection_controller.h"

#include <gtest/gtest.h>

#include <functional>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

class ConnectionControllerTest : public ::testing::Test {
 protected:
  // Lets `seconds` pass on a link that gives `rate(connections)` bytes per second, saturated.
  void run(ConnectionController& c, int seconds, const std::function<double(int)>& rate) {
    for (int i = 0; i < seconds * 10; ++i) {
      now_ += 100ms;
      c.observe(static_cast<uint64_t>(rate(c.allowed()) / 10), true, now_);
      most_seen_ = std::max(most_seen_, c.allowed());
    }
  }

  TimePoint now_ = TimePoint{} + 1h;
  int most_seen_ = 0;
};

TEST_F(ConnectionControllerTest, WhereEachConnectionAddsItsShareAllAreUsed) {
  ConnectionController c(16, 64);
  run(c, 120, [](int n) { return n * 1e6; });
  EXPECT_GE(c.allowed(), 48);
}

TEST_F(ConnectionControllerTest, WhereTheWireIsFullNoneIsAddedForLong) {
  ConnectionController c(16, 64);
  run(c, 120, [](int n) { return std::min(n * 10e6, 100e6); });
  EXPECT_LE(c.allowed(), 16);
  EXPECT_LE(most_seen_, 24);  // one trial
}

TEST_F(ConnectionControllerTest, ThoseThatAddNothingAreGivenUp) {
  ConnectionController c(16, 64);
  run(c, 300, [](int) { return 100e6; });
  EXPECT_LE(c.allowed(), 8);
  EXPECT_GE(c.allowed(), 4);
}

TEST_F(ConnectionControllerTest, ALinkThatBecomesWiderIsFound) {
  ConnectionController c(16, 64);
  run(c, 60, [](int n) { return std::min(n * 10e6, 100e6); });
  run(c, 300, [](int n) { return n * 10e6; });
  EXPECT_GE(c.allowed(), 32);
}

TEST_F(ConnectionControllerTest, ANumberThatIsNotUsedIsNotJudged) {
  ConnectionController c(16, 64);
  for (int i = 0; i < 1000; ++i) {
    now_ += 100ms;
    c.observe(static_cast<uint64_t>(i) * 1000, false, now_);
  }
  EXPECT_EQ(c.allowed(), 16);
}

TEST_F(ConnectionControllerTest, AServerThatWantsFewerGetsHalfAtOnceAndIsLeftAloneForAMinute) {
  ConnectionController c(16, 64);
  c.back_off(now_);
  EXPECT_EQ(c.allowed(), 8);
  run(c, 55, [](int n) { return n * 1e6; });
  EXPECT_EQ(c.allowed(), 8);
  run(c, 60, [](int n) { return n * 1e6; });
  EXPECT_GT(c.allowed(), 8);
}

TEST_F(ConnectionControllerTest, OneConnectionIsAlwaysLeft) {
  ConnectionController c(2, 64);
  for (int i = 0; i < 5; ++i) c.back_off(now_);
  EXPECT_EQ(c.allowed(), 1);
}

TEST_F(ConnectionControllerTest, TheMostIsNeverExceeded) {
  ConnectionController c(16, 20);
  run(c, 300, [](int n) { return n * 1e6; });
  EXPECT_LE(most_seen_, 20);
}

}  // namespace
}  // namespace wormhole
