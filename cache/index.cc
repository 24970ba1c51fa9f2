// The index over LMDB: the only file that includes <lmdb.h>.
//
// Posted writes are kept in `waiting_` until their transaction is committed, so that a reader sees them at once. The
// index thread swaps the whole batch out (`committing_`), syncs the files of its blocks, applies it, commits, and then
// clears it: at every moment a record is in LMDB, in `committing_` or in `waiting_`, the newest being the last.
#include "cache/index.h"

#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <set>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "cache/checksum.h"

namespace wormhole {
namespace {

// A reservation of address space, not of disk or memory. 520 bytes per 4 MiB: enough for 100 TB of cached blocks.
constexpr size_t kMapSize = size_t{16} << 30;

// Readers of the tree and of blocks are our own few threads.
constexpr unsigned kMaxReaders = 256;

// How long a posted write waits for company. Longer means fewer syncs and more to fetch again after a crash; 200 ms is
// five commits a second, which no disk of today notices.
constexpr Duration kCommitDelay = std::chrono::milliseconds(200);
// ... unless this many records wait already.
constexpr size_t kCommitRecords = 4096;

// Up to so many files are synced one by one. Each sync is a commit of the file system's journal, a millisecond or more:
// a batch of a thousand small files costs one sync of the whole file system instead.
constexpr size_t kSyncedSeparately = 16;

// Inode numbers are reserved in runs, so that giving one out costs no transaction. A crash loses at most a run of 2^64.
constexpr uint64_t kInoRun = 65536;
// 1 is the kernel's name for the root of any mount; numbers of a cache begin behind it.
constexpr Ino kFirstIno = 2;

MDB_val as_value(std::string_view s) { return MDB_val{s.size(), const_cast<char*>(s.data())}; }
std::string_view as_view(const MDB_val& v) { return {static_cast<const char*>(v.mv_data), v.mv_size}; }

constexpr uint64_t kUnknownSize = ~uint64_t{0};

// LMDB's keys have at most 511 bytes; a longer URL is cut and made unique by a checksum of the whole.
std::string url_key(const std::string& url) {
  constexpr size_t kLongest = 480;
  if (url.size() <= kLongest) return url;
  return fmt::format("{}#{:016x}", url.substr(0, kLongest),
                     block_checksum(reinterpret_cast<const std::byte*>(url.data()), url.size()));
}

// The bytes that the blocks in `present` hold, the last one of the object being shorter.
int64_t bytes_of(uint64_t present, uint64_t region, uint64_t object_size) {
  auto bytes = static_cast<int64_t>(static_cast<uint64_t>(std::popcount(present)) * kBlockSize);
  if (object_size == kUnknownSize) return bytes;  // counted as whole blocks
  const uint64_t blocks = block_count(object_size);
  if (blocks == 0 || (blocks - 1) / kBlocksPerRegion != region) return bytes;
  if ((present >> ((blocks - 1) % kBlocksPerRegion)) & 1)
    bytes -= static_cast<int64_t>(blocks * kBlockSize - object_size);
  return bytes;
}

// Everything that one transaction writes.
struct Batch {
  std::unordered_map<Ino, std::shared_ptr<const std::string>> directories;
  std::unordered_map<Ino, ObjectRecord> objects;
  std::map<RegionKey, RegionRecord> stored;            // blocks to add
  std::map<RegionKey, uint64_t> forgotten;             // blocks to take away (before `stored` is applied)
  std::vector<std::shared_ptr<FileDescriptor>> files;  // to be synced first, each once, as far as they are few
  bool many_files = false;                             // ... else the whole file system is synced
  std::unordered_set<Ino> emptied;                     // all their blocks are taken away (before `stored` is applied)
  std::unordered_set<Ino> dropped;                     // and their records as well
  std::map<std::string, RootRecord> roots;
  std::map<std::string, std::string> hosts;
  uint64_t next_ino = 0;
  std::optional<bool> clean;
  std::vector<UniqueFunction<void(bool)>> committed;
  size_t records = 0;

