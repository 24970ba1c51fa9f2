#include "fs/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using testing::HasSubstr;

class FuseTransportChoice : public testing::Test {
 protected:
  // What the kernel's setting says; without it there is none.
  void kernel_says(const std::string& value) { test::write_text(setting_, value + "\n"); }

  Result<FuseTransportState> choose(FuseTransport wish) const { return choose_transport(wish, setting_); }

  test::TemporaryDirectory directory_;
  const std::string setting_ = directory_ / "enable_uring";
};

TEST_F(FuseTransportChoice, DevNeedsNothingOfTheKernel) {
  const auto chosen = choose(FuseTransport::kDev);
  ASSERT_TRUE(chosen);
  EXPECT_FALSE(chosen->uring);
  EXPECT_FALSE(chosen->why_not.empty());
}

TEST_F(FuseTransportChoice, UringIsChosenWhereItIsOn) {
  kernel_says("Y");
  const auto chosen = choose(FuseTransport::kUring);
  ASSERT_TRUE(chosen);
  EXPECT_TRUE(chosen->uring);
  EXPECT_EQ(chosen->why_not, "");
}

TEST_F(FuseTransportChoice, WhoAsksForUringWhereItIsOffIsToldHowToTurnItOn) {
  kernel_says("N");
  const auto chosen = choose(FuseTransport::kUring);
  ASSERT_FALSE(chosen);
  EXPECT_THAT(chosen.error().message, HasSubstr("echo Y > " + setting_));
}

TEST_F(FuseTransportChoice, WhoAsksForUringOfAnOldKernelIsToldWhichOneHasIt) {
  const auto chosen = choose(FuseTransport::kUring);
  ASSERT_FALSE(chosen);
  EXPECT_THAT(chosen.error().message, HasSubstr("6.14"));
}

TEST_F(FuseTransportChoice, AutoNeverFailsAndSaysWhyNot) {
  const auto old = choose(FuseTransport::kAuto);
  ASSERT_TRUE(old);
  EXPECT_FALSE(old->uring);
  EXPECT_THAT(old->why_not, HasSubstr("6.14"));
  kernel_says("N");
  const auto off = choose(FuseTransport::kAuto);
  ASSERT_TRUE(off);
  EXPECT_FALSE(off->uring);
  EXPECT_THAT(off->why_not, HasSubstr("echo Y"));
}

}  // namespace
}  // namespace wormhole
