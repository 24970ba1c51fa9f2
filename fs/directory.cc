#include "fs/directory.h"

#include <algorithm>
#include <cstring>

namespace wormhole {
namespace {

constexpr uint64_t kUnknownSize = ~uint64_t{0};
constexpr uint8_t kDoubtful = 1;
constexpr uint8_t kGone = 2;
constexpr uint8_t kHasFacts = 4;         // of a manifest: EncodedFacts follow the name
constexpr uint8_t kHasContent = 8;       // hash and place of the tree follow these
constexpr uint8_t kHasPredecessor = 16;  // hash, size and number of the version before follow these

// The fixed part of an entry's bytes; the name follows.
struct EncodedEntry {
  uint64_t ino;
  uint64_t size;
  int64_t mtime;
  int64_t listed_mtime;
  int32_t mtime_granularity;
  uint16_t name_length;
  uint8_t type;
  uint8_t flags;
};
static_assert(sizeof(EncodedEntry) == 40);

// Behind the name; the hash and the target follow.
struct EncodedFacts {
  int32_t mtime_ns;
  uint16_t mode;
  uint16_t target_length;
};
static_assert(sizeof(EncodedFacts) == 8);

// The URL of the trees and the ETag follow.
struct EncodedHeader {
  int64_t fetched_at;
  uint64_t count;
  uint64_t trees_size;
  uint64_t trees_url_length;
  uint64_t etag_length;
};
static_assert(sizeof(EncodedHeader) == 40);
static_assert(sizeof(Predecessor) == 48);

template <typename T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
bool take(std::string_view& bytes, T* value) {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return true;
}

bool take(std::string_view& bytes, std::string* text, size_t length) {
  if (bytes.size() < length) return false;
  text->assign(bytes.substr(0, length));
  bytes.remove_prefix(length);
  return true;
}

bool by_name(const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; }

// The same version, as far as the listings tell.
bool looks_unchanged(const DirectoryEntry& old, const DirectoryEntry& now) {
  if (old.type != now.type) return false;
  if (now.type == EntryType::kDirectory) return true;
  if (now.type == EntryType::kSymlink) return old.target == now.target;
  if (now.content) return old.content && old.content->hash == now.content->hash;
  if (old.content) return false;
  // A size that this listing does not give says nothing; one that was learnt by HEAD is kept.
  return (!now.size || !old.size || *old.size == *now.size) &&
         (old.listed_mtime == DirectoryEntry::kNotListedYet || now.listed_mtime == old.listed_mtime);
}

// Within the time's granularity: it was listed with that time in `old`, and now again.
bool may_have_changed(const DirectoryEntry& before, int64_t listed_mtime, int32_t granularity, const Directory& old) {
  if (before.type != EntryType::kFile) return false;
  return before.listed_mtime == DirectoryEntry::kNotListedYet || listed_mtime == 0 ||
         listed_mtime + granularity >= old.fetched_at;
}

}  // namespace

ContentRef with_predecessor(const Content& content, std::optional<Predecessor> predecessor) {
  auto out = std::make_shared<Content>(content);
  out->predecessor = predecessor;
  return out;
}

const DirectoryEntry* Directory::find(std::string_view name) const {
  auto it =
      std::lower_bound(entries.begin(), entries.end(), name, [](auto& e, std::string_view n) { return e.name < n; });
  return it != entries.end() && it->name == name ? &*it : nullptr;
}

DirectoryEntry* Directory::find(std::string_view name) {
  return const_cast<DirectoryEntry*>(static_cast<const Directory*>(this)->find(name));
}

MergeResult merge_listing(const Directory* old, Ino ino, Listing listing, int64_t now,
                          const std::function<Ino()>& allocate) {
  MergeResult out;
  out.directory.ino = ino;
  out.directory.fetched_at = now;
  out.directory.etag = std::move(listing.etag);
  out.directory.entries.reserve(listing.entries.size());
  for (ListedEntry& listed : listing.entries) {
    DirectoryEntry e;
    e.type = listed.type;
    e.size = listed.size;
    e.mtime = e.listed_mtime = listed.mtime.value_or(0);
    e.mtime_granularity = std::max(1, listed.mtime_granularity);
    e.name = std::move(listed.name);
    e.mode = listed.mode;
    e.mtime_ns = listed.mtime_ns;
    e.target = std::move(listed.target);
    e.content = std::move(listed.content);
    const DirectoryEntry* before = old != nullptr ? old->find(e.name) : nullptr;
    if (before != nullptr && looks_unchanged(*before, e) && e.mode) {
      e.ino = before->ino;  // everything else is as the new manifest has it, and nothing is in doubt
      if (e.content && before->content->predecessor)
        e.content = with_predecessor(*e.content, before->content->predecessor);
      out.directory.entries.push_back(std::move(e));
      continue;
    }
    if (before != nullptr && looks_unchanged(*before, e)) {
      DirectoryEntry kept = *before;
      kept.listed_mtime = e.listed_mtime;
      kept.doubtful = before->doubtful || may_have_changed(*before, e.listed_mtime, e.mtime_granularity, *old);
      out.directory.entries.push_back(std::move(kept));
      continue;
    }
    e.ino = allocate();
    out.directory.entries.push_back(std::move(e));
  }
  std::sort(out.directory.entries.begin(), out.directory.entries.end(), by_name);
  if (old == nullptr) return out;
  for (const DirectoryEntry& e : old->entries) {
    const DirectoryEntry* after = out.directory.find(e.name);
    if (e.type != EntryType::kFile || (after != nullptr && after->ino == e.ino)) continue;
    out.superseded.push_back(e);
    if (after != nullptr && after->type == EntryType::kFile) out.successions.push_back({e.ino, after->ino});
  }
  return out;
}

Directory merge_unchanged(const Directory& old, int64_t now) {
  Directory out = old;
  out.fetched_at = now;
  for (DirectoryEntry& e : out.entries) {
    if (!e.mode) e.doubtful |= may_have_changed(e, e.listed_mtime, e.mtime_granularity, old);
  }
  return out;
}

std::string encode(const Directory& directory) {
  std::string out;
  // All files of a listing have their trees in one file.
  const auto with_tree = std::find_if(directory.entries.begin(), directory.entries.end(),
                                      [](const DirectoryEntry& e) { return e.content && e.content->trees; });
  const TreesFile trees = with_tree == directory.entries.end() ? TreesFile{} : *with_tree->content->trees;
  append(out, EncodedHeader{directory.fetched_at, directory.entries.size(), trees.size, trees.url.size(),
                            directory.etag.size()});
  out += trees.url;
  out += directory.etag;
  for (const DirectoryEntry& e : directory.entries) {
    const unsigned flags = (e.doubtful ? kDoubtful : 0u) | (e.gone ? kGone : 0u) | (e.mode ? kHasFacts : 0u) |
                           (e.mode && e.content ? kHasContent : 0u) |
                           (e.mode && e.content && e.content->predecessor ? kHasPredecessor : 0u);
    append(out, EncodedEntry{e.ino, e.size.value_or(kUnknownSize), e.mtime, e.listed_mtime, e.mtime_granularity,
                             static_cast<uint16_t>(e.name.size()), static_cast<uint8_t>(e.type),
                             static_cast<uint8_t>(flags)});
    out += e.name;
    if (!e.mode) continue;
    append(out, EncodedFacts{e.mtime_ns, *e.mode, static_cast<uint16_t>(e.target.size())});
    if (e.content) append(out, e.content->hash);
    if (e.content) append(out, e.content->tree);
    if (e.content && e.content->predecessor) append(out, *e.content->predecessor);
    out += e.target;
  }
  return out;
}

Result<Directory> decode_directory(Ino ino, std::string_view bytes) {
  const auto corrupt = [ino] { return fail(ErrorCode::kCorrupt, "index: directory {} is malformed", ino); };
  EncodedHeader header{};
  TreesFile trees;
  std::string etag;
  if (!take(bytes, &header) || !take(bytes, &trees.url, header.trees_url_length) ||
      !take(bytes, &etag, header.etag_length) || header.count > bytes.size() / sizeof(EncodedEntry))
    return corrupt();
  trees.size = header.trees_size;
  const auto shared_trees = trees.url.empty() ? nullptr : std::make_shared<const TreesFile>(std::move(trees));
  Directory out{ino, header.fetched_at, std::move(etag), {}};
  out.entries.reserve(header.count);
  for (uint64_t i = 0; i < header.count; ++i) {
    EncodedEntry e{};
    DirectoryEntry entry;
    if (!take(bytes, &e) || e.name_length == 0 || !take(bytes, &entry.name, e.name_length)) return corrupt();
    if (e.type < static_cast<uint8_t>(EntryType::kFile) || e.type > static_cast<uint8_t>(EntryType::kSymlink))
      return corrupt();
    entry.ino = e.ino;
    entry.type = static_cast<EntryType>(e.type);
    entry.doubtful = (e.flags & kDoubtful) != 0;
    entry.gone = (e.flags & kGone) != 0;
    if (e.size != kUnknownSize) entry.size = e.size;
    entry.mtime = e.mtime;
    entry.listed_mtime = e.listed_mtime;
    entry.mtime_granularity = e.mtime_granularity;
    if ((e.flags & kHasFacts) != 0) {
      EncodedFacts facts{};
      if (!take(bytes, &facts)) return corrupt();
      entry.mode = facts.mode;
      entry.mtime_ns = facts.mtime_ns;
      if ((e.flags & kHasContent) != 0) {
        auto content = std::make_shared<Content>();
        if (!take(bytes, &content->hash) || !take(bytes, &content->tree)) return corrupt();
        content->trees = shared_trees;
        if ((e.flags & kHasPredecessor) != 0 && !take(bytes, &content->predecessor.emplace())) return corrupt();
        entry.content = std::move(content);
      }
      if (!take(bytes, &entry.target, facts.target_length)) return corrupt();
    }
    if (!out.entries.empty() && !by_name(out.entries.back(), entry)) return corrupt();
    out.entries.push_back(std::move(entry));
  }
  if (!bytes.empty()) return corrupt();
  return out;
}

}  // namespace wormhole
