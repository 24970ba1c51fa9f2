#include "cache/cache_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>

#include "cache/index_format.h"
#include "tests/support/child_process.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

namespace fs = std::filesystem;
using test::ChildProcess;
using test::FailsWith;
using test::read_text;
using test::Succeeds;
using test::write_text;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CacheDirectoryTest : public ::testing::Test {
 protected:
  Result<CacheDirectory> open(const std::string& path, int patience_seconds = 0) {
    return CacheDirectory::open(path, patience_seconds);
  }
  static unsigned mode(const std::string& path) {
    struct stat s {};
    EXPECT_EQ(::stat(path.c_str(), &s), 0) << path;
    return s.st_mode & 07777;
  }
  // Everything that can be seen of a tree: names, modes, contents.
  static std::map<std::string, std::string> picture(const std::string& path) {
    std::map<std::string, std::string> out{{".", std::to_string(mode(path))}};
    for (const auto& e : fs::recursive_directory_iterator(path)) {
      out[e.path().string()] =
          std::to_string(mode(e.path().string())) + (e.is_regular_file() ? read_text(e.path().string()) : "");
    }
    return out;
  }

  test::TemporaryDirectory top_;
  const std::string cache_ = top_ / "cache";
};

// --- a new one -----------------------------------------------------------------------------------------------------

TEST_F(CacheDirectoryTest, AMissingDirectoryIsMadeWithItsParents) {
  const std::string deep = top_ / "a/b/cache";
  ASSERT_THAT(open(deep), Succeeds());
  EXPECT_EQ(read_text(deep + "/FORMAT"), "wormhole cache, format " + std::to_string(kFormatVersion) + "\n");
  EXPECT_TRUE(fs::is_directory(deep + "/index"));
  EXPECT_TRUE(fs::is_directory(deep + "/objects"));
}

TEST_F(CacheDirectoryTest, ANewCacheIsItsOwnersAlone) {
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_EQ(mode(cache_), 0700u);
}

TEST_F(CacheDirectoryTest, AnEmptyDirectoryBecomesACache) {
  fs::create_directory(cache_);
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_EQ(mode(cache_), 0700u);
}

TEST_F(CacheDirectoryTest, BackupProgramsAreToldToLeaveItOut) {
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_THAT(read_text(cache_ + "/CACHEDIR.TAG"), StartsWith("Signature: 8a477f597d28d172789f06886806bc55\n"));
}

TEST_F(CacheDirectoryTest, ACacheIsOpenedAgainWithWhatIsInIt) {
  ASSERT_THAT(open(cache_), Succeeds());
  write_text(cache_ + "/objects/x", "bytes");
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_EQ(read_text(cache_ + "/objects/x"), "bytes");
}

TEST_F(CacheDirectoryTest, TheModeThatSomebodyGaveACacheStays) {
  ASSERT_THAT(open(cache_), Succeeds());
  ::chmod(cache_.c_str(), 0750);
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_EQ(mode(cache_), 0750u);
}

// --- not ours ------------------------------------------------------------------------------------------------------

TEST_F(CacheDirectoryTest, SomebodyElsesDirectoryIsRefusedAndNotTouched) {
  fs::create_directories(cache_ + "/photos");
  write_text(cache_ + "/photos/1", "precious");
  ::chmod(cache_.c_str(), 0755);
  const auto before = picture(cache_);
  const auto refused = open(cache_);
  ASSERT_THAT(refused, FailsWith(ErrorCode::kFormat));
  EXPECT_THAT(refused.error().message, HasSubstr("nothing in it was touched"));
  EXPECT_EQ(picture(cache_), before);
}

TEST_F(CacheDirectoryTest, ADirectoryWithAnotherProgramsFormatFileIsRefusedAndNotTouched) {
  fs::create_directory(cache_);
  write_text(cache_ + "/FORMAT", "something else 1\n");
  ::chmod(cache_.c_str(), 0755);
  const auto before = picture(cache_);
  ASSERT_THAT(open(cache_), FailsWith(ErrorCode::kFormat));
  EXPECT_EQ(picture(cache_), before);
}

TEST_F(CacheDirectoryTest, AnotherFormatVersionIsNamedWithAWayOutAndNothingIsDeleted) {
  ASSERT_THAT(open(cache_), Succeeds());
  write_text(cache_ + "/FORMAT", "wormhole cache, format 999\n");
  write_text(cache_ + "/objects/x", "bytes");
  const auto before = picture(cache_);
  const auto refused = open(cache_);
  ASSERT_THAT(refused, FailsWith(ErrorCode::kFormat));
  EXPECT_THAT(refused.error().message,
              HasSubstr("has format 999, this program reads format " + std::to_string(kFormatVersion)));
  EXPECT_THAT(refused.error().message, HasSubstr("delete the directory"));
  EXPECT_EQ(picture(cache_), before);
}

