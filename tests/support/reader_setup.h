// A block reader with a real index and a real cache on a disk, in front of a network and a disk that do only what the
// test orders, and with a clock that stands still: everything happens on the test's thread, in the order it is written.
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
    if (reader) stop();
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
    cache = std::make_unique<BlockCache>(cache_options, *space, *index, disk, buffers, metrics);
    reader = std::make_unique<BlockReader>(reader_options, *cache, *index, fetcher, buffers, metrics, clock,
                                           std::make_shared<Sink>(*this), [this](Ino ino) { stale.push_back(ino); });
  }
  // As the daemon ends: every read is answered, what is under way on the disk completes.
  void stop() {
    reader->shut_down();
    disk.complete_all();
    fetcher.end_cancelled();
    index->flush();  // its answers go to the cache
    reader.reset();
    cache.reset();
    index.reset();
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
    reader.reset();
    cache.reset();
    const FileContents pack(pack_path(index_path()));
    index.reset();  // it writes what it was told to; that never happened
    pack.restore();
    snapshot.restore();
    meanwhile();
    start();
  }

  // The disk does what waits, the network confirms what was cancelled, and so on until nothing is left to do.
  void settle() {
    do {
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
  std::unique_ptr<BlockCache> cache;
  std::unique_ptr<BlockReader> reader;

 private:
  // What the net thread tells arrives at once.
  class Sink final : public FetchSink {
   public:
    explicit Sink(ReaderSetup& setup) : setup_(setup) {}
    void fetch_head(FetchId id, ObjectHead head) override {
      if (setup_.reader) setup_.reader->fetch_head(id, std::move(head));
    }
    void fetch_progress(FetchId id, uint64_t arrived) override {
      if (setup_.reader) setup_.reader->fetch_progress(id, arrived);
    }
    void fetch_behind(FetchId id, ByteRange there) override {
      if (setup_.reader) setup_.reader->fetch_behind(id, there);
    }
    void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override {
      if (setup_.reader) setup_.reader->fetch_chunk(id, range, std::move(bytes));
    }
    void fetch_done(FetchId id, Status status) override {
      if (setup_.reader) setup_.reader->fetch_done(id, std::move(status));
    }

   private:
    ReaderSetup& setup_;
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
