// What the index promises: what is posted is readable at once, what was flushed is there after any end, numbers are
// never given twice, and the bytes it counts are exact.
#include "cache/index.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "tests/support/child_process.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::ChildProcess;

constexpr Ino kFile = 1000;
constexpr Ino kOther = 1001;

const Validator kValidator{"\"v1\"", "Mon, 05 Jan 2026 10:00:00 GMT"};

class IndexTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(path_); }

  void open() {
    auto opened = Index::open(path_, metrics_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index_ = std::move(*opened);
  }
  void close() { index_.reset(); }
  void reopen() {
    close();
    open();
  }
  // `body` with an open index in a process that then dies without a clean end.
  template <typename F>
  void in_a_process_that_is_killed(F body) {
    ASSERT_EQ(index_, nullptr);
    ChildProcess child([&] {
      open();
      body();
      return 0;
    });
    ASSERT_EQ(child.wait(), 0);
  }

  void put_object(Ino ino, uint64_t size) { index_->put_object(ino, ObjectRecord{size, kValidator}); }

  // Blocks [first, first + count), whose checksums are 100 + block, of an object that is recorded (large, if nobody has
  // said otherwise).
  void store(Ino ino, BlockIndex first, size_t count = 1, UniqueFunction<void(bool)> committed = {}) {
    if (!index_->object(ino)) put_object(ino, uint64_t{1} << 40);
    store_unrecorded(ino, first, count, std::move(committed));
  }
  void store_unrecorded(Ino ino, BlockIndex first, size_t count = 1, UniqueFunction<void(bool)> committed = {}) {
    StoredBlocks blocks{ino, file_, first, {}, count * kBlockSize};
    for (size_t i = 0; i < count; ++i) blocks.checksums.push_back(100 + first + i);
    index_->put_blocks(std::move(blocks), std::move(committed));
  }
  bool has(Ino ino, BlockIndex block) {
    const auto region = index_->region({ino, block / kBlocksPerRegion});
    if (!region || !region->has(block % kBlocksPerRegion)) return false;
    EXPECT_EQ(region->checksum[block % kBlocksPerRegion], 100 + block);
    return true;
  }

  int64_t cached_bytes() {
    index_->flush();
    return metrics_.bytes_cached;
  }

  test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "index";
  std::shared_ptr<FileDescriptor> file_ =
      std::make_shared<FileDescriptor>(::open((directory_ / "object").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  Metrics metrics_;
  std::unique_ptr<Index> index_;
};

// --- records -------------------------------------------------------------------------------------------------------

TEST_F(IndexTest, WhatWasNeverPutIsNotThere) {
  open();
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_EQ(index_->directory(kFile), std::nullopt);
  EXPECT_EQ(index_->root("http://x/"), std::nullopt);
  EXPECT_FALSE(index_->region({kFile, 0}).has_value());
}

TEST_F(IndexTest, WhatIsPostedIsReadableAtOnce) {
  open();
  put_object(kFile, 5);
  index_->put_directory(kOther, "listing");
  index_->put_root("http://x/", RootRecord{kOther, false, "http://y/"});
  store(kFile, 0);
  EXPECT_EQ(index_->object(kFile), (ObjectRecord{5, kValidator}));
  EXPECT_EQ(index_->directory(kOther), "listing");
  EXPECT_EQ(index_->root("http://x/"), (RootRecord{kOther, false, "http://y/"}));
  EXPECT_TRUE(has(kFile, 0));
}

// They would be blocks of a version that nobody knows.
TEST_F(IndexTest, BlocksOfAnObjectWithoutARecordAreNotKept) {
  open();
  store_unrecorded(kFile, 0);
  EXPECT_EQ(cached_bytes(), 0);
  reopen();
  put_object(kFile, kBlockSize);
  EXPECT_FALSE(index_->region({kFile, 0}).has_value());
}

TEST_F(IndexTest, AUrlMayBeLongerThanAKeyOfTheDatabase) {
  open();
  const std::string a = "http://x/" + std::string(2000, 'a') + "/1/";
  const std::string b = "http://x/" + std::string(2000, 'a') + "/2/";
  index_->put_root(a, RootRecord{kFile, false, a});
  index_->put_root(b, RootRecord{kOther, false, b});
  reopen();
  EXPECT_EQ(index_->root(a)->ino, kFile);
  EXPECT_EQ(index_->root(b)->ino, kOther);
}

TEST_F(IndexTest, TheNewestOfTwoPostsCounts) {
  open();
  put_object(kFile, 5);
  index_->flush();
  put_object(kFile, 6);
  EXPECT_EQ(index_->object(kFile)->size, 6u);
  put_object(kFile, 7);
  EXPECT_EQ(index_->object(kFile)->size, 7u);
  reopen();
  EXPECT_EQ(index_->object(kFile)->size, 7u);
}

TEST_F(IndexTest, WhatWasPostedIsThereAfterACleanEnd) {
  open();
  put_object(kFile, 5);
  index_->put_directory(kOther, std::string(5'000'000, 'd'));
  index_->put_root("http://x/", RootRecord{kOther, true, "http://y/"});
  store(kFile, 0);
  reopen();
  EXPECT_EQ(index_->object(kFile), (ObjectRecord{5, kValidator}));
  EXPECT_EQ(index_->directory(kOther), std::string(5'000'000, 'd'));
  EXPECT_EQ(index_->root("http://x/"), (RootRecord{kOther, true, "http://y/"}));
  EXPECT_TRUE(has(kFile, 0));
}

TEST_F(IndexTest, WhatWasFlushedIsThereAfterAKill) {
  in_a_process_that_is_killed([&] {
    put_object(kFile, 5);
    index_->put_directory(kOther, "listing");
    store(kFile, 0);
    index_->flush();
    put_object(kOther, 6);  // not flushed: may be there or not, and breaks nothing
  });
  open();
  EXPECT_EQ(index_->object(kFile), (ObjectRecord{5, kValidator}));
  EXPECT_EQ(index_->directory(kOther), "listing");
  EXPECT_TRUE(has(kFile, 0));
}

TEST_F(IndexTest, WhatIsPostedIsCommittedWithoutAFlush) {
  open();
  std::promise<bool> committed;
  store(kFile, 0, 1, [&](bool ok) { committed.set_value(ok); });
  auto result = committed.get_future();
  ASSERT_EQ(result.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(result.get());
}

TEST_F(IndexTest, ManyPostsShareACommit) {
  open();
  const uint64_t before = metrics_.index_commits;
  for (Ino i = 0; i < 1000; ++i) put_object(kFile + i, i);
  index_->flush();
  EXPECT_LE(metrics_.index_commits - before, 3u);
  for (Ino i = 0; i < 1000; ++i) EXPECT_EQ(index_->object(kFile + i)->size, i);
}

TEST_F(IndexTest, AFlushWithNothingToWriteReturns) {
  open();
  index_->flush();
  index_->flush();
}

// --- clean or not --------------------------------------------------------------------------------------------------

TEST_F(IndexTest, ANewIndexHasNothingToDoubt) {
  open();
  EXPECT_TRUE(index_->was_clean());
}

TEST_F(IndexTest, AfterACleanEndItIsClean) {
  open();
  store(kFile, 0);
  reopen();
  EXPECT_TRUE(index_->was_clean());
}

TEST_F(IndexTest, AfterAKillItIsNotClean) {
  in_a_process_that_is_killed([&] {});
  open();
  EXPECT_FALSE(index_->was_clean());
}

TEST_F(IndexTest, ACleanEndAfterAKillDoesNotEndTheDoubt) {
  in_a_process_that_is_killed([&] {});
  open();
  reopen();
  EXPECT_FALSE(index_->was_clean());  // blocks that nobody has read in between were never checked
}

TEST_F(IndexTest, AfterAFailureItIsNotClean) {
  open();
  put_object(kFile, kBlockSize);
  file_ = std::make_shared<FileDescriptor>(::open("/dev/null", O_WRONLY | O_CLOEXEC));  // cannot be synced
  store(kFile, 0);
  index_->flush();
  EXPECT_EQ(index_->failures(), 1u);
  reopen();
  EXPECT_FALSE(index_->was_clean());
}

// --- inode numbers -------------------------------------------------------------------------------------------------

TEST_F(IndexTest, NumbersBeginBehindTheKernelsRoot) {
  open();
  EXPECT_GT(index_->allocate_ino(), 1u);
}

TEST_F(IndexTest, NoNumberIsGivenTwice) {
  open();
  std::set<Ino> given;
  for (int i = 0; i < 200'000; ++i) EXPECT_TRUE(given.insert(index_->allocate_ino()).second);
  reopen();
  EXPECT_FALSE(given.contains(index_->allocate_ino()));
}

TEST_F(IndexTest, NoNumberIsGivenTwiceAcrossAKill) {
  int numbers[2];
  ASSERT_EQ(::pipe(numbers), 0);
  in_a_process_that_is_killed([&] {
    const Ino ino = index_->allocate_ino();
    EXPECT_EQ(::write(numbers[1], &ino, sizeof ino), static_cast<ssize_t>(sizeof ino));
  });
  Ino before = 0;
  ASSERT_EQ(::read(numbers[0], &before, sizeof before), static_cast<ssize_t>(sizeof before));
  open();
  EXPECT_GT(index_->allocate_ino(), before);
}

TEST_F(IndexTest, ANumberInADurableRecordIsNeverGivenAgain) {
  int numbers[2];
  ASSERT_EQ(::pipe(numbers), 0);
  in_a_process_that_is_killed([&] {
    Ino ino = 0;
    for (int i = 0; i < 100'000; ++i) ino = index_->allocate_ino();  // more than one run
    put_object(ino, 5);
    index_->flush();
    EXPECT_EQ(::write(numbers[1], &ino, sizeof ino), static_cast<ssize_t>(sizeof ino));
  });
  Ino before = 0;
  ASSERT_EQ(::read(numbers[0], &before, sizeof before), static_cast<ssize_t>(sizeof before));
  open();
  EXPECT_GT(index_->allocate_ino(), before);
}

TEST_F(IndexTest, ManyThreadsGetDifferentNumbers) {
  open();
  std::vector<std::vector<Ino>> given(4);
  std::vector<std::thread> threads;
  for (auto& mine : given) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) mine.push_back(index_->allocate_ino());
    });
  }
  for (auto& t : threads) t.join();
  std::set<Ino> all;
  for (const auto& mine : given) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), 20'000u);
}

