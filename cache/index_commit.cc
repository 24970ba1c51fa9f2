// The index thread: gathers what is posted, syncs files, and commits.
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/log.h"
#include "cache/lmdb_index.h"

namespace wormhole {
namespace {

// How long a posted write waits for company. Longer means fewer syncs and more to fetch again after a crash; 200 ms is
// five commits a second, which no disk of today notices.
constexpr Duration kCommitDelay = std::chrono::milliseconds(200);

PackPlace place_of(const RegionRecord& region, uint64_t object_size) {
  return {region.place, static_cast<uint32_t>(object_size)};
}

}  // namespace

int64_t bytes_of(uint64_t present, uint64_t region, uint64_t object_size) {
  auto bytes = static_cast<int64_t>(static_cast<uint64_t>(std::popcount(present)) * kBlockSize);
  if (object_size == kUnknownSize) return bytes;  // counted as whole blocks
  const uint64_t blocks = block_count(object_size);
  if (blocks == 0 || (blocks - 1) / kBlocksPerRegion != region) return bytes;
  if ((present >> ((blocks - 1) % kBlocksPerRegion)) & 1)
    bytes -= static_cast<int64_t>(blocks * kBlockSize - object_size);
  return bytes;
}

int64_t room_of(uint64_t present, uint64_t region, uint64_t object_size) {
  return static_cast<int64_t>(in_pages(static_cast<uint64_t>(bytes_of(present, region, object_size))));
}

void LmdbIndex::run() {
  while (wait_for_batch()) {
    // `committing_` is changed by this thread alone, so it may be read here without the lock.
    const Batch& batch = [this]() NO_THREAD_SAFETY_ANALYSIS -> const Batch& { return committing_; }();
    if (batch.empty()) {
      choose_victims();
      continue;
    }
    Changes changes;
    const bool ok = sync_files(batch) && commit(batch, &changes);
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
    finish(std::move(through), ok, changes);
    choose_victims();
  }
}

// Waits until there is something to write and it has waited long enough for company; moves it to `committing_`. Or
// until room is wanted: then there may be nothing to write. False at the end.
bool LmdbIndex::wait_for_batch() NO_THREAD_SAFETY_ANALYSIS {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this]() NO_THREAD_SAFETY_ANALYSIS { return ending_ || room_wanted_ || !waiting_.empty(); });
  const TimePoint commit_at = std::chrono::steady_clock::now() + kCommitDelay;
  while (!ending_ && !hurry_ && waiting_.records < kCommitRecords) {
    if (changed_.wait_until(lock, commit_at) == std::cv_status::timeout) break;
  }
  hurry_ = false;
  if (waiting_.empty()) return !ending_;
  committing_ = std::move(waiting_);
  // With every batch, so that no number is durable in a record before it is reserved, even if commits in between
  // failed.
  committing_.next_ino = reserved_ino_;
  waiting_ = Batch{};
  return true;
}

// Tells everybody who waits for the batch.
void LmdbIndex::finish(Batch batch, bool ok, const Changes& changes) {
  batch.files.clear();
  if (ok) {
    for (const auto& [offset, place] : changes.released) pack_->free(place);
  }
  for (auto& committed : batch.committed) {
    if (committed) committed(ok);
  }
  for (auto& [regions, why, evicted] : batch.evictions) {
    uint64_t bytes = 0;
    for (const RegionKey& key : regions) {
      if (auto it = changes.evicted.find(key); it != changes.evicted.end()) bytes += it->second;
    }
    evicted(ok, ok ? bytes : 0);
    if (why != EvictionFor::kRoom || answers_due_ == 0) continue;
    all_stayed_ &= regions.empty();
    if (--answers_due_ == 0 && all_stayed_) choose_again_at_ = clock_.now() + kAllStayed;
  }
  {
    MutexLock lock(mutex_);
    done_ += batch.records;
  }
  finished_.notify_all();
}

// Bytes before the index: without this a crash could leave an index that knows blocks which the disk never got.
bool LmdbIndex::sync_files(const Batch& batch) {
  const auto failed = [](const auto& file) { return ::fdatasync(file->get()) != 0; };
  const bool ok = batch.many_files ? ::syncfs(batch.files.front()->get()) == 0
                                   : std::none_of(batch.files.begin(), batch.files.end(), failed);
  if (!ok) log::error("cache: the disk does not take the blocks, they are forgotten: errno={}", errno);
  return ok;
}

bool LmdbIndex::commit(const Batch& batch, Changes* changes) {
  const int e = transact([&](MDB_txn* txn) { return apply(txn, batch, changes); }, changes);
  if (e != 0) {
    log::error("index: commit failed, it is forgotten: records={} error=\"{}\"", batch.records, ::mdb_strerror(e));
    return false;
  }
  metrics_.index_commits.fetch_add(1, std::memory_order_relaxed);
  return true;
}

