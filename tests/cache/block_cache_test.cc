#include "cache/block_cache.h"

#include <future>

#include "base/punch_hole.h"
#include "cache/leftovers.h"
#include "cache/scrubber.h"
#include "tests/cache/block_cache_setup.h"
#include "tests/support/manual_clock.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;

// --- store and read ------------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, WhatWasNeverStoredIsNotThere) {
  open();
  EXPECT_FALSE(has(0));
  EXPECT_FALSE(complete());
}

TEST_F(BlockCacheTest, AStoredBlockIsThereAndReadBack) {
  open();
  ASSERT_TRUE(store(3));
  EXPECT_TRUE(has(3));
  EXPECT_FALSE(has(2));
  EXPECT_FALSE(has(4));
  EXPECT_THAT(read_block(3), Succeeds());
}

TEST_F(BlockCacheTest, SeveralBlocksAreStoredWithOneWrite) {
  open();
  ASSERT_TRUE(store(2, 5));
  EXPECT_EQ(disk_->writes(), 1u);
  for (BlockIndex b = 2; b < 7; ++b) EXPECT_TRUE(has(b)) << b;
  EXPECT_EQ(metrics_.blocks_stored, 5u);
}

TEST_F(BlockCacheTest, AnyRangeOfStoredBlocksIsReadWithOneRead) {
  open();
  ASSERT_TRUE(store(0, 11));
  for (const ByteRange r : {ByteRange{0, 1}, ByteRange{kBlockSize - 1, kBlockSize + 1}, ByteRange{100'001, 500'003},
                            ByteRange{kSize - 1, kSize}, ByteRange{0, kSize}}) {
    const size_t before = disk_->reads();
    EXPECT_THAT(read(r), Succeeds()) << r.begin;
    EXPECT_EQ(disk_->reads() - before, 1u);
  }
}

TEST_F(BlockCacheTest, AShortLastBlockIsABlock) {
  open();
  ASSERT_TRUE(store(10));
  EXPECT_TRUE(has(10));
  EXPECT_THAT(read(block_range(10, kSize)), Succeeds());
  EXPECT_EQ(fs::file_size(file_of()), kSize);
}

TEST_F(BlockCacheTest, AnObjectIsCompleteWhenEveryBlockIsThere) {
  open();
  ASSERT_TRUE(store(0, 10));
  EXPECT_FALSE(complete());
  ASSERT_TRUE(store(10));
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, AnObjectOfManyRegionsIsCompleteWhenEveryBlockIsThere) {
  constexpr uint64_t kLarge = 2 * kRegionSize;
  open(kFile, kLarge);
  ASSERT_TRUE(store(0, 127, kFile, kLarge));
  EXPECT_FALSE(complete());
  ASSERT_TRUE(store(127, 1, kFile, kLarge));
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, AnEmptyObjectHasNoFile) {
  open(kFile, 0);
  EXPECT_FALSE(complete());
}

TEST_F(BlockCacheTest, AnObjectIsCompleteAgainAfterARestart) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart();
  open();
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, AfterAKillAnObjectIsCompleteWhenEachBlockWasChecked) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart_after_a_kill([] {});
  open();
  EXPECT_FALSE(complete());
  EXPECT_THAT(read({0, kSize - 1}), Succeeds());
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, WhereEachReadIsCheckedNothingIsEverComplete) {
  restart_with(VerifyMode::kAlways);
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  EXPECT_THAT(read({0, kSize}), Succeeds());
  EXPECT_FALSE(complete());
}

TEST_F(BlockCacheTest, WhoHasTheFileIsToldWhenABlockIsFoundWrong) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart_after_a_kill([&] { flip_byte(kBlockSize + 7); });
  open();
  EXPECT_THAT(read({0, kBlockSize}), Succeeds());
  EXPECT_THAT(read({2 * kBlockSize, kSize}), Succeeds());
  EXPECT_FALSE(complete()) << "one block is left in doubt";
  EXPECT_THAT(read({kBlockSize, 2 * kBlockSize}), FailsWith(ErrorCode::kCorrupt));
  EXPECT_FALSE(complete());
  ASSERT_TRUE(store(1));
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, AFileThatWasCutIsNotComplete) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  stop();
  std::filesystem::resize_file(file_of(), kSize - 1);
  start();
  open();
  EXPECT_FALSE(complete());
}

TEST_F(BlockCacheTest, AnObjectThatIsDroppedIsReadByNobodyAnyMore) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  const CompleteFileRef file = complete_file(kFile);
  ASSERT_TRUE(file->enter());
  drop();
  EXPECT_FALSE(file->enter());
  EXPECT_FALSE(complete());
}

TEST_F(BlockCacheTest, AReadOverARegionsBorderIsOneRead) {
  constexpr uint64_t kLarge = 2 * kRegionSize;
  open(kFile, kLarge);
  ASSERT_TRUE(store(62, 4, kFile, kLarge));
  EXPECT_THAT(read({kRegionSize - 100, kRegionSize + 100}), Succeeds());
  EXPECT_EQ(disk_->reads(), 1u);
}

TEST_F(BlockCacheTest, AShortReadGoesOn) {
  open();
  ASSERT_TRUE(store(0, 2));
  disk_->order_read(1, {.at_most = 1000});
  disk_->order_read(2, {.at_most = 1});
  EXPECT_THAT(read({0, 2 * kBlockSize}), Succeeds());
  EXPECT_EQ(disk_->reads(), 3u);
}

