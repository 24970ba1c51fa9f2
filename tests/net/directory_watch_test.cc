#include "net/directory_watch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <vector>

#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;
namespace fs = std::filesystem;

// --- the policy -------------------------------------------------------------------------------------

class DebounceTest : public ::testing::Test {
 protected:
  static inline const DirectoryWatchOptions kOptions{.quiet = 500ms, .at_most = 3000ms};
  Debounce debounce_{kOptions};
  const Debounce::Time begin_{};
};

TEST_F(DebounceTest, NothingIsDueWhenNothingHasChanged) { EXPECT_EQ(debounce_.due(), std::nullopt); }

TEST_F(DebounceTest, ABatchIsDueAfterQuiet) {
  debounce_.change(begin_);
  EXPECT_EQ(debounce_.due(), begin_ + 500ms);
  debounce_.change(begin_ + 400ms);
  EXPECT_EQ(debounce_.due(), begin_ + 900ms);
}

TEST_F(DebounceTest, NoChangeWaitsLongerThanTheLimit) {
  for (auto at = 0ms; at < 2900ms; at += 100ms) debounce_.change(begin_ + at);
  EXPECT_EQ(debounce_.due(), begin_ + 3000ms);
}

TEST_F(DebounceTest, WhatWasToldIsOver) {
  debounce_.change(begin_);
  debounce_.told();
  EXPECT_EQ(debounce_.due(), std::nullopt);
  debounce_.change(begin_ + 5000ms);
  EXPECT_EQ(debounce_.due(), begin_ + 5500ms);
}

// --- the kernel's inotify ---------------------------------------------------------------------------

const DirectoryWatchOptions kFast{.quiet = 50ms, .at_most = 500ms};

class DirectoryWatchTest : public ::testing::Test {
 protected:
  DirectoryWatchTest() { fs::create_directory(root_); }

  void start(DirectoryWatchOptions options = kFast) {
    auto watch = DirectoryWatch::start(
        root_, [this](DirectoryChanges changes) { take(std::move(changes)); }, options);
    ASSERT_TRUE(watch.has_value()) << watch.error().message;
    watch_ = std::move(*watch);
  }

  void take(DirectoryChanges changes) {
    std::unique_lock lock(mutex_);
    ++batches_;
    rescan_ = rescan_ || changes.rescan;
    seen_.merge(changes.directories);
    changed_.notify_all();
    changed_.wait(lock, [this] { return !held_; });
  }

  template <typename Condition>
  bool eventually(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, condition);
  }
  bool told(const std::string& directory) {
    return eventually([&] { return seen_.contains(directory); });
  }
  bool told_to_rescan() {
    return eventually([&] { return rescan_; });
  }

  // What is told of it alone: a mark at its end says that all before it has come.
  template <typename Change>
  std::set<std::string> told_of(Change change) {
    forget();
    change();
    EXPECT_TRUE(eventually([this] { return !seen_.empty() || rescan_; }));
    std::this_thread::sleep_for(4 * kFast.quiet);
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(rescan_);
    return seen_;
  }
  void forget() {
    const std::lock_guard lock(mutex_);
    seen_.clear();
    rescan_ = false;
    batches_ = 0;
  }

  static void write(const fs::path& path, std::string_view content = "x") { std::ofstream(path) << content; }

  const test::TemporaryDirectory directory_;
  const fs::path root_ = fs::path(directory_.path()) / "root";
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> seen_;
  bool rescan_ = false;
  bool held_ = false;  // a batch is kept in its call
  int batches_ = 0;
  std::unique_ptr<DirectoryWatch> watch_;  // ends first: it calls
};

TEST_F(DirectoryWatchTest, TellsWhichDirectoryHasChanged) {
  fs::create_directories(root_ / "a/b");
  write(root_ / "a/b/file");
  start();
  EXPECT_THAT(told_of([&] { write(root_ / "new"); }), UnorderedElementsAre(""));
  EXPECT_THAT(told_of([&] { write(root_ / "a/b/file", "other"); }), UnorderedElementsAre("a/b"));
  EXPECT_THAT(told_of([&] { fs::permissions(root_ / "a/b/file", fs::perms::owner_read); }),
              UnorderedElementsAre("a/b"));
  EXPECT_THAT(told_of([&] { fs::rename(root_ / "a/b/file", root_ / "a/moved"); }), UnorderedElementsAre("a", "a/b"));
  EXPECT_THAT(told_of([&] { fs::remove(root_ / "a/moved"); }), UnorderedElementsAre("a"));
  EXPECT_THAT(told_of([&] { fs::create_symlink("x", root_ / "a/link"); }), UnorderedElementsAre("a"));
}

TEST_F(DirectoryWatchTest, TellsOfAFileThatIsNeverClosed) {
  start();
  std::ofstream file(root_ / "file");
  ASSERT_TRUE(told(""));
  EXPECT_THAT(told_of([&] { file << "more" << std::flush; }), UnorderedElementsAre(""));
}

