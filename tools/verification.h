// One look at what is cached: every block of some files, or of all, is read and checked against its checksum; those
// that are wrong are forgotten by who owns them.
//
// Several regions are read at once, as many as keep a disk busy; who reads files meanwhile waits behind that many.
//
// Thread: run() any, it blocks; `check` hands the work to the owner of the blocks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/byte_range.h"
#include "cache/block_cache.h"
#include "cache/index.h"

namespace wormhole {

struct WrongBytes {
  Ino ino = 0;
  ByteRange range;  // of blocks that were forgotten, all in one region
};

struct Verified {
  uint64_t files = 0, blocks = 0, bytes = 0;  // that were checked
  uint64_t wrong_files = 0, wrong_blocks = 0, wrong_bytes = 0;
  std::vector<WrongBytes> wrong;
};

// As the control socket carries it.
nlohmann::json to_json(const Verified& found);
// Adds what to_json() has made.
void add(const nlohmann::json& said, Verified* sum);

class Verification {
 public:
  // As BlockCache::check_region(); `done` may be called on any thread.
  using Check = std::function<void(RegionKey key, std::function<void(BlockCache::Checked)> done)>;
  // Called a few times a second with what has been found since the last call. False ends it.
  using Tell = std::function<bool(Verified)>;

  // The index outlives it. `check` may outlive it by what is under way when it is ended.
  Verification(Index& index, Check check, Tell tell)
      : index_(index), check_(std::move(check)), tell_(std::move(tell)) {}

  // False when it was ended. All that was found has been told.
  bool run(const std::vector<Ino>& files);
  bool run_all();

 private:
  // What the owner answers; it outlives a look that was ended.
  struct Answers {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::pair<RegionKey, BlockCache::Checked>> ready;
  };
  struct File {
    uint64_t size = 0;
    std::vector<CachedRegion> regions;  // as they were before, in order
    std::vector<BlockCache::Checked> checked;
    size_t unchecked = 0;
  };

  bool look_at(Ino ino);
  bool wait_until_under_way_at_most(size_t count);
  void take(RegionKey key, BlockCache::Checked checked);
  void count(Ino ino, const File& file);
  bool tell_when_due();

  Index& index_;
  const Check check_;
  const Tell tell_;
  const std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
  size_t under_way_ = 0;
  std::map<Ino, File> files_;  // of which regions are under way
  Verified found_;             // since it was last told
  TimePoint told_{};
};

}  // namespace wormhole