  bool empty() const { return records == 0; }
  void empty_object(Ino ino) {
    emptied.insert(ino);
    stored.erase(stored.lower_bound(RegionKey{ino, 0}), stored.upper_bound(RegionKey{ino, ~uint64_t{0}}));
  }
};

struct Tables {
  MDB_dbi meta = 0, directories = 0, objects = 0, regions = 0, roots = 0, hosts = 0;
};

class LmdbIndex final : public Index {
 public:
  explicit LmdbIndex(Metrics& metrics) : metrics_(metrics) {}
  ~LmdbIndex() override;

  Status init(const std::string& path);

  bool was_clean() const override { return was_clean_; }
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
  std::optional<RegionRecord> region(RegionKey key) override;
  uint64_t blocks_present(Ino ino) override;
  void put_blocks(StoredBlocks blocks, UniqueFunction<void(bool)> committed) override;
  void forget_block(Ino ino, BlockIndex block) override;
  void forget_blocks(Ino ino) override;
  void drop_object(Ino ino, UniqueFunction<void(bool)> dropped) override;
  void flush() override;

 private:
  // Reading.
  std::optional<std::string> get(MDB_dbi table, std::string_view key);
  uint64_t get_number(std::string_view key, uint64_t otherwise);
  std::optional<RegionRecord> merged_region(RegionKey key) REQUIRES_LOCK(mutex_);
  template <typename Visit>
  void scan_regions(Ino ino, Visit visit);

  // Posting: edits `waiting_` under the lock and wakes the index thread.
  template <typename Edit>
  void post(Edit edit);

  // The index thread.
  void run();
  bool wait_for_batch();
  bool sync_files(const Batch& batch);
  bool commit(const Batch& batch);
  int apply(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta);
  int apply_blocks(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta);
  int apply_drops(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta);
  uint64_t object_size(MDB_txn* txn, Ino ino) const;
  static int put(MDB_txn* txn, MDB_dbi table, std::string_view key, std::string_view value);
  int put_number(MDB_txn* txn, std::string_view key, uint64_t value) const;

  Metrics& metrics_;
  MDB_env* env_ = nullptr;
  Tables tables_;
  bool was_clean_ = false;
  std::atomic<uint64_t> failures_{0};
  std::thread thread_;

