#include "base/unique_function.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace wormhole {
namespace {

TEST(UniqueFunction, IsEmptyUntilAClosureIsPutIn) {
  UniqueFunction<int()> f;
  EXPECT_FALSE(f);
  EXPECT_FALSE(UniqueFunction<int()>(nullptr));
  f = [] { return 7; };
  EXPECT_TRUE(f);
  EXPECT_EQ(f(), 7);
}

TEST(UniqueFunction, PassesArgumentsAndGivesTheResult) {
  UniqueFunction<std::string(std::string, int)> repeat = [](const std::string& s, int n) {
    std::string out;
    while (n-- > 0) out += s;
    return out;
  };
  EXPECT_EQ(repeat("ab", 3), "ababab");
}

TEST(UniqueFunction, AReferenceArgumentIsTheCallersObject) {
  UniqueFunction<void(int&)> increment = [](int& n) { ++n; };
  int n = 1;
  increment(n);
  EXPECT_EQ(n, 2);
}

TEST(UniqueFunction, AMoveOnlyArgumentChangesHands) {
  UniqueFunction<int(std::unique_ptr<int>)> take = [](std::unique_ptr<int> p) { return *p; };
  EXPECT_EQ(take(std::make_unique<int>(5)), 5);
}

TEST(UniqueFunction, AClosureMayOwnWhatCannotBeCopied) {
  UniqueFunction<int()> f = [p = std::make_unique<int>(5)] { return *p; };
  EXPECT_EQ(f(), 5);
}

TEST(UniqueFunction, AMoveLeavesTheSourceEmpty) {
  UniqueFunction<int()> from = [] { return 1; };
  UniqueFunction<int()> to = std::move(from);
  EXPECT_FALSE(from);  // NOLINT(bugprone-use-after-move,clang-analyzer-cplusplus.Move): that it is empty is the rule
  EXPECT_EQ(to(), 1);
}

TEST(UniqueFunction, AnAssignmentDestroysWhatWasInside) {
  auto old = std::make_shared<int>(0);
  UniqueFunction<void()> f = [old] {};
  EXPECT_EQ(old.use_count(), 2);
  f = [] {};
  EXPECT_EQ(old.use_count(), 1);
}

TEST(UniqueFunction, AnAssignmentToItselfChangesNothing) {
  UniqueFunction<int()> f = [] { return 3; };
  auto& same = f;
  f = std::move(same);
  EXPECT_EQ(f(), 3);
}

TEST(UniqueFunction, TheClosureIsDestroyedOnce) {
  auto held = std::make_shared<int>(0);
  {
    UniqueFunction<void()> first = [held] {};
    UniqueFunction<void()> second = std::move(first);
    UniqueFunction<void()> third;
    third = std::move(second);
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(UniqueFunction, TheClosureKeepsItsStateBetweenCalls) {
  UniqueFunction<int()> count = [n = 0]() mutable { return ++n; };
  count();
  auto moved = std::move(count);
  EXPECT_EQ(moved(), 2);
}

TEST(UniqueFunction, HoldsAnythingThatCanBeCalled) {
  struct Doubler {
    int operator()(int n) const { return 2 * n; }
  };
  UniqueFunction<int(int)> f = Doubler{};
  EXPECT_EQ(f(2), 4);
  f = std::function<int(int)>([](int n) { return n + 1; });
  EXPECT_EQ(f(2), 3);
  int (*pointer)(int) = [](int n) { return -n; };
  f = pointer;
  EXPECT_EQ(f(2), -2);
}

TEST(UniqueFunction, TheCapacityIsTheLargestClosure) {
  struct Full {
    char bytes[48] = "forty-eight";
    std::string operator()() const { return bytes; }
  };
  UniqueFunction<std::string(), 48> f = Full{};
  EXPECT_EQ(f(), "forty-eight");
}

}  // namespace
}  // namespace wormhole