TEST_F(BlockCacheTest, BlocksThatWereHoledStaySparse) {
  open(kFile, 1000 * kBlockSize);
  ASSERT_TRUE(store(999, 1, kFile, 1000 * kBlockSize));
  struct stat s {};
  ASSERT_EQ(::stat(file_of().c_str(), &s), 0);
  EXPECT_EQ(s.st_size, static_cast<off_t>(1000 * kBlockSize));
  EXPECT_LT(s.st_blocks * 512, static_cast<off_t>(10 * kBlockSize));
}

// Keeps the index thread from its next batch while it exists.
class HeldIndex {
 public:
  explicit HeldIndex(Index& index) {
    index.put_blocks({kFile + 1, std::make_shared<FileDescriptor>(::open("/", O_RDONLY | O_CLOEXEC)), 0, {0}, 1},
                     [this](bool) {
                       entered_.set_value();
                       leave_.get_future().wait();
                       left_.set_value();
                     });
    entered_.get_future().wait();
  }
  ~HeldIndex() {
    leave_.set_value();
    left_.get_future().wait();
  }

 private:
  std::promise<void> entered_, leave_, left_;
};

TEST_F(BlockCacheTest, WhatIsNotSyncedYetIsCheckedAtEveryRead) {
  open();
  const HeldIndex held(*index_);
  ASSERT_TRUE(store(0, 2));
  ASSERT_THAT(read_block(1), Succeeds());
  // The kernel writes the pages, the disk refuses them, and where they were is a hole.
  const FileDescriptor fd(::open(file_of().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(punch_hole(fd.get(), block_range(1, kSize)));
  EXPECT_THAT(read_block(1), FailsWith(ErrorCode::kCorrupt));
  EXPECT_FALSE(has(1));
  EXPECT_THAT(read_block(0), Succeeds());
}

TEST_F(BlockCacheTest, WhatIsNotSyncedYetIsNotComplete) {
  open();
  {
    const HeldIndex held(*index_);
    ASSERT_TRUE(store(0, block_count(kSize)));
    EXPECT_FALSE(on_loop([&] { return cache_->complete_file(kFile); }));
  }
  EXPECT_TRUE(complete());
}

TEST_F(BlockCacheTest, WhatTheDiskDoesNotTakeIsNotThereAnyMore) {
  open();
  ASSERT_TRUE(store(0));
  index_->flush();
  ASSERT_THAT(read_block(0), Succeeds());
  {
    const HeldIndex held(*index_);
    ASSERT_TRUE(store(1));
    // In one batch with what cannot be synced.
    index_->put_blocks({kFile + 1, std::make_shared<FileDescriptor>(::open("/dev/null", O_WRONLY)), 0, {0}, 1}, {});
  }
  index_->flush();
  EXPECT_THAT(read_block(0), Succeeds());
  EXPECT_TRUE(has(0));
  EXPECT_FALSE(has(1));
}

// --- the page cache ------------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, WhatIsReadHereAndThereLeavesNothingInThePageCache) {
  open();
  ASSERT_TRUE(store(0, 11));
  if (!leave_page_cache()) GTEST_SKIP() << "the file system keeps everything in memory";
  for (const uint64_t begin : {7 * kBlockSize + 4096, 2 * kBlockSize, 5 * kBlockSize + 8192}) {
    EXPECT_THAT(read({begin, begin + 4096}), Succeeds());
  }
  EXPECT_EQ(pages_in_page_cache(), 0u);
}

TEST_F(BlockCacheTest, PastThePageCacheAnyRangeIsReadToo) {
  open();
  ASSERT_TRUE(store(0, 11));
  leave_page_cache();
  // Within a page, over the border of two, up to the end of the file, which is that of no page.
  for (const ByteRange range :
       {ByteRange{7 * kBlockSize + 100, 7 * kBlockSize + 101}, ByteRange{3 * kBlockSize - 5, 3 * kBlockSize + 5},
        ByteRange{kSize - 1001, kSize}, ByteRange{4 * kBlockSize + 1, 6 * kBlockSize - 1}}) {
    EXPECT_THAT(read(range), Succeeds());
  }
  EXPECT_EQ(disk_->reads(), 4u);
}

TEST_F(BlockCacheTest, AShortReadPastThePageCacheGoesOn) {
  open();
  ASSERT_TRUE(store(0, 11));
  leave_page_cache();
  disk_->order_read(1, {.at_most = 5000});
  EXPECT_THAT(read({7 * kBlockSize + 100, 8 * kBlockSize}), Succeeds());
  EXPECT_EQ(disk_->reads(), 2u);
}

TEST_F(BlockCacheTest, AFileSystemThatRefusesDirectReadsIsReadThroughThePageCache) {
  open();
  ASSERT_TRUE(store(0, 11));
  if (!leave_page_cache()) GTEST_SKIP() << "the file system keeps everything in memory";
  disk_->order_read(1, {.error = EINVAL});
  EXPECT_THAT(read_block(7), Succeeds());
  EXPECT_TRUE(has(7));
  EXPECT_EQ(disk_->reads(), 2u);
  EXPECT_THAT(read_block(2), Succeeds());
  EXPECT_EQ(disk_->reads(), 3u);
  EXPECT_GE(pages_in_page_cache(), 2 * kBlockSize / 4096);
}

TEST_F(BlockCacheTest, WhatIsReadInOrderGoesThroughThePageCache) {
  open();
  ASSERT_TRUE(store(0, 11));
  if (!leave_page_cache()) GTEST_SKIP() << "the file system keeps everything in memory";
  for (const BlockIndex block : {0, 2, 1, 3}) EXPECT_THAT(read_block(block), Succeeds());  // as two workers may ask
  EXPECT_GE(pages_in_page_cache(), 4 * kBlockSize / 4096);
}

TEST_F(BlockCacheTest, WhatIsInThePageCacheButNotOnDiskYetIsRead) {
  open();
  std::promise<bool> done;
  loop_->post([&] {
    BufferRef bytes = buffers_.allocate(kBlockSize);
    test::fill_pattern(kSeed, 7 * kBlockSize, {bytes->data(), kBlockSize});
    cache_->store(kFile, block_range(7, kSize), std::move(bytes), BlockCache::PageCache::kKeep,
                  [&](bool ok) { done.set_value(ok); });
  });
  ASSERT_TRUE(done.get_future().get());
  EXPECT_THAT(read({7 * kBlockSize + 4096, 7 * kBlockSize + 8192}), Succeeds());
}

// --- after a restart -----------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, AStoredBlockIsThereAfterARestart) {
  open();
  ASSERT_TRUE(store(3));
  ASSERT_TRUE(store(10));
  restart();
  open();
  EXPECT_TRUE(has(3));
  EXPECT_TRUE(has(10));
  EXPECT_FALSE(has(4));
  EXPECT_THAT(read_block(3), Succeeds());
  EXPECT_THAT(read_block(10), Succeeds());
}