// --- blocks --------------------------------------------------------------------------------------------------------

TEST_F(IndexTest, BlocksOfSeveralBatchesGatherInTheirRegion) {
  open();
  store(kFile, 0);
  index_->flush();
  store(kFile, 2, 3);
  index_->flush();
  store(kFile, 63, 2);  // the last of a region and the first of the next
  for (const BlockIndex b : {0, 2, 3, 4, 63, 64}) EXPECT_TRUE(has(kFile, b)) << b;
  for (const BlockIndex b : {1, 5, 62, 65}) EXPECT_FALSE(has(kFile, b)) << b;
  reopen();
  for (const BlockIndex b : {0, 2, 3, 4, 63, 64}) EXPECT_TRUE(has(kFile, b)) << b;
  for (const BlockIndex b : {1, 5, 62, 65}) EXPECT_FALSE(has(kFile, b)) << b;
}

TEST_F(IndexTest, AStoredBlockIsReportedAfterItsCommit) {
  open();
  const uint64_t before = metrics_.index_commits;
  uint64_t at_report = 0;
  store(kFile, 0, 1, [&](bool ok) {
    EXPECT_TRUE(ok);
    at_report = metrics_.index_commits;
  });
  close();
  EXPECT_GT(at_report, before);
}

TEST_F(IndexTest, ABlockIsNeverOutOfSightWhileItIsCommitted) {
  open();
  std::atomic<bool> stop{false};
  std::thread hurry([&] {
    while (!stop) index_->flush();
  });
  for (BlockIndex b = 0; b < 300; ++b) {
    store(kFile, b);
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(has(kFile, b / 2)) << b;
    ASSERT_TRUE(has(kFile, b));
  }
  stop = true;
  hurry.join();
}

