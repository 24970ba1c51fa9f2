// One engine thread: its event loop, its block cache, its block reader. Others talk to it by messages.
//
// Thread: the functions from any; `reader` and `cache` belong to the engine thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/event_loop.h"
#include "base/metrics.h"
#include "cache/block_cache.h"
#include "cache/scrubber.h"
#include "fs/block_reader.h"
#include "net/fetcher.h"

namespace wormhole {

class Engine {
 public:
  // All references outlive the engine. `on_stale` as in BlockReader.
  Engine(BlockReaderOptions reader, BlockCacheOptions cache, ScrubberOptions scrubber, Space& space, Index& index,
         Fetcher& fetcher, BufferPool& buffers, Metrics& metrics, const Clock& clock, BlockReader::OnStale on_stale);
  // Stops and joins.
  ~Engine();

  // `opened` is called on the engine thread when the engine knows of it: if all of the file is cached, `file` knows
  // then. Without it the engine is told some time before the first read.
  using Opened = UniqueFunction<void(), 32>;  // small, so that it fits into a message
  void open(OpenFileRef file, std::string url, Opened opened);
  // `now`: what is still fetched for nobody ends at once; else within a second.
  void close(Ino ino, bool now);
  void read(Ino ino, ByteRange range, ReadReply reply);
  // Objects that nobody can open any more: their cached bytes go when the last handle is closed.
  void drop(std::vector<Ino> inos);

  // Goes, if it may, whatever the policy thinks of it; what is kept of these files in memory goes too. `done` as in
  // BlockCache::evict_on_request().
  void evict(std::vector<RegionKey> regions, BlockCache::EvictionDone done);

  // As BlockCache::check_region(), from any thread; `done` runs on the engine thread.
  void check_region(RegionKey key, std::function<void(BlockCache::Checked)> done);
  // As Scrubber::all_checked().
  void all_checked(uint64_t failures);

  // A read that did not come by (OpenFile::complete()), and a file whose reads the kernel does not show. Lock-free.
  void was_read(Ino ino, ByteRange range) { index_.policy().accessed(ino, range, clock_.now()); }
  void is_passed_through(Ino ino, uint64_t size) { index_.policy().accessed_whole(ino, size, clock_.now()); }

  // Answers every waiting read, waits for writes under way, and ends the thread. The fetcher must still be alive.
  void stop();

  // "io_uring" or "threads".
  const char* io_backend() const { return io_backend_; }

 private:
  class Sink;

  void run(std::function<void()> ready);
  void look_for_leftovers();
  void reclaim(Ino ino);
  void reclaim_later();

  const BlockReaderOptions reader_options_;
  const BlockCacheOptions cache_options_;
  const ScrubberOptions scrubber_options_;
  Space& space_;
  Index& index_;
  Fetcher& fetcher_;
  BufferPool& buffers_;
  Metrics& metrics_;
  const Clock& clock_;
  const BlockReader::OnStale on_stale_;

  const char* io_backend_ = "";
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<BlockCache> cache_;
  std::unique_ptr<BlockReader> reader_;
  std::unique_ptr<Scrubber> scrubber_;
  std::shared_ptr<Sink> sink_;
  std::vector<Ino> in_use_;  // to be reclaimed when it is not
  std::thread thread_;
  std::thread leftovers_thread_;
  std::atomic<bool> stopping_{false};
};

}  // namespace wormhole
