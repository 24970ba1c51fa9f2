// What the cache holds, told to those who ask, and which files are pinned: a table of their inode numbers, of which
// pinned_files.h has a copy in memory.
#include <bit>

#include "cache/lmdb_index.h"

namespace wormhole {

// --- what is there -------------------------------------------------------------------------------------------------

std::vector<CachedRegion> LmdbIndex::cached_regions(Ino ino) {
  const auto record = object(ino);
  const uint64_t size = record ? record->size : kUnknownSize;
  std::vector<CachedRegion> out;
  visit_regions(ino, [&](RegionKey key, const RegionRecord& r) {
    if (r.present == 0) return;
    out.push_back({key.region, r.present, static_cast<uint64_t>(bytes_of(r.present, key.region, size))});
  });
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.region < b.region; });
  return out;
}

CacheContents LmdbIndex::contents() {
  CacheContents out;
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return out;
  MDB_stat regions{};
  ::mdb_stat(txn, tables_.regions, &regions);
  out.regions = regions.ms_entries;
  ::mdb_txn_abort(txn);
  out.small_bytes = get_number("small", 0);
  out.main_bytes = get_number("main", 0);
  return out;
}

// One pass over the regions, which stand in the order of their files.
CachedFiles LmdbIndex::count_files() {
  CachedFiles out;
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return out;
  MDB_cursor* cursor = nullptr;
  if (::mdb_cursor_open(txn, tables_.regions, &cursor) != 0) {
    ::mdb_txn_abort(txn);
    return out;
  }
  Ino file = 0;
  uint64_t blocks = 0;
  const auto end_of_file = [&] {
    if (blocks == 0) return;
    const uint64_t size = object_size(txn, file);
    ++(size != kUnknownSize && blocks >= block_count(size) ? out.complete : out.partial);
  };
  MDB_val k{}, v{};
  while (::mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
    const auto key = decode_region_key(as_view(k));
    const auto value = unseal(as_view(k), as_view(v));
    const auto region = value ? decode_region(*value) : std::nullopt;
    if (!key || !region) continue;
    if (key->ino != file) {
      end_of_file();
      file = key->ino;
      blocks = 0;
    }
    blocks += static_cast<uint64_t>(std::popcount(region->present));
  }
  end_of_file();
  ::mdb_cursor_close(cursor);
  ::mdb_txn_abort(txn);
  return out;
}

// --- pins ----------------------------------------------------------------------------------------------------------

// In memory and in the batch under one lock, so that both see changes of two threads in the same order.
void LmdbIndex::pin(std::vector<Ino> files) {
  post([&](Batch& b) {
    for (const Ino ino : pinned_.add(std::move(files))) b.pins[ino] = true;
  });
}

void LmdbIndex::unpin(std::vector<Ino> files) {
  post([&](Batch& b) {
    for (const Ino ino : pinned_.remove(std::move(files))) b.pins[ino] = false;
  });
}

int LmdbIndex::apply_pins(MDB_txn* txn, const Batch& batch) const {
  for (const auto& [ino, pinned] : batch.pins) {
    const std::string key = encode_key(ino);
    MDB_val k = as_value(key);
    const int e = pinned ? put(txn, tables_.pins, key, {}) : ::mdb_del(txn, tables_.pins, &k, nullptr);
    if (e != 0 && e != MDB_NOTFOUND) return e;
  }
  return 0;
}

int LmdbIndex::load_pins() {
  MDB_txn* txn = nullptr;
  if (int e = ::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn); e != 0) return e;
  MDB_cursor* cursor = nullptr;
  int e = ::mdb_cursor_open(txn, tables_.pins, &cursor);
  std::vector<Ino> files;
  if (e == 0) {
    MDB_val k{}, v{};
    while ((e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
      const auto ino = decode_ino(as_view(k));
      if (ino && unseal(as_view(k), as_view(v))) files.push_back(*ino);
    }
    ::mdb_cursor_close(cursor);
  }
  ::mdb_txn_abort(txn);
  pinned_.add(std::move(files));
  return e == MDB_NOTFOUND ? 0 : e;
}

}  // namespace wormhole