TEST_F(IndexTest, ABlockWhoseBytesCannotBeSyncedIsNotThere) {
  open();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const FileDescriptor reading(ends[0]);
  file_ = std::make_shared<FileDescriptor>(ends[1]);  // fdatasync fails on it
  bool reported = true;
  store(kFile, 0, 1, [&](bool ok) { reported = ok; });
  index_->flush();
  EXPECT_FALSE(has(kFile, 0));
  close();
  EXPECT_FALSE(reported);
  EXPECT_EQ(metrics_.store_errors, 1u);
  open();
  EXPECT_FALSE(has(kFile, 0));
  EXPECT_EQ(cached_bytes(), 0);
}

TEST_F(IndexTest, ACommitForWhichThereIsNoSpaceIsForgottenAndTheNextOneWorks) {
  open();
  put_object(kFile, 5);
  index_->flush();
  // No file may grow now. (LMDB writes into the file; the signal is the default way to be told.)
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit whole{};
  ::getrlimit(RLIMIT_FSIZE, &whole);
  const rlimit tight{std::filesystem::file_size(path_ + "/data.mdb"), whole.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  index_->put_directory(kOther, std::string(1'000'000, 'd'));
  index_->flush();
  ::setrlimit(RLIMIT_FSIZE, &whole);
  EXPECT_EQ(metrics_.store_errors, 1u);
  EXPECT_EQ(index_->directory(kOther), std::nullopt);
  EXPECT_EQ(index_->object(kFile)->size, 5u);
  put_object(kOther, 6);
  reopen();
  EXPECT_EQ(index_->object(kFile)->size, 5u);
  EXPECT_EQ(index_->object(kOther)->size, 6u);
}

// --- forgetting ----------------------------------------------------------------------------------------------------

TEST_F(IndexTest, AForgottenBlockIsGoneAtOnceAndForGood) {
  open();
  store(kFile, 0, 3);
  index_->flush();
  index_->forget_block(kFile, 1);
  EXPECT_FALSE(has(kFile, 1));
  EXPECT_TRUE(has(kFile, 0));
  EXPECT_TRUE(has(kFile, 2));
  reopen();
  EXPECT_FALSE(has(kFile, 1));
  EXPECT_TRUE(has(kFile, 0));
  EXPECT_TRUE(has(kFile, 2));
}

TEST_F(IndexTest, ABlockThatIsForgottenBeforeItsCommitIsNotThere) {
  open();
  store(kFile, 0);
  index_->forget_block(kFile, 0);
  EXPECT_FALSE(has(kFile, 0));
  reopen();
  EXPECT_FALSE(has(kFile, 0));
}

TEST_F(IndexTest, ABlockThatIsStoredAfterItWasForgottenIsThere) {
  open();
  store(kFile, 0);
  index_->flush();
  index_->forget_block(kFile, 0);
  store(kFile, 0);
  EXPECT_TRUE(has(kFile, 0));
  reopen();
  EXPECT_TRUE(has(kFile, 0));
}

TEST_F(IndexTest, ForgettingWhatIsNotThereChangesNothing) {
  open();
  store(kFile, 0);
  index_->forget_block(kFile, 1);
  index_->forget_block(kOther, 0);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize));
  EXPECT_TRUE(has(kFile, 0));
}

