#include "net/access_log.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

class AccessLogTest : public ::testing::Test {
 protected:
  static std::string content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  std::unique_ptr<AccessLog> open() const {
    Result<std::unique_ptr<AccessLog>> log = AccessLog::open(path_);
    EXPECT_TRUE(log.has_value());
    return log ? std::move(*log) : nullptr;
  }

  const test::TemporaryDirectory directory_;
  const std::string path_ = directory_.path() + "/log";
};

TEST_F(AccessLogTest, WritesALineSoon) {
  const auto log = open();
  log->add("one");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (content(path_).empty() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_EQ(content(path_), "one\n");
}

TEST_F(AccessLogTest, LosesNothingWhenItEnds) {
  {
    const auto log = open();
    for (int i = 0; i < 1000; ++i) log->add(std::to_string(i));
  }
  std::string expected;
  for (int i = 0; i < 1000; ++i) expected += std::to_string(i) + "\n";
  EXPECT_EQ(content(path_), expected);
}

TEST_F(AccessLogTest, KeepsLinesOfManyThreadsWhole) {
  const std::string line(200, 'x');
  {
    const auto log = open();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < 5000; ++n) log->add(line);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::ifstream file(path_);
  int lines = 0;
  for (std::string read; std::getline(file, read); ++lines) ASSERT_EQ(read, line);
  EXPECT_EQ(lines, 20'000);
}

TEST_F(AccessLogTest, AppendsToWhatIsThere) {
  open()->add("one");
  open()->add("two");
  EXPECT_EQ(content(path_), "one\ntwo\n");
}

TEST_F(AccessLogTest, AMovedLogIsLeftAtReopen) {
  {
    const auto log = open();
    log->add("before");
    std::filesystem::rename(path_, path_ + ".1");
    log->add("between");
    ASSERT_TRUE(log->reopen().has_value());
    // A line that is added before the thread has changed files may go to either.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (content(path_ + ".1").empty() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    log->add("after");
  }
  EXPECT_EQ(content(path_ + ".1"), "before\nbetween\n");
  EXPECT_EQ(content(path_), "after\n");
}

TEST_F(AccessLogTest, SaysWhyItCannotBeOpened) {
  const auto log = AccessLog::open(directory_.path() + "/missing/log");
  ASSERT_FALSE(log.has_value());
  EXPECT_EQ(log.error().code, ErrorCode::kNotFound);
  EXPECT_NE(log.error().message.find("/missing/log"), std::string::npos);
}

}  // namespace
}  // namespace wormhole
