// A block reader with a real index and a real cache on a disk, in front of a network and a disk that do only what the
// test orders, and with a clock that stands still: everything happens on the test's thread, in the order it is written.
// Or several of them, as engines have them, each with its own objects.
//
// Thread: the test's.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/block_cache.h"
#include "cache/index.h"
#include "fs/block_reader.h"
#include "tests/support/fake_fetcher.h"
#include "tests/support/file_contents.h"
#include "tests/support/index_snapshot.h"
#include "tests/support/manual_clock.h"
#include "tests/support/manual_disk.h"
#include "tests/support/temporary_directory.h"

namespace wormhole::test {

class ReaderSetup {
 public:
  explicit ReaderSetup(uint64_t memory = 64 << 20) : buffers(memory, metrics) {
    std::filesystem::create_directory(index_path());
    std::filesystem::create_directory(objects_path());
    cache_options.objects_path = objects_path();
    space_options = {objects_path(), 10ull << 30, 0};
    reader_options.readahead = {0};  // a test that wants read-ahead says so
  }
  ~ReaderSetup() {
    if (reader != nullptr) stop();
  }
  ReaderSetup(const ReaderSetup&) = delete;
  ReaderSetup& operator=(const ReaderSetup&) = delete;

  std::string index_path() const { return directory.path() + "/index"; }
  std::string objects_path() const { return directory.path() + "/objects"; }
  std::string file_of(Ino ino) const { return fmt::format("{}/{:02x}/{:016x}", objects_path(), ino & 0xff, ino); }

  void start() {
    auto opened = Index::open(index_path(), metrics, clock);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index = std::move(*opened);
    space = std::make_unique<Space>(space_options, metrics);
    all = std::make_unique<AllReaders>(engines);
    cache_options.engines = engines;
    for (unsigned i = 0; i < engines; ++i) start_engine(i);
    cache = caches.front().get();
    reader = readers.front().get();
  }
  BlockCache& cache_of(Ino ino) { return *caches[ino % engines]; }
  BlockReader& reader_of(Ino ino) { return *readers[ino % engines]; }
  // Whether the kernel may serve the file, once what is stored is synced.
  bool complete(Ino ino) {
    index->flush();
    return cache_of(ino).complete_file(ino) != nullptr;
  }
  // What the engines have to say to each other.
  void deliver_messages() {
    for (auto& message : std::exchange(messages, {})) message();
  }
  // As the daemon ends: every read is answered, what is under way on the disk completes.
  void stop() {
    for (auto& one : readers) one->shut_down();
    disk.complete_all();
    fetcher.end_cancelled();
    index->flush();  // its answers go to the cache
    end();
  }
  void restart() {
    stop();
    start();
  }
  // As after a kill: the index is what it is now, `meanwhile` happens to the files.
  void restart_after_a_kill(const std::function<void()>& meanwhile = [] {}) {
    IndexSnapshot snapshot(index_path());
    snapshot.take(*index);
    stop();
    snapshot.restore();
    meanwhile();
    start();
  }

  // The process dies here and now, and the next one finds `snapshot` for its index. Reads that waited are never
  // answered.
  template <typename F>
  void die_and_start(IndexSnapshot& snapshot, F done_bytes, const std::function<void()>& meanwhile) {
    disk.lose_all(done_bytes);
    fetcher.lose_all();
    const FileContents pack(pack_path(index_path()));
    end();  // the index writes what it was told to; that never happened
    pack.restore();
    snapshot.restore();
    meanwhile();
    start();
  }

  // The disk does what waits, the network confirms what was cancelled, and so on until nothing is left to do.
  void settle() {
    do {
      deliver_messages();
      disk.complete_all();
      fetcher.end_cancelled();
    } while (disk.waiting() > 0);
  }

  TemporaryDirectory directory;
  Metrics metrics;
  BufferPool buffers;
  ManualClock clock;
  ManualDisk disk;
  FakeFetcher fetcher;
  BlockCacheOptions cache_options;
  SpaceOptions space_options;
  BlockReaderOptions reader_options;
  std::vector<Ino> stale;        // what on_stale was called with
  std::unique_ptr<Space> space;  // the last commits give back what they took
  std::unique_ptr<Index> index;
  unsigned engines = 1;
  std::unique_ptr<AllReaders> all;
  std::vector<std::unique_ptr<BlockCache>> caches;
  std::vector<std::unique_ptr<BlockReader>> readers;
  std::vector<std::function<void()>> messages;
  // The first of them, for those who want one only.
  BlockCache* cache = nullptr;
  BlockReader* reader = nullptr;

 private:
  void start_engine(unsigned number) {
    const auto ask_others = [this, number](uint64_t bytes) {
      for (unsigned i = 0; i < engines; ++i) {
        if (i != number) messages.push_back([this, i, bytes] { readers[i]->give_back(bytes); });
      }
    };
    caches.push_back(std::make_unique<BlockCache>(cache_options, *space, *index, disk, buffers, metrics));
    readers.push_back(std::make_unique<BlockReader>(
        reader_options, *caches.back(), *index, fetcher, buffers, metrics, clock, *all,
        std::make_shared<Sink>(*this, number), [this](Ino ino) { stale.push_back(ino); }, ask_others));
  }
  void end() {
    messages.clear();
    reader = nullptr;
    cache = nullptr;
    readers.clear();
    caches.clear();
    index.reset();
  }

  // What the net thread tells arrives at once.
  class Sink final : public FetchSink {
   public:
    Sink(ReaderSetup& setup, unsigned number) : setup_(setup), number_(number) {}
    void fetch_head(FetchId id, ObjectHead head) override {
      if (BlockReader* r = reader()) r->fetch_head(id, std::move(head));
    }
    void fetch_progress(FetchId id, uint64_t arrived) override {
      if (BlockReader* r = reader()) r->fetch_progress(id, arrived);
    }
    void fetch_behind(FetchId id, ByteRange there) override {
      if (BlockReader* r = reader()) r->fetch_behind(id, there);
    }
    void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override {
      if (BlockReader* r = reader()) r->fetch_chunk(id, range, std::move(bytes));
    }
    void fetch_done(FetchId id, Status status) override {
      if (BlockReader* r = reader()) r->fetch_done(id, std::move(status));
    }

   private:
    BlockReader* reader() { return setup_.readers.empty() ? nullptr : setup_.readers[number_].get(); }

    ReaderSetup& setup_;
    const unsigned number_;
  };
};

// How a read was answered: not yet, with bytes, or with an error.
struct Answer {
  std::optional<Result<std::vector<std::byte>>> result;
  int times = 0;
};
using AnswerRef = std::shared_ptr<Answer>;

inline ReadReply into(const AnswerRef& answer) {
  return [answer](Result<std::span<const iovec>> reply) {
    EXPECT_EQ(++answer->times, 1) << "a read is answered exactly once";
    if (!reply) {
      answer->result = wormhole::fail(reply.error());
      return;
    }
    std::vector<std::byte> bytes;
    for (const iovec& v : *reply) {
      const auto* begin = static_cast<const std::byte*>(v.iov_base);
      bytes.insert(bytes.end(), begin, begin + v.iov_len);
    }
    answer->result = std::move(bytes);
  };
}

}  // namespace wormhole::test
