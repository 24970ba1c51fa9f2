// What the cache holds, in LMDB: directories, object versions, and which blocks are on disk with their checksums.
//
// The order that makes it safe: the bytes of a block are written, then fdatasync'ed, and only then does a
// transaction say that the block is there. After a crash the index can know less than the disk, never more. Writes are
// posted to the index thread, which gathers what comes within a short time into one transaction.
//
// A record that is posted can be read at once (directory(), object(), region() look at what waits first); it
// is durable after the commit.
//
// An index that cannot be written (disk full, map full) makes the cache forget, never lie: the commit is dropped,
// counted and logged, and its blocks are fetched again after the next start.
//
// Thread: every function from any, unless it says otherwise. LMDB's write transaction belongs to the index thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/metrics.h"
#include "base/unique_function.h"
#include "cache/eviction_policy.h"
#include "cache/index_format.h"
#include "cache/pack.h"
#include "cache/pinned_files.h"
#include "cache/space.h"

namespace wormhole {

// Blocks whose bytes are written (not yet synced) to `file`.
struct StoredBlocks {
  Ino ino = 0;
  std::shared_ptr<FileDescriptor> file;
  BlockIndex first = 0;
  std::vector<uint64_t> checksums;  // one per block from `first` on
  uint64_t bytes = 0;
  uint64_t place = kNoPlace;  // in the pack, if that is the file
};

// A region of which something is there.
struct CachedRegion {
  uint64_t region = 0;
  uint64_t present = 0;  // bit i: block (region * 64 + i)
  uint64_t bytes = 0;    // that these blocks hold
};

// What the cache holds in all, as of the last commit.
struct CacheContents {
  uint64_t small_bytes = 0;  // in the small queue
  uint64_t main_bytes = 0;   // in the main queue
  uint64_t regions = 0;
};

// Files of which something is there.
struct CachedFiles {
  uint64_t complete = 0;
  uint64_t partial = 0;
};

class Index {
 public:
  // Opens or creates the index in `path`. kCorrupt or kIo when LMDB refuses it: the message says what to do.
  static Result<std::unique_ptr<Index>> open(const std::string& path, Metrics& metrics);
  // The same with a clock of its own, which outlives it.
  static Result<std::unique_ptr<Index>> open(const std::string& path, Metrics& metrics, const Clock& clock);
  // As flush(), and records the clean end, if nothing has failed since open().
  virtual ~Index() = default;

  // True when every daemon so far has ended cleanly: cached blocks are trusted then, and otherwise checked at first
  // touch.
  virtual bool was_clean() const = 0;
  // Every block on record has been checked since: as if they had.
  virtual void trust_again() = 0;

  // A new inode number; never given before, also not by a daemon that crashed.
  virtual Ino allocate_ino() = 0;

  // The tree that was mounted from `url` before. One cache may know several.
  virtual std::optional<RootRecord> root(const std::string& url) = 0;
  virtual void put_root(const std::string& url, RootRecord record) = 0;

  // What was learnt of the server at `url`, as its owner encoded it.
  virtual std::optional<std::string> host(const std::string& url) = 0;
  virtual void put_host(const std::string& url, std::string profile) = 0;

  // The directory's listing as fs/directory.h encoded it.
  virtual std::optional<std::string> directory(Ino ino) = 0;
  virtual void put_directory(Ino ino, std::string encoded) = 0;

  virtual std::optional<ObjectRecord> object(Ino ino) = 0;
  virtual void put_object(Ino ino, ObjectRecord record) = 0;

  // --- files with the same bytes have one object (index_sharing.cc) ---

  // The object that holds this content: another file's, if one has it on record, else that of `file` itself. From then
  // on the file uses it.
  virtual Ino share(const ContentKey& content, Ino file) = 0;
  // The object of this content; nothing when no file uses one.
  virtual std::optional<Ino> shared(const ContentKey& content) = 0;
  // The file is gone, or has another version. The object that it used, if no other file does: then it may be dropped.
  virtual std::optional<Ino> unshare(const ContentKey& content, Ino file) = 0;
  // Where the bytes of a file are: another's object that it shares, or its own.
  virtual Ino object_of(Ino file) = 0;

