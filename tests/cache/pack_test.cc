// Small objects in the pack: on a real disk, with a real index.
#include "cache/pack.h"

#include "cache/index_check.h"
#include "cache/leftovers.h"
#include "tests/cache/block_cache_setup.h"

namespace wormhole {
namespace {

constexpr uint64_t kSmall = 10'000;
constexpr uint64_t kSmallPages = 3;

class PackTest : public BlockCacheTest {
 protected:
  std::string pack_file() const { return pack_path(directory_ / "index"); }
  uint64_t place(Ino ino) { return index_->region({ino, 0}).value_or(RegionRecord{}).place; }
  bool keep(Ino ino, uint64_t size = kSmall) {
    open(ino, size);
    const bool stored = store(0, 1, ino, size);
    close(ino);
    return stored;
  }
  Status look(Ino ino, uint64_t size = kSmall) {
    open(ino, size);
    if (!has(0, ino)) return fail(ErrorCode::kNotFound, "{} is not there", ino);
    Status read_back = read({0, size}, ino);
    close(ino);
    return read_back;
  }
  void flip_byte_in_pack(uint64_t offset) {
    const FileDescriptor fd(::open(pack_file().c_str(), O_RDWR | O_CLOEXEC));
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(byte ^ 0x10);
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
  }
  // The index of nobody.
  void check() {
    stop();
    EXPECT_THAT(check_index(directory_ / "index"), Succeeds());
    start();
  }
};

TEST_F(PackTest, SmallObjectsShareAFile) {
  for (Ino ino = 2; ino < 102; ++ino) ASSERT_TRUE(keep(ino));
  index_->flush();
  EXPECT_EQ(fs::file_size(pack_file()), kSlabSize);
  EXPECT_FALSE(fs::exists(file_of(2)));
  EXPECT_LE(disk_bytes(), 100 * (kSmallPages + 1) * kPageSize);
  for (Ino ino = 2; ino < 102; ++ino) EXPECT_THAT(look(ino), Succeeds());
  check();
  for (Ino ino = 2; ino < 102; ++ino) EXPECT_THAT(look(ino), Succeeds());
  EXPECT_EQ(metrics_.blocks_corrupt, 0u);
}

TEST_F(PackTest, WhatHasMoreThanABlockHasAFileOfItsOwn) {
  ASSERT_TRUE(keep(2, kBlockSize));
  EXPECT_FALSE(fs::exists(file_of(2)));
  EXPECT_NE(place(2), kNoPlace);
  ASSERT_TRUE(keep(3, kBlockSize + 1));
  EXPECT_TRUE(fs::exists(file_of(3)));
  EXPECT_EQ(place(3), kNoPlace);
}

TEST_F(PackTest, ACompleteObjectIsAPartOfAFile) {
  ASSERT_TRUE(keep(2));
  open(3, kSmall);
  ASSERT_TRUE(store(0, 1, 3, kSmall));
  const CompleteFileRef file = complete_file(3);
  ASSERT_NE(file, nullptr);
  EXPECT_FALSE(file->is_whole_file());
  EXPECT_EQ(file->offset(), place(3));
  std::vector<std::byte> bytes(kSmall);
  ASSERT_EQ(::pread(file->fd(), bytes.data(), kSmall, static_cast<off_t>(file->offset())),
            static_cast<ssize_t>(kSmall));
  EXPECT_EQ(test::first_mismatch(kSeed, 0, bytes), std::nullopt);
}

TEST_F(PackTest, AnObjectIsThereAfterAKill) {
  ASSERT_TRUE(keep(2));
  ASSERT_TRUE(keep(3));
  restart_after_a_kill([] {});
  EXPECT_THAT(look(2), Succeeds());
  EXPECT_THAT(look(3), Succeeds());
  EXPECT_EQ(metrics_.blocks_corrupt, 0u);
  check();
}

TEST_F(PackTest, APlaceIsGivenBackAndGivenOutAgain) {
  for (Ino ino = 2; ino < 22; ++ino) ASSERT_TRUE(keep(ino));
  index_->flush();
  const uint64_t before = disk_bytes();
  const uint64_t freed = place(5);
  evict({5, 0});
  EXPECT_LE(disk_bytes(), before - kSmallPages * kPageSize);
  EXPECT_THAT(look(5), FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(look(4), Succeeds());
  EXPECT_THAT(look(6), Succeeds());
  ASSERT_TRUE(keep(30));
  EXPECT_EQ(place(30), freed);
  EXPECT_THAT(look(30), Succeeds());
  check();
}

TEST_F(PackTest, ThePlaceOfADroppedObjectIsGivenBack) {
  ASSERT_TRUE(keep(2));
  ASSERT_TRUE(keep(3));
  drop(2);
  index_->flush();
  EXPECT_LE(disk_bytes(), (kSmallPages + 1) * kPageSize);
  EXPECT_THAT(look(3), Succeeds());
  check();
}

TEST_F(PackTest, AnObjectThatIsDroppedBeforeItWasRecordedIsNotRecorded) {
  on_loop([&] {
    index_->put_object(2, ObjectRecord{kSmall, {"\"v\"", ""}});
    cache_->open(2, kSmall, true);
  });
  ASSERT_TRUE(store(0, 1, 2, kSmall));
  close(2);
  drop(2);  // in the same batch, mostly
  index_->flush();
  EXPECT_EQ(disk_bytes(), 0u);
  check();
}

TEST_F(PackTest, AnEmptyPackIsAnEmptyFile) {
  ASSERT_TRUE(keep(2));
  index_->flush();
  evict({2, 0});
  restart();
  EXPECT_EQ(fs::file_size(pack_file()), 0u);
  ASSERT_TRUE(keep(2));
  EXPECT_THAT(look(2), Succeeds());
}

TEST_F(PackTest, AWrongBlockIsStoredAgainInItsPlace) {
  ASSERT_TRUE(keep(2));
  ASSERT_TRUE(keep(3));
  const uint64_t at = place(2);
  restart_after_a_kill([&] { flip_byte_in_pack(at + 5000); });
  open(2, kSmall);
  EXPECT_THAT(read({0, 100}, 2), FailsWith(ErrorCode::kCorrupt));
  EXPECT_FALSE(has(0, 2));
  ASSERT_TRUE(store(0, 1, 2, kSmall));
  EXPECT_EQ(place(2), at);
  EXPECT_THAT(read({0, kSmall}, 2), Succeeds());
  close(2);
  EXPECT_THAT(look(3), Succeeds());
  check();
}

TEST_F(PackTest, ThePlaceOfAWrongBlockThatNobodyWantsIsGivenBack) {
  ASSERT_TRUE(keep(2));
  const uint64_t at = place(2);
  restart_after_a_kill([&] { flip_byte_in_pack(at); });
  open(2, kSmall);
  EXPECT_THAT(read({0, 100}, 2), FailsWith(ErrorCode::kCorrupt));
  close(2);
  evict({2, 0});
  index_->flush();
  EXPECT_EQ(disk_bytes(), 0u);
  check();
}

TEST_F(PackTest, AWriteThatFailsLosesNoPlace) {
  open(2, kSmall);
  disk_->order_write(1, {.error = ENOSPC});
  EXPECT_FALSE(store(0, 1, 2, kSmall));
  EXPECT_FALSE(has(0, 2));
  ASSERT_TRUE(store(0, 1, 2, kSmall));
  EXPECT_EQ(place(2), 0u);
  EXPECT_THAT(read({0, kSmall}, 2), Succeeds());
  close(2);
  check();
}

// Its holes would look like zeros, and an end that was clean says that blocks need not be checked.
TEST_F(PackTest, APackThatIsNotWhatItWasIsNotTrusted) {
  for (const int harm : {0, 1, 2}) {
    ASSERT_TRUE(keep(2));
    restart();
    const uint64_t at = place(2);
    stop();
    metrics_.blocks_corrupt = 0;
    if (harm == 0) fs::remove(pack_file());
    if (harm == 1) fs::resize_file(pack_file(), at + kPageSize);
    if (harm == 2) fs::resize_file(pack_file(), kSlabSize + 1);
    start();
    EXPECT_FALSE(index_->was_clean());
    open(2, kSmall);
    if (harm < 2) {
      EXPECT_THAT(read({0, kSmall}, 2), FailsWith(ErrorCode::kCorrupt)) << harm;
      EXPECT_FALSE(has(0, 2));
      EXPECT_EQ(metrics_.blocks_corrupt, 1u);
    } else {
      EXPECT_THAT(read({0, kSmall}, 2), Succeeds());
    }
    close(2);
    restart();
    EXPECT_FALSE(index_->was_clean()) << "not before all has been checked";
    check();
  }
}

TEST_F(PackTest, WhatAKillHasLeftIsFreed) {
  for (Ino ino = 2; ino < 12; ++ino) ASSERT_TRUE(keep(ino));
  test::IndexSnapshot snapshot(directory_ / "index");
  snapshot.take(*index_);
  for (Ino ino = 12; ino < 112; ++ino) ASSERT_TRUE(keep(ino));
  stop();
  snapshot.restore();
  start();
  ASSERT_GE(disk_bytes(), 110 * kSmallPages * kPageSize);
  find_leftovers(directory_ / "objects", *index_, [](Ino) { return true; });
  EXPECT_LE(disk_bytes(), 10 * (kSmallPages + 1) * kPageSize);
  for (Ino ino = 2; ino < 12; ++ino) EXPECT_THAT(look(ino), Succeeds());
  check();
}

TEST_F(PackTest, AnIndexThatBeginsAnewEmptiesThePack) {
  ASSERT_TRUE(keep(2));
  stop();
  fs::remove(directory_ / "index/data.mdb");
  fs::remove(directory_ / "index/lock.mdb");
  start();
  find_leftovers(directory_ / "objects", *index_, [](Ino) { return true; });
  EXPECT_EQ(disk_bytes(), 0u);
  ASSERT_TRUE(keep(2));
  EXPECT_THAT(look(2), Succeeds());
}

TEST_F(PackTest, WhereNobodyKnowsWhatIsFreeItGoesOnBehindTheEnd) {
  const std::string path = directory_ / "pack";
  std::ofstream(path) << "somebody's bytes";
  Pack pack(path, [](uint32_t) { return std::nullopt; });
  const std::string rubbish = "abc";
  EXPECT_FALSE(pack.open({&rubbish, 1}));
  const auto place = pack.allocate(100);
  ASSERT_THAT(place, Succeeds());
  EXPECT_EQ(place->offset, kSlabSize);
  EXPECT_EQ(fs::file_size(path), 2 * kSlabSize);
}

TEST_F(PackTest, WhereItCannotBeMadeNothingIsStored) {
  fs::remove(directory_ / "objects");
  std::ofstream(directory_ / "objects") << "in the way";
  open(2, kSmall);
  EXPECT_FALSE(store(0, 1, 2, kSmall));
  EXPECT_FALSE(has(0, 2));
  EXPECT_EQ(metrics_.store_errors, 1u);
}

}  // namespace
}  // namespace wormhole
