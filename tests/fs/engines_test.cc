// Several engines beside each other, with their threads, over a network that does only what each test orders.
#include "fs/engines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "tests/support/fake_fetcher.h"
#include "tests/support/index_snapshot.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::FailsWith;
using test::FakeFetcher;
using ::testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;
constexpr Ino kFirst = 100;  // of the files of a test, which are numbered as they are listed

using Answer = std::future<Result<std::vector<std::byte>>>;

class EnginesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(directory_ / "index");
    std::filesystem::create_directory(objects_path());
  }
  void TearDown() override {
    stop();
    EXPECT_EQ(metrics_.buffer_bytes, 0);
  }

  void start(unsigned count, uint64_t limit = 10ull << 30, bool reclaim = false) {
    auto opened = Index::open(directory_ / "index", metrics_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index_ = std::move(*opened);
    space_ = std::make_unique<Space>(SpaceOptions{objects_path(), limit, 0}, metrics_);
    BlockReaderOptions reader;
    reader.readahead = {0};
    reader.speculate = false;
    BlockCacheOptions cache;
    cache.objects_path = objects_path();
    cache.reclaim = reclaim;
    engines_ =
        std::make_unique<Engines>(count, reader, cache, ScrubberOptions{1 << 30},
                                  EngineBase{*space_, *index_, fetcher_, buffers_, metrics_, clock_}, [](Ino) {});
  }
  // As the daemon does.
  void stop() {
    if (!engines_) return;
    engines_->stop();
    fetcher_.end_cancelled();
    fetcher_.lose_all();
    index_->flush();
    engines_.reset();
    index_.reset();
  }

  std::string objects_path() const { return directory_ / "objects"; }
  std::string file_of(Ino ino) const { return fmt::format("{}/{:02x}/{:016x}", objects_path(), ino & 0xff, ino); }
  uint64_t disk_bytes() const {
    uint64_t sum = 0;
    for (const auto& e : std::filesystem::recursive_directory_iterator(objects_path())) {
      struct stat status {};
      if (e.is_regular_file() && ::stat(e.path().c_str(), &status) == 0) sum += status.st_blocks * 512u;
    }
    return sum;
  }
  static FakeFetcher::Version version_of(Ino ino, uint64_t size) { return {ino, size, {"\"v\"", ""}}; }

  // Returns when the engine knows of it.
  OpenFileRef open(Ino ino, uint64_t size) {
    auto file = std::make_shared<OpenFile>(ino, size);
    std::promise<void> opened;
    engines_->open(file, fmt::format("http://x/{}", ino), [&opened] { opened.set_value(); });
    opened.get_future().wait();
    return file;
  }
  Answer read(Ino ino, uint64_t offset, uint64_t length) {
    auto answer = std::make_shared<std::promise<Result<std::vector<std::byte>>>>();
    engines_->read(ino, ByteRange::of(offset, length), [answer](Result<std::span<const iovec>> reply) {
      if (!reply) return answer->set_value(fail(reply.error()));
      std::vector<std::byte> bytes;
      for (const iovec& v : *reply) {
        const auto* begin = static_cast<const std::byte*>(v.iov_base);
        bytes.insert(bytes.end(), begin, begin + v.iov_len);
      }
      answer->set_value(std::move(bytes));
    });
    return answer->get_future();
  }
  // The network brings what is asked for until `over`.
  template <typename Over>
  void serve_until(uint64_t size, Over over) {
    const TimePoint deadline = std::chrono::steady_clock::now() + 20s;
    while (!over()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      const auto all = fetcher_.active();
      for (const FetchRequest& r : all) fetcher_.complete(r.id, version_of(r.object, size));
      if (all.empty()) std::this_thread::sleep_for(1ms);
    }
  }
  // All of each file, from the network or the cache.
  void read_files(Ino begin, Ino end, uint64_t size) {
    std::map<Ino, Answer> answers;
    for (Ino ino = begin; ino < end; ++ino) {
      open(ino, size);
      answers.emplace(ino, read(ino, 0, size));
    }
    for (auto& [ino, answer] : answers) {
      serve_until(size, [&, &a = answer] { return a.wait_for(0s) == std::future_status::ready; });
      const auto got = answer.get();
      ASSERT_TRUE(got.has_value()) << got.error().message;
      EXPECT_EQ(got->size(), size);
      EXPECT_FALSE(test::first_mismatch(ino, 0, *got)) << ino;
      engines_->close(ino, true);
    }
  }
  // The same, and returns when they are in the cache.
  void store_files(Ino begin, Ino end, uint64_t size) {
    const uint64_t stored = metrics_.blocks_stored + (end - begin) * block_count(size);
    read_files(begin, end, size);
    ASSERT_TRUE(eventually([&] { return metrics_.blocks_stored >= stored; }));
    index_->flush();
  }
  template <typename Condition>
  bool eventually(Condition condition, Duration patience = 10s) {
    const TimePoint deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }
  BlockCache::EvictionResult evict(const std::vector<RegionKey>& regions) {
    std::promise<BlockCache::EvictionResult> done;
    auto result = done.get_future();
    engines_->evict(regions, [&done](BlockCache::EvictionResult r) { done.set_value(std::move(r)); });
    return result.get();
  }

  test::TemporaryDirectory directory_;
  Metrics metrics_;
  SystemClock clock_;
  BufferPool buffers_{64 * kMiB, metrics_};
  FakeFetcher fetcher_;
  std::unique_ptr<Space> space_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<Engines> engines_;
};

TEST(EngineCount, OneForFourCoresAndEightAtMost) {
  EXPECT_EQ(engines_for(0), 1u);  // unknown
  EXPECT_EQ(engines_for(1), 1u);
  EXPECT_EQ(engines_for(2), 1u);
  EXPECT_EQ(engines_for(7), 1u);
  EXPECT_EQ(engines_for(8), 2u);
  EXPECT_EQ(engines_for(32), 8u);
  EXPECT_EQ(engines_for(64), 8u);
}