TEST_F(IndexTest, ADroppedObjectIsGoneWithAllItsRegionsAndNothingElse) {
  open();
  for (const Ino ino : {kFile - 1, kFile, kOther}) {
    put_object(ino, 1000 * kBlockSize);
    store(ino, 0);
    store(ino, 700);
  }
  index_->flush();
  std::promise<bool> dropped;
  index_->drop_object(kFile, [&](bool ok) { dropped.set_value(ok); });
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_FALSE(has(kFile, 0));
  EXPECT_FALSE(has(kFile, 700));
  EXPECT_TRUE(dropped.get_future().get());
  reopen();
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_FALSE(has(kFile, 0));
  EXPECT_FALSE(has(kFile, 700));
  for (const Ino ino : {kFile - 1, kOther}) {
    EXPECT_NE(index_->object(ino), std::nullopt);
    EXPECT_TRUE(has(ino, 0));
    EXPECT_TRUE(has(ino, 700));
  }
}

TEST_F(IndexTest, AnObjectThatIsDroppedBeforeItsCommitIsNotThere) {
  open();
  put_object(kFile, 5);
  store(kFile, 0);
  index_->drop_object(kFile, {});
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_FALSE(has(kFile, 0));
  reopen();
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_FALSE(has(kFile, 0));
}

