// Blocks on disk: which are there, reading them, storing them. Knows neither FUSE nor HTTP.
//
// Each object version is one sparse file in which block i lies at i * 64 KiB, so that any range can be written by
// itself; but those of no more than one block share a file, the pack (cache/pack.h). Presence and checksums come from
// the index, region by region, when they are first asked for, and are kept while the object is in use.
//
// A block is *trusted* when it was stored by this process and has been synced, was checked by it, or the last daemon
// ended cleanly (VerifyMode::kAuto). Until the sync has succeeded a block may vanish behind our back (the kernel writes
// its pages, the disk refuses them, and it is a hole), so it is checked at every read, and forgotten when the sync
// fails. Any other untrusted block is read whole and checked at its first touch; a wrong one is forgotten and reported
// as kCorrupt: the caller fetches it again. No error of this class may fail a read: the caller has the network.
//
// Blocks that are read here and there, and that the page cache does not hold, are read past it: nothing is copied, and
// the page cache of the mount is the only one that keeps them. What is read in order goes through the page cache, for
// the kernel's read-ahead.
//
// Thread: the engine's. Nothing blocks except the opening (and first making) of a file, a look at the free space once a
// second, and an LMDB lookup.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/block.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/disk_io.h"
#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "cache/complete_file.h"
#include "cache/index.h"
#include "cache/space.h"

namespace wormhole {

// Where the file of an object lies, if it is not in the pack.
std::string object_path(const std::string& objects_path, Ino ino);

// Bytes of a file that are those of another, at the same place.
struct CopiedBytes {
  std::shared_ptr<FileDescriptor> file;
  std::vector<ByteRange> ranges;
};

enum class VerifyMode : uint8_t {
  kAuto,    // after an unclean end each block is checked once, otherwise trusted
  kAlways,  // every read is checked
  kOff,     // never
};

struct BlockCacheOptions {
  std::string objects_path;
  VerifyMode verify = VerifyMode::kAuto;
  bool reclaim = false;  // objects/ may have what the index does not know; for the engines
  unsigned engines = 1;  // so many caches share the process's descriptors, each with its own objects
};

class BlockCache {
 public:
  // All references outlive the cache.
  BlockCache(BlockCacheOptions options, Space& space, Index& index, DiskIo& disk, BufferPool& buffers,
             Metrics& metrics);
  ~BlockCache();

  // The object's state stays in memory between open() and the matching close(), and some time longer. `recorded`: the
  // index knows the version that the blocks belong to; without that, blocks that it may name are not believed.
  void open(Ino ino, uint64_t size, bool recorded);
  void close(Ino ino);

  // REQUIRES (here and below): the object is open.
  bool has(Ino ino, BlockIndex block);
  // The object's file when every block is there and trusted; null when not, and with VerifyMode::kAlways. The first
  // call for an object looks through the index.
  CompleteFileRef complete_file(Ino ino);

  // Reads `range`, whose blocks are all present. Errors: kCorrupt (a checksum was wrong; that block is not present
  // any more), kIo. The bytes of `range` begin at `skip` in the buffer.
  struct ReadResult {
    BufferRef bytes;
    uint64_t skip = 0;
  };
  using ReadDone = UniqueFunction<void(Result<ReadResult>)>;
  void read(Ino ino, ByteRange range, ReadDone done);

  // Reads every block of the region that is there, open or not, and checks it; those that are wrong are forgotten.
  // `done` is called at once when there are none.
  struct Checked {
    uint64_t blocks = 0;  // bit i: block i of the region was there
    uint64_t wrong = 0;   // of these, those that were forgotten
    uint64_t bytes = 0;   // that were read
  };
  using CheckDone = UniqueFunction<void(Checked)>;
  void check_region(RegionKey key, CheckDone done);
  // Every block on record has been checked, and is trusted, unless the index has failed more than `failures` times.
  void trust_index(uint64_t failures);

  // Writes `range` (whole blocks) from `bytes`, whose first byte is that of range.begin, and has the index record it.
  // After `done(true)` has() is true. done(false): the cache has no room or no disk; nothing else follows from it.
  using StoreDone = UniqueFunction<void(bool)>;
  // Whether the kernel should keep a copy in its page cache: blocks of random reads are soon read again from here,
  // those of a stream are in the page cache of the mount already.
  enum class PageCache : uint8_t { kKeep, kBypass };
  // What is `copied` takes no place of its own in the end, where the file system lets two files have the same one.
  void store(Ino ino, ByteRange range, BufferRef bytes, PageCache page_cache, StoreDone done, CopiedBytes copied = {});

  // The index has chosen these regions to go. Those that may (nobody reads or stores their blocks, and the kernel does
  // not serve them) are forgotten, and after the commit their place is freed. `run_here` brings a task to this
  // thread, or drops it when the cache has ended.
  void evict(const std::vector<RegionKey>& regions, std::function<void(Task)> run_here);
  // The same with regions that somebody wants to go, whatever the policy thinks of them. `done` runs on the index
  // thread, when their place is free.
  enum class Stays : uint8_t {
    kPinned,
    kOpen,  // all of the file is there, and the kernel serves it; or it is open in a version that is superseded
    kBusy,  // its blocks are being read or stored
  };
  struct EvictionResult {
    bool ok = false;  // false: the index could not be written, nothing is freed
    std::vector<std::pair<RegionKey, Stays>> stayed;
  };
  using EvictionDone = std::function<void(EvictionResult)>;
  void evict_on_request(const std::vector<RegionKey>& regions, std::function<void(Task)> run_here, EvictionDone done);

