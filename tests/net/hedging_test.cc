// When a request is made a second time, and how much that may cost: values in, values out.
#include "net/hedging.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

TEST(HedgingTest, AFewRequestsSayNothing) {
  Hedging h;
  for (int i = 0; i < 19; ++i) h.completed(65536, 50ms);
  EXPECT_FALSE(h.patience(65536));
  h.completed(65536, 50ms);
  EXPECT_TRUE(h.patience(65536));
}

TEST(HedgingTest, ThePatienceIsWhatNineteenOfTwentyNeed) {
  Hedging h;
  for (int i = 1; i <= 60; ++i) h.completed(65536, i * 1ms);
  EXPECT_GE(*h.patience(65536), 56ms);
  EXPECT_LE(*h.patience(65536), 59ms);
}

TEST(HedgingTest, OneOutlierDoesNotMoveIt) {
  Hedging h;
  for (int i = 0; i < 40; ++i) h.completed(65536, 50ms);
  h.completed(65536, 10s);
  EXPECT_EQ(*h.patience(65536), 50ms);
}

TEST(HedgingTest, SizesAreJudgedApart) {
  Hedging h;
  for (int i = 0; i < 40; ++i) h.completed(65536, 50ms);
  for (int i = 0; i < 40; ++i) h.completed(4 << 20, 700ms);
  EXPECT_EQ(*h.patience(65536), 50ms);
  EXPECT_EQ(*h.patience(4 << 20), 700ms);
  EXPECT_FALSE(h.patience(1 << 20));
}

TEST(HedgingTest, EverySizeHasAClass) {
  Hedging h;
  for (const uint64_t size : {uint64_t{1}, uint64_t{4096}, uint64_t{1} << 40}) {
    for (int i = 0; i < 40; ++i) h.completed(size, 75ms);
    EXPECT_EQ(*h.patience(size), 75ms);
  }
}

TEST(HedgingTest, WhatIsLateByAFewTimeSlicesIsNotAskedForAgain) {
  Hedging h;
  for (int i = 0; i < 40; ++i) h.completed(65536, 2ms);
  EXPECT_EQ(*h.patience(65536), 25ms);
}

TEST(HedgingTest, TheOldIsForgotten) {
  Hedging h;
  for (int i = 0; i < 64; ++i) h.completed(65536, 500ms);
  for (int i = 0; i < 64; ++i) h.completed(65536, 50ms);
  EXPECT_EQ(*h.patience(65536), 50ms);
}

TEST(HedgingTest, SecondRequestsStayBelowATwentiethOfAllBytes) {
  Hedging h;
  uint64_t spent = 0;
  for (int i = 0; i < 1000; ++i) {
    h.fetched(1 << 20);
    if (h.spend(256 * 1024)) spent += 256 * 1024;
  }
  EXPECT_LE(spent, (uint64_t{1000} << 20) / 20 + (1 << 20));
  EXPECT_GE(spent, (uint64_t{1000} << 20) / 25);
}

}  // namespace
}  // namespace wormhole
