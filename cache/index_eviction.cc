// What goes when the cache is full: the heads of the two queues are judged, and whoever holds their blocks is asked.
//
// Those that are to go stand at the back of the main queue meanwhile: one that has to stay (it is read, or served by
// the kernel) is where it belongs, and after a crash nothing is lost.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "cache/lmdb_index.h"

namespace wormhole {
namespace {

// At once: 20 MB of small files, and any number of bytes of large ones. More only makes the transaction longer that
// others wait for.
constexpr size_t kMostVictims = 2048;
// Verdicts in one transaction, of a few microseconds each. The policy gives one victim in a thousand at the least.
constexpr size_t kMostVerdicts = 4096;

}  // namespace

// --- any thread ----------------------------------------------------------------------------------------------------

void LmdbIndex::start_evicting(Space& space, Ask ask) {
  {
    MutexLock lock(evicting_mutex_);
    space_ = &space;
    ask_ = std::move(ask);
  }
  make_room();
}

void LmdbIndex::stop_evicting() {
  MutexLock lock(evicting_mutex_);
  ask_ = nullptr;
}

void LmdbIndex::make_room() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(room_wanted_, true)) return;
    hurry_ = true;  // what was stored just now can go only when it is committed
  }
  changed_.notify_all();
}

void LmdbIndex::evict(std::vector<RegionKey> regions, EvictionFor why, Evicted evicted) {
  post([&](Batch& b) {
    for (const RegionKey& key : regions) b.evict_region(key);
    b.evictions.push_back({std::move(regions), why, std::move(evicted)});
  });
  hurry();
}

void LmdbIndex::hurry() {
  {
    MutexLock lock(mutex_);
    hurry_ = true;
  }
  changed_.notify_all();
}

// --- the index thread ----------------------------------------------------------------------------------------------

void LmdbIndex::choose_victims() {
  {
    MutexLock lock(mutex_);
    room_wanted_ = false;
  }
  const TimePoint now = clock_.now();
  if (answers_due_ > 0 || now < choose_again_at_) return;
  MutexLock lock(evicting_mutex_);
  const uint64_t excess = ask_ ? space_->excess(now) : 0;
  if (excess == 0) return;
  std::vector<RegionKey> victims;
  Changes changes;
  const int e = transact([&](MDB_txn* txn) { return choose(txn, excess, &victims, &changes); }, &changes);
  if (e != 0) log::error("index: nothing can be evicted: error=\"{}\"", ::mdb_strerror(e));
  if (e != 0 || victims.empty()) return nothing_chosen(now);
  pinned_in_a_row_ = 0;
  all_stayed_ = true;
  answers_due_ = ask_(std::move(victims));
}

// If all at the heads of the queues was pinned, it stands at the back now: soon comes what is not, unless all is.
void LmdbIndex::nothing_chosen(TimePoint now) {
  if (pinned_in_a_row_ > 0 && pinned_in_a_row_ < contents().regions) return make_room();
  pinned_in_a_row_ = 0;
  choose_again_at_ = now + kAllStayed;
}

int LmdbIndex::choose(MDB_txn* txn, uint64_t excess, std::vector<RegionKey>* victims, Changes* changes) {
  uint64_t found = 0;
  for (size_t i = 0; i < kMostVerdicts && found < excess && victims->size() < kMostVictims; ++i) {
    const EvictionPolicy::Occupancy has = occupancy(*changes);
    if (has.total() <= found) break;
    bool main = EvictionPolicy::examine_next(has) == EvictionPolicy::Queue::kMain;
    QueuePosition position;
    RegionKey key{};
    int e = head(txn, main, &position, &key);
    if (e == MDB_NOTFOUND) e = head(txn, main = !main, &position, &key);
    if (e == MDB_NOTFOUND) break;
    if (e != 0) return e;
    if (e = dequeue(txn, position); e != 0) return e;
    auto region = region_in(txn, key);
    if (!region || region->position != position) continue;
    const int64_t bytes = room_of(region->present, key.region, object_size(txn, key.ino));
    const bool pinned = pinned_.contains(key.ino);
    auto verdict = EvictionPolicy::Verdict::kBackToMain;
    if (pinned) {
      ++pinned_in_a_row_;
    } else {
      verdict = policy_.judge(main ? EvictionPolicy::Queue::kMain : EvictionPolicy::Queue::kSmall, key,
                              static_cast<uint64_t>(bytes));
    }
    changes->of(position) -= bytes;
    if (e = enqueue(txn, key, true, &*region, changes); e != 0) return e;
    changes->of(region->position) += bytes;
    if (e = put(txn, tables_.regions, encode_key(key), encode(*region)); e != 0) return e;
    if (verdict != EvictionPolicy::Verdict::kEvict) continue;
    // Once round: the queue is shorter than what should go.
    if (std::find(victims->begin(), victims->end(), key) != victims->end()) break;
    victims->push_back(key);
    found += static_cast<uint64_t>(bytes);
  }
  return 0;
}

// The oldest of a queue; MDB_NOTFOUND when there is none.
int LmdbIndex::head(MDB_txn* txn, bool main, QueuePosition* position, RegionKey* key) const {
  MDB_cursor* cursor = nullptr;
  if (int e = ::mdb_cursor_open(txn, tables_.queues, &cursor); e != 0) return e;
  const std::string first = encode_key(QueuePosition{main, 0});
  MDB_val k = as_value(first), v{};
  int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
  if (e == 0) {
    const auto p = decode_queue_position(as_view(k));
    const auto value = unseal(as_view(k), as_view(v));
    const auto r = value ? decode_region_key(*value) : std::nullopt;
    if (!p || !r) {
      e = MDB_CORRUPTED;
    } else if (p->main != main) {
      e = MDB_NOTFOUND;
    } else {
      *position = *p;
      *key = *r;
    }
  }
  ::mdb_cursor_close(cursor);
  return e;
}

int LmdbIndex::enqueue(MDB_txn* txn, RegionKey key, bool main, RegionRecord* region, Changes* changes) {
  region->position = {main, changes->next_sequence++};
  return put(txn, tables_.queues, encode_key(region->position), encode_key(key));
}

int LmdbIndex::dequeue(MDB_txn* txn, QueuePosition position) {
  const std::string encoded = encode_key(position);
  MDB_val k = as_value(encoded);
  const int e = ::mdb_del(txn, tables_.queues, &k, nullptr);
  return e == MDB_NOTFOUND ? 0 : e;
}

// What is evicted counts as used until its place is free.
void LmdbIndex::count_evicted(uint64_t bytes) {
  MutexLock lock(evicting_mutex_);
  if (space_ != nullptr) space_->begin_eviction(bytes);
}

}  // namespace wormhole
