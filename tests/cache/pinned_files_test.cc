#include "cache/pinned_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(PinnedFiles, WhatWasAddedIsThereUntilItIsRemoved) {
  PinnedFiles pinned;
  EXPECT_FALSE(pinned.contains(7));
  pinned.add({7, 3});
  EXPECT_TRUE(pinned.contains(7));
  EXPECT_TRUE(pinned.contains(3));
  EXPECT_FALSE(pinned.contains(5));
  EXPECT_EQ(pinned.count(), 2u);
  pinned.remove({7});
  EXPECT_FALSE(pinned.contains(7));
  EXPECT_TRUE(pinned.contains(3));
}

TEST(PinnedFiles, WhatIsAddedTwiceIsThereOnce) {
  PinnedFiles pinned;
  EXPECT_THAT(pinned.add({9, 2, 9}), ElementsAre(2u, 9u));
  EXPECT_THAT(pinned.add({2, 5, 11}), ElementsAre(5u, 11u)) << "it tells what is new";
  EXPECT_THAT(pinned.all(), ElementsAre(2u, 5u, 9u, 11u));
}

TEST(PinnedFiles, WhatIsNotThereCanBeRemoved) {
  PinnedFiles pinned;
  pinned.add({1, 2, 3});
  EXPECT_THAT(pinned.remove({4, 2, 2}), ElementsAre(2u)) << "it tells what was there";
  EXPECT_THAT(pinned.remove({4}), IsEmpty());
  EXPECT_THAT(pinned.all(), ElementsAre(1u, 3u));
}

}  // namespace
}  // namespace wormhole