TEST_F(BlockCacheTest, AStoredBlockIsThereAfterAKill) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([] {});
  open();
  EXPECT_TRUE(has(3));
  EXPECT_THAT(read_block(3), Succeeds());
}

TEST_F(BlockCacheTest, BlocksOfAVersionThatIsNotRecordedAreNotBelieved) {
  open();
  ASSERT_TRUE(store(3));
  restart();
  on_loop([&] { cache_->open(kFile, kSize, false); });
  EXPECT_FALSE(has(3));
}

// --- checking ------------------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, AfterAKillAFlippedByteIsFoundOnceAndTheBlockIsGone) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize + 77); });
  open();
  EXPECT_TRUE(has(3));
  EXPECT_THAT(read({3 * kBlockSize, 3 * kBlockSize + 10}), FailsWith(ErrorCode::kCorrupt));
  EXPECT_FALSE(has(3));
  EXPECT_EQ(metrics_.blocks_corrupt, 1u);
}

TEST_F(BlockCacheTest, ABlockThatWasFoundWrongIsGoneAfterARestartToo) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize); });
  open();
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kCorrupt));
  restart();
  open();
  EXPECT_FALSE(has(3));
}

TEST_F(BlockCacheTest, AWrongBlockDoesNotCostItsNeighbours) {
  open();
  ASSERT_TRUE(store(2, 3));
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize); });
  open();
  EXPECT_THAT(read({2 * kBlockSize, 5 * kBlockSize}), FailsWith(ErrorCode::kCorrupt));
  EXPECT_TRUE(has(2));
  EXPECT_FALSE(has(3));
  EXPECT_TRUE(has(4));
  EXPECT_THAT(read_block(2), Succeeds());
}

TEST_F(BlockCacheTest, ABlockThatIsStoredAgainAfterItWasWrongIsGood) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize); });
  open();
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kCorrupt));
  ASSERT_TRUE(store(3));
  EXPECT_THAT(read_block(3), Succeeds());
  restart_after_a_kill([] {});
  open();
  EXPECT_THAT(read_block(3), Succeeds());
}

TEST_F(BlockCacheTest, AfterAKillAnUnalignedReadChecksTheWholeBlocks) {
  open();
  ASSERT_TRUE(store(2, 3));
  restart_after_a_kill([&] { flip_byte(4 * kBlockSize + kBlockSize - 1); });
  open();
  EXPECT_THAT(read({2 * kBlockSize + 5, 3 * kBlockSize + 5}), Succeeds());
  EXPECT_THAT(read({3 * kBlockSize + 5, 4 * kBlockSize + 5}), FailsWith(ErrorCode::kCorrupt));
}

TEST_F(BlockCacheTest, AfterAKillABlockIsCheckedAtItsFirstTouchOnly) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([] {});
  open();
  EXPECT_THAT(read_block(3), Succeeds());
  flip_byte(3 * kBlockSize);
  EXPECT_THAT(read_bytes(block_range(3, kSize)), Succeeds());
}

TEST_F(BlockCacheTest, ABlockThatNobodyReadBetweenAKillAndACleanEndIsStillChecked) {
  open();
  ASSERT_TRUE(store(3));
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize); });
  restart();
  open();
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kCorrupt));
}

TEST_F(BlockCacheTest, AfterACleanEndBlocksAreTrusted) {
  open();
  ASSERT_TRUE(store(3));
  restart();
  flip_byte(3 * kBlockSize);
  open();
  EXPECT_THAT(read_bytes(block_range(3, kSize)), Succeeds());
}

TEST_F(BlockCacheTest, WithVerifyAlwaysEveryReadIsChecked) {
  restart_with(VerifyMode::kAlways);
  open();
  ASSERT_TRUE(store(3));
  EXPECT_THAT(read_block(3), Succeeds());
  flip_byte(3 * kBlockSize);
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kCorrupt));
  EXPECT_FALSE(has(3));
}