  Mutex mutex_;
  std::condition_variable_any changed_;   // something waits, or the end
  std::condition_variable_any finished_;  // a batch is through
  Batch waiting_ GUARDED_BY(mutex_);
  Batch committing_ GUARDED_BY(mutex_);  // written by the index thread alone; others read it under the lock
  uint64_t posted_ GUARDED_BY(mutex_) = 0;
  uint64_t done_ GUARDED_BY(mutex_) = 0;
  bool hurry_ GUARDED_BY(mutex_) = false;  // somebody waits in flush()
  bool ending_ GUARDED_BY(mutex_) = false;
  Ino next_ino_ GUARDED_BY(mutex_) = kFirstIno;
  Ino reserved_ino_ GUARDED_BY(mutex_) = kFirstIno;
};

Status lmdb_error(int code, const std::string& what) {
  const bool system = code > 0;
  if (system) return fail(error_from_errno(code, "index: " + what));
  return fail(
      ErrorCode::kCorrupt,
      "index: {}: {}: the cache's index cannot be used; delete the cache directory (what it holds is fetched again)",
      what, ::mdb_strerror(code));
}

Status LmdbIndex::init(const std::string& path) {
  if (int e = ::mdb_env_create(&env_); e != 0) return lmdb_error(e, "create environment");
  ::mdb_env_set_mapsize(env_, kMapSize);
  ::mdb_env_set_maxreaders(env_, kMaxReaders);
  ::mdb_env_set_maxdbs(env_, 8);
  // NOTLS: a read transaction belongs to its object, not to its thread. NORDAHEAD: records are read at random.
  if (int e = ::mdb_env_open(env_, path.c_str(), MDB_NOTLS | MDB_NORDAHEAD, 0600); e != 0) {
    return lmdb_error(e, "open " + path);
  }
  MDB_txn* txn = nullptr;
  if (int e = ::mdb_txn_begin(env_, nullptr, 0, &txn); e != 0) return lmdb_error(e, "begin");
  const std::pair<const char*, MDB_dbi*> names[] = {
      {"meta", &tables_.meta},       {"directories", &tables_.directories},
      {"objects", &tables_.objects}, {"regions", &tables_.regions},
      {"roots", &tables_.roots},     {"hosts", &tables_.hosts}};
  for (auto [name, table] : names) {
    if (int e = ::mdb_dbi_open(txn, name, MDB_CREATE, table); e != 0) {
      ::mdb_txn_abort(txn);
      return lmdb_error(e, std::string("open table ") + name);
    }
  }
  if (int e = ::mdb_txn_commit(txn); e != 0) return lmdb_error(e, "create tables");

  // A cache without the word "clean" is new (nothing to doubt) or was not ended.
  const bool is_new = !get(tables_.meta, "next_ino").has_value();
  was_clean_ = is_new || get_number("clean", 0) == 1;
  metrics_.bytes_cached.store(static_cast<int64_t>(get_number("bytes", 0)));
  {
    MutexLock lock(mutex_);
    next_ino_ = get_number("next_ino", kFirstIno);
    reserved_ino_ = next_ino_ + kInoRun;  // durable with the flush below
  }
  thread_ = start_thread("wh-index", [this] { run(); });
  post([](Batch& b) { b.clean = false; });
  flush();
  return {};
}

LmdbIndex::~LmdbIndex() {
  if (thread_.joinable()) {
    // After a failure there may be blocks on disk that were forgotten for a reason: they are to be checked. And those
    // that an unclean end has left in doubt stay so, for nobody has read all of them since: the word, once lost, is
    // lost for good.
    post([clean = was_clean_ && failures() == 0](Batch& b) { b.clean = clean; });
    {
      MutexLock lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  if (env_ != nullptr) ::mdb_env_close(env_);
}

// --- reading -------------------------------------------------------------------------------------------------------

std::optional<std::string> LmdbIndex::get(MDB_dbi table, std::string_view key) {
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return std::nullopt;
  MDB_val k = as_value(key);
  MDB_val v{};
  std::optional<std::string> out;
  if (::mdb_get(txn, table, &k, &v) == 0) out.emplace(as_view(v));
  ::mdb_txn_abort(txn);
  return out;
}

uint64_t LmdbIndex::get_number(std::string_view key, uint64_t otherwise) {
  const auto bytes = get(tables_.meta, key);
  if (!bytes || bytes->size() != sizeof(uint64_t)) return otherwise;
  uint64_t value = 0;
  std::memcpy(&value, bytes->data(), sizeof(value));
  return value;
}

std::optional<std::string> LmdbIndex::directory(Ino ino) {
  {
    MutexLock lock(mutex_);
    for (const Batch* b : {&waiting_, &committing_}) {
      if (auto it = b->directories.find(ino); it != b->directories.end()) return *it->second;
    }
  }
  return get(tables_.directories, encode_key(ino));
}

std::optional<ObjectRecord> LmdbIndex::object(Ino ino) {
  {
    MutexLock lock(mutex_);
    for (const Batch* b : {&waiting_, &committing_}) {
      if (auto it = b->objects.find(ino); it != b->objects.end()) return it->second;
      if (b->dropped.contains(ino)) return std::nullopt;
    }
  }
  const auto bytes = get(tables_.objects, encode_key(ino));
  return bytes ? decode_object(*bytes) : std::nullopt;
}

std::optional<RegionRecord> LmdbIndex::region(RegionKey key) {
  MutexLock lock(mutex_);
  return merged_region(key);
}

// From the oldest to the newest, each changing what the one before says. The lock is held over LMDB's read, so that a
// commit cannot move a record from one place to the other in between.
std::optional<RegionRecord> LmdbIndex::merged_region(RegionKey key) {
  std::optional<RegionRecord> out;
  if (const auto bytes = get(tables_.regions, encode_key(key))) out = decode_region(*bytes);
  for (const Batch* b : {&committing_, &waiting_}) {
    if (b->emptied.contains(key.ino)) out.reset();
    if (auto it = b->forgotten.find(key); it != b->forgotten.end() && out) out->present &= ~it->second;
    if (auto it = b->stored.find(key); it != b->stored.end()) {
      if (!out) out.emplace();
      for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
        if (it->second.has(i)) out->checksum[i] = it->second.checksum[i];
      }
      out->present |= it->second.present;
    }
  }
  return out;
}

uint64_t LmdbIndex::blocks_present(Ino ino) {
  MutexLock lock(mutex_);
  std::set<RegionKey> changing;
  bool emptied = false;  // then nothing of LMDB's counts, but for what has been stored since
  for (const Batch* b : {&committing_, &waiting_}) {
    emptied |= b->emptied.contains(ino);
    const auto add = [&](auto& changes) {
      for (auto it = changes.lower_bound(RegionKey{ino, 0}); it != changes.end() && it->first.ino == ino; ++it)
        changing.insert(it->first);
    };
    add(b->stored);
    add(b->forgotten);
  }
  uint64_t blocks = 0;
  const auto count = [&](const std::optional<RegionRecord>& r) {
    if (r) blocks += static_cast<uint64_t>(std::popcount(r->present));
  };
  for (const RegionKey& key : changing) count(merged_region(key));
  scan_regions(ino, [&](RegionKey key, std::string_view bytes) {
    if (!emptied && !changing.contains(key)) count(decode_region(bytes));
  });
  return blocks;
}

// All that LMDB has of the object, in order.
template <typename Visit>
void LmdbIndex::scan_regions(Ino ino, Visit visit) {
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return;
  MDB_cursor* cursor = nullptr;
  if (::mdb_cursor_open(txn, tables_.regions, &cursor) == 0) {
    const std::string first = encode_key(RegionKey{ino, 0});
    MDB_val k = as_value(first), v{};
    for (int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); e == 0;
         e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
      const auto key = decode_region_key(as_view(k));
      if (!key || key->ino != ino) break;
      visit(*key, as_view(v));
    }
    ::mdb_cursor_close(cursor);
  }
  ::mdb_txn_abort(txn);
}

// --- posting -------------------------------------------------------------------------------------------------------

template <typename Edit>
void LmdbIndex::post(Edit edit) {
  bool wake = false;
  {
    MutexLock lock(mutex_);
    edit(waiting_);
    ++waiting_.records;
    ++posted_;
    wake = waiting_.records == 1 || waiting_.records == kCommitRecords;
  }
  if (wake) changed_.notify_all();
}

Ino LmdbIndex::allocate_ino() {
  Ino ino = 0;
  bool reserve = false;
  {
    MutexLock lock(mutex_);
    ino = next_ino_++;
    // The next run long before it is needed, so that it is durable by then.
    reserve = reserved_ino_ - next_ino_ < kInoRun / 2;
    if (reserve) reserved_ino_ += kInoRun;
  }
  if (reserve) post([](Batch&) {});  // every batch writes what is reserved
  return ino;
}

std::optional<RootRecord> LmdbIndex::root(const std::string& url) {
  {
    MutexLock lock(mutex_);
    for (const Batch* b : {&waiting_, &committing_}) {
      if (auto it = b->roots.find(url); it != b->roots.end()) return it->second;
    }
  }
  const auto bytes = get(tables_.roots, url_key(url));
  return bytes ? decode_root(*bytes) : std::nullopt;
}

void LmdbIndex::put_root(const std::string& url, RootRecord record) {
  post([&](Batch& b) { b.roots[url] = std::move(record); });
}

std::optional<std::string> LmdbIndex::host(const std::string& url) {
  {
    MutexLock lock(mutex_);
    for (const Batch* b : {&waiting_, &committing_}) {
      if (auto it = b->hosts.find(url); it != b->hosts.end()) return it->second;
    }
  }
  return get(tables_.hosts, url_key(url));
}

void LmdbIndex::put_host(const std::string& url, std::string profile) {
  post([&](Batch& b) { b.hosts[url] = std::move(profile); });
}

void LmdbIndex::put_directory(Ino ino, std::string encoded) {
  post([&](Batch& b) { b.directories[ino] = std::make_shared<const std::string>(std::move(encoded)); });
}

void LmdbIndex::put_object(Ino ino, ObjectRecord record) {
  post([&](Batch& b) { b.objects[ino] = std::move(record); });
}

void LmdbIndex::put_blocks(StoredBlocks blocks, UniqueFunction<void(bool)> committed) {
  post([&](Batch& b) {
    for (size_t i = 0; i < blocks.checksums.size(); ++i) {
      const BlockIndex block = blocks.first + i;
      RegionRecord& region = b.stored[RegionKey{blocks.ino, block / kBlocksPerRegion}];
      region.present |= uint64_t{1} << (block % kBlocksPerRegion);
      region.checksum[block % kBlocksPerRegion] = blocks.checksums[i];
    }
    // More are not held open: a long batch of small files would hold thousands of descriptors.
    if (b.files.size() >= kSyncedSeparately) {
      b.many_files |= std::find(b.files.begin(), b.files.end(), blocks.file) == b.files.end();
    } else if (std::find(b.files.begin(), b.files.end(), blocks.file) == b.files.end()) {
      b.files.push_back(std::move(blocks.file));
    }
    b.committed.push_back(std::move(committed));
  });
}

void LmdbIndex::forget_block(Ino ino, BlockIndex block) {
  const RegionKey key{ino, block / kBlocksPerRegion};
  const uint64_t bit = uint64_t{1} << (block % kBlocksPerRegion);
  post([&](Batch& b) {
    b.forgotten[key] |= bit;
    if (auto it = b.stored.find(key); it != b.stored.end()) it->second.present &= ~bit;
  });
}

void LmdbIndex::forget_blocks(Ino ino) {
  post([&](Batch& b) { b.empty_object(ino); });
}

void LmdbIndex::drop_object(Ino ino, UniqueFunction<void(bool)> dropped) {
  post([&](Batch& b) {
    b.empty_object(ino);
    b.dropped.insert(ino);
    b.objects.erase(ino);
    b.committed.push_back(std::move(dropped));
  });
}

void LmdbIndex::flush() NO_THREAD_SAFETY_ANALYSIS {
  std::unique_lock lock(mutex_);
  const uint64_t mine = posted_;
  hurry_ = true;
  changed_.notify_all();
  finished_.wait(lock, [this, mine]() NO_THREAD_SAFETY_ANALYSIS { return done_ >= mine; });
}

// --- the index thread ----------------------------------------------------------------------------------------------

void LmdbIndex::run() {
  while (wait_for_batch()) {
    // `committing_` is changed by this thread alone, so it may be read here without the lock.
    const Batch& batch = [this]() NO_THREAD_SAFETY_ANALYSIS -> const Batch& { return committing_; }();
    const bool ok = sync_files(batch) && commit(batch);
    if (!ok) {
      failures_.fetch_add(1, std::memory_order_release);
      metrics_.store_errors.fetch_add(1, std::memory_order_relaxed);
    }
    Batch through;
    {
      MutexLock lock(mutex_);
      through = std::move(committing_);
      committing_ = Batch{};
    }
    for (auto& committed : through.committed) {
      if (committed) committed(ok);
    }
    {
      MutexLock lock(mutex_);
      done_ += through.records;
    }
    finished_.notify_all();
  }
}

// Waits until there is something to write and it has waited long enough for company; moves it to `committing_`. False
// at the end.
bool LmdbIndex::wait_for_batch() NO_THREAD_SAFETY_ANALYSIS {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this]() NO_THREAD_SAFETY_ANALYSIS { return ending_ || !waiting_.empty(); });
  const TimePoint commit_at = std::chrono::steady_clock::now() + kCommitDelay;
  while (!ending_ && !hurry_ && waiting_.records < kCommitRecords) {
    if (changed_.wait_until(lock, commit_at) == std::cv_status::timeout) break;
  }
  hurry_ = false;
  if (waiting_.empty()) return false;
  committing_ = std::move(waiting_);
  // With every batch, so that no number is durable in a record before it is reserved, even if commits in between
  // failed.
  committing_.next_ino = reserved_ino_;
  waiting_ = Batch{};
  return true;
}