TEST_F(IndexTest, WhatIsPutAfterADropIsThere) {
  open();
  put_object(kFile, 5);
  store(kFile, 0);
  store(kFile, 64);
  index_->flush();
  index_->drop_object(kFile, {});
  put_object(kFile, 6);
  store(kFile, 1);
  EXPECT_EQ(index_->object(kFile)->size, 6u);
  EXPECT_FALSE(has(kFile, 0));
  EXPECT_TRUE(has(kFile, 1));
  reopen();
  EXPECT_EQ(index_->object(kFile)->size, 6u);
  EXPECT_FALSE(has(kFile, 0));
  EXPECT_FALSE(has(kFile, 64));
  EXPECT_TRUE(has(kFile, 1));
}

// --- the sum -------------------------------------------------------------------------------------------------------

TEST_F(IndexTest, TheSumCountsTheBytesOfStoredBlocks) {
  open();
  put_object(kFile, 100 * kBlockSize);
  store(kFile, 0, 3);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(3 * kBlockSize));
  store(kFile, 70);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(4 * kBlockSize));
}

TEST_F(IndexTest, AShortLastBlockCountsWithThePagesItTakes) {
  open();
  put_object(kFile, kBlockSize + 10);
  store(kFile, 0, 2);
  put_object(kOther, 65 * kBlockSize + 7);  // the last block is the second one of its region
  store(kOther, 65);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize + 2 * kPageSize));
}

TEST_F(IndexTest, ALastBlockThatIsFullCountsAsOne) {
  open();
  put_object(kFile, 64 * kBlockSize);
  store(kFile, 63);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize));
}

TEST_F(IndexTest, ABlockThatIsStoredTwiceCountsOnce) {
  open();
  put_object(kFile, 5);
  store(kFile, 0);
  store(kFile, 0);
  EXPECT_EQ(cached_bytes(), kPageSize);
  store(kFile, 0);
  EXPECT_EQ(cached_bytes(), kPageSize);
}

TEST_F(IndexTest, WhatIsForgottenOrDroppedIsTakenOffTheSum) {
  open();
  put_object(kFile, kBlockSize + 10);
  store(kFile, 0, 2);
  put_object(kOther, 7);
  store(kOther, 0);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize + 2 * kPageSize));
  index_->forget_block(kFile, 1);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize + kPageSize));
  index_->forget_block(kFile, 1);
  EXPECT_EQ(cached_bytes(), static_cast<int64_t>(kBlockSize + kPageSize));
  index_->drop_object(kFile, {});
  EXPECT_EQ(cached_bytes(), kPageSize);
  index_->drop_object(kFile, {});
  index_->drop_object(kOther, {});
  EXPECT_EQ(cached_bytes(), 0);
}

