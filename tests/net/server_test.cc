// Which of several servers is asked; how one that fails is left alone; what is remembered of it.
#include "net/server.h"

#include <gtest/gtest.h>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;

Url url(const char* text) { return *Url::parse(text); }

class ServersTest : public ::testing::Test {
 protected:
  ServersTest() {
    add("http://origin.example/tree/", ServerRole::kOrigin);
    add("https://mirror.example/pub/tree", ServerRole::kMirror);
  }
  void add(const char* base, ServerRole role) {
    servers_.push_back(std::make_unique<Server>(url(base), role, HttpVersion::kAuto, HostProfile{}, 64, false));
  }
  void has_rate(Server& s, double rate) {
    for (int i = 0; i < 10; ++i) {
      now_ += 100ms;
      s.meter.observe(static_cast<uint64_t>(rate / 10), LinkMeter::Load::kSaturated, now_);
    }
  }
  Server* choose(const Server* avoid = nullptr, bool by_content = false) {
    return choose_server(servers_, {file_, 1 << 20, by_content}, avoid, now_);
  }
  Server& origin() { return *servers_[0]; }
  Server& mirror() { return *servers_[1]; }

  static constexpr const char* kFile = "http://origin.example/tree/a/b%20c";
  const std::string file_ = kFile;
  std::vector<std::unique_ptr<Server>> servers_;
  TimePoint now_ = TimePoint{} + 1h;
};

TEST_F(ServersTest, APathIsTheSameBelowEachBase) {
  EXPECT_EQ(origin().url_of(kFile, origin().base), kFile);
  EXPECT_EQ(mirror().url_of(kFile, origin().base), "https://mirror.example/pub/tree/a/b%20c");
  EXPECT_EQ(mirror().origin_url_of("https://mirror.example/pub/tree/a/", origin().base),
            "http://origin.example/tree/a/");
}

TEST_F(ServersTest, TheFasterOneIsAsked) {
  has_rate(origin(), 1e6);
  has_rate(mirror(), 50e6);
  EXPECT_EQ(choose(), &mirror());
  has_rate(origin(), 500e6);
  EXPECT_EQ(choose(), &origin());
}

TEST_F(ServersTest, WhatIsUnderWayCounts) {
  has_rate(origin(), 10e6);
  has_rate(mirror(), 50e6);
  mirror().outstanding = 100 << 20;
  EXPECT_EQ(choose(), &origin());
}

TEST_F(ServersTest, AMirrorThatNobodyHasMeasuredIsMeasured) {
  has_rate(origin(), 100e6);
  origin().outstanding = 1 << 20;
  EXPECT_EQ(choose(), &mirror());
}

TEST_F(ServersTest, AMirrorThatLacksAFileIsNotAskedForIt) {
  has_rate(mirror(), 500e6);
  mirror().lacks.insert(kFile);
  EXPECT_EQ(choose(), &origin());
}

TEST_F(ServersTest, OneThatFailsRestsAndComesBack) {
  has_rate(mirror(), 500e6);
  for (int i = 0; i < 3; ++i) mirror().breaker.failed(now_);
  EXPECT_EQ(choose(), &origin());
  now_ += 3s;
  ASSERT_EQ(choose(), &mirror());
  mirror().breaker.started(now_);
  EXPECT_EQ(choose(), &origin());  // one trial at a time
  mirror().breaker.succeeded();
  EXPECT_EQ(choose(), &mirror());
}

TEST_F(ServersTest, WhereAllRestNobodyIsAsked) {
  for (auto& s : servers_) {
    for (int i = 0; i < 3; ++i) s->breaker.failed(now_);
  }
  EXPECT_EQ(choose(), nullptr);
}

TEST_F(ServersTest, AnotherOneIsPreferredToTheOneThatHasJustFailed) {
  has_rate(origin(), 500e6);
  has_rate(mirror(), 1e6);
  EXPECT_EQ(choose(&origin()), &mirror());
}

TEST(BreakerTest, RestsLongerEachTime) {
  Breaker b;
  TimePoint now = TimePoint{} + 1h;
  for (int i = 0; i < 3; ++i) b.failed(now);
  EXPECT_FALSE(b.allows(now + 1s));
  EXPECT_TRUE(b.allows(now + 2s));
  now += 2s;
  b.started(now);
  b.failed(now);
  EXPECT_FALSE(b.allows(now + 3s));
  EXPECT_TRUE(b.allows(now + 4s));
}

TEST(BreakerTest, FailuresBetweenSuccessesAreForgotten) {
  Breaker b;
  const TimePoint now = TimePoint{} + 1h;
  for (int i = 0; i < 10; ++i) {
    b.failed(now);
    b.failed(now);
    b.succeeded();
  }
  EXPECT_TRUE(b.allows(now));
}

TEST(HostProfileTest, ComesBackAsItWas) {
  const HostProfile p{117'000'000, 50ms, 16, Transport::kQuic};
  EXPECT_EQ(decode_host_profile(encode(p)), p);
}

TEST(HostProfileTest, UnknownNamesAreSkippedAndMissingOnesAreUnknown) {
  const auto p = decode_host_profile("rate=5 colour=blue");
  ASSERT_TRUE(p);
  EXPECT_EQ(*p, (HostProfile{5, {}, 0, Transport::kTcp}));
  EXPECT_EQ(decode_host_profile(""), HostProfile{});
}

TEST(HostProfileTest, WhatIsNoneIsRefused) {
  for (const char* text :
       {"rate=", "rate=-1", "rate=5x", "rate", "transport=pigeon", "connections=9999999999999999999999"})
    EXPECT_FALSE(decode_host_profile(text)) << text;
}

TEST(HostProfileTest, ValuesThatNoServerHasAreCut) {
  EXPECT_EQ(decode_host_profile("connections=100000")->connections, 256);
  EXPECT_EQ(decode_host_profile("round_trip_us=999999999999")->round_trip, 60s);
}

TEST_F(ServersTest, AMirrorOfAManifestBringsWhatIsCheckedAndNothingElse) {
  add("http://named.example/", ServerRole::kContentMirror);
  Server& named = *servers_[2];
  has_rate(origin(), 1e6);
  has_rate(mirror(), 1e6);
  has_rate(named, 50e6);
  EXPECT_NE(choose(), &named);
  EXPECT_EQ(choose(nullptr, true), &named);
  named.named = false;
  EXPECT_NE(choose(nullptr, true), &named);
}

TEST_F(ServersTest, WhoHasSentWrongBytesOfAFileIsAskedForItLast) {
  has_rate(origin(), 1e6);
  has_rate(mirror(), 50e6);
  mirror().wrong.insert(kFile);
  EXPECT_EQ(choose(nullptr, true), &origin());
  origin().wrong.insert(kFile);
  EXPECT_EQ(choose(&mirror(), true), &origin());
  EXPECT_EQ(choose(&origin(), true), &mirror());
}

}  // namespace
}  // namespace wormhole