TEST_F(BlockCacheTest, WithVerifyOffNothingIsChecked) {
  open();
  ASSERT_TRUE(store(3));
  options_.verify = VerifyMode::kOff;
  restart_after_a_kill([&] { flip_byte(3 * kBlockSize); });
  open();
  EXPECT_THAT(read_bytes(block_range(3, kSize)), Succeeds());
}

TEST_F(BlockCacheTest, AWrongByteOnTheWayFromTheDiskIsFoundToo) {
  restart_with(VerifyMode::kAlways);
  open();
  ASSERT_TRUE(store(3));
  disk_->order_read(1, {.flip_byte_at = 500});
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kCorrupt));
}

// --- a disk that fails ---------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, ABlockThatCannotBeReadIsGone) {
  open();
  ASSERT_TRUE(store(3));
  disk_->order_read(1, {.error = EIO});
  EXPECT_THAT(read_block(3), FailsWith(ErrorCode::kIo));
  EXPECT_FALSE(has(3));
  ASSERT_TRUE(store(3));
  EXPECT_THAT(read_block(3), Succeeds());
}

// A new file in its place has holes where the index knew blocks: they must not be read as zeros.
TEST_F(BlockCacheTest, AnObjectFileThatIsGoneCostsAllItsBlocks) {
  for (const bool cut : {false, true}) {
    open();
    ASSERT_TRUE(store(3, 2));
    restart();
    cut ? fs::resize_file(file_of(), 4 * kBlockSize) : void(fs::remove(file_of()));
    open();
    EXPECT_THAT(read_block(4), FailsWith(ErrorCode::kCorrupt));
    EXPECT_FALSE(has(3));
    ASSERT_TRUE(store(4));
    EXPECT_FALSE(has(3));
    EXPECT_THAT(read_block(4), Succeeds());
    restart();
    open();
    EXPECT_FALSE(has(3));
    EXPECT_TRUE(has(4));
  }
}

TEST_F(BlockCacheTest, AnObjectFileThatIsGoneIsNoticedByAStoreAsWell) {
  open();
  ASSERT_TRUE(store(3, 2));
  restart();
  fs::remove(file_of());
  open();
  ASSERT_TRUE(store(5));
  EXPECT_FALSE(has(3));
  EXPECT_TRUE(has(5));
}

TEST_F(BlockCacheTest, AWriteThatFindsNoSpaceStoresNothing) {
  open();
  disk_->order_write(1, {.error = ENOSPC});
  EXPECT_FALSE(store(3));
  EXPECT_FALSE(has(3));
  EXPECT_EQ(metrics_.store_errors, 1u);
  restart();
  open();
  EXPECT_FALSE(has(3));
}

TEST_F(BlockCacheTest, AShortWriteStoresNothing) {
  open();
  disk_->order_write(1, {.at_most = kBlockSize + 4096});
  EXPECT_FALSE(store(3, 2));
  EXPECT_FALSE(has(3));
  EXPECT_FALSE(has(4));
}

TEST_F(BlockCacheTest, ADiskThatHasSpaceAgainStoresAgain) {
  open();
  disk_->order_write(1, {.error = ENOSPC});
  EXPECT_FALSE(store(3));
  EXPECT_TRUE(store(3));
  EXPECT_THAT(read_block(3), Succeeds());
}

TEST_F(BlockCacheTest, AFileThatCannotBeMadeStoresNothing) {
  open();
  test::write_text(fmt::format("{}/objects/{:02x}", directory_.path(), kFile & 0xff), "in the way");
  EXPECT_FALSE(store(3));
  EXPECT_FALSE(has(3));
}

// --- limits --------------------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, NothingIsStoredBeyondTheSizeLimit) {
  space_options_.limit = 3 * kBlockSize;
  restart();
  open();
  EXPECT_TRUE(store(0, 2));
  index_->flush();
  EXPECT_FALSE(store(2, 2));
  EXPECT_FALSE(has(2));
  EXPECT_TRUE(eventually([&] { return store(2); }));
}

TEST_F(BlockCacheTest, WhatIsNotCommittedYetCountsTowardsTheLimit) {
  space_options_.limit = 3 * kBlockSize;
  restart();
  open();
  int stored = 0;
  for (BlockIndex b = 0; b < 8; ++b) stored += store(b) ? 1 : 0;
  EXPECT_EQ(stored, 3);
}

TEST_F(BlockCacheTest, TheLimitCountsWhatWasCachedBefore) {
  open();
  ASSERT_TRUE(store(0, 3));
  space_options_.limit = 3 * kBlockSize;
  restart();
  open();
  EXPECT_FALSE(store(3));
}

TEST_F(BlockCacheTest, WhatIsDroppedMakesRoom) {
  space_options_.limit = 3 * kBlockSize;
  restart();
  open();
  ASSERT_TRUE(store(0, 3));
  close();
  drop();
  index_->flush();
  open(kFile + 1);
  EXPECT_TRUE(eventually([&] { return store(0, 3, kFile + 1); }));
}

TEST_F(BlockCacheTest, NothingIsStoredWhereTheDiskMustStayFree) {
  space_options_.min_free = 1.1;
  restart();
  open();
  EXPECT_FALSE(store(0));
}

// --- eviction ------------------------------------------------------------------------------------------------------

class EvictionTest : public BlockCacheTest {
 protected:
  static constexpr uint64_t kLimit = 8 * kRegionSize;
  static constexpr uint64_t kLarge = 64 * kRegionSize;