  virtual std::optional<RegionRecord> region(RegionKey key) = 0;
  // Committed regions from `from` on in the order of their keys, at most `count`.
  virtual std::vector<RegionKey> regions_from(RegionKey from, size_t count) = 0;
  virtual ScrubRecord scrubbed() = 0;
  virtual void put_scrubbed(ScrubRecord record) = 0;
  // How many blocks of the object are there. Looks at each of its regions (about 100 ns for 4 MiB).
  virtual uint64_t blocks_present(Ino ino) = 0;
  // The same, region by region, in order.
  virtual std::vector<CachedRegion> cached_regions(Ino ino) = 0;
  virtual CacheContents contents() = 0;
  // Looks at every region of the cache: about a second for a million files.
  virtual CachedFiles count_files() = 0;
  // Syncs the file, then records the blocks; without a record of the object they are not recorded. `committed` runs on
  // the index thread, with false if that failed.
  virtual void put_blocks(StoredBlocks blocks, UniqueFunction<void(bool)> committed) = 0;
  // The block's bytes are wrong: it is not there any more.
  virtual void forget_block(Ino ino, BlockIndex block) = 0;
  // None of its blocks is there any more: its file is gone.
  virtual void forget_blocks(Ino ino) = 0;
  // Files that are never evicted. Changes hold at once, and are durable after the commit. A pin outlives the object's
  // records: it goes with unpin() alone.
  virtual void pin(std::vector<Ino> files) = 0;
  virtual void unpin(std::vector<Ino> files) = 0;
  virtual const PinnedFiles& pinned() const = 0;

  // --- eviction: the index thread chooses, the owner of the blocks agrees, the index forgets, the owner frees ---

  // Readers tell it what they read.
  virtual EvictionPolicy& policy() = 0;
  // From now on, whenever `space` has an excess, regions are chosen, none of a pinned file, and `ask` is called on the
  // index thread with them. It sees to it that evict() follows from each owner of some of them, with those that may go,
  // perhaps none, and returns how many that are; it is called again when all have answered. Both outlive the index, or
  // the call of stop_evicting().
  using Ask = std::function<size_t(std::vector<RegionKey>)>;
  virtual void start_evicting(Space& space, Ask ask) = 0;
  // After it `ask` is not called any more.
  virtual void stop_evicting() = 0;
  // There is no room: soon, please.
  virtual void make_room() = 0;
  // The regions' blocks are not there any more. `evicted` runs on the index thread after the commit: then their place
  // may be freed, and end_eviction() called with so many bytes.
  enum class EvictionFor : uint8_t {
    kRoom,     // it answers an ask
    kRequest,  // somebody wants it
  };
  using Evicted = UniqueFunction<void(bool ok, uint64_t bytes)>;
  virtual void evict(std::vector<RegionKey> regions, EvictionFor why, Evicted evicted) = 0;

  // --- the pack: where its objects lie is on record in the same transaction that says that they are there ---

  virtual Pack& pack() = 0;
  // The object is not there, has no place on record from the next commit on, and nobody reads where it was.
  virtual void release_place(Ino ino, PackPlace place) = 0;

  // All records of the object; `dropped` runs on the index thread after the commit: then its file may go.
  virtual void drop_object(Ino ino, UniqueFunction<void(bool)> dropped) = 0;

  // How many batches could not be synced or committed. After one, what is in memory but perhaps not on disk is in
  // doubt.
  virtual uint64_t failures() const = 0;

  // Returns when everything that was posted before is durable (or has failed), and all that was to be
  // called after it has been called.
  virtual void flush() = 0;
};

}  // namespace wormhole