  // Frees what the object's file has and the index does not know. A crash leaves such. False: not now, it is in use.
  bool reclaim(Ino ino);

  // The object is of no use any more (a newer version exists): its records and its file go, as soon as it is closed.
  void drop(Ino ino);

 private:
  // Of a store: counted in the order in which the index gets them.
  using Ticket = uint64_t;
  struct Region {
    // Its place in the pack is the index's while the block is on record, else ours: to be used again, or released.
    RegionRecord record;
    uint64_t trusted = 0;   // of those that are present
    uint64_t unsynced = 0;  // of those that are present; the youngest of them has this ticket
    Ticket ticket = 0;
    int busy = 0;  // reads and stores under way: its blocks may not go
  };
  struct Object {
    Ino ino = 0;
    uint64_t size = 0;
    bool in_pack = false;
    int opens = 0;
    int busy = 0;  // operations under way: the state may not go
    bool recorded = false;
    bool dropped = false;
    std::shared_ptr<FileDescriptor> file;
    std::shared_ptr<FileDescriptor> direct;  // the same file with O_DIRECT, from its first use until it is closed
    // Where the last reads have ended, one for each of a few readers of a sequence; 0 is where all begin.
    std::array<uint64_t, 4> read_ends{};
    uint8_t next_read_end = 0;
    uint32_t warm_reads = 0;  // since a read was not in the page cache
    std::unordered_map<uint64_t, Region> regions;
    std::optional<uint64_t> trusted;       // blocks, of all regions; counted when it is first asked for
    std::vector<uint64_t> unsynced;        // regions that have such blocks
    CompleteFileRef complete;              // while all of them are
    std::vector<CompleteFileRef> revoked;  // that somebody may still be inside of: nothing may go
    std::list<Ino>::iterator idle;         // valid while opens == 0
  };
  struct Read;
  struct Store;
  struct Check;

  Object& object(Ino ino);
  Region& region(Object& object, uint64_t number);
  Result<std::shared_ptr<FileDescriptor>> file(Object& object, bool create);
  Result<FileDescriptor> open_file(const std::string& path, int flags);
  Result<std::shared_ptr<FileDescriptor>> pack_file(Object& object, bool create);
  uint64_t offset_in_file(Object& object);
  void release_place(Object& object);
  void lose_file(Object& object);
  std::shared_ptr<FileDescriptor> direct_file(Object& object);
  std::shared_ptr<FileDescriptor> direct_for_store(Object& object, ByteRange range);
  std::shared_ptr<FileDescriptor> direct_for_read(Object& object, ByteRange wanted, ByteRange range);
  std::string file_path(Ino ino) const;
  bool may_store(ByteRange range, Ino ino);
  void count_busy(Object& object, ByteRange range, int by);
  using Stayed = std::vector<std::pair<RegionKey, Stays>>;
  void evict_for(Index::EvictionFor why, std::vector<RegionKey> going, std::function<void(Task)> run_here,
                 std::function<void(bool)> done);
  std::vector<RegionKey> release_regions(const std::vector<RegionKey>& regions, Stayed* stayed);
  std::optional<Stays> why_stay(RegionKey key);
  void punch_absent(Object& object, ByteRange range);
  uint64_t known(Ino ino, uint64_t number);
  void free_file(Ino ino);
  void free_regions(const std::vector<RegionKey>& regions);
  void set_present(Object& object, BlockIndex block, uint64_t checksum, Ticket ticket);
  void trust_synced(Object& object);
  void forget_unsynced(Object& object);
  void set_trusted(Object& object, Region& region, unsigned i);
  void revoke(Object& object);
  static bool is_read_inside(Object& object);
  void forget_block(Object& object, BlockIndex block);
  void hide_block(Object& object, BlockIndex block);
  void doubt_after_failure();
  void close_idle_files();
  void finish_use(Object& object);
  void trim_idle();
  void remove_files(Ino ino);

  enum class Purpose : uint8_t { kRead, kReadAndCheck, kCheck };
  void start(Ino ino, ByteRange range, Purpose purpose, ReadDone done);
  void check_next(std::unique_ptr<Check> check);
  bool all_trusted(Object& object, ByteRange range);
  static bool goes_on(Object& object, ByteRange range);
  bool in_page_cache(Object& object, ByteRange range);
  void start_read(Ino ino, std::unique_ptr<Read> read);
  void read_done(Ino ino, std::unique_ptr<Read> read, int64_t result);
  bool verify(Object& object, const Read& read);
  void start_store(Ino ino, std::unique_ptr<Store> store);
  void store_done(Ino ino, std::unique_ptr<Store> store, int64_t result);

  const BlockCacheOptions options_;
  Space& space_;
  Index& index_;
  DiskIo& disk_;
  BufferPool& buffers_;
  Metrics& metrics_;
  bool trust_index_;
  Ticket last_ticket_ = 0;
  // Up to which all stores are on disk, unless the index has failed since. The index thread writes it, and may outlive
  // the cache.
  const std::shared_ptr<std::atomic<Ticket>> synced_ = std::make_shared<std::atomic<Ticket>>(0);
  uint64_t failures_seen_ = 0;  // of the index
  const size_t max_idle_;
  std::unordered_map<Ino, Object> objects_;
  std::list<Ino> idle_;        // oldest first
  size_t idle_dropped_ = 0;    // of them, those whose files are to go
  std::set<RegionKey> going_;  // released, and not free yet
  bool store_error_logged_ = false;
  bool direct_works_ = true;      // O_DIRECT, on this file system
  bool page_cache_tells_ = true;  // cachestat(2), since Linux 6.5
};

}  // namespace wormhole