  void SetUp() override {
    BlockCacheTest::SetUp();
    restart_with_limit(kLimit);
  }
  void restart_with_limit(uint64_t limit) {
    stop();
    space_options_.limit = limit;
    start();
    start_evicting();
  }
  void store_region(uint64_t region, Ino ino = kFile, uint64_t size = kLarge) {
    // When there is no room it comes soon.
    ASSERT_TRUE(eventually([&] { return store(region * kBlocksPerRegion, kBlocksPerRegion, ino, size); })) << region;
  }
  BlockCache::EvictionResult evict_on_request(std::vector<RegionKey> keys) {
    std::promise<BlockCache::EvictionResult> done;
    on_loop([&] {
      cache_->evict_on_request(
          keys, [this](Task task) { loop_->post(std::move(task)); },
          [&](BlockCache::EvictionResult result) { done.set_value(std::move(result)); });
    });
    auto result = done.get_future().get();
    on_loop([] {});
    return result;
  }
  bool has_region(uint64_t region, Ino ino = kFile) { return has(region * kBlocksPerRegion, ino); }
};

TEST_F(EvictionTest, WhatIsStoredNeverExceedsTheLimit) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 64; ++r) {
    store_region(r);
    EXPECT_LE(disk_bytes(), kLimit + kRegionSize);
    EXPECT_LE(metrics_.bytes_cached.load(), static_cast<int64_t>(kLimit));
  }
  EXPECT_TRUE(has_region(63));
  EXPECT_FALSE(has_region(0));
}

TEST_F(EvictionTest, WhatIsLeftIsRight) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 20; ++r) store_region(r);
  for (uint64_t r = 0; r < 20; ++r) {
    if (!has_region(r)) continue;
    // It may go between the question and the read.
    const Status result = read({r * kRegionSize, (r + 1) * kRegionSize});
    EXPECT_TRUE(result || !has_region(r)) << r;
  }
  restart();
  open(kFile, kLarge);
  int left = 0;
  for (uint64_t r = 0; r < 20; ++r) {
    if (!has_region(r)) continue;
    ++left;
    EXPECT_THAT(read({r * kRegionSize, (r + 1) * kRegionSize}), Succeeds()) << r;
  }
  EXPECT_GT(left, 3);
}

TEST_F(EvictionTest, WhatWentCanBeStoredAgain) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 12; ++r) store_region(r);
  ASSERT_FALSE(has_region(0));
  store_region(0);
  EXPECT_TRUE(has_region(0));
  EXPECT_THAT(read({0, kRegionSize}), Succeeds());
}

TEST_F(EvictionTest, TheFileOfAnObjectGoesWithItsLastRegion) {
  constexpr Ino kOther = 0x99;
  open(kOther, kRegionSize);
  store_region(0, kOther, kRegionSize);
  close(kOther);
  ASSERT_TRUE(fs::exists(file_of(kOther)));
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 16; ++r) store_region(r);
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of(kOther)); }));
  EXPECT_TRUE(index_->object(kOther)) << "the inode still means this version";
  open(kOther, kRegionSize);
  EXPECT_FALSE(has_region(0, kOther));
  store_region(0, kOther, kRegionSize);
  EXPECT_THAT(read({0, kRegionSize}, kOther), Succeeds());
}

TEST_F(EvictionTest, WhatTheKernelServesStays) {
  open(kFile, kRegionSize);
  store_region(0, kFile, kRegionSize);
  const CompleteFileRef file = complete_file(kFile);
  ASSERT_TRUE(file->enter());
  evict({kFile, 0});
  EXPECT_TRUE(has_region(0));
  EXPECT_THAT(read({0, kRegionSize}), Succeeds());
  file->leave();
  evict({kFile, 0});
  EXPECT_FALSE(has_region(0));
  EXPECT_FALSE(file->enter()) << "it was revoked before it went";
  EXPECT_FALSE(complete());
}

