// The index: what is read, and what is posted to the index thread.
#include "cache/index.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/thread.h"
#include "cache/checksum.h"
#include "cache/lmdb_index.h"

namespace wormhole {
namespace {

// Readers of the tree and of blocks are our own few threads.
constexpr unsigned kMaxReaders = 256;

// Inode numbers are reserved in runs, so that giving one out costs no transaction. A crash loses at most a run of 2^64.
constexpr uint64_t kInoRun = 65536;

Status lmdb_error(int code, const std::string& what) {
  const bool system = code > 0;
  if (system) return fail(error_from_errno(code, "index: " + what));
  return fail(
      ErrorCode::kCorrupt,
      "index: {}: {}: the cache's index cannot be used; delete the cache directory (what it holds is fetched again)",
      what, ::mdb_strerror(code));
}

}  // namespace

std::optional<std::string_view> get_in(MDB_txn* txn, MDB_dbi table, std::string_view key) {
  MDB_val k = as_value(key), v{};
  return ::mdb_get(txn, table, &k, &v) == 0 ? unseal(key, as_view(v)) : std::nullopt;
}

// A longer URL is cut and made unique by a checksum of the whole.
std::string url_key(const std::string& url) {
  constexpr size_t kLongest = 480;
  if (url.size() <= kLongest) return url;
  return fmt::format("{}#{:016x}", url.substr(0, kLongest),
                     block_checksum(reinterpret_cast<const std::byte*>(url.data()), url.size()));
}

Status LmdbIndex::init(const std::string& path) {
  if (int e = ::mdb_env_create(&env_); e != 0) return lmdb_error(e, "create environment");
  ::mdb_env_set_mapsize(env_, kMapSize);
  ::mdb_env_set_maxreaders(env_, kMaxReaders);
  ::mdb_env_set_maxdbs(env_, kMostTables);
  // NOTLS: a read transaction belongs to its object, not to its thread. NORDAHEAD: records are read at random.
  if (int e = ::mdb_env_open(env_, path.c_str(), MDB_NOTLS | MDB_NORDAHEAD, 0600); e != 0) {
    return lmdb_error(e, "open " + path);
  }
  MDB_txn* txn = nullptr;
  if (int e = ::mdb_txn_begin(env_, nullptr, 0, &txn); e != 0) return lmdb_error(e, "begin");
  const std::pair<const char*, MDB_dbi*> names[] = {
      {"meta", &tables_.meta},       {"directories", &tables_.directories},
      {"objects", &tables_.objects}, {"regions", &tables_.regions},
      {"roots", &tables_.roots},     {"hosts", &tables_.hosts},
      {"queues", &tables_.queues},   {"pins", &tables_.pins},
      {"slabs", &tables_.slabs},     {"summaries", &tables_.summaries},
      {"uses", &tables_.uses},       {"aliases", &tables_.aliases}};
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
  small_bytes_ = get_number("small", 0);
  main_bytes_ = get_number("main", 0);
  next_sequence_ = get_number("next_sequence", 1);
  pack_ = std::make_unique<Pack>(pack_path(path),
                                 [this](uint32_t slab) { return get(tables_.slabs, encode_key(Ino{slab})); });
  if (!pack_->open(pack_summaries())) {
    // After an unclean end it may be longer than the index knows.
    if (was_clean_) log::warn("the pack is not what it was, all blocks are checked: path={}", pack_path(path));
    was_clean_ = false;
  }
  metrics_.bytes_cached.store(static_cast<int64_t>(small_bytes_ + main_bytes_));
  if (const auto learnt = get(tables_.meta, "policy")) policy_.restore(*learnt);
  {
    MutexLock lock(mutex_);
    next_ino_ = get_number("next_ino", kFirstIno);
    reserved_ino_ = next_ino_ + kInoRun;  // durable with the flush below
  }
  if (int e = load_pins(); e != 0) return lmdb_error(e, "read pins");
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
    post([clean = was_clean() && failures() == 0](Batch& b) {
      b.clean = clean;
      b.last = true;
    });
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
  std::optional<std::string> out;
  if (const auto value = get_in(txn, table, key)) out.emplace(*value);
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
    if (b->emptied.contains(key.ino) || b->evicted.contains(key)) out.reset();
    if (auto it = b->forgotten.find(key); it != b->forgotten.end() && out) out->present &= ~it->second;
    if (auto it = b->stored.find(key); it != b->stored.end()) {
      if (!out) out.emplace();
      for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
        if (it->second.has(i)) out->checksum[i] = it->second.checksum[i];
      }
      out->present |= it->second.present;
      out->place = it->second.place;
    }
  }
  return out;
}

