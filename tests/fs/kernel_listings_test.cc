#include "fs/kernel_listings.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr Ino kDirectory = 7;

DirectoryRef snapshot() { return std::make_shared<Directory>(); }

TEST(KernelListingsTest, HandlesOfOneSnapshotShareTheKernelsCopy) {
  KernelListings listings;
  const DirectoryRef listed = snapshot();
  const auto first = listings.open(kDirectory, listed), second = listings.open(kDirectory, listed);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(first, second);
  EXPECT_NE(listings.open(kDirectory + 1, listed), first);
}

TEST(KernelListingsTest, AnotherSnapshotGetsACopyOfItsOwnWhenNobodyReadsTheOldOne) {
  KernelListings listings;
  const DirectoryRef before = snapshot(), after = snapshot();
  auto old = listings.open(kDirectory, before);
  EXPECT_EQ(listings.open(kDirectory, after), nullptr) << "the copy would become a mixture";
  EXPECT_EQ(listings.open(kDirectory, before), old);
  const KernelListing* const gone = old.get();
  EXPECT_TRUE(gone->is_of(before));
  old.reset();
  const auto now = listings.open(kDirectory, after);
  ASSERT_NE(now, nullptr);
  EXPECT_TRUE(now->is_of(after));
  EXPECT_EQ(listings.open(kDirectory, before), nullptr);
}

TEST(KernelListingsTest, ACopyIsRightOnceSomebodyHasBegunToReadIt) {
  KernelListings listings;
  const DirectoryRef listed = snapshot();
  listings.open(kDirectory, listed);
  const auto again = listings.open(kDirectory, listed);
  EXPECT_FALSE(again->was_filled_since(TimePoint{}));
  again->filled(TimePoint{} + std::chrono::seconds(10));
  EXPECT_TRUE(listings.open(kDirectory, listed)->was_filled_since(TimePoint{} + std::chrono::seconds(9)));
  EXPECT_FALSE(listings.open(kDirectory, listed)->was_filled_since(TimePoint{} + std::chrono::seconds(10)));
}

TEST(KernelListingsTest, WhatTheKernelHasForgottenIsFilledAnew) {
  KernelListings listings;
  const DirectoryRef listed = snapshot();
  listings.open(kDirectory, listed)->filled(TimePoint{} + std::chrono::seconds(10));
  listings.forget(kDirectory);
  EXPECT_FALSE(listings.open(kDirectory, listed)->was_filled_since(TimePoint{}));
}

}  // namespace
}  // namespace wormhole