TEST_F(EvictionTest, WhoIsInsideOfAFileThatIsRevokedKeepsItsBytes) {
  open(kFile, kRegionSize);
  store_region(0, kFile, kRegionSize);
  const CompleteFileRef file = complete_file(kFile);
  ASSERT_TRUE(file->enter());
  disk_->order_read(1, {.error = EIO});
  EXPECT_FALSE(read({0, kBlockSize}).has_value());
  EXPECT_FALSE(file->enter());
  evict({kFile, 0});
  EXPECT_TRUE(has(1));
  std::vector<std::byte> bytes(kRegionSize);
  ASSERT_EQ(::pread(file->fd(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(test::first_mismatch(kSeed, 0, bytes), std::nullopt);
  file->leave();
  evict({kFile, 0});
  EXPECT_FALSE(has(1));
}

TEST_F(EvictionTest, WhatFailsTakesNoPlace) {
  open(kFile, kLarge);
  disk_->order_write(1, {.at_most = kBlockSize + 4096});
  EXPECT_FALSE(store(0, 2, kFile, kLarge));
  EXPECT_EQ(disk_bytes(), 0u);
  ASSERT_TRUE(store(0, 2, kFile, kLarge));
  disk_->order_read(1, {.error = EIO});
  EXPECT_FALSE(read({0, kBlockSize}).has_value());
  EXPECT_EQ(disk_bytes(), kBlockSize);
}

TEST_F(EvictionTest, WhatTheIndexDoesNotKnowIsReclaimed) {
  constexpr Ino kStray = kFile + 256;  // in the same directory
  open(kFile, kLarge);
  ASSERT_TRUE(store(3, 1, kFile, kLarge));
  ASSERT_TRUE(store(kBlocksPerRegion, 1, kFile, kLarge));
  const FileDescriptor file(::open(file_of(kFile).c_str(), O_WRONLY | O_CLOEXEC));
  const std::string bytes(kBlockSize, 'x');
  for (const BlockIndex block : {BlockIndex{4}, 5 * kBlocksPerRegion})
    ASSERT_GT(::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(block * kBlockSize)), 0);
  test::write_text(file_of(kStray), bytes);
  std::vector<Ino> found;
  find_leftovers(directory_ / "objects", *index_, [&](Ino ino) {
    found.push_back(ino);
    return true;
  });
  EXPECT_THAT(found, testing::UnorderedElementsAre(kFile, kStray));
  for (const Ino ino : found) EXPECT_TRUE(on_loop([&] { return cache_->reclaim(ino); }));
  EXPECT_FALSE(fs::exists(file_of(kStray)));
  EXPECT_EQ(disk_bytes(), 2 * kBlockSize);
  EXPECT_THAT(read({3 * kBlockSize, 4 * kBlockSize}), Succeeds());
  EXPECT_THAT(read({kRegionSize, kRegionSize + kBlockSize}), Succeeds());
}

TEST_F(EvictionTest, WhatIsBeingReadOrStoredStays) {
  open(kFile, kLarge);
  store_region(0);
  disk_->hold_reads(true);
  auto reading = std::async([&] { return read({0, kBlockSize}); });
  ASSERT_TRUE(eventually([&] { return on_loop([&] { return disk_->held() > 0; }); }));
  evict({kFile, 0});
  EXPECT_TRUE(has_region(0));
  on_loop([&] { disk_->hold_reads(false); });
  EXPECT_THAT(reading.get(), Succeeds());
  evict({kFile, 0});
  EXPECT_FALSE(has_region(0));
}

TEST_F(EvictionTest, WhatIsPinnedStaysWhateverElseIsRead) {
  constexpr Ino kPinned = 0x77;
  open(kPinned, 5 * kRegionSize);
  index_->pin({kPinned});
  for (uint64_t r = 0; r < 5; ++r) store_region(r, kPinned, 5 * kRegionSize);
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 64; ++r) store_region(r);
  for (uint64_t r = 0; r < 5; ++r) EXPECT_TRUE(has_region(r, kPinned)) << r;
  EXPECT_LE(disk_bytes(), kLimit + kRegionSize);
  index_->unpin({kPinned});
  EXPECT_TRUE(evict_on_request({{kPinned, 0}, {kPinned, 4}}).stayed.empty());
  EXPECT_FALSE(has_region(0, kPinned));
}

TEST_F(EvictionTest, WhereAllIsPinnedNothingMoreIsStored) {
  open(kFile, kLarge);
  index_->pin({kFile});
  uint64_t stored = 0;
  for (uint64_t r = 0; r < 20; ++r) stored += store(r * kBlocksPerRegion, kBlocksPerRegion, kFile, kLarge) ? 1 : 0;
  EXPECT_EQ(stored, kLimit / kRegionSize);
  index_->unpin({kFile});
  store_region(30);
}

TEST_F(EvictionTest, WhatIsAskedToGoGoes) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 3; ++r) store_region(r);
  index_->flush();
  const auto result = evict_on_request({{kFile, 0}, {kFile, 2}, {kFile, 9}});
  EXPECT_TRUE(result.ok);
  EXPECT_TRUE(result.stayed.empty());
  EXPECT_FALSE(has_region(0));
  EXPECT_TRUE(has_region(1));
  EXPECT_FALSE(has_region(2));
  EXPECT_EQ(metrics_.bytes_cached.load(), static_cast<int64_t>(kRegionSize));
  EXPECT_EQ(metrics_.bytes_evicted.load(), 2 * kRegionSize);
  EXPECT_LE(disk_bytes(), kRegionSize + kBlockSize);
  store_region(0);
  EXPECT_THAT(read({0, kRegionSize}), Succeeds());
}

TEST_F(EvictionTest, WhatIsAskedToGoAndMustStaySaysWhy) {
  constexpr Ino kServed = 0x71, kPinned = 0x72;
  for (const Ino ino : {kServed, kPinned}) {
    open(ino, kRegionSize);
    store_region(0, ino, kRegionSize);
  }
  open(kFile, kLarge);
  store_region(0);
  const CompleteFileRef served = complete_file(kServed);
  ASSERT_TRUE(served->enter());
  index_->pin({kPinned});
  disk_->hold_reads(true);
  auto reading = std::async([&] { return read({0, kBlockSize}); });
  ASSERT_TRUE(eventually([&] { return on_loop([&] { return disk_->held() > 0; }); }));
  const auto result = evict_on_request({{kServed, 0}, {kPinned, 0}, {kFile, 0}});
  on_loop([&] { disk_->hold_reads(false); });
  EXPECT_THAT(reading.get(), Succeeds());
  using Stays = BlockCache::Stays;
  EXPECT_THAT(result.stayed, ::testing::ElementsAre(std::pair(RegionKey{kServed, 0}, Stays::kOpen),
                                                    std::pair(RegionKey{kPinned, 0}, Stays::kPinned),
                                                    std::pair(RegionKey{kFile, 0}, Stays::kBusy)));
  EXPECT_TRUE(has_region(0, kServed) && has_region(0, kPinned) && has_region(0));
}

