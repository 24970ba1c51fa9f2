// Who comes next in a directory, and how many of them are worth having fetched by then.
#include "fs/neighbours.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using Step = DirectoryCursor::Step;
using ::testing::ElementsAre;

constexpr uint64_t kMany = 1'000'000;

// --- the window ----------------------------------------------------------------------------------------------------

TEST(AheadWindowTest, OneStepOpensNothing) {
  AheadWindow window;
  EXPECT_EQ(window.size(kMany), 0u);
  window.came();
  EXPECT_EQ(window.size(kMany), 0u);
  window.came();
  EXPECT_GT(window.size(kMany), 0u);
}

TEST(AheadWindowTest, ItIsAMultipleOfWhatTheReaderHasComeThroughUpToItsBound) {
  AheadWindow window;
  for (int i = 0; i < 10; ++i) window.came();
  EXPECT_EQ(window.size(kMany), 40u);
  EXPECT_EQ(window.size(30), 30u);
}

TEST(AheadWindowTest, WhoGoesElsewhereBeginsAnew) {
  AheadWindow window;
  for (int i = 0; i < 10; ++i) window.came();
  window.left();
  EXPECT_EQ(window.size(kMany), 0u);
  window.came();
  window.came();
  EXPECT_EQ(window.size(kMany), 8u);
}

TEST(AheadWindowTest, OneSureStepOpensItOnce) {
  AheadWindow window;
  window.came_surely();
  EXPECT_EQ(window.size(64), 4u);
  window.left();
  window.came();
  EXPECT_FALSE(window.is_open());
}

TEST(AheadWindowTest, ASureStepDoesNotOpenWhatWasteHasClosed) {
  AheadWindow window;
  window.came_surely();
  for (int i = 0; i < 100; ++i) window.passed();
  ASSERT_FALSE(window.is_open());
  window.came_surely();
  window.came();
  EXPECT_FALSE(window.is_open());
}

TEST(AheadWindowTest, WhatIsPassedByClosesItForLongerEachTime) {
  AheadWindow window;
  uint64_t last = 1;
  for (int round = 0; round < 4; ++round) {
    uint64_t steps = 0;
    while (!window.is_open()) {
      window.came();
      ++steps;
    }
    EXPECT_GT(steps, last);
    last = steps;
    for (int i = 0; window.is_open() && i < 100; ++i) window.passed();
    EXPECT_FALSE(window.is_open());
  }
}

TEST(AheadWindowTest, WhoUsesAQuarterIsFollowed) {
  AheadWindow window;
  window.came();
  window.came();
  for (int i = 0; i < 1000; ++i) i % 4 == 0 ? window.used() : window.passed();
  EXPECT_TRUE(window.is_open());
}

TEST(AheadWindowTest, UseForgivesEarlierWaste) {
  AheadWindow window;
  for (int i = 0; i < 100; ++i) window.passed();
  while (!window.is_open()) window.came();
  for (int i = 0; i < 50; ++i) window.used();
  window.left();
  window.came();
  window.came();
  EXPECT_TRUE(window.is_open());
}

// --- bounds --------------------------------------------------------------------------------------------------------

TEST(NeighbourBoundsTest, FollowTheWireAndNeverTheWholeMemory) {
  EXPECT_GE(neighbour_bounds({}, 256 << 20).bytes, 1u << 20);
  const LinkEstimate fast{125'000'000, 50ms, 16, 1 << 20};
  EXPECT_EQ(neighbour_bounds(fast, 256 << 20).bytes, 12'500'000u);
  EXPECT_EQ(neighbour_bounds(fast, 32 << 20).bytes, 4u << 20);
}

TEST(NeighbourBoundsTest, LargerFilesAreWorthItWhereTheRoundTripCostsMore) {
  EXPECT_EQ(neighbour_bounds({}, 256 << 20).largest, kSmallFile);
  const auto largest = [](Duration round_trip) {
    return neighbour_bounds({1'000'000, round_trip, 16, 1 << 20}, 256 << 20).largest;
  };
  EXPECT_EQ(largest(500us), kSmallFile);
  EXPECT_EQ(largest(30ms), 600'000u);
  EXPECT_EQ(largest(100ms), 1u << 20);
}

// --- the cursor ----------------------------------------------------------------------------------------------------

DirectoryRef directory(const std::vector<std::string>& names, const std::vector<Ino>& inos = {}) {
  auto d = std::make_shared<Directory>();
  for (size_t i = 0; i < names.size(); ++i) {
    DirectoryEntry e;
    e.ino = inos.empty() ? 100 + i : inos[i];
    e.type = names[i].ends_with('/') ? EntryType::kDirectory : EntryType::kFile;
    e.name = names[i];
    d->entries.push_back(e);
  }
  return d;
}

DirectoryRef numbered(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("{:06}", i));
  return directory(names);
}

