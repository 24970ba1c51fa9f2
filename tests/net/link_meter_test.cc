// What is believed of the wire, from what came over it: values in, values out.
#include "net/link_meter.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using Load = LinkMeter::Load;

class LinkMeterTest : public ::testing::Test {
 protected:
  void pass(Duration time, double rate, Load load) {
    for (Duration t{}; t < time; t += 100ms) {
      now_ += 100ms;
      meter_.observe(static_cast<uint64_t>(rate / 10), load, now_);
    }
  }

  LinkMeter meter_{0, {}};
  TimePoint now_ = TimePoint{} + 1h;
};

TEST_F(LinkMeterTest, KnowsNothingBeforeHalfASecondOfWork) {
  pass(300ms, 50e6, Load::kSome);
  EXPECT_EQ(meter_.rate(), 0u);
  EXPECT_EQ(meter_.round_trip(), Duration{});
}

TEST_F(LinkMeterTest, TakesTheBestHalfSecond) {
  pass(1s, 10e6, Load::kSome);
  pass(1s, 50e6, Load::kSome);
  pass(3s, 20e6, Load::kSome);
  EXPECT_NEAR(static_cast<double>(meter_.rate()), 50e6, 15e6);
}

TEST_F(LinkMeterTest, AReaderWhoWantsLittleDoesNotMakeTheWireSlow) {
  pass(2s, 50e6, Load::kSaturated);
  const uint64_t before = meter_.rate();
  pass(60s, 1e6, Load::kSome);
  EXPECT_EQ(meter_.rate(), before);
}

TEST_F(LinkMeterTest, AWireThatBecomesSlowIsNoticedWithinSeconds) {
  pass(2s, 50e6, Load::kSaturated);
  pass(10s, 5e6, Load::kSaturated);
  EXPECT_LT(meter_.rate(), 10'000'000u);
  EXPECT_GT(meter_.rate(), 4'000'000u);
}

TEST_F(LinkMeterTest, AFileThatWasThereInLessThanThatCountsWhenItEnds) {
  pass(300ms, 50e6, Load::kSome);
  pass(100ms, 0, Load::kIdle);
  EXPECT_NEAR(static_cast<double>(meter_.rate()), 50e6, 15e6);
}

TEST_F(LinkMeterTest, ABlockSaysNothingOfTheRate) {
  pass(300ms, 1e6, Load::kSome);
  pass(100ms, 0, Load::kIdle);
  EXPECT_EQ(meter_.rate(), 0u);
}

TEST_F(LinkMeterTest, IdleTimeCountsForNothing) {
  pass(2s, 50e6, Load::kSaturated);
  const uint64_t before = meter_.rate();
  pass(60s, 0, Load::kIdle);
  EXPECT_EQ(meter_.rate(), before);
}

TEST_F(LinkMeterTest, TheRoundTripIsTheLeastOfTheLatestFirstBytes) {
  for (const auto ms : {80ms, 52ms, 300ms, 61ms}) meter_.first_byte(ms);
  EXPECT_EQ(meter_.round_trip(), 52ms);
  for (int i = 0; i < 32; ++i) meter_.first_byte(90ms);
  EXPECT_EQ(meter_.round_trip(), 90ms);
}

TEST_F(LinkMeterTest, BeginsWithWhatAnEarlierRunKnew) {
  LinkMeter known(7'000'000, 40ms);
  EXPECT_EQ(known.rate(), 7'000'000u);
  EXPECT_EQ(known.round_trip(), 40ms);
  known.first_byte(20ms);
  EXPECT_EQ(known.round_trip(), 20ms);
}

}  // namespace
}  // namespace wormhole
