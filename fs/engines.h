// The engines of a mount: each object belongs to one of them, by a hash of its inode number, and everything that is
// said of an object goes to its engine. So an object has one owner and one order of events, whatever the number of
// engines; and engines share nothing but what is shared anyway (index, fetcher, buffers), and what they count together
// (all_readers.h).
//
// Thread: any.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fs/all_readers.h"
#include "fs/engine.h"
#include "fs/inode_table.h"

namespace wormhole {

inline constexpr unsigned kMostEngines = 64;

// How many a machine with so many cores should have.
unsigned engines_for(unsigned cores);

class Engines {
 public:
  // What `base` refers to outlives the engines. `on_stale` as in BlockReader.
  Engines(unsigned count, BlockReaderOptions reader, BlockCacheOptions cache, ScrubberOptions scrubber, EngineBase base,
          const BlockReader::OnStale& on_stale);
  // Stops and joins.
  ~Engines();

  // Which object has the bytes of the file: files whose bytes are known to be the same have one (Index::share). All
  // numbers below are of objects.
  Ino object_of(const Node& file);

  // As Engine's, of the object's own.
  void open(OpenFileRef file, std::string url, Engine::Opened opened) {
    Engine& engine = owner(file->ino());
    engine.open(std::move(file), std::move(url), std::move(opened));
  }
  void close(Ino ino, bool now) { owner(ino).close(ino, now); }
  void read(Ino ino, ByteRange range, ReadReply reply) { owner(ino).read(ino, range, std::move(reply)); }

  void fetch_whole(Ino ino, uint64_t size, std::string url, ContentRef content, Lane lane,
                   BlockReader::WholeDone done) {
    owner(ino).fetch_whole(ino, size, std::move(url), std::move(content), lane, std::move(done));
  }

  // Objects of any of them: each engine gets its own.
  void drop(std::span<const Ino> inos);
  // Goes, if it may, whatever the policy thinks of it; what is kept of these files in memory goes too. Each file's
  // regions follow each other. `done` as in BlockCache::evict_on_request(), once for all.
  void evict(std::span<const RegionKey> regions, BlockCache::EvictionDone done);

  // As the functions of the block cache and of the scrubber; `done` on an engine thread.
  void check_region(RegionKey key, Engine::CheckDone done) { owner(key.ino).check_region(key, std::move(done)); }
  void all_checked(uint64_t failures) { engines_.front()->all_checked(failures); }

  // A read that did not come by (OpenFile::complete()), and a file whose reads the kernel does not show. Lock-free.
  void was_read(Ino ino, ByteRange range) { base_.index.policy().accessed(ino, range, base_.clock.now()); }
  void is_passed_through(Ino ino, uint64_t size) { base_.index.policy().accessed_whole(ino, size, base_.clock.now()); }

  // Answers every waiting read, waits for writes under way, and ends the threads. The fetcher must still be alive.
  void stop();

  size_t count() const { return engines_.size(); }
  // What is counted together: for fetches that are no reader's.
  AllReaders& all() { return all_; }
  // Which of them has the object.
  size_t number_of(Ino ino) const;
  // "io_uring"; "threads" if one of them could not have it.
  std::string io_backend() const;

 private:
  Engine& owner(Ino ino) { return *engines_[number_of(ino)]; }
  template <typename T, typename InoOf>
  std::vector<std::vector<T>> by_owner(std::span<const T> all, InoOf ino_of) const;
  size_t evict_for_room(const std::vector<RegionKey>& regions);
  void start_scrubber(ScrubberOptions options);
  void look_for_leftovers(const std::string& objects_path);

  const EngineBase base_;
  AllReaders all_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::thread leftovers_thread_;
  std::atomic<bool> stopping_{false};
};

inline size_t Engines::number_of(Ino ino) const {
  // Fibonacci hashing: numbers are given in sequence, and files that are read together have neighbours or every n-th;
  // all of these it spreads evenly.
  constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;
  return ((ino * kGoldenRatio) >> 32) * engines_.size() >> 32;
}

}  // namespace wormhole