std::vector<uint32_t> take(DirectoryCursor& cursor, size_t most) {
  std::vector<uint32_t> out;
  while (out.size() < most && cursor.next()) {
    out.push_back(*cursor.next());
    cursor.take();
  }
  return out;
}

TEST(DirectoryCursorTest, TheFirstFileTellsNoOrder) {
  DirectoryCursor cursor(numbered(10));
  EXPECT_EQ(cursor.visit(0), Step::kElsewhere);
  EXPECT_FALSE(cursor.next());
}

TEST(DirectoryCursorTest, TwoThatFollowEachOtherDo) {
  DirectoryCursor cursor(numbered(10));
  cursor.visit(3);
  EXPECT_EQ(cursor.visit(4), Step::kOnward);
  EXPECT_THAT(take(cursor, 3), ElementsAre(5, 6, 7));
  EXPECT_EQ(cursor.visit(5), Step::kOnward);
  EXPECT_THAT(take(cursor, 9), ElementsAre(8, 9));
}

TEST(DirectoryCursorTest, AlsoBackwards) {
  DirectoryCursor cursor(numbered(10));
  cursor.visit(7);
  EXPECT_EQ(cursor.visit(6), Step::kOnward);
  EXPECT_THAT(take(cursor, 9), ElementsAre(5, 4, 3, 2, 1, 0));
}

TEST(DirectoryCursorTest, DirectoriesBetweenAreSteppedOver) {
  DirectoryCursor cursor(directory({"a", "b/", "c", "d/", "e"}));
  cursor.visit(0);
  EXPECT_EQ(cursor.visit(1), Step::kElsewhere) << "no file";
  EXPECT_EQ(cursor.visit(2), Step::kOnward);
  EXPECT_THAT(take(cursor, 9), ElementsAre(4));
}

TEST(DirectoryCursorTest, ByInodeNumber) {
  DirectoryCursor cursor(directory({"a", "b", "c", "d", "e"}, {5, 1, 4, 2, 3}));
  cursor.visit(1);
  EXPECT_EQ(cursor.visit(3), Step::kOnward);
  EXPECT_THAT(take(cursor, 9), ElementsAre(4, 2, 0));
}

TEST(DirectoryCursorTest, WithoutRegardToCase) {
  DirectoryCursor cursor(directory({"A", "C", "E", "b", "d", "f"}));
  cursor.visit(0);
  EXPECT_EQ(cursor.visit(3), Step::kOnward);
  EXPECT_THAT(take(cursor, 9), ElementsAre(1, 4, 2, 5));
}

TEST(DirectoryCursorTest, SeveralReadersMayOvertakeEachOther) {
  DirectoryCursor cursor(numbered(100));
  cursor.visit(0);
  cursor.visit(1);
  EXPECT_EQ(cursor.visit(5), Step::kOnward);
  EXPECT_EQ(cursor.visit(3), Step::kHere);
  EXPECT_EQ(cursor.visit(6), Step::kOnward);
  EXPECT_THAT(take(cursor, 2), ElementsAre(7, 8));
}

TEST(DirectoryCursorTest, AJumpEndsTheOrder) {
  DirectoryCursor cursor(numbered(1000));
  cursor.visit(0);
  cursor.visit(1);
  EXPECT_EQ(cursor.visit(500), Step::kElsewhere);
  EXPECT_FALSE(cursor.next());
  EXPECT_EQ(cursor.visit(501), Step::kOnward);
  EXPECT_THAT(take(cursor, 1), ElementsAre(502));
}

TEST(DirectoryCursorTest, TheSameFileAgainIsNoStep) {
  DirectoryCursor cursor(numbered(10));
  cursor.visit(4);
  EXPECT_EQ(cursor.visit(4), Step::kHere);
  EXPECT_FALSE(cursor.next());
}

TEST(DirectoryCursorTest, WhoComesFromAnotherDirectoryGoesOnInHisOrder) {
  DirectoryCursor cursor(numbered(5));
  cursor.enter(4, DirectoryCursor::Order::kName, true);
  EXPECT_THAT(take(cursor, 9), ElementsAre(3, 2, 1, 0));
}

TEST(DirectoryCursorTest, WhatWasTakenBeforeHeCameIsNotTakenAgain) {
  DirectoryCursor cursor(numbered(9));
  cursor.enter(0, DirectoryCursor::Order::kName, false);
  cursor.skip_taken(6);
  EXPECT_THAT(take(cursor, 9), ElementsAre(6, 7, 8));
}

TEST(DirectoryCursorTest, AHundredThousandFilesAreGoneThroughInAMoment) {
  DirectoryCursor cursor(numbered(100'000));
  const auto began = std::chrono::steady_clock::now();
  uint64_t taken = 0;
  for (uint32_t i = 0; i < 100'000; ++i) {
    cursor.visit(i);
    taken += take(cursor, 4).size();
  }
  EXPECT_EQ(taken, 100'000u - 2);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s) << "quadratic";
}

}  // namespace
}  // namespace wormhole