TEST_F(IndexTest, ADropAndANewStoreInOneBatchCountTheNewOne) {
  open();
  put_object(kFile, 10);
  store(kFile, 0);
  EXPECT_EQ(cached_bytes(), kPageSize);
  index_->drop_object(kFile, {});
  put_object(kFile, kBlockSize + 1);
  store(kFile, 1);
  EXPECT_EQ(cached_bytes(), kPageSize);
}

TEST_F(IndexTest, TheSumIsKeptOverTheEnd) {
  open();
  put_object(kFile, kBlockSize + 10);
  store(kFile, 0, 2);
  reopen();
  EXPECT_EQ(metrics_.bytes_cached, static_cast<int64_t>(kBlockSize + kPageSize));
  index_->forget_block(kFile, 0);
  reopen();
  EXPECT_EQ(metrics_.bytes_cached, kPageSize);
}

// --- what cannot be opened -----------------------------------------------------------------------------------------

TEST_F(IndexTest, AFileThatIsNoIndexIsRefusedWithAWayOut) {
  test::write_text(path_ + "/data.mdb", std::string(100'000, 'x'));
  const auto refused = Index::open(path_, metrics_);
  ASSERT_THAT(refused, test::FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("delete the cache directory"));
}

TEST_F(IndexTest, AMissingDirectoryIsAnError) {
  EXPECT_FALSE(Index::open(directory_ / "nowhere", metrics_).has_value());
}

// --- pins, and what is there ---------------------------------------------------------------------------------------

TEST_F(IndexTest, APinHoldsAtOnceAndSurvivesAnyEnd) {
  in_a_process_that_is_killed([&] {
    index_->pin({kFile, kOther});
    EXPECT_TRUE(index_->pinned().contains(kFile));
    index_->flush();
    index_->unpin({kOther});
    EXPECT_FALSE(index_->pinned().contains(kOther));
    index_->flush();
  });
  open();
  EXPECT_THAT(index_->pinned().all(), ::testing::ElementsAre(kFile));
  index_->unpin({kFile});
  index_->pin({kOther});
  index_->unpin({kOther});
  reopen();
  EXPECT_EQ(index_->pinned().count(), 0u);
}

TEST_F(IndexTest, APinOutlivesTheRecordsOfItsFile) {
  open();
  store(kFile, 0);
  index_->pin({kFile});
  index_->drop_object(kFile, nullptr);
  reopen();
  EXPECT_TRUE(index_->pinned().contains(kFile));
}

TEST_F(IndexTest, WhatIsThereOfAFileIsToldRegionByRegion) {
  open();
  put_object(kFile, 70 * kBlockSize - 5);
  store(kFile, 69);
  index_->flush();
  store(kFile, 0, 2);  // not committed yet
  const auto regions = index_->cached_regions(kFile);
  ASSERT_EQ(regions.size(), 2u);
  EXPECT_EQ(regions[0].region, 0u);
  EXPECT_EQ(regions[0].present, 0b11u);
  EXPECT_EQ(regions[0].bytes, 2 * kBlockSize);
  EXPECT_EQ(regions[1].region, 1u);
  EXPECT_EQ(regions[1].present, 0b100000u);
  EXPECT_EQ(regions[1].bytes, kBlockSize - 5);
  EXPECT_TRUE(index_->cached_regions(kOther).empty());
}

TEST_F(IndexTest, FilesAreCountedByHowMuchOfThemIsThere) {
  open();
  EXPECT_EQ(index_->count_files().complete + index_->count_files().partial, 0u);
  put_object(kFile, 66 * kBlockSize);
  store(kFile, 0, 66);
  put_object(kOther, 2 * kBlockSize);
  store(kOther, 1);
  index_->flush();
  EXPECT_EQ(index_->count_files().complete, 1u);
  EXPECT_EQ(index_->count_files().partial, 1u);
  EXPECT_EQ(index_->contents().regions, 3u);
  EXPECT_EQ(index_->contents().small_bytes + index_->contents().main_bytes, 67 * kBlockSize);
}

}  // namespace
}  // namespace wormhole
