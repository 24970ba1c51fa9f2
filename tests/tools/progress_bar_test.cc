#include "tools/progress_bar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class HeldClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  int64_t unix_seconds() const override { return 0; }
  void advance(Duration by) { now_ += by; }

 private:
  TimePoint now_ = TimePoint(1h);
};

const Progress kHalf = {"model.bin", 460ull << 20, 1ull << 30, 93.2e6};

std::string on_terminal(const Progress& progress, size_t columns = 80) { return format_progress(progress, columns); }

// --- the line ---------------------------------------------------------------------------------------

TEST(ProgressLine, FillsTheTerminal) {
  EXPECT_EQ(on_terminal(kHalf), "model.bin   44 % [=========>            ] 460 MiB / 1.0 GiB  93.2 MB/s  ETA 0:06");
  EXPECT_LE(on_terminal(kHalf).size(), 80);
  EXPECT_EQ(on_terminal(kHalf, 300).size(), on_terminal(kHalf, 200).size()) << "but not a wide one";
}

TEST(ProgressLine, DropsWhatDoesNotFit) {
  EXPECT_EQ(on_terminal(kHalf, 65), "model.bin   44 %  460 MiB / 1.0 GiB  93.2 MB/s  ETA 0:06");
  EXPECT_EQ(on_terminal(kHalf, 50), "model.bin   44 %  460 MiB / 1.0 GiB  93.2 MB/s");
  EXPECT_EQ(on_terminal(kHalf, 40), "model.bin   44 %  460 MiB / 1.0 GiB");
  EXPECT_EQ(on_terminal(kHalf, 20), "model.bin   44 %");
  EXPECT_EQ(on_terminal(kHalf, 5), "model");
  for (size_t columns = 0; columns < 200; ++columns) EXPECT_LE(on_terminal(kHalf, columns).size(), columns);
}

TEST(ProgressLine, HasNoBarInALog) {
  EXPECT_EQ(format_progress(kHalf, std::nullopt), "model.bin   44 %  460 MiB / 1.0 GiB  93.2 MB/s  ETA 0:06");
}

TEST(ProgressLine, DoesWithoutATotal) {
  EXPECT_EQ(on_terminal({"stream", 5 << 20, std::nullopt, 1e6}), "stream  5.0 MiB  1.0 MB/s");
}

TEST(ProgressLine, MakesNoPromiseWhenNothingMoves) {
  EXPECT_THAT(on_terminal({"x", 1, 1ull << 40, 0}), EndsWith("ETA -:--"));
  EXPECT_THAT(on_terminal({"x", 1, 1ull << 60, 2}), EndsWith("ETA -:--")) << "centuries";
}

TEST(ProgressLine, BeginsEmptyAndEndsFull) {
  EXPECT_THAT(on_terminal({"x", 0, 100, 0}), HasSubstr("  0 % [>   "));
  EXPECT_THAT(on_terminal({"x", 100, 100, 1}), HasSubstr("100 % [=========="));
  EXPECT_THAT(on_terminal({"x", 0, 0, 0}), HasSubstr("100 %")) << "nothing of nothing is all";
  EXPECT_THAT(on_terminal({"x", 200, 100, 0}), HasSubstr("100 %")) << "never more than all";
}

TEST(ProgressLine, CountsCharactersNotBytes) {
  const Progress p = {"\xE5\x90\x8D\xE5\x89\x8D", 50, 100, 0};
  EXPECT_EQ(on_terminal(p, 1), "\xE5\x90\x8D");
  EXPECT_EQ(on_terminal(p, 60).size(), on_terminal({"ab", 50, 100, 0}, 60).size() + 4);
}

// --- the rate ---------------------------------------------------------------------------------------

TEST(RateMeter, KnowsNothingAtFirst) {
  RateMeter rate;
  EXPECT_EQ(rate.bytes_per_second(), 0);
  rate.add(TimePoint(1s), 1'000'000);
  EXPECT_EQ(rate.bytes_per_second(), 0) << "what was there before is not speed";
}

TEST(RateMeter, LooksAtTheLastSeconds) {
  RateMeter rate;
  TimePoint now{};
  uint64_t done = 0;
  const auto run = [&](Duration time, uint64_t bytes_per_step) {
    for (const TimePoint end = now + time; now < end; now += 10ms) rate.add(now, done += bytes_per_step);
  };
  run(20s, 1000);
  EXPECT_NEAR(rate.bytes_per_second(), 100'000, 3'000);
  run(2s, 0);
  EXPECT_NEAR(rate.bytes_per_second(), 60'000, 5'000);
  run(6s, 0);
  EXPECT_EQ(rate.bytes_per_second(), 0);
}

TEST(RateMeter, BeginsAgainWhenTheWorkDoes) {
  RateMeter rate;
  rate.add(TimePoint(1s), 1'000'000);
  rate.add(TimePoint(2s), 0);
  rate.add(TimePoint(3s), 500);
  EXPECT_EQ(rate.bytes_per_second(), 500);
}

// --- the bar ----------------------------------------------------------------------------------------

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

class ProgressBarTest : public ::testing::Test {
 protected:
  std::string written() {
    std::fflush(file_);
    std::rewind(file_);
    std::string text(10'000, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file_));
    return text;
  }
  static size_t count(const std::string& text, char c) {
    return static_cast<size_t>(std::count(text.begin(), text.end(), c));
  }

  HeldClock clock_;
  const std::unique_ptr<std::FILE, FileCloser> owned_{std::tmpfile()};
  std::FILE* const file_ = owned_.get();
};

TEST_F(ProgressBarTest, RedrawsTenTimesASecondAtMost) {
  ProgressBar bar("x", 1000, clock_, ProgressBar::Output::kTerminal, file_);
  for (int i = 0; i < 1000; ++i) {
    bar.update(static_cast<uint64_t>(i));
    clock_.advance(1ms);
  }
  EXPECT_EQ(count(written(), '\r'), 10);
  EXPECT_EQ(count(written(), '\n'), 0);
}

TEST_F(ProgressBarTest, WritesALineNowAndThenInALog) {
  ProgressBar bar("x", 1000, clock_, ProgressBar::Output::kAuto, file_);
  for (int i = 0; i < 12; ++i) {
    bar.update(static_cast<uint64_t>(i));
    clock_.advance(1s);
  }
  EXPECT_EQ(count(written(), '\n'), 2);
  EXPECT_EQ(count(written(), '\r'), 0);
}

TEST_F(ProgressBarTest, EndsWithASummary) {
  ProgressBar bar("model.bin", 100'000'000, clock_, ProgressBar::Output::kLines, file_);
  bar.update(60'000'000);
  clock_.advance(4s);
  bar.update(100'000'000);
  bar.finish();
  EXPECT_EQ(written(), "model.bin  95 MiB in 0:04  10.0 MB/s\n") << "the first 60 MB were there before";
}

TEST_F(ProgressBarTest, LeavesItsLineWhenTheWorkIsGivenUp) {
  {
    ProgressBar bar("x", 1000, clock_, ProgressBar::Output::kTerminal, file_);
    bar.update(1);
  }
  EXPECT_THAT(written(), StartsWith("\rx "));
  EXPECT_THAT(written(), EndsWith("\n"));
}

TEST_F(ProgressBarTest, IsSilentWhenToldSo) {
  ProgressBar bar("x", 1000, clock_, ProgressBar::Output::kNone, file_);
  bar.update(1);
  bar.finish();
  EXPECT_EQ(written(), "");
}

}  // namespace
}  // namespace wormhole