TEST_F(CacheDirectoryTest, AFileInItsPlaceIsAnError) {
  write_text(cache_, "");
  EXPECT_FALSE(open(cache_).has_value());
  EXPECT_TRUE(fs::is_regular_file(cache_));
}

// --- held ----------------------------------------------------------------------------------------------------------

TEST_F(CacheDirectoryTest, OneThatAnotherProcessHoldsNamesItsPid) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  ChildProcess holder([&] {
    auto held = open(cache_);
    if (!held || ::write(ready[1], "x", 1) != 1) return 1;
    ::pause();
    return 0;
  });
  char x = 0;
  ASSERT_EQ(::read(ready[0], &x, 1), 1);
  const auto refused = open(cache_);
  ASSERT_THAT(refused, FailsWith(ErrorCode::kBusy));
  EXPECT_THAT(refused.error().message, HasSubstr("pid " + std::to_string(holder.pid()) + ":"));
}

TEST_F(CacheDirectoryTest, AHolderThatIsKilledHoldsNothingAnyMore) {
  ChildProcess holder([&] { return open(cache_) ? 0 : 1; });
  ASSERT_EQ(holder.wait(), 0);
  EXPECT_THAT(open(cache_), Succeeds());
}

TEST_F(CacheDirectoryTest, TheNextHolderKnowsWhetherTheLastHasEnded) {
  EXPECT_FALSE(open(cache_)->was_left_open()) << "it is new";
  EXPECT_TRUE(open(cache_)->was_left_open());
  open(cache_)->ended();
  EXPECT_FALSE(open(cache_)->was_left_open());
}

TEST_F(CacheDirectoryTest, TheIndexIsInDoubtAfterTheMachineHasStoppedAndAfterTwoWhoDidNotEnd) {
  EXPECT_FALSE(open(cache_)->may_be_damaged()) << "it is new";
  EXPECT_FALSE(open(cache_)->may_be_damaged()) << "one was killed, and the machine has not stopped";
  EXPECT_TRUE(open(cache_)->may_be_damaged()) << "the next as well: of what?";
  EXPECT_FALSE(open(cache_)->may_be_damaged()) << "it was looked through since";
  open(cache_)->ended();
  EXPECT_FALSE(open(cache_)->may_be_damaged());
  std::ofstream(cache_ + "/lock") << "17\nanother run of the machine\n";
  EXPECT_TRUE(open(cache_)->may_be_damaged());
}

TEST_F(CacheDirectoryTest, AHolderThatIsAboutToEndIsWaitedFor) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  ChildProcess holder([&] {
    auto held = open(cache_);
    if (!held || ::write(ready[1], "x", 1) != 1) return 1;
    ::usleep(150'000);
    return 0;
  });
  char x = 0;
  ASSERT_EQ(::read(ready[0], &x, 1), 1);
  EXPECT_THAT(open(cache_, 20), Succeeds());
}

TEST_F(CacheDirectoryTest, OneProcessHoldsItOnceAsWell) {
  const auto held = open(cache_);
  ASSERT_THAT(held, Succeeds());
  EXPECT_THAT(open(cache_), FailsWith(ErrorCode::kBusy));
}

// --- rights --------------------------------------------------------------------------------------------------------

constexpr uid_t kNobody = 65534;

// Runs `body` without the rights of root.
template <typename F>
int as_nobody(F body) {
  ChildProcess child([&] { return ::geteuid() == 0 && ::setuid(kNobody) != 0 ? 99 : body(); });
  return child.wait();
}

TEST_F(CacheDirectoryTest, OneThatCannotBeWrittenSaysSo) {
  ::chmod(top_.path().c_str(), 0755);
  fs::create_directory(cache_);
  ::chmod(cache_.c_str(), 0555);
  EXPECT_EQ(as_nobody([&] {
              const auto refused = open(cache_);
              return refused || refused.error().code != ErrorCode::kForbidden ? 1 : 0;
            }),
            0);
}

TEST_F(CacheDirectoryTest, OneThatCannotBeMadeSaysSo) {
  ::chmod(top_.path().c_str(), 0555);
  EXPECT_EQ(as_nobody([&] {
              const auto refused = open(cache_);
              return refused || refused.error().code != ErrorCode::kForbidden ? 1 : 0;
            }),
            0);
  ::chmod(top_.path().c_str(), 0755);
}

TEST_F(CacheDirectoryTest, OneThatBelongsToAnotherUserIsForbiddenAndNotTakenForForeign) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs another user";
  ::chmod(top_.path().c_str(), 0755);
  ASSERT_THAT(open(cache_), Succeeds());
  EXPECT_EQ(as_nobody([&] {
              const auto refused = open(cache_);
              return refused || refused.error().code != ErrorCode::kForbidden ? 1 : 0;
            }),
            0);
}

}  // namespace
}  // namespace wormhole
