// The index over LMDB. index.cc has what is read and posted, index_commit.cc the index thread and its transactions,
// index_eviction.cc what goes when the cache is full, index_contents.cc what is there and what is pinned,
// index_sharing.cc which files share an object, index_check.cc the look at one that nobody has open. Only these six
// include it, and <lmdb.h> with it.
//
// Posted writes are kept in `waiting_` until their transaction is committed, so that a reader sees them at once. The
// index thread swaps the whole batch out (`committing_`), syncs the files of its blocks, applies it, commits, and then
// clears it: at every moment a record is in LMDB, in `committing_` or in `waiting_`, the newest being the last.
#pragma once

#include <lmdb.h>

#include <condition_variable>
#include <map>
#include <set>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "cache/index.h"

namespace wormhole {

// Posted writes are committed at once when there are so many.
inline constexpr size_t kCommitRecords = 4096;

// Up to so many files are synced one by one. Each sync is a commit of the file system's journal, a millisecond or more:
// a batch of a thousand small files costs one sync of the whole file system instead.
inline constexpr size_t kSyncedSeparately = 16;

// 1 is the kernel's name for the root of any mount; numbers of a cache begin behind it.
inline constexpr Ino kFirstIno = 2;

// After all that should have gone had to stay, nothing is chosen for so long.
inline constexpr Duration kAllStayed = std::chrono::seconds(1);

inline constexpr unsigned kMostTables = 12;

// A reservation of address space, not of disk or memory. 536 bytes per 4 MiB: enough for 100 TB of cached blocks.
inline constexpr size_t kMapSize = size_t{16} << 30;

inline constexpr uint64_t kUnknownSize = ~uint64_t{0};

inline MDB_val as_value(std::string_view s) { return MDB_val{s.size(), const_cast<char*>(s.data())}; }
inline std::string_view as_view(const MDB_val& v) { return {static_cast<const char*>(v.mv_data), v.mv_size}; }

// What a transaction sees under `key`; nothing when it is not there, or not what was put. Valid until the transaction
// writes or ends.
std::optional<std::string_view> get_in(MDB_txn* txn, MDB_dbi table, std::string_view key);

// The key of a URL: LMDB's keys have at most 511 bytes.
std::string url_key(const std::string& url);

// The bytes that the blocks in `present` hold, the last one of the object being shorter.
int64_t bytes_of(uint64_t present, uint64_t region, uint64_t object_size);
// What they take on the disk, in whole pages: that is what counts for the limit.
int64_t room_of(uint64_t present, uint64_t region, uint64_t object_size);

// Everything that one transaction writes.
struct Batch {
  std::unordered_map<Ino, std::shared_ptr<const std::string>> directories;
  std::unordered_map<Ino, ObjectRecord> objects;
  std::map<RegionKey, RegionRecord> stored;            // blocks to add
  std::unordered_map<Ino, PackPlace> places;           // of those in `stored` that lie in the pack
  std::vector<std::pair<Ino, PackPlace>> released;     // to be free, unless they are on record
  std::map<RegionKey, uint64_t> forgotten;             // blocks to take away (before `stored` is applied)
  std::vector<std::shared_ptr<FileDescriptor>> files;  // to be synced first, each once, as far as they are few
  bool many_files = false;                             // ... else the whole file system is synced
  std::set<RegionKey> evicted;                         // as `forgotten`, all blocks of each
  std::unordered_set<Ino> emptied;                     // all their blocks are taken away (before `stored` is applied)
  std::unordered_set<Ino> dropped;                     // and their records as well
  std::map<std::string, RootRecord> roots;
  std::map<std::string, std::string> hosts;
  uint64_t next_ino = 0;
  std::optional<bool> clean;
  std::optional<ScrubRecord> scrubbed;
  bool last = false;  // the end: what the policy has learnt is written
  std::vector<UniqueFunction<void(bool)>> committed;
  struct Eviction {
    std::vector<RegionKey> regions;  // they are in `evicted` as well
    Index::EvictionFor why;
    Index::Evicted evicted;
  };
  std::vector<Eviction> evictions;
  std::map<Ino, bool> pins;        // true: from now on, false: not any more
  std::map<ContentUse, Ino> uses;  // the object; 0: not any more
  std::map<Ino, Ino> aliases;      // of files, the objects of others; 0: not any more
  size_t records = 0;

