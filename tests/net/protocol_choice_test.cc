// TCP or QUIC: values in, values out, against servers that are two rates.
#include "net/protocol_choice.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

class ProtocolChoiceTest : public ::testing::Test {
 protected:
  // `count` requests of 4 MiB, at so many bytes per second each way. Returns how many went over QUIC.
  int run(ProtocolChoice& choice, int count, double tcp, double quic) {
    int over_quic = 0;
    for (int i = 0; i < count; ++i) {
      const Transport t = choice.next(now_);
      over_quic += t == Transport::kQuic;
      now_ += 50ms;
      const double rate = t == Transport::kQuic ? quic : tcp;
      if (rate == 0) {
        choice.failed(t, now_);
      } else {
        choice.arrived(t, 4 << 20,
                       std::chrono::duration_cast<Duration>(std::chrono::duration<double>((4 << 20) / rate)), now_);
      }
    }
    return over_quic;
  }

  TimePoint now_ = TimePoint{} + 1h;
};

TEST_F(ProtocolChoiceTest, WithoutAnOfferItIsTcp) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  EXPECT_EQ(run(c, 100, 1e6, 1e7), 0);
}

TEST_F(ProtocolChoiceTest, PlainHttpIsAlwaysTcp) {
  ProtocolChoice c(HttpVersion::k3, false, Transport::kQuic);
  c.offered();
  EXPECT_EQ(run(c, 100, 1e6, 1e7), 0);
}

TEST_F(ProtocolChoiceTest, TheFasterOneTakesAll) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  run(c, 40, 5e6, 10e6);
  EXPECT_EQ(c.chosen(), Transport::kQuic);
  EXPECT_EQ(run(c, 100, 5e6, 10e6), 100);
}

TEST_F(ProtocolChoiceTest, TheSlowerOneCostsAnEighthOfAFewRequests) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  EXPECT_LE(run(c, 400, 10e6, 1e6), 8);
  EXPECT_EQ(c.chosen(), Transport::kTcp);
}

TEST_F(ProtocolChoiceTest, ALittleFasterIsNotEnough) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  run(c, 40, 10e6, 11e6);
  EXPECT_EQ(c.chosen(), Transport::kTcp);
}

TEST_F(ProtocolChoiceTest, OneThatIsFarSlowerIsLeftWhileItStillRuns) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kQuic);
  EXPECT_FALSE(c.runs(Transport::kQuic, 4e6, 10e6, now_));  // slower, but not far
  EXPECT_EQ(c.chosen(), Transport::kQuic);
  EXPECT_TRUE(c.runs(Transport::kQuic, 1e6, 10e6, now_));
  EXPECT_EQ(c.chosen(), Transport::kTcp);
  EXPECT_EQ(run(c, 100, 10e6, 1e6), 0);  // and not tried again for a while
}

TEST_F(ProtocolChoiceTest, WhatWasAskedForIsNotLeft) {
  ProtocolChoice c(HttpVersion::k3, true, Transport::kQuic);
  EXPECT_FALSE(c.runs(Transport::kQuic, 1e6, 10e6, now_));
  EXPECT_EQ(c.next(now_), Transport::kQuic);
}

TEST_F(ProtocolChoiceTest, OneThatBecomesMuchSlowerIsComparedAtOnce) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  run(c, 40, 5e6, 10e6);
  ASSERT_EQ(c.chosen(), Transport::kQuic);
  run(c, 60, 5e6, 0.5e6);  // loss has set in
  EXPECT_EQ(c.chosen(), Transport::kTcp);
}

TEST_F(ProtocolChoiceTest, TheOtherOneIsTriedAgainLater) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  run(c, 40, 10e6, 1e6);
  now_ += 31s;
  run(c, 60, 5e6, 10e6);
  EXPECT_EQ(c.chosen(), Transport::kQuic);
}

TEST_F(ProtocolChoiceTest, WhereQuicDoesNotComeThroughItIsLeftAlone) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kTcp);
  c.offered();
  EXPECT_EQ(run(c, 100, 5e6, 0), 1);
  now_ += 2min;
  EXPECT_EQ(run(c, 100, 5e6, 0), 1);
  now_ += 5min;  // longer and longer
  EXPECT_EQ(run(c, 20, 5e6, 0), 0);
}

TEST_F(ProtocolChoiceTest, AskedForByOptionItIsQuicWhileThatWorks) {
  ProtocolChoice c(HttpVersion::k3, true, Transport::kTcp);
  EXPECT_EQ(run(c, 50, 10e6, 1e6), 50);
  c.failed(Transport::kQuic, now_);
  EXPECT_EQ(c.next(now_), Transport::kTcp);
}

TEST_F(ProtocolChoiceTest, BeginsWithWhatAnEarlierRunFound) {
  ProtocolChoice c(HttpVersion::kAuto, true, Transport::kQuic);
  EXPECT_GE(run(c, 4, 5e6, 10e6), 3);
}

TEST(OffersHttp3, OnTheSamePortOnly) {
  EXPECT_TRUE(offers_http3("h3=\":443\"; ma=2592000", "443"));
  EXPECT_TRUE(offers_http3("h3-29=\":443\", h3=\":8443\"; ma=60", "8443"));
  EXPECT_FALSE(offers_http3("h3=\":443\"", "8443"));
  EXPECT_FALSE(offers_http3("h2=\":443\"", "443"));
  EXPECT_FALSE(offers_http3("h3=\"other.example:443\"", "443"));
  EXPECT_FALSE(offers_http3("clear", "443"));
}

}  // namespace
}  // namespace wormhole