int LmdbIndex::transact(const std::function<int(MDB_txn*)>& apply, Changes* changes) {
  changes->next_sequence = next_sequence_;
  MDB_txn* txn = nullptr;
  if (int e = ::mdb_txn_begin(env_, nullptr, 0, &txn); e != 0) return e;
  int e = apply(txn);
  PackRecords places;
  if (e == 0) e = put_pack_records(txn, places = pack_->take_dirty());
  const EvictionPolicy::Occupancy after = occupancy(*changes);
  if (e == 0 && after.small != small_bytes_) e = put_number(txn, "small", after.small);
  if (e == 0 && after.main != main_bytes_) e = put_number(txn, "main", after.main);
  if (e == 0 && changes->next_sequence != next_sequence_) e = put_number(txn, "next_sequence", changes->next_sequence);
  if (e != 0) {
    ::mdb_txn_abort(txn);
  } else {
    e = ::mdb_txn_commit(txn);
  }
  if (!places.slabs.empty()) pack_->written(e == 0);
  if (e != 0) {
    undo_places(*changes);
    return e;
  }
  // What is evicted lies on the disk until its place is free.
  for (const auto& [key, bytes] : changes->evicted) count_evicted(bytes);
  small_bytes_ = after.small;
  main_bytes_ = after.main;
  next_sequence_ = changes->next_sequence;
  metrics_.bytes_cached.store(static_cast<int64_t>(after.total()), std::memory_order_relaxed);
  return 0;
}

EvictionPolicy::Occupancy LmdbIndex::occupancy(const Changes& changes) const {
  const auto sum = [](uint64_t before, int64_t change) {
    return static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(before) + change));
  };
  return {sum(small_bytes_, changes.small), sum(main_bytes_, changes.main)};
}

int LmdbIndex::put(MDB_txn* txn, MDB_dbi table, std::string_view key, std::string_view value) {
  const std::string sealed = seal(key, value);
  MDB_val k = as_value(key);
  MDB_val v = as_value(sealed);
  return ::mdb_put(txn, table, &k, &v, 0);
}

int LmdbIndex::put_number(MDB_txn* txn, std::string_view key, uint64_t value) const {
  return put(txn, tables_.meta, key, {reinterpret_cast<const char*>(&value), sizeof(value)});
}

// --- a batch -------------------------------------------------------------------------------------------------------

int LmdbIndex::apply(MDB_txn* txn, const Batch& batch, Changes* changes) {
  if (int e = apply_drops(txn, batch, changes); e != 0) return e;
  if (int e = apply_evictions(txn, batch, changes); e != 0) return e;
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
  if (int e = apply_blocks(txn, batch, changes); e != 0) return e;
  apply_releases(txn, batch, changes);
  if (int e = apply_pins(txn, batch); e != 0) return e;
  if (int e = apply_sharing(txn, batch); e != 0) return e;
  if (int e = put_number(txn, "next_ino", batch.next_ino); e != 0) return e;
  if (batch.scrubbed) {
    if (int e = put(txn, tables_.meta, "scrubbed", encode(*batch.scrubbed)); e != 0) return e;
  }
  if (batch.last) {
    if (int e = put(txn, tables_.meta, "policy", policy_.encode()); e != 0) return e;
  }
  return batch.clean ? put_number(txn, "clean", *batch.clean ? 1 : 0) : 0;
}

int LmdbIndex::apply_blocks(MDB_txn* txn, const Batch& batch, Changes* changes) {
  const TimePoint now = clock_.now();
  std::set<RegionKey> touched;
  for (const auto& [key, bits] : batch.forgotten) touched.insert(key);
  for (const auto& [key, record] : batch.stored) touched.insert(key);
  for (const RegionKey& key : touched) {
    // Blocks of an object that is not recorded (dropped, or its record was in a batch that failed) would be blocks of
    // an unknown version.
    const uint64_t size = object_size(txn, key.ino);
    if (size == kUnknownSize) continue;
    RegionRecord region = region_in(txn, key).value_or(RegionRecord{});
    const RegionRecord before = region;
    if (auto it = batch.forgotten.find(key); it != batch.forgotten.end()) region.present &= ~it->second;
    if (auto it = batch.stored.find(key); it != batch.stored.end()) {
      for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
        if (it->second.has(i)) region.checksum[i] = it->second.checksum[i];
      }
      region.present |= it->second.present;
      if (it->second.place != kNoPlace) region.place = it->second.place;
    }
    if (region.present == 0) {
      if (int e = delete_region(txn, key, before, size, changes); e != 0) return e;
      continue;
    }
    if (region.position.sequence == 0) {
      const bool main = policy_.queue_for_new(key, occupancy(*changes), now) == EvictionPolicy::Queue::kMain;
      if (int e = enqueue(txn, key, main, &region, changes); e != 0) return e;
    }
    record_place(before, region, size, changes);
    changes->of(region.position) +=
        room_of(region.present, key.region, size) - room_of(before.present, key.region, size);
    if (int e = put(txn, tables_.regions, encode_key(key), encode(region)); e != 0) return e;
  }
  return 0;
}

