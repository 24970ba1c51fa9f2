#include "cache/page_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace wormhole {
namespace {

constexpr uint32_t kLargestObject = 16;  // pages: 64 KiB

struct Allocation {
  uint32_t page;
  uint32_t count;
};

// The same, page by page.
class NaiveMap {
 public:
  bool take(uint32_t page, uint32_t count) {
    for (uint32_t p = page; p < page + count; ++p) {
      if (used_[p]) return false;
      used_[p] = true;
    }
    return true;
  }
  void give(uint32_t page, uint32_t count) {
    for (uint32_t p = page; p < page + count; ++p) used_[p] = false;
  }
  // (length, first page) of every free run.
  std::vector<std::pair<uint32_t, uint32_t>> runs() const {
    std::vector<std::pair<uint32_t, uint32_t>> result;
    for (uint32_t p = 0, length = 0; p <= kPagesPerSlab; ++p) {
      if (p < kPagesPerSlab && !used_[p]) {
        ++length;
      } else if (length > 0) {
        result.emplace_back(length, p - length);
        length = 0;
      }
    }
    return result;
  }
  std::optional<uint32_t> best(uint32_t count) const {
    std::optional<std::pair<uint32_t, uint32_t>> best;
    for (const auto& run : runs()) {
      if (run.first >= count && (!best || run < *best)) best = run;
    }
    return best ? std::optional(best->second) : std::nullopt;
  }
  uint32_t longest() const {
    uint32_t longest = 0;
    for (const auto& run : runs()) longest = std::max(longest, run.first);
    return longest;
  }
  uint32_t free_pages() const { return static_cast<uint32_t>(std::count(used_.begin(), used_.end(), false)); }

 private:
  std::vector<bool> used_ = std::vector<bool>(kPagesPerSlab);
};

TEST(PageRuns, BeginAsOne) {
  const PageRuns slab;
  EXPECT_EQ(slab.free_pages(), kPagesPerSlab);
  EXPECT_EQ(slab.longest_free_run(), kPagesPerSlab);
  EXPECT_EQ(slab.longest_free_run(16), 16u);
}

TEST(PageRuns, AreTakenFromTheLowestAddress) {
  PageRuns slab;
  EXPECT_EQ(slab.allocate(1), 0u);
  EXPECT_EQ(slab.allocate(9), 1u);
  EXPECT_EQ(slab.allocate(16), 10u);
  ASSERT_TRUE(slab.free(0, 1));
  ASSERT_TRUE(slab.free(12, 1));
  EXPECT_EQ(slab.allocate(1), 0u);
  EXPECT_EQ(slab.allocate(1), 12u);
}

TEST(PageRuns, TheShortestThatIsLongEnoughIsTaken) {
  PageRuns slab;
  ASSERT_EQ(slab.allocate(100), 0u);
  ASSERT_TRUE(slab.free(10, 8));
  ASSERT_TRUE(slab.free(40, 3));
  EXPECT_EQ(slab.allocate(2), 40u);
  EXPECT_EQ(slab.allocate(2), 10u);
  EXPECT_EQ(slab.allocate(7), 100u);
}

TEST(PageRuns, ThoseThatAreFreeCanBeTaken) {
  PageRuns slab;
  EXPECT_TRUE(slab.take(60, 10));
  EXPECT_FALSE(slab.take(69, 2));  // the first of them is used
  EXPECT_FALSE(slab.take(59, 2));  // the last
  EXPECT_FALSE(slab.take(50, 30));
  EXPECT_FALSE(slab.take(kPagesPerSlab - 1, 2));
  EXPECT_TRUE(slab.take(kPagesPerSlab - 1, 1));
  EXPECT_TRUE(slab.used(60, 10));
  EXPECT_EQ(slab.free_pages(), kPagesPerSlab - 11);
  const auto runs = slab.free_runs();
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].page, 0u);
  EXPECT_EQ(runs[0].count, 60u);
  EXPECT_EQ(runs[1].page, 70u);
  EXPECT_EQ(runs[1].count, kPagesPerSlab - 71);
}

TEST(PageRuns, AFullSlabRefuses) {
  PageRuns slab;
  EXPECT_EQ(slab.allocate(kPagesPerSlab + 1), std::nullopt);
  EXPECT_EQ(slab.allocate(kPagesPerSlab), 0u);
  EXPECT_EQ(slab.allocate(1), std::nullopt);
  EXPECT_EQ(slab.longest_free_run(), 0u);
  EXPECT_TRUE(slab.free(0, kPagesPerSlab));
  EXPECT_EQ(slab, PageRuns());
}

TEST(PageRuns, AWrongFreeChangesNothing) {
  PageRuns slab;
  slab.allocate(70);
  const PageRuns before = slab;
  EXPECT_FALSE(slab.free(70, 1));             // is free
  EXPECT_FALSE(slab.free(60, 11));            // its last page is
  EXPECT_FALSE(slab.free(kPagesPerSlab, 1));  // behind the end
  EXPECT_FALSE(slab.free(UINT32_MAX, 4));
  EXPECT_FALSE(slab.free(5, UINT32_MAX));
  EXPECT_EQ(slab, before);
  EXPECT_TRUE(slab.free(0, 70));
  EXPECT_FALSE(slab.free(0, 70));  // twice
}