TEST_F(DirectoryWatchTest, WhatWasThereAtTheStartIsNoChange) {
  fs::create_directories(root_ / "a/b");
  start();
  std::this_thread::sleep_for(4 * kFast.quiet);
  const std::lock_guard lock(mutex_);
  EXPECT_THAT(seen_, IsEmpty());
  EXPECT_FALSE(rescan_);
}

TEST_F(DirectoryWatchTest, ManyChangesAreOneBatch) {
  start({.quiet = 500ms, .at_most = 10s});
  for (int i = 0; i < 1000; ++i) write(root_ / ("file" + std::to_string(i)));
  ASSERT_TRUE(told(""));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(batches_, 1);
}

TEST_F(DirectoryWatchTest, ChangesWithoutEndAreToldAllTheSame) {
  start({.quiet = 5s, .at_most = 200ms});
  const auto end = std::chrono::steady_clock::now() + 700ms;
  while (std::chrono::steady_clock::now() < end) {
    write(root_ / "file");
    std::this_thread::sleep_for(5ms);
  }
  const std::lock_guard lock(mutex_);
  EXPECT_GE(batches_, 2);
}

TEST_F(DirectoryWatchTest, NewDirectoriesAreWatchedAndToldWithAllBelowThem) {
  start();
  // Faster than a watch can be set.
  const auto seen = told_of([&] {
    fs::create_directories(root_ / "a/b/c/d");
    write(root_ / "a/b/c/d/file");
  });
  for (const char* directory : {"", "a", "a/b", "a/b/c", "a/b/c/d"}) EXPECT_THAT(seen, Contains(directory));
  EXPECT_THAT(told_of([&] { write(root_ / "a/b/c/d/other"); }), UnorderedElementsAre("a/b/c/d"));
}

TEST_F(DirectoryWatchTest, NothingIsMissedInDirectoriesThatComeWhileFilesAreWritten) {
  start();
  std::vector<std::string> made;
  for (int i = 0; i < 300; ++i) {
    std::string path = "d" + std::to_string(i);
    fs::create_directories(root_ / path / "x/y");
    write(root_ / path / "x/y/file");
    made.push_back(path + "/x/y");
  }
  for (const std::string& path : made) EXPECT_TRUE(told(path)) << path;
}

TEST_F(DirectoryWatchTest, AMovedTreeIsWatchedInItsNewPlaceAndNotInTheOld) {
  fs::create_directories(root_ / "a/b/c");
  fs::create_directories(root_ / "to");
  start();
  const auto seen = told_of([&] { fs::rename(root_ / "a", root_ / "to/z"); });
  for (const char* directory : {"", "to", "to/z", "to/z/b", "to/z/b/c"}) EXPECT_THAT(seen, Contains(directory));
  EXPECT_THAT(told_of([&] { write(root_ / "to/z/b/c/file"); }), UnorderedElementsAre("to/z/b/c"));
  // The name is given to another one.
  fs::create_directory(root_ / "a");
  ASSERT_TRUE(told("a"));
  EXPECT_THAT(told_of([&] { write(root_ / "a/file"); }), UnorderedElementsAre("a"));
}

TEST_F(DirectoryWatchTest, ATreeThatComesFromOutsideIsWatchedAndOneThatLeavesIsNot) {
  const fs::path outside = fs::path(directory_.path()) / "outside";
  fs::create_directories(outside / "b");
  start();
  EXPECT_THAT(told_of([&] { fs::rename(outside, root_ / "a"); }), UnorderedElementsAre("", "a", "a/b"));
  EXPECT_THAT(told_of([&] { write(root_ / "a/b/file"); }), UnorderedElementsAre("a/b"));
  EXPECT_THAT(told_of([&] { fs::rename(root_ / "a", outside); }), UnorderedElementsAre(""));
  EXPECT_THAT(told_of([&] {
                write(outside / "b/file");
                write(root_ / "mark");
              }),
              UnorderedElementsAre(""));
}

TEST_F(DirectoryWatchTest, ADirectoryThatIsDeletedAndMadeAgainIsWatched) {
  fs::create_directories(root_ / "a/b");
  start();
  for (int i = 0; i < 50; ++i) {
    fs::remove_all(root_ / "a");
    fs::create_directories(root_ / "a/b");
  }
  ASSERT_TRUE(told("a/b"));
  std::this_thread::sleep_for(4 * kFast.quiet);
  EXPECT_THAT(told_of([&] { write(root_ / "a/b/file"); }), UnorderedElementsAre("a/b"));
}

TEST_F(DirectoryWatchTest, LinksAreNotFollowed) {
  const fs::path outside = fs::path(directory_.path()) / "outside";
  fs::create_directory(outside);
  fs::create_directory_symlink(outside, root_ / "link");
  start();
  EXPECT_THAT(told_of([&] {
                write(outside / "file");
                write(root_ / "mark");
              }),
              UnorderedElementsAre(""));
}

