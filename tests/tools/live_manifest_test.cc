#include "tools/live_manifest.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

TEST(PauseAfterAManifest, LeavesMostOfTheTimeToOthersAndIsNeverLong) {
  EXPECT_EQ(pause_after(0s), 1s);
  EXPECT_EQ(pause_after(100ms), 1s);
  EXPECT_EQ(pause_after(1s), 4s);
  EXPECT_EQ(pause_after(10s), 40s);
  EXPECT_EQ(pause_after(1h), 60s);
}

}  // namespace
}  // namespace wormhole