  bool empty() const { return records == 0; }
  void evict_region(RegionKey key) {
    evicted.insert(key);
    if (stored.erase(key) > 0) release_stored(key.ino);
  }
  void empty_object(Ino ino) {
    emptied.insert(ino);
    stored.erase(stored.lower_bound(RegionKey{ino, 0}), stored.upper_bound(RegionKey{ino, ~uint64_t{0}}));
    release_stored(ino);
  }
  // What was to be recorded will not be.
  void release_stored(Ino ino) {
    if (const auto it = places.find(ino); it != places.end()) {
      released.emplace_back(ino, it->second);
      places.erase(it);
    }
  }
};

struct Tables {
  MDB_dbi meta = 0, directories = 0, objects = 0, regions = 0, roots = 0, hosts = 0, queues = 0, slabs = 0,
          summaries = 0, pins = 0, uses = 0, aliases = 0;
};

// What a transaction changes of the sums and of the pack. The sums are taken over when it is committed; what it has
// done to the pack is undone when it is not.
struct Changes {
  int64_t small = 0, main = 0;  // bytes in the queues
  uint64_t next_sequence = 1;
  std::map<RegionKey, uint64_t> evicted;  // bytes of each
  std::vector<PackPlace> recorded, forgotten;
  std::map<uint64_t, PackPlace> released;  // by offset; free, once it is committed

  int64_t bytes() const { return small + main; }
  int64_t& of(QueuePosition position) { return position.main ? main : small; }
};

class LmdbIndex final : public Index {
 public:
  LmdbIndex(Metrics& metrics, const Clock& clock) : metrics_(metrics), clock_(clock) {}
  ~LmdbIndex() override;

  Status init(const std::string& path);

  bool was_clean() const override { return was_clean_.load(std::memory_order_relaxed); }
  void trust_again() override { was_clean_.store(true, std::memory_order_relaxed); }
  uint64_t failures() const override { return failures_.load(std::memory_order_acquire); }
  Ino allocate_ino() override;
  std::optional<RootRecord> root(const std::string& url) override;
  void put_root(const std::string& url, RootRecord record) override;
  std::optional<std::string> host(const std::string& url) override;
  void put_host(const std::string& url, std::string profile) override;
  std::optional<std::string> directory(Ino ino) override;
  void put_directory(Ino ino, std::string encoded) override;
  std::optional<ObjectRecord> object(Ino ino) override;
  void put_object(Ino ino, ObjectRecord record) override;
  Ino share(const ContentKey& content, Ino file) override;
  std::optional<Ino> shared(const ContentKey& content) override;
  std::optional<Ino> unshare(const ContentKey& content, Ino file) override;
  Ino object_of(Ino file) override;
  std::optional<RegionRecord> region(RegionKey key) override;
  std::vector<RegionKey> regions_from(RegionKey from, size_t count) override;
  ScrubRecord scrubbed() override;
  void put_scrubbed(ScrubRecord record) override;
  uint64_t blocks_present(Ino ino) override;
  std::vector<CachedRegion> cached_regions(Ino ino) override;
  CacheContents contents() override;
  CachedFiles count_files() override;
  void put_blocks(StoredBlocks blocks, UniqueFunction<void(bool)> committed) override;
  void forget_block(Ino ino, BlockIndex block) override;
  void forget_blocks(Ino ino) override;
  void pin(std::vector<Ino> files) override;
  void unpin(std::vector<Ino> files) override;
  const PinnedFiles& pinned() const override { return pinned_; }
  EvictionPolicy& policy() override { return policy_; }
  void start_evicting(Space& space, Ask ask) override;
  void stop_evicting() override;
  void make_room() override;
  void evict(std::vector<RegionKey> regions, EvictionFor why, Evicted evicted) override;
  Pack& pack() override { return *pack_; }
  void release_place(Ino ino, PackPlace place) override;
  void drop_object(Ino ino, UniqueFunction<void(bool)> dropped) override;
  void flush() override;

 private:
  // Reading.
  std::optional<std::string> get(MDB_dbi table, std::string_view key);
  uint64_t get_number(std::string_view key, uint64_t otherwise);
  std::optional<RegionRecord> merged_region(RegionKey key) REQUIRES_LOCK(mutex_);
  std::optional<Ino> use_of(const ContentUse& use) REQUIRES_LOCK(mutex_);
  std::optional<Ino> any_use_of(const ContentKey& content) REQUIRES_LOCK(mutex_);
  std::optional<Ino> alias_of(Ino file) REQUIRES_LOCK(mutex_);
  // All that there is of the object, in no order.
  void visit_regions(Ino ino, const std::function<void(RegionKey, const RegionRecord&)>& visit);
  // All that LMDB has of the object, in order.
  using VisitRegion = std::function<void(RegionKey, std::string_view encoded)>;
  void scan_regions(Ino ino, const VisitRegion& visit);
  int scan_regions_in(MDB_txn* txn, Ino ino, const VisitRegion& visit) const;