TEST(PageRuns, KnowWhichPagesAreUsed) {
  PageRuns slab;
  slab.allocate(80);
  EXPECT_TRUE(slab.used(0, 80));
  EXPECT_TRUE(slab.used(60, 10));
  EXPECT_FALSE(slab.used(60, 21));
  EXPECT_FALSE(slab.used(80, 1));
  EXPECT_FALSE(slab.used(kPagesPerSlab - 1, 2));
}

TEST(PageRuns, AgreeWithANaiveMapOfThePages) {
  std::minstd_rand random(1);
  PageRuns slab;
  NaiveMap map;
  std::vector<Allocation> live;
  for (int step = 0; step < 60'000; ++step) {
    // Long waves between nearly empty and full.
    const bool fill = (step / 10'000) % 2 == 0;
    if (random() % 10 < (fill ? 8u : 2u)) {
      const uint32_t count = 1 + random() % kLargestObject;
      // The naive search is slow: not every time.
      const bool look = step % 50 == 0;
      const auto best = look ? map.best(count) : std::nullopt;
      const auto page = slab.allocate(count);
      if (look) {
        ASSERT_EQ(page, best);
      }
      if (!page) {
        ASSERT_LT(slab.longest_free_run(), count);
        continue;
      }
      ASSERT_LE(*page + count, kPagesPerSlab);
      ASSERT_TRUE(map.take(*page, count)) << "given twice: " << *page;
      live.push_back({*page, count});
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      ASSERT_TRUE(slab.free(live.back().page, live.back().count));
      map.give(live.back().page, live.back().count);
      live.pop_back();
    }
    if (step % 500 == 0) {
      ASSERT_EQ(slab.free_pages(), map.free_pages());
      ASSERT_EQ(slab.longest_free_run(), map.longest());
      ASSERT_EQ(PageRuns::decode(slab.encode()), slab);
    }
  }
  for (const auto& [page, count] : live) ASSERT_TRUE(slab.free(page, count));
  EXPECT_EQ(slab, PageRuns());
}

// --- the record ----------------------------------------------------------------------------------------------------

TEST(PageRuns, TheRecordIsAsLongAsTheLastUsedPageNeeds) {
  PageRuns slab;
  EXPECT_EQ(slab.encode(), std::string(2, '\0'));
  slab.allocate(1);
  EXPECT_EQ(slab.encode(), std::string("\x01\x00\x01", 3));
  slab.allocate(kPagesPerSlab - 1);
  EXPECT_EQ(slab.encode().size(), 2u + 2048u);
}

TEST(PageRuns, EmptyAndFullAreReadBack) {
  PageRuns slab;
  EXPECT_EQ(PageRuns::decode(slab.encode()), slab);
  slab.allocate(kPagesPerSlab);
  EXPECT_EQ(PageRuns::decode(slab.encode()), slab);
}

TEST(PageRuns, ACutRecordIsNone) {
  PageRuns slab;
  slab.allocate(160);
  const std::string bytes = slab.encode();
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_EQ(PageRuns::decode(bytes.substr(0, n)), std::nullopt) << n;
}

TEST(PageRuns, RubbishIsNone) {
  PageRuns slab;
  slab.allocate(16);
  const std::string bytes = slab.encode();
  EXPECT_EQ(PageRuns::decode(bytes + std::string(1, '\0')), std::nullopt);  // there is one form only
  EXPECT_EQ(PageRuns::decode(bytes + "x"), std::nullopt);
  EXPECT_EQ(PageRuns::decode(std::string(2050, '\xff')), std::nullopt);
  EXPECT_EQ(PageRuns::decode(std::string("\x00\x40", 2) + std::string(2049, '\xff')), std::nullopt);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(PageRuns::decode(flipped), std::nullopt) << bit;
  }
}

// --- what it costs -------------------------------------------------------------------------------------------------

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(PageRuns, AMillionAllocationsAreDoneInAMoment) {
  std::minstd_rand random(2);
  PageRuns slab;
  std::vector<Allocation> live;
  const auto begin = std::chrono::steady_clock::now();
  for (int done = 0; done < 1'000'000;) {
    const uint32_t count = 1 + random() % kLargestObject;
    if (const auto page = slab.allocate(count)) {
      live.push_back({*page, count});
      ++done;
    } else {
      for (int i = 0; i < 8; ++i) {
        std::swap(live[random() % live.size()], live.back());
        ASSERT_TRUE(slab.free(live.back().page, live.back().count));
        live.pop_back();
      }
    }
  }
  // Measured 1 s of CPU; a sanitizer on a busy machine costs some twenty times that.
  EXPECT_LT(seconds_since(begin), 60.0);
}

TEST(PageRuns, EvenTheWorstBitmapIsLookedThroughQuickly) {
  PageRuns slab;
  slab.allocate(kPagesPerSlab);
  for (uint32_t page = 0; page < kPagesPerSlab; page += 2) ASSERT_TRUE(slab.free(page, 1));
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(slab.allocate(2), std::nullopt);
  // Measured 40 us each; a sanitizer on a busy machine costs some twenty times that.
  EXPECT_LT(seconds_since(begin), 5.0);
}

}  // namespace
}  // namespace wormhole