TEST_F(EvictionTest, WhatIsReadAgainStaysWhileAScanGoesBy) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 4; ++r) store_region(r);
  TimePoint now = std::chrono::steady_clock::now();
  for (int pass = 0; pass < 3; ++pass) {
    now += std::chrono::minutes(2);
    for (uint64_t r = 0; r < 4; ++r) index_->policy().accessed(kFile, {r * kRegionSize, (r + 1) * kRegionSize}, now);
  }
  for (uint64_t r = 4; r < 40; ++r) store_region(r);
  for (uint64_t r = 0; r < 4; ++r) EXPECT_TRUE(has_region(r)) << r;
}

TEST_F(EvictionTest, ASmallerLimitIsReachedAfterARestart) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 6; ++r) store_region(r);
  restart_with_limit(2 * kRegionSize);
  EXPECT_TRUE(eventually([&] { return disk_bytes() <= 2 * kRegionSize; }));
}

TEST_F(EvictionTest, AfterAKillTheQueuesAndTheSumsAreThere) {
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 6; ++r) store_region(r);
  restart_after_a_kill([] {});
  EXPECT_EQ(metrics_.bytes_cached.load(), static_cast<int64_t>(6 * kRegionSize));
  start_evicting();
  open(kFile, kLarge);
  for (uint64_t r = 6; r < 30; ++r) {
    store_region(r);
    EXPECT_LE(disk_bytes(), kLimit + kRegionSize);
  }
}

// --- the scrubber --------------------------------------------------------------------------------------------------

class ScrubberTest : public BlockCacheTest {
 protected:
  // Ticks, a second apart, until everything was read.
  void scrub(uint64_t rate = 1 << 30, int ticks = 3) {
    const Scrubber::Checks checks{
        [this](RegionKey key, Scrubber::Checked checked) {
          cache_->check_region(
              key, [checked = std::move(checked)](BlockCache::Checked found) mutable { checked(found.bytes); });
        },
        [this](uint64_t failures) { cache_->trust_index(failures); }};
    Scrubber scrubber({rate}, *index_, checks, metrics_, clock_);
    for (int i = 0; i < ticks; ++i) {
      clock_.advance(1s);
      on_loop([&] { scrubber.tick(); });
      settle();
    }
    on_loop([&] { scrubber.stop(); });
    settle();
  }
  // Nothing is under way.
  void settle() {
    uint64_t before = 0;
    do {
      before = metrics_.bytes_scrubbed.load();
      std::this_thread::sleep_for(20ms);
    } while (metrics_.bytes_scrubbed.load() != before);
    index_->flush();
  }
  uint64_t scrubbed() const { return metrics_.bytes_scrubbed.load(); }

  test::ManualClock clock_;
};

TEST_F(ScrubberTest, ReadsEverythingOnce) {
  clock_.advance(24h * 365);
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  index_->flush();
  scrub(1 << 30, 10);
  EXPECT_EQ(scrubbed(), kSize);
  EXPECT_EQ(metrics_.blocks_corrupt.load(), 0u);
}

TEST_F(ScrubberTest, FindsWhatHasRotted) {
  clock_.advance(24h * 365);
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart();
  flip_byte(4 * kBlockSize + 5);
  scrub();
  open();
  EXPECT_EQ(metrics_.blocks_corrupt.load(), 1u);
  EXPECT_FALSE(has(4));
  EXPECT_TRUE(has(3));
  EXPECT_FALSE(complete());
}

TEST_F(ScrubberTest, FindsWhatHasRottedInAFileThatIsReadByOthers) {
  clock_.advance(24h * 365);
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  index_->flush();
  const CompleteFileRef file = complete_file(kFile);
  ASSERT_TRUE(file);
  flip_byte(4 * kBlockSize + 5);
  scrub();
  EXPECT_FALSE(has(4));
  EXPECT_FALSE(file->enter());
}

TEST_F(ScrubberTest, KeepsToItsRate) {
  clock_.advance(24h * 365);
  constexpr uint64_t kLarge = 16 * kRegionSize;
  open(kFile, kLarge);
  ASSERT_TRUE(store(0, block_count(kLarge), kFile, kLarge));
  index_->flush();
  scrub(kRegionSize, 5);  // the first tick has nothing to go by
  EXPECT_GE(scrubbed(), 3 * kRegionSize);
  EXPECT_LE(scrubbed(), 6 * kRegionSize);
}

TEST_F(ScrubberTest, GoesOnWhereItWasAndRestsForAWeek) {
  clock_.advance(24h * 365);
  constexpr uint64_t kLarge = 100 * kRegionSize;
  open(kFile, kLarge);
  for (uint64_t r = 0; r < 100; ++r) ASSERT_TRUE(store(r * kBlocksPerRegion, 1, kFile, kLarge));
  index_->flush();
  scrub(70 * kBlockSize, 2);
  const uint64_t first = scrubbed();
  EXPECT_LT(first, 100 * kBlockSize);
  scrub();
  EXPECT_LE(scrubbed(), (100 + 64) * kBlockSize) << "at most a batch is read again";
  const uint64_t all = scrubbed();
  scrub();
  EXPECT_EQ(scrubbed(), all) << "it rests";
  clock_.advance(24h * 8);
  scrub();
  EXPECT_EQ(scrubbed(), all + 100 * kBlockSize);
}

