// Which files share an object, because they have the same bytes.
//
//   uses      (content, file) -> the object; all files of one content name the same
//   aliases   file -> the object of another that it uses
#include <algorithm>
#include <cstring>

#include "cache/lmdb_index.h"

namespace wormhole {
namespace {

std::string_view bytes_of_ino(const Ino& ino) { return {reinterpret_cast<const char*>(&ino), sizeof(ino)}; }

std::optional<Ino> ino_of(std::optional<std::string_view> bytes) {
  if (!bytes || bytes->size() != sizeof(Ino)) return std::nullopt;
  Ino ino = 0;
  std::memcpy(&ino, bytes->data(), sizeof(ino));
  return ino;
}

// What is posted counts more than what is on record; 0 there: not any more.
template <typename Map, typename Key, typename OnRecord>
std::optional<Ino> newest(const Map& waiting, const Map& committing, const Key& key, OnRecord on_record) {
  for (const Map* posted : {&waiting, &committing}) {
    if (const auto it = posted->find(key); it != posted->end())
      return it->second == 0 ? std::nullopt : std::optional(it->second);
  }
  return on_record();
}

}  // namespace

std::optional<Ino> LmdbIndex::use_of(const ContentUse& use) {
  return newest(waiting_.uses, committing_.uses, use, [&] {
    const auto bytes = get(tables_.uses, encode_key(use));
    return bytes ? ino_of(*bytes) : std::nullopt;
  });
}

std::optional<Ino> LmdbIndex::alias_of(Ino file) {
  return newest(waiting_.aliases, committing_.aliases, file, [&] {
    const auto bytes = get(tables_.aliases, encode_key(file));
    return bytes ? ino_of(*bytes) : std::nullopt;
  });
}

// The first that is found: all name the same object.
std::optional<Ino> LmdbIndex::any_use_of(const ContentKey& content) {
  for (const auto* posted : {&waiting_.uses, &committing_.uses}) {
    for (auto it = posted->lower_bound({content, 0}); it != posted->end() && it->first.content == content; ++it) {
      if (const auto object = use_of(it->first)) return object;
    }
  }
  MDB_txn* txn = nullptr;
  if (::mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn) != 0) return std::nullopt;
  MDB_cursor* cursor = nullptr;
  std::optional<Ino> object;
  if (::mdb_cursor_open(txn, tables_.uses, &cursor) == 0) {
    const std::string first = encode_key(ContentUse{content, 0});
    MDB_val k = as_value(first), v{};
    for (int e = ::mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); e == 0 && !object;
         e = ::mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
      const auto use = decode_content_use(as_view(k));
      if (!use || use->content != content) break;
      object = use_of(*use);
    }
    ::mdb_cursor_close(cursor);
  }
  ::mdb_txn_abort(txn);
  return object;
}

Ino LmdbIndex::share(const ContentKey& content, Ino file) {
  const ContentUse use{content, file};
  {
    MutexLock lock(mutex_);
    if (const auto object = use_of(use)) return *object;
  }
  Ino object = file;
  // The whole of it under the lock that post() takes: of two files that come at once, the second finds the first.
  post([&](Batch& b) NO_THREAD_SAFETY_ANALYSIS {
    object = any_use_of(content).value_or(file);
    b.uses[use] = object;
    if (object != file) b.aliases[file] = object;
  });
  return object;
}

std::optional<Ino> LmdbIndex::shared(const ContentKey& content) {
  MutexLock lock(mutex_);
  return any_use_of(content);
}

std::optional<Ino> LmdbIndex::unshare(const ContentKey& content, Ino file) {
  const ContentUse use{content, file};
  {
    MutexLock lock(mutex_);
    if (!use_of(use)) return std::nullopt;
  }
  std::optional<Ino> unused;
  post([&](Batch& b) NO_THREAD_SAFETY_ANALYSIS {
    const auto object = use_of(use);
    b.uses[use] = 0;
    if (object != file) b.aliases[file] = 0;
    if (!any_use_of(content)) unused = object;
  });
  return unused;
}

Ino LmdbIndex::object_of(Ino file) {
  MutexLock lock(mutex_);
  return alias_of(file).value_or(file);
}

int LmdbIndex::apply_sharing(MDB_txn* txn, const Batch& batch) const {
  const auto write = [&](MDB_dbi table, const std::string& key, Ino object) {
    MDB_val k = as_value(key);
    const int e = object != 0 ? put(txn, table, key, bytes_of_ino(object)) : ::mdb_del(txn, table, &k, nullptr);
    return e == MDB_NOTFOUND ? 0 : e;
  };
  for (const auto& [use, object] : batch.uses) {
    if (int e = write(tables_.uses, encode_key(use), object); e != 0) return e;
  }
  for (const auto& [file, object] : batch.aliases) {
    if (int e = write(tables_.aliases, encode_key(file), object); e != 0) return e;
  }
  return 0;
}

}  // namespace wormhole