TEST_F(EnginesTest, NeighboursAndEveryNthFileAreSpreadEvenly) {
  start(6);
  for (const Ino step : {1, 2, 3, 6, 8, 60, 64, 100, 4096}) {
    std::map<size_t, int> files;
    for (Ino i = 0; i < 6000; ++i) ++files[engines_->number_of(2 + i * step)];
    EXPECT_THAT(files, SizeIs(6)) << step;
    for (const auto& [number, count] : files) EXPECT_NEAR(count, 1000, 100) << "engine " << number << " step " << step;
  }
}

TEST_F(EnginesTest, OneEngineHasAll) {
  start(1);
  for (Ino ino = 0; ino < 1000; ++ino) ASSERT_EQ(engines_->number_of(ino), 0u);
  EXPECT_EQ(engines_->number_of(~Ino{0}), 0u);
}

TEST_F(EnginesTest, FilesOfAllEnginesAreReadAtTheSameTime) {
  start(3);
  read_files(kFirst, kFirst + 60, 3 * kBlockSize + 77);
  const size_t asked = fetcher_.asked();
  read_files(kFirst, kFirst + 60, 3 * kBlockSize + 77);
  EXPECT_EQ(fetcher_.asked(), asked) << "from the cache";
}

TEST_F(EnginesTest, WhatIsEvictedOnRequestIsAnsweredOnceForAll) {
  start(4);
  store_files(kFirst, kFirst + 20, 2 * kBlockSize);
  index_->pin({kFirst + 3});
  std::vector<RegionKey> regions;
  for (Ino ino = kFirst; ino < kFirst + 20; ++ino) regions.push_back({ino, 0});
  const auto result = evict(regions);
  EXPECT_TRUE(result.ok);
  ASSERT_THAT(result.stayed, SizeIs(1));
  EXPECT_EQ(result.stayed[0].first.ino, kFirst + 3);
  for (const RegionKey& key : regions) {
    EXPECT_EQ(index_->blocks_present(key.ino), key.ino == kFirst + 3 ? 2u : 0u) << key.ino;
  }
}

TEST_F(EnginesTest, AnEvictionOfNothingIsAnswered) {
  start(2);
  EXPECT_TRUE(evict({}).ok);
}

TEST_F(EnginesTest, AFullCacheMakesRoomInAllEngines) {
  constexpr uint64_t kLimit = 8 * kMiB;
  start(3, kLimit);
  for (Ino ino = kFirst; ino < kFirst + 40; ino += 4) {
    read_files(ino, ino + 4, kMiB);
    EXPECT_LE(disk_bytes(), kLimit + kRegionSize);
    EXPECT_TRUE(eventually([&] { return space_->excess(clock_.now()) == 0; })) << ino;
  }
  EXPECT_GE(metrics_.bytes_evicted, 6 * kMiB) << "a file or more each time, once it is full";
  // What is left lies where its engine finds it.
  read_files(kFirst, kFirst + 40, kMiB);
}

TEST_F(EnginesTest, SupersededFilesGoFromTheirEngines) {
  start(3);
  store_files(kFirst, kFirst + 12, kBlockSize);
  std::vector<Ino> all;
  for (Ino ino = kFirst; ino < kFirst + 12; ++ino) all.push_back(ino);
  engines_->drop(all);
  for (const Ino ino : all) EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(file_of(ino)); })) << ino;
}

TEST_F(EnginesTest, OnePassOfTheScrubberSeesTheBlocksOfAllAndEndsTheDoubtOfAll) {
  constexpr uint64_t kSize = 2 * kBlockSize;
  start(3);
  store_files(kFirst, kFirst + 12, kSize);
  test::IndexSnapshot snapshot(directory_ / "index");
  snapshot.take(*index_);
  stop();
  snapshot.restore();
  start(3);
  ASSERT_FALSE(index_->was_clean());
  EXPECT_FALSE(open(kFirst, kSize)->complete());
  EXPECT_TRUE(eventually([&] { return index_->was_clean(); }));
  EXPECT_EQ(metrics_.bytes_scrubbed, 12 * kSize);
  for (Ino ino = kFirst; ino < kFirst + 12; ++ino) {
    EXPECT_TRUE(eventually([&] { return open(ino, kSize)->complete() != nullptr; })) << ino;
  }
  EXPECT_EQ(metrics_.blocks_corrupt, 0u);
}

TEST_F(EnginesTest, WhatACrashHasLeftIsFreedByItsOwner) {
  for (Ino ino = kFirst; ino < kFirst + 12; ++ino) {
    std::filesystem::create_directory(std::filesystem::path(file_of(ino)).parent_path());
    test::write_text(file_of(ino), std::string(100'000, 'x'));
  }
  start(3, 10ull << 30, true);
  EXPECT_TRUE(eventually([&] { return disk_bytes() == 0; }));
}

TEST_F(EnginesTest, AtTheEndReadersOfAllEnginesAreAnswered) {
  start(3);
  std::vector<Answer> answers;
  for (Ino ino = kFirst; ino < kFirst + 12; ++ino) {
    open(ino, kMiB);
    answers.push_back(read(ino, 0, kMiB));
  }
  engines_->stop();
  for (Answer& a : answers) EXPECT_THAT(a.get(), FailsWith(ErrorCode::kCancelled));
  // What comes too late is dropped.
  engines_->close(kFirst, true);
  engines_->drop(std::vector<Ino>{kFirst, kFirst + 1, kFirst + 2});
}

}  // namespace
}  // namespace wormhole