  // Posting: edits `waiting_` under the lock and wakes the index thread.
  void post(const std::function<void(Batch&)>& edit);
  void hurry();

  // The index thread.
  void run();
  bool wait_for_batch();
  void finish(Batch batch, bool ok, const Changes& changes);
  bool sync_files(const Batch& batch);
  bool commit(const Batch& batch, Changes* changes);
  int transact(const std::function<int(MDB_txn*)>& apply, Changes* changes);
  int apply(MDB_txn* txn, const Batch& batch, Changes* changes);
  int apply_blocks(MDB_txn* txn, const Batch& batch, Changes* changes);
  int apply_evictions(MDB_txn* txn, const Batch& batch, Changes* changes);
  int apply_drops(MDB_txn* txn, const Batch& batch, Changes* changes);
  void apply_releases(MDB_txn* txn, const Batch& batch, Changes* changes) const;
  void record_place(const RegionRecord& before, const RegionRecord& region, uint64_t size, Changes* changes);
  int put_pack_records(MDB_txn* txn, const PackRecords& records) const;
  void undo_places(const Changes& changes);
  std::vector<std::string> pack_summaries();
  int apply_pins(MDB_txn* txn, const Batch& batch) const;
  int apply_sharing(MDB_txn* txn, const Batch& batch) const;
  int load_pins();
  int enqueue(MDB_txn* txn, RegionKey key, bool main, RegionRecord* region, Changes* changes);
  int dequeue(MDB_txn* txn, QueuePosition position);
  int delete_region(MDB_txn* txn, RegionKey key, const RegionRecord& region, uint64_t size, Changes* changes);
  EvictionPolicy::Occupancy occupancy(const Changes& changes) const;
  std::optional<RegionRecord> region_in(MDB_txn* txn, RegionKey key) const;
  void count_evicted(uint64_t bytes);
  void choose_victims();
  void nothing_chosen(TimePoint now);
  int head(MDB_txn* txn, bool main, QueuePosition* position, RegionKey* key) const;
  int choose(MDB_txn* txn, uint64_t excess, std::vector<RegionKey>* victims, Changes* changes);
  uint64_t object_size(MDB_txn* txn, Ino ino) const;
  static int put(MDB_txn* txn, MDB_dbi table, std::string_view key, std::string_view value);
  int put_number(MDB_txn* txn, std::string_view key, uint64_t value) const;

  Metrics& metrics_;
  const Clock& clock_;
  MDB_env* env_ = nullptr;
  Tables tables_;
  std::unique_ptr<Pack> pack_;  // from init() on
  std::atomic<bool> was_clean_{false};
  std::atomic<uint64_t> failures_{0};
  std::thread thread_;

  EvictionPolicy policy_;
  PinnedFiles pinned_;
  // The index thread's.
  uint64_t small_bytes_ = 0, main_bytes_ = 0;  // in the queues, committed
  uint64_t next_sequence_ = 1;
  size_t answers_due_ = 0;        // so many evict() are to follow yet
  bool all_stayed_ = false;       // what was asked for, as far as it is answered
  TimePoint choose_again_at_{};   // all that were asked for had to stay
  uint64_t pinned_in_a_row_ = 0;  // regions that were passed over since something was chosen

  Mutex evicting_mutex_;  // held while asking
  Space* space_ GUARDED_BY(evicting_mutex_) = nullptr;
  Ask ask_ GUARDED_BY(evicting_mutex_);

  Mutex mutex_;
  std::condition_variable_any changed_;   // something waits, or the end
  std::condition_variable_any finished_;  // a batch is through
  Batch waiting_ GUARDED_BY(mutex_);
  Batch committing_ GUARDED_BY(mutex_);  // written by the index thread alone; others read it under the lock
  uint64_t posted_ GUARDED_BY(mutex_) = 0;
  uint64_t done_ GUARDED_BY(mutex_) = 0;
  bool hurry_ GUARDED_BY(mutex_) = false;  // somebody waits in flush()
  bool room_wanted_ GUARDED_BY(mutex_) = false;
  bool ending_ GUARDED_BY(mutex_) = false;
  Ino next_ino_ GUARDED_BY(mutex_) = kFirstIno;
  Ino reserved_ino_ GUARDED_BY(mutex_) = kFirstIno;
};

}  // namespace wormhole
