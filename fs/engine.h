// One engine thread: its event loop, its block cache, its block reader. Others talk to it by messages. A mount has one
// or several (engines.h).
//
// Thread: the functions from any; `reader`, `cache` and `scrubber` belong to the engine thread.
#pragma once

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
#include "fs/all_readers.h"
#include "fs/block_reader.h"
#include "fs/inherited_blocks.h"
#include "fs/verified_fetches.h"
#include "net/fetcher.h"

namespace wormhole {

// What all engines of a mount stand on.
struct EngineBase {
  Space& space;
  Index& index;
  Fetcher& fetcher;
  BufferPool& buffers;
  Metrics& metrics;
  const Clock& clock;
};

class Engine {
 public:
  // What `base` and `all` refer to outlives the engine. `on_stale` and `ask_others` as in BlockReader.
  Engine(unsigned number, BlockReaderOptions reader, BlockCacheOptions cache, EngineBase base, AllReaders& all,
         BlockReader::OnStale on_stale, BlockReader::AskOthers ask_others);
  // Stops and joins.
  ~Engine();

  // `opened` is called on the engine thread when the engine knows of it: if all of the file is cached, `file` knows
  // then. Without it the engine is told some time before the first read.
  using Opened = UniqueFunction<void(), 32>;  // small, so that it fits into a message
  void open(OpenFileRef file, std::string url, Opened opened);
  // `now`: what is still fetched for nobody ends at once; else within a second.
  void close(Ino ino, bool now);
  void read(Ino ino, ByteRange range, ReadReply reply);
  // As the block reader's; `done` on the engine thread.
  void fetch_whole(Ino ino, uint64_t size, std::string url, ContentRef content, Lane lane, BlockReader::WholeDone done);
  // Objects that nobody can open any more: their cached bytes go when the last handle is closed.
  void drop(std::vector<Ino> inos);

  // As the functions of the block cache.
  void evict(std::vector<RegionKey> regions);
  // What is kept of these files in memory goes too.
  void evict_on_request(std::vector<RegionKey> regions, BlockCache::EvictionDone done);
  using CheckDone = UniqueFunction<void(BlockCache::Checked), 48>;  // on the engine thread
  void check_region(RegionKey key, CheckDone done);
  void trust_index(uint64_t failures);
  // Again and again until it can be done.
  void reclaim(Ino ino);
  // As the block reader's.
  void give_back(uint64_t bytes);

  // From now on this engine has it: it ticks here.
  void run_scrubber(std::unique_ptr<Scrubber> scrubber);
  // As the scrubber's. REQUIRES: it is here.
  void all_checked(uint64_t failures);
  // On the engine thread; dropped when that has ended.
  void post(Task task) { loop_->post(std::move(task)); }

  // Answers every waiting read, waits for writes under way, and ends the thread. The fetcher must still be alive.
  void stop();

  // "io_uring" or "threads".
  const char* io_backend() const { return io_backend_; }

 private:
  class Sink;

  void run(const std::function<void()>& ready);
  void try_to_reclaim(Ino ino);
  void reclaim_later();

  const BlockReaderOptions reader_options_;
  const BlockCacheOptions cache_options_;
  const EngineBase base_;
  AllReaders& all_;
  const BlockReader::OnStale on_stale_;
  const BlockReader::AskOthers ask_others_;

  const char* io_backend_ = "";
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<BlockCache> cache_;
  std::unique_ptr<VerifiedFetches> verified_;
  std::unique_ptr<InheritedBlocks> inherited_;
  std::unique_ptr<BlockReader> reader_;
  std::unique_ptr<Scrubber> scrubber_;  // one of the engines has it
  std::shared_ptr<Sink> sink_;
  std::vector<Ino> in_use_;  // to be reclaimed when it is not
  std::thread thread_;
};

}  // namespace wormhole