// Bytes before the index: without this a crash could leave an index that knows blocks which the disk never got.
bool LmdbIndex::sync_files(const Batch& batch) {
  const auto failed = [](const auto& file) { return ::fdatasync(file->get()) != 0; };
  const bool ok = batch.many_files ? ::syncfs(batch.files.front()->get()) == 0
                                   : std::none_of(batch.files.begin(), batch.files.end(), failed);
  if (!ok) log::error("cache: the disk does not take the blocks, they are forgotten: errno={}", errno);
  return ok;
}

bool LmdbIndex::commit(const Batch& batch) {
  MDB_txn* txn = nullptr;
  int e = ::mdb_txn_begin(env_, nullptr, 0, &txn);
  int64_t bytes_delta = 0;
  if (e == 0) {
    e = apply(txn, batch, &bytes_delta);
    if (e == 0) {
      e = ::mdb_txn_commit(txn);
    } else {
      ::mdb_txn_abort(txn);
    }
  }
  if (e != 0) {
    log::error("index: commit failed, it is forgotten: records={} error=\"{}\"", batch.records, ::mdb_strerror(e));
    return false;
  }
  metrics_.index_commits.fetch_add(1, std::memory_order_relaxed);
  metrics_.bytes_cached.fetch_add(bytes_delta, std::memory_order_relaxed);
  return true;
}

