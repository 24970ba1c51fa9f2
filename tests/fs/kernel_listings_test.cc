#include "fs/kernel_listings.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr Ino kDirectory = 7;

// Each time another object that says the same of the same files.
DirectoryRef snapshot(std::initializer_list<const char*> names = {}) {
  auto directory = std::make_shared<Directory>();
  for (const char* name : names) {
    DirectoryEntry& e = directory->entries.emplace_back();
    e.ino = directory->entries.size();
    e.name = name;
  }
  return directory;
}

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
  const DirectoryRef before = snapshot({"a"}), after = snapshot({"a", "b"});
  auto old = listings.open(kDirectory, before);
  EXPECT_EQ(listings.open(kDirectory, after), nullptr) << "the copy would become a mixture";
  EXPECT_EQ(listings.open(kDirectory, before), old);
  EXPECT_EQ(old->fingerprint(), fingerprint_of(*before));
  old.reset();
  const auto now = listings.open(kDirectory, after);
  ASSERT_NE(now, nullptr);
  EXPECT_EQ(now->fingerprint(), fingerprint_of(*after));
  EXPECT_EQ(listings.open(kDirectory, before), nullptr);
}

TEST(KernelListingsTest, ASnapshotThatIsReadAgainIsTheSame) {
  KernelListings listings;
  const auto first = listings.open(kDirectory, snapshot({"a", "b"}));
  EXPECT_EQ(listings.open(kDirectory, snapshot({"a", "b"})), first);
  EXPECT_EQ(listings.open(kDirectory, snapshot({"a", "c"})), nullptr);
}

TEST(KernelListingsTest, AllThatTheKernelIsToldCounts) {
  const uint64_t before = fingerprint_of(*snapshot({"a", "b"}));
  const auto changed = [](const auto& change) {
    Directory directory = *snapshot({"a", "b"});
    change(directory.entries[1]);
    return fingerprint_of(directory);
  };
  EXPECT_EQ(changed([](DirectoryEntry&) {}), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.ino = 9; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.type = EntryType::kDirectory; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.size = 0; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.mtime = 1; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.mtime_ns = 1; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.mode = 0; }), before);
  EXPECT_NE(changed([](DirectoryEntry& e) { e.gone = true; }), before);
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