std::vector<RegionKey> LmdbIndex::regions_from(RegionKey from, size_t count) {
  std::vector<RegionKey> out;
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return out;
  MDB_cursor* cursor = nullptr;
  if (::mdb_cursor_open(txn, tables_.regions, &cursor) == 0) {
    const std::string first = encode_key(from);
    MDB_val k = as_value(first), v{};
    for (int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); e == 0 && out.size() < count;
         e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
      if (const auto key = decode_region_key(as_view(k))) out.push_back(*key);
    }
    ::mdb_cursor_close(cursor);
  }
  ::mdb_txn_abort(txn);
  return out;
}

ScrubRecord LmdbIndex::scrubbed() {
  {
    MutexLock lock(mutex_);
    for (const Batch* b : {&waiting_, &committing_}) {
      if (b->scrubbed) return *b->scrubbed;
    }
  }
  const auto bytes = get(tables_.meta, "scrubbed");
  return bytes ? decode_scrub(*bytes).value_or(ScrubRecord{}) : ScrubRecord{};
}

void LmdbIndex::put_scrubbed(ScrubRecord record) {
  post([&](Batch& b) { b.scrubbed = record; });
}

uint64_t LmdbIndex::blocks_present(Ino ino) {
  uint64_t blocks = 0;
  visit_regions(ino,
                [&](RegionKey, const RegionRecord& r) { blocks += static_cast<uint64_t>(std::popcount(r.present)); });
  return blocks;
}

void LmdbIndex::visit_regions(Ino ino, const std::function<void(RegionKey, const RegionRecord&)>& visit) {
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
    for (auto it = b->evicted.lower_bound(RegionKey{ino, 0}); it != b->evicted.end() && it->ino == ino; ++it)
      changing.insert(*it);
  }
  for (const RegionKey& key : changing) {
    if (const auto r = merged_region(key)) visit(key, *r);
  }
  scan_regions(ino, [&](RegionKey key, std::string_view bytes) {
    if (emptied || changing.contains(key)) return;
    if (const auto r = decode_region(bytes)) visit(key, *r);
  });
}

void LmdbIndex::scan_regions(Ino ino, const VisitRegion& visit) {
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return;
  scan_regions_in(txn, ino, visit);
  ::mdb_txn_abort(txn);
}

int LmdbIndex::scan_regions_in(MDB_txn* txn, Ino ino, const VisitRegion& visit) const {
  MDB_cursor* cursor = nullptr;
  if (int e = ::mdb_cursor_open(txn, tables_.regions, &cursor); e != 0) return e;
  const std::string first = encode_key(RegionKey{ino, 0});
  MDB_val k = as_value(first), v{};
  int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
  for (; e == 0; e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
    const auto key = decode_region_key(as_view(k));
    if (!key || key->ino != ino) break;
    if (const auto value = unseal(as_view(k), as_view(v))) visit(*key, *value);
  }
  ::mdb_cursor_close(cursor);
  return e == MDB_NOTFOUND ? 0 : e;
}

// In order; one that is missing or wrong is empty, which no summary is.
std::vector<std::string> LmdbIndex::pack_summaries() {
  std::vector<std::string> out;
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return {""};
  MDB_stat stat{};
  ::mdb_stat(txn, tables_.summaries, &stat);
  for (size_t i = 0; i < stat.ms_entries; ++i)
    out.emplace_back(get_in(txn, tables_.summaries, encode_key(Ino{i})).value_or(""));
  ::mdb_txn_abort(txn);
  return out;
}

// --- posting -------------------------------------------------------------------------------------------------------

void LmdbIndex::post(const std::function<void(Batch&)>& edit) {
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
    if (blocks.place != kNoPlace) {
      b.stored[RegionKey{blocks.ino, 0}].place = blocks.place;
      b.places[blocks.ino] = {blocks.place, static_cast<uint32_t>(blocks.bytes)};
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

void LmdbIndex::release_place(Ino ino, PackPlace place) {
  post([&](Batch& b) { b.released.emplace_back(ino, place); });
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

Result<std::unique_ptr<Index>> Index::open(const std::string& path, Metrics& metrics) {
  static const SystemClock clock;
  return open(path, metrics, clock);
}

Result<std::unique_ptr<Index>> Index::open(const std::string& path, Metrics& metrics, const Clock& clock) {
  auto index = std::make_unique<LmdbIndex>(metrics, clock);
  if (auto s = index->init(path); !s) return fail(s.error());
  return index;
}

}  // namespace wormhole