TEST_F(ScrubberTest, AfterAnUncleanEndEverythingIsTrustedAgainWhenItIsThrough) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart_after_a_kill([] {});
  open();
  EXPECT_FALSE(complete());
  EXPECT_FALSE(index_->was_clean());
  scrub();
  EXPECT_TRUE(complete());
  EXPECT_TRUE(index_->was_clean());
  restart();
  EXPECT_TRUE(index_->was_clean());
  open();
  EXPECT_TRUE(complete());
}

TEST_F(ScrubberTest, AnUncleanEndIsNotForgottenBeforeItIsThrough) {
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  restart_after_a_kill([] {});
  scrub(1 << 20, 1);
  EXPECT_FALSE(index_->was_clean());
  restart();
  EXPECT_FALSE(index_->was_clean());
}

TEST_F(ScrubberTest, CanBeOff) {
  clock_.advance(24h * 365);
  open();
  ASSERT_TRUE(store(0, block_count(kSize)));
  index_->flush();
  scrub(0);
  EXPECT_EQ(scrubbed(), 0u);
}

// --- objects come and go -------------------------------------------------------------------------------------------

TEST_F(BlockCacheTest, AnObjectThatIsOpenedAgainHasItsBlocks) {
  open();
  ASSERT_TRUE(store(3));
  close();
  open();
  EXPECT_TRUE(has(3));
  EXPECT_THAT(read_block(3), Succeeds());
}

TEST_F(BlockCacheTest, ADroppedObjectGoesWithItsRecordsAtItsLastClose) {
  open();
  open();
  ASSERT_TRUE(store(3));
  drop();
  EXPECT_THAT(read_block(3), Succeeds());
  close();
  EXPECT_THAT(read_block(3), Succeeds());
  EXPECT_TRUE(fs::exists(file_of()));
  close();
  index_->flush();
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of()); }));
  EXPECT_EQ(index_->object(kFile), std::nullopt);
  EXPECT_EQ(metrics_.bytes_cached, 0);
}

TEST_F(BlockCacheTest, ADroppedObjectThatNobodyHasOpenGoesAtOnce) {
  open();
  ASSERT_TRUE(store(3));
  close();
  drop();
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of()); }));
  EXPECT_EQ(index_->object(kFile), std::nullopt);
}

TEST_F(BlockCacheTest, AnObjectOfAnEarlierDaemonCanBeDropped) {
  open();
  ASSERT_TRUE(store(3));
  restart();
  drop();
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of()); }));
  EXPECT_EQ(index_->object(kFile), std::nullopt);
}

TEST_F(BlockCacheTest, NothingIsStoredForADroppedObject) {
  open();
  ASSERT_TRUE(store(3));
  drop();
  EXPECT_FALSE(store(4));
}

TEST_F(BlockCacheTest, OthersAreNotTouchedByADrop) {
  open();
  open(kFile + 0x100);  // in the same directory
  ASSERT_TRUE(store(3));
  ASSERT_TRUE(store(3, 1, kFile + 0x100));
  drop();
  close();
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of()); }));
  EXPECT_THAT(read(block_range(3, kSize), kFile + 0x100), Succeeds());
}

TEST_F(BlockCacheTest, AStoreThatIsUnderWayAtTheCloseIsKept) {
  open();
  std::promise<bool> done;
  loop_->post([&] {
    BufferRef bytes = buffers_.allocate(kBlockSize);
    test::fill_pattern(kSeed, 0, {bytes->data(), kBlockSize});
    cache_->store(kFile, {0, kBlockSize}, std::move(bytes), BlockCache::PageCache::kKeep,
                  [&](bool ok) { done.set_value(ok); });
    cache_->close(kFile);
  });
  EXPECT_TRUE(done.get_future().get());
  open();
  EXPECT_THAT(read_block(0), Succeeds());
}

TEST_F(BlockCacheTest, ADropWhileAStoreIsUnderWayWaitsForIt) {
  open();
  std::promise<bool> done;
  loop_->post([&] {
    cache_->store(kFile, {0, kBlockSize}, buffers_.allocate(kBlockSize), BlockCache::PageCache::kKeep,
                  [&](bool ok) { done.set_value(ok); });
    cache_->close(kFile);
    cache_->drop(kFile);
  });
  done.get_future().get();
  EXPECT_TRUE(eventually([&] { return !fs::exists(file_of()); }));
  index_->flush();
  EXPECT_FALSE(index_->region({kFile, 0}).has_value());
  EXPECT_EQ(metrics_.bytes_cached, 0);
}

TEST_F(BlockCacheTest, FilesThatNobodyHasOpenKeepABoundedNumberOfDescriptors) {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator{});
  };
  const auto before = descriptors();
  for (Ino i = 0; i < 700; ++i) {
    open(kFile + i, kBlockSize + 10);
    ASSERT_TRUE(store(1, 1, kFile + i, kBlockSize + 10));
    close(kFile + i);
  }
  index_->flush();
  EXPECT_LE(descriptors() - before, 512 + 10);
  open(kFile, kBlockSize + 10);
  EXPECT_THAT(read({kBlockSize, kBlockSize + 10}), Succeeds());
}

TEST_F(BlockCacheTest, NoMemoryIsHeldWhenNothingIsUnderWay) {
  open();
  ASSERT_TRUE(store(0, 11));
  EXPECT_THAT(read({0, kSize}), Succeeds());
  close();
  EXPECT_TRUE(eventually([&] { return metrics_.buffer_bytes == 0; }));
}

}  // namespace
}  // namespace wormhole
