// A block cache on a real disk, over an event loop on a thread of its own, with a disk in between that fails on order.
//
// Thread: the test's.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "base/event_loop.h"
#include "cache/block_cache.h"
#include "tests/support/faulty_disk.h"
#include "tests/support/index_snapshot.h"
#include "tests/support/pattern.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {

namespace fs = std::filesystem;
using test::FailsWith;
using test::Succeeds;

inline constexpr Ino kFile = 0x1234;
inline constexpr uint64_t kSeed = 7;
inline constexpr uint64_t kSize = 10 * kBlockSize + 1000;  // the last block, 10, is short

class BlockCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(directory_ / "index");
    fs::create_directory(directory_ / "objects");
    options_.objects_path = directory_ / "objects";
    space_options_ = {directory_ / "objects", 10ull << 30, 0};
    start();
  }
  void TearDown() override { stop(); }

  // --- the life of a daemon ---

  void start() {
    auto opened = Index::open(directory_ / "index", metrics_);
    ASSERT_THAT(opened, Succeeds());
    index_ = std::move(*opened);
    std::promise<void> ready;
    thread_ = std::thread([&] {
      loop_ = EventLoop::create();
      disk_ = std::make_unique<test::FaultyDisk>(*loop_);
      space_ = std::make_unique<Space>(space_options_, metrics_);
      cache_ = std::make_unique<BlockCache>(options_, *space_, *index_, *disk_, buffers_, metrics_);
      ready.set_value();
      loop_->run();
      cache_.reset();
    });
    ready.get_future().wait();
  }
  // As an engine does.
  void start_evicting() {
    index_->start_evicting(*space_, [this](const std::vector<RegionKey>& regions) {
      loop_->post([this, regions] { cache_->evict(regions, [this](Task task) { loop_->post(std::move(task)); }); });
      return 1;
    });
  }
  void stop() {
    loop_->stop();
    thread_.join();
    index_.reset();
  }
  void restart() {
    stop();
    start();
  }
  void restart_with(VerifyMode verify) {
    stop();
    options_.verify = verify;
    start();
  }
  // As after a kill: `meanwhile` happens to the files before the next start.
  template <typename F>
  void restart_after_a_kill(F meanwhile) {
    test::IndexSnapshot snapshot(directory_ / "index");
    snapshot.take(*index_);
    stop();
    snapshot.restore();
    meanwhile();
    start();
  }

  // --- verbs ---

  template <typename F>
  auto on_loop(F body) {
    std::promise<decltype(body())> out;
    loop_->post([&] {
      if constexpr (std::is_void_v<decltype(body())>) {
        body();
        out.set_value();
      } else {
        out.set_value(body());
      }
    });
    return out.get_future().get();
  }

  // A recorded object, as one is when a first response has told its version.
  void open(Ino ino = kFile, uint64_t size = kSize) {
    if (!index_->object(ino)) index_->put_object(ino, ObjectRecord{size, {"\"v\"", ""}});
    on_loop([&] { cache_->open(ino, size, true); });
  }
  void close(Ino ino = kFile) {
    on_loop([&] { cache_->close(ino); });
  }
  bool has(BlockIndex block, Ino ino = kFile) {
    return on_loop([&] { return cache_->has(ino, block); });
  }
  // What is stored is complete once it is synced.
  CompleteFileRef complete_file(Ino ino = kFile) {
    index_->flush();
    return on_loop([&] { return cache_->complete_file(ino); });
  }
  bool complete(Ino ino = kFile) { return complete_file(ino) != nullptr; }
  void drop(Ino ino = kFile) {
    on_loop([&] { cache_->drop(ino); });
  }

  // Blocks [first, first + count) with the right bytes.
  bool store(BlockIndex first, uint64_t count = 1, Ino ino = kFile, uint64_t size = kSize) {
    std::promise<bool> done;
    const ByteRange range{first * kBlockSize, std::min((first + count) * kBlockSize, size)};
    loop_->post([&] {
      BufferRef bytes = buffers_.allocate(range.size());
      test::fill_pattern(kSeed, range.begin, {bytes->data(), range.size()});
      cache_->store(ino, range, std::move(bytes), BlockCache::PageCache::kBypass, [&](bool ok) { done.set_value(ok); });
    });
    return done.get_future().get();
  }

  // The error, or nothing and every byte checked.
  Status read(ByteRange range, Ino ino = kFile) {
    auto result = read_bytes(range, ino);
    if (!result) return fail(result.error());
    EXPECT_EQ(test::first_mismatch(kSeed, range.begin, *result), std::nullopt);
    return {};
  }
  Result<std::vector<std::byte>> read_bytes(ByteRange range, Ino ino = kFile) {
    std::promise<Result<std::vector<std::byte>>> done;
    loop_->post([&] {
      cache_->read(ino, range, [&](Result<BlockCache::ReadResult> r) {
        if (!r) return done.set_value(fail(r.error()));
        const std::byte* begin = r->bytes->data() + r->skip;
        done.set_value(std::vector<std::byte>(begin, begin + range.size()));
      });
    });
    return done.get_future().get();
  }
  Status read_block(BlockIndex block) { return read(block_range(block, kSize)); }

  // Returns when what may go is gone.
  void evict(RegionKey key) {
    on_loop([&] { cache_->evict({key}, [this](Task task) { loop_->post(std::move(task)); }); });
    index_->flush();
    on_loop([] {});
  }
  // What the objects take.
  uint64_t disk_bytes() {
    uint64_t sum = 0;
    for (const auto& entry : fs::recursive_directory_iterator(directory_ / "objects")) {
      struct stat status {};
      if (entry.is_regular_file() && ::stat(entry.path().c_str(), &status) == 0)
        sum += static_cast<uint64_t>(status.st_blocks) * 512;
    }
    return sum;
  }

  std::string file_of(Ino ino = kFile) {
    return fmt::format("{}/objects/{:02x}/{:016x}", directory_.path(), ino & 0xff, ino);
  }
  void flip_byte(uint64_t offset) {
    const FileDescriptor fd(::open(file_of().c_str(), O_RDWR | O_CLOEXEC));
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(byte ^ 0x10);
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
  }
  // Pages of the object's file.
  size_t pages_in_page_cache() {
    const FileDescriptor fd(::open(file_of().c_str(), O_RDONLY | O_CLOEXEC));
    const size_t size = fs::file_size(file_of());
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    std::vector<unsigned char> pages((size + 4095) / 4096);
    EXPECT_EQ(::mincore(mapped, size, pages.data()), 0);
    ::munmap(mapped, size);
    return static_cast<size_t>(std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; }));
  }
  // False on a file system that lives there.
  bool leave_page_cache() {
    const FileDescriptor fd(::open(file_of().c_str(), O_RDWR | O_CLOEXEC));
    ::fsync(fd.get());
    ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    return pages_in_page_cache() == 0;
  }
  // What follows a commit happens on the index thread, a moment later.
  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  test::TemporaryDirectory directory_;
  BlockCacheOptions options_;
  SpaceOptions space_options_;
  std::unique_ptr<Space> space_;
  Metrics metrics_;
  BufferPool buffers_{64 << 20, metrics_};
  std::unique_ptr<Index> index_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<test::FaultyDisk> disk_;
  std::unique_ptr<BlockCache> cache_;
  std::thread thread_;
};

}  // namespace wormhole