int LmdbIndex::put(MDB_txn* txn, MDB_dbi table, std::string_view key, std::string_view value) {
  MDB_val k = as_value(key);
  MDB_val v = as_value(value);
  return ::mdb_put(txn, table, &k, &v, 0);
}

int LmdbIndex::put_number(MDB_txn* txn, std::string_view key, uint64_t value) const {
  return put(txn, tables_.meta, key, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

int LmdbIndex::apply(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta) {
  if (int e = apply_drops(txn, batch, bytes_delta); e != 0) return e;
  for (const auto& [ino, encoded] : batch.directories) {
    if (int e = put(txn, tables_.directories, encode_key(ino), *encoded); e != 0) return e;
  }
  for (const auto& [ino, record] : batch.objects) {
    if (int e = put(txn, tables_.objects, encode_key(ino), encode(record)); e != 0) return e;
  }
  for (const auto& [url, profile] : batch.hosts) {
    if (int e = put(txn, tables_.hosts, url_key(url), profile); e != 0) return e;
  }
  for (const auto& [url, record] : batch.roots) {
    if (int e = put(txn, tables_.roots, url_key(url), encode(record)); e != 0) return e;
  }
  if (int e = apply_blocks(txn, batch, bytes_delta); e != 0) return e;
  if (int e = put_number(txn, "next_ino", batch.next_ino); e != 0) return e;
  if (batch.clean) {
    if (int e = put_number(txn, "clean", *batch.clean ? 1 : 0); e != 0) return e;
  }
  if (*bytes_delta == 0) return 0;
  const auto bytes = static_cast<int64_t>(metrics_.bytes_cached.load(std::memory_order_relaxed)) + *bytes_delta;
  return put_number(txn, "bytes", static_cast<uint64_t>(std::max<int64_t>(bytes, 0)));
}

int LmdbIndex::apply_blocks(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta) {
  std::set<RegionKey> touched;
  for (const auto& [key, bits] : batch.forgotten) touched.insert(key);
  for (const auto& [key, record] : batch.stored) touched.insert(key);
  for (const RegionKey& key : touched) {
    // Blocks of an object that is not recorded (dropped, or its record was in a batch that failed) would be blocks of
    // an unknown version.
    const uint64_t size = object_size(txn, key.ino);
    if (size == kUnknownSize) continue;
    const std::string k = encode_key(key);
    MDB_val mk = as_value(k);
    MDB_val mv{};
    RegionRecord region;
    if (::mdb_get(txn, tables_.regions, &mk, &mv) == 0) region = decode_region(as_view(mv)).value_or(RegionRecord{});
    const uint64_t before = region.present;
    if (auto it = batch.forgotten.find(key); it != batch.forgotten.end()) region.present &= ~it->second;
    if (auto it = batch.stored.find(key); it != batch.stored.end()) {
      for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
        if (it->second.has(i)) region.checksum[i] = it->second.checksum[i];
      }
      region.present |= it->second.present;
    }
    if (region.present != 0) {
      if (int e = put(txn, tables_.regions, k, encode(region)); e != 0) return e;
    } else if (int e = ::mdb_del(txn, tables_.regions, &mk, nullptr); e != 0 && e != MDB_NOTFOUND) {
      return e;
    }
    *bytes_delta += bytes_of(region.present, key.region, size) - bytes_of(before, key.region, size);
  }
  return 0;
}

// From the transaction, so that it sees what this batch has put.
uint64_t LmdbIndex::object_size(MDB_txn* txn, Ino ino) const {
  const std::string key = encode_key(ino);
  MDB_val k = as_value(key);
  MDB_val v{};
  if (::mdb_get(txn, tables_.objects, &k, &v) != 0) return kUnknownSize;
  const auto record = decode_object(as_view(v));
  return record ? record->size : kUnknownSize;
}

int LmdbIndex::apply_drops(MDB_txn* txn, const Batch& batch, int64_t* bytes_delta) {
  for (const Ino ino : batch.emptied) {
    const uint64_t size = object_size(txn, ino);
    MDB_cursor* cursor = nullptr;
    if (int e = ::mdb_cursor_open(txn, tables_.regions, &cursor); e != 0) return e;
    const std::string first = encode_key(RegionKey{ino, 0});
    MDB_val k = as_value(first), v{};
    int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (e == 0) {
      const auto key = decode_region_key(as_view(k));
      if (!key || key->ino != ino) break;
      if (const auto region = decode_region(as_view(v))) {
        *bytes_delta -= bytes_of(region->present, key->region, size);
      }
      e = ::mdb_cursor_del(cursor, 0);
      if (e == 0) e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    ::mdb_cursor_close(cursor);
    if (e != 0 && e != MDB_NOTFOUND) return e;
  }
  for (const Ino ino : batch.dropped) {
    const std::string key = encode_key(ino);
    MDB_val k = as_value(key);
    if (int e = ::mdb_del(txn, tables_.objects, &k, nullptr); e != 0 && e != MDB_NOTFOUND) return e;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<Index>> Index::open(const std::string& path, Metrics& metrics) {
  auto index = std::make_unique<LmdbIndex>(metrics);
  if (auto s = index->init(path); !s) return fail(s.error());
  return index;
}

}  // namespace wormhole