int LmdbIndex::apply_evictions(MDB_txn* txn, const Batch& batch, Changes* changes) {
  for (const RegionKey& key : batch.evicted) {
    const auto region = region_in(txn, key);
    if (!region) continue;
    const uint64_t size = object_size(txn, key.ino);
    if (int e = delete_region(txn, key, *region, size, changes); e != 0) return e;
    changes->evicted[key] = static_cast<uint64_t>(room_of(region->present, key.region, size));
    if (region->place != kNoPlace) changes->released[region->place] = place_of(*region, size);
  }
  return 0;
}

int LmdbIndex::apply_drops(MDB_txn* txn, const Batch& batch, Changes* changes) {
  for (const Ino ino : batch.emptied) {
    const uint64_t size = object_size(txn, ino);
    std::map<RegionKey, RegionRecord> regions;
    if (int e = scan_regions_in(txn, ino,
                                [&](RegionKey key, std::string_view bytes) {
                                  regions[key] = decode_region(bytes).value_or(RegionRecord{});
                                });
        e != 0)
      return e;
    for (const auto& [key, region] : regions) {
      if (int e = delete_region(txn, key, region, size, changes); e != 0) return e;
      if (region.place != kNoPlace) changes->released[region.place] = place_of(region, size);
    }
  }
  for (const Ino ino : batch.dropped) {
    const std::string key = encode_key(ino);
    MDB_val k = as_value(key);
    if (int e = ::mdb_del(txn, tables_.objects, &k, nullptr); e != 0 && e != MDB_NOTFOUND) return e;
  }
  return 0;
}

// The region's record and its place in the queue. `region` is as it stands there.
int LmdbIndex::delete_region(MDB_txn* txn, RegionKey key, const RegionRecord& region, uint64_t size, Changes* changes) {
  const std::string encoded = encode_key(key);
  MDB_val k = as_value(encoded);
  if (int e = ::mdb_del(txn, tables_.regions, &k, nullptr); e != 0) return e == MDB_NOTFOUND ? 0 : e;
  changes->of(region.position) -= room_of(region.present, key.region, size);
  record_place(region, RegionRecord{}, size, changes);
  return dequeue(txn, region.position);
}

// --- the pack ------------------------------------------------------------------------------------------------------

// The place that the region's record has named, and the one that it names now.
void LmdbIndex::record_place(const RegionRecord& before, const RegionRecord& region, uint64_t size, Changes* changes) {
  if (before.place == region.place) return;
  if (before.place != kNoPlace && pack_->forget(place_of(before, size)))
    changes->forgotten.push_back(place_of(before, size));
  if (region.place != kNoPlace && pack_->record(place_of(region, size)))
    changes->recorded.push_back(place_of(region, size));
}

void LmdbIndex::apply_releases(MDB_txn* txn, const Batch& batch, Changes* changes) const {
  for (const auto& [ino, place] : batch.released) {
    const auto region = region_in(txn, RegionKey{ino, 0});
    if (!region || region->place != place.offset) changes->released[place.offset] = place;
  }
}

int LmdbIndex::put_pack_records(MDB_txn* txn, const PackRecords& records) const {
  const auto put_all = [&](MDB_dbi table, const std::vector<PackRecords::Record>& all) {
    for (const auto& [number, bytes] : all) {
      const std::string key = encode_key(Ino{number});
      MDB_val k = as_value(key);
      const int e = bytes ? put(txn, table, key, *bytes) : ::mdb_del(txn, table, &k, nullptr);
      if (e != 0 && e != MDB_NOTFOUND) return e;
    }
    return 0;
  };
  const int e = put_all(tables_.slabs, records.slabs);
  return e != 0 ? e : put_all(tables_.summaries, records.summaries);
}

// The transaction is as if it had never been. What it would have recorded stays held: nobody knows whether its object
// is still read.
void LmdbIndex::undo_places(const Changes& changes) {
  for (const PackPlace place : changes.recorded) pack_->forget(place);
  for (const PackPlace place : changes.forgotten) pack_->record(place);
}

std::optional<RegionRecord> LmdbIndex::region_in(MDB_txn* txn, RegionKey key) const {
  const auto bytes = get_in(txn, tables_.regions, encode_key(key));
  return bytes ? decode_region(*bytes) : std::nullopt;
}

// From the transaction, so that it sees what this batch has put.
uint64_t LmdbIndex::object_size(MDB_txn* txn, Ino ino) const {
  const auto bytes = get_in(txn, tables_.objects, encode_key(ino));
  const auto record = bytes ? decode_object(*bytes) : std::nullopt;
  return record ? record->size : kUnknownSize;
}

}  // namespace wormhole