TEST_F(DirectoryWatchTest, AQueueThatIsTooShortMeansEverythingAndTheWatchGoesOn) {
  size_t longest = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> longest;
  if (longest == 0 || longest > 100'000) GTEST_SKIP() << "the kernel's queue has " << longest << " places";
  fs::create_directory(root_ / "a");
  start();
  {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  write(root_ / "first");
  ASSERT_TRUE(told("")) << "and the thread is kept in the call";
  for (size_t i = 0; i <= longest; ++i) {  // two events for each
    const int fd = ::open((root_ / ("file" + std::to_string(i))).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    ::close(fd);
  }
  fs::create_directory(root_ / "unheard");
  {
    const std::lock_guard lock(mutex_);
    held_ = false;
  }
  changed_.notify_all();
  EXPECT_TRUE(told_to_rescan());
  std::this_thread::sleep_for(4 * kFast.quiet);
  EXPECT_THAT(told_of([&] { write(root_ / "unheard/file"); }), UnorderedElementsAre("unheard"));
  EXPECT_THAT(told_of([&] { write(root_ / "a/file"); }), UnorderedElementsAre("a"));
}

TEST_F(DirectoryWatchTest, ARootThatGoesMeansEverything) {
  start();
  fs::rename(root_, fs::path(directory_.path()) / "elsewhere");
  EXPECT_TRUE(told_to_rescan());
}

TEST_F(DirectoryWatchTest, ARootThatComesBackIsWatchedAgain) {
  start({.quiet = 50ms, .at_most = 500ms, .blind = 300ms});
  fs::remove_all(root_);
  ASSERT_TRUE(told_to_rescan());
  fs::create_directory(root_);
  forget();
  ASSERT_TRUE(told_to_rescan()) << "while nothing can be watched";
  std::this_thread::sleep_for(600ms);
  EXPECT_THAT(told_of([&] { write(root_ / "file"); }), UnorderedElementsAre(""));
}

// Where fewer directories may be watched than there are: in a user namespace, which has a limit of its own. 0: it
// holds; 77: this kernel lets us have none.
int watch_with_few_watches(const fs::path& root) {
  const auto write_to = [](const char* path, const char* text) {
    return bool(std::ofstream(path) << text << std::flush);
  };
  if (::unshare(CLONE_NEWUSER) != 0 || !write_to("/proc/sys/user/max_inotify_watches", "3")) return 77;
  std::atomic<int> rescans = 0;
  std::atomic<bool> root_told = false;
  const auto watch = DirectoryWatch::start(root,
                                           [&](const DirectoryChanges& changes) {
                                             rescans += changes.rescan ? 1 : 0;
                                             root_told = root_told || changes.directories.contains("");
                                           },
                                           {.quiet = 20ms, .at_most = 100ms, .blind = 200ms});
  if (!watch) return 1;
  std::ofstream(root / "file") << "x";
  for (int i = 0; i < 100 && (rescans < 2 || !root_told); ++i) std::this_thread::sleep_for(50ms);
  if (rescans < 2) return 2;
  if (!root_told) return 3;
  // Room again: everything is watched, and the cries end.
  if (!write_to("/proc/sys/user/max_inotify_watches", "1000")) return 77;
  std::this_thread::sleep_for(600ms);
  const int before = rescans;
  std::this_thread::sleep_for(600ms);
  return rescans == before ? 0 : 4;
}

TEST_F(DirectoryWatchTest, MoreDirectoriesThanTheKernelWatchesMeanARescanNowAndThen) {
  for (int i = 0; i < 10; ++i) fs::create_directory(root_ / std::to_string(i));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(watch_with_few_watches(root_));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no user namespace with a limit of its own";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(DirectoryWatchTest, AWalkOfALargeTreeCanBeEnded) {
  for (int i = 0; i < 20; ++i) fs::create_directories(root_ / std::to_string(i));
  int asked = 0;
  DirectoryWatchOptions options = kFast;
  options.goes_on = [&] { return ++asked < 5; };
  const auto watch = DirectoryWatch::start(
      root_, [](const DirectoryChanges&) {}, options);
  ASSERT_FALSE(watch.has_value());
  EXPECT_EQ(watch.error().code, ErrorCode::kCancelled);
  EXPECT_LT(asked, 10);
}

TEST_F(DirectoryWatchTest, SaysWhyItDoesNotStart) {
  const auto refusal = [](const fs::path& root) {
    const auto watch = DirectoryWatch::start(root, [](const DirectoryChanges&) {});
    EXPECT_FALSE(watch.has_value());
    return watch ? ErrorCode::kIo : watch.error().code;
  };
  EXPECT_EQ(refusal(root_ / "missing"), ErrorCode::kNotFound);
  write(root_ / "file");
  EXPECT_EQ(refusal(root_ / "file"), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace wormhole
