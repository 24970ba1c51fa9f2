#include "fs/inode_table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

namespace wormhole {
namespace {

constexpr size_t kFirstChains = 1024;  // a power of two

// What a record has behind its fixed part, if its file has content; a predecessor follows, if it has one.
struct PackedContent {
  Hash256 hash;
  uint64_t tree;
};

}  // namespace

// What the files of a directory share.
struct InodeTable::Family {
  const NodeRef parent;
  const std::shared_ptr<const TreesFile> trees;
  size_t members = 0;
};

// Ordered by size, so that nothing is lost between the fields. Behind it: the content if it has one, the name, the
// target of a symlink (as long as its size says).
struct InodeTable::Record {
  static constexpr uint8_t kIsSymlink = 1, kHasMode = 2, kHasContent = 4, kHasPredecessor = 8;

  Ino ino;
  Record* next;  // in its chain
  Family* family;
  uint64_t size;
  int64_t mtime;
  int32_t mtime_ns;
  uint32_t lookups;  // the highest one stays: such a file is never forgotten, which costs memory only
  uint16_t mode;
  uint8_t flags;
  uint8_t name_length;  // a name has at most 255 bytes

  // The end of the last field, where padding would begin.
  static constexpr size_t kFixed = 8 * 5 + 4 * 2 + 2 + 1 + 1;

  bool has(uint8_t flag) const { return (flags & flag) != 0; }
  char* behind() { return reinterpret_cast<char*>(this) + kFixed; }
  const char* behind() const { return reinterpret_cast<const char*>(this) + kFixed; }
};

static_assert(sizeof(PackedContent) == 40);

NodeRef node_of(const NodeRef& parent, const DirectoryEntry& entry) {
  auto node = std::make_shared<Node>();
  node->ino = entry.ino;
  node->type = entry.type;
  node->size = entry.type == EntryType::kSymlink ? entry.target.size() : entry.size.value_or(0);
  node->mtime = entry.mtime;
  node->mtime_ns = entry.mtime_ns;
  node->mode = entry.mode;
  node->target = entry.target;
  node->content = entry.content;
  node->name = entry.name;
  node->parent = parent;
  return node;
}

InodeTable::InodeTable(const NodeRef& root) : root_(root->ino), records_(kFirstChains) {
  directories_.emplace(root->ino, Known{root, 1});
}

InodeTable::~InodeTable() {
  MutexLock lock(mutex_);
  for (Record* record : records_) {
    while (record != nullptr) free_record(std::exchange(record, record->next));
  }
}

NodeRef InodeTable::find(Ino ino) const {
  MutexLock lock(mutex_);
  if (const Record* record = *place_of(ino)) return node_of_record(*record);
  const auto it = directories_.find(ino);
  return it == directories_.end() ? nullptr : it->second.node;
}

bool InodeTable::contains(Ino ino) const {
  MutexLock lock(mutex_);
  return *place_of(ino) != nullptr || directories_.contains(ino);
}

void InodeTable::add_lookup(const NodeRef& node) {
  NodeRef before;  // declared before the lock, so that it is freed after it
  MutexLock lock(mutex_);
  if (node->type == EntryType::kDirectory) {
    Known& known = directories_[node->ino];
    before = std::exchange(known.node, node);
    ++known.lookups;
    return;
  }
  Record* fresh = make_record(*node);
  Record** place = place_of(node->ino);
  if (Record* old = *place) {
    fresh->lookups = old->lookups + (old->lookups < std::numeric_limits<uint32_t>::max());
    fresh->next = old->next;
    *place = fresh;
    return free_record(old);
  }
  *place = fresh;
  if (++count_ > records_.size()) grow();
}

void InodeTable::forget(Ino ino, uint64_t lookups) {
  NodeRef gone;
  MutexLock lock(mutex_);
  Record** place = place_of(ino);
  if (Record* record = *place) {
    if (record->lookups == std::numeric_limits<uint32_t>::max()) return;
    if (record->lookups > lookups) {
      record->lookups -= static_cast<uint32_t>(lookups);
      return;
    }
    *place = record->next;
    --count_;
    return free_record(record);
  }
  const auto it = directories_.find(ino);
  if (it == directories_.end() || ino == root_) return;
  if (it->second.lookups > lookups) {
    it->second.lookups -= lookups;
    return;
  }
  gone = std::move(it->second.node);
  directories_.erase(it);
}

void InodeTable::replace_root(NodeRef node) {
  MutexLock lock(mutex_);
  directories_.at(root_).node.swap(node);
}

size_t InodeTable::size() const {
  MutexLock lock(mutex_);
  return directories_.size() + count_;
}

// --- records -------------------------------------------------------------------------------------------------------

// Where the pointer to its record is, or would be: in the chain, or at its end. Numbers are given out one after the
// other, so they are their own hash.
InodeTable::Record** InodeTable::place_of(Ino ino) const {
  Record** place = &records_[ino & (records_.size() - 1)];
  while (*place != nullptr && (*place)->ino != ino) place = &(*place)->next;
  return place;
}

void InodeTable::grow() {
  std::vector<Record*> before(records_.size() * 2);
  before.swap(records_);
  for (Record* record : before) {
    while (record != nullptr) {
      Record* const next = record->next;
      Record*& first = records_[record->ino & (records_.size() - 1)];
      record->next = std::exchange(first, record);
      record = next;
    }
  }
}

InodeTable::Record* InodeTable::make_record(const Node& node) {
  const bool is_symlink = node.type == EntryType::kSymlink;
  const Predecessor* predecessor = node.content && node.content->predecessor ? &*node.content->predecessor : nullptr;
  const size_t content = (node.content ? sizeof(PackedContent) : 0) + (predecessor ? sizeof(Predecessor) : 0);
  const size_t size = Record::kFixed + content + node.name.size() + node.target.size();
  auto* r = new (::operator new(std::max(size, sizeof(Record))))
      Record{node.ino,
             nullptr,
             join_family(node),
             node.size,
             node.mtime,
             node.mtime_ns,
             1,
             node.mode.value_or(0),
             static_cast<uint8_t>((is_symlink ? Record::kIsSymlink : 0) | (node.mode ? Record::kHasMode : 0) |
                                  (node.content ? Record::kHasContent : 0) |
                                  (predecessor != nullptr ? Record::kHasPredecessor : 0)),
             static_cast<uint8_t>(node.name.size())};
  char* at = r->behind();
  if (node.content) {
    const PackedContent packed{node.content->hash, node.content->tree};
    std::memcpy(at, &packed, sizeof packed);
    at += sizeof packed;
  }
  if (predecessor != nullptr) {
    std::memcpy(at, predecessor, sizeof *predecessor);
    at += sizeof *predecessor;
  }
  at = std::copy(node.name.begin(), node.name.end(), at);
  std::copy(node.target.begin(), node.target.end(), at);
  return r;
}

void InodeTable::free_record(Record* record) {
  leave_family(record->family);
  ::operator delete(record);
}

NodeRef InodeTable::node_of_record(const Record& r) {
  auto node = std::make_shared<Node>();
  node->ino = r.ino;
  node->size = r.size;
  node->mtime = r.mtime;
  node->mtime_ns = r.mtime_ns;
  if (r.has(Record::kHasMode)) node->mode = r.mode;
  node->parent = r.family->parent;
  const char* at = r.behind();
  if (r.has(Record::kHasContent)) {
    PackedContent packed;
    std::memcpy(&packed, at, sizeof packed);
    at += sizeof packed;
    auto content = std::make_shared<Content>(Content{packed.hash, packed.tree, r.family->trees, std::nullopt});
    if (r.has(Record::kHasPredecessor)) {
      std::memcpy(&content->predecessor.emplace(), at, sizeof(Predecessor));
      at += sizeof(Predecessor);
    }
    node->content = std::move(content);
  }
  node->name.assign(at, r.name_length);
  if (r.has(Record::kIsSymlink)) {
    node->type = EntryType::kSymlink;
    node->target.assign(at + r.name_length, r.size);
  }
  return node;
}

// --- families ------------------------------------------------------------------------------------------------------

// A directory that is listed anew may have its hash trees in another file: then it has another family, and the old one
// goes with its last member.
InodeTable::Family* InodeTable::join_family(const Node& node) {
  Family*& newest = families_[node.parent->ino];
  const auto fits = [&](const Family& f) {
    if (!node.content || f.trees == node.content->trees) return true;
    return f.trees && node.content->trees && *f.trees == *node.content->trees;
  };
  if (newest == nullptr || !fits(*newest))
    newest = new Family{node.parent, node.content ? node.content->trees : nullptr};
  ++newest->members;
  return newest;
}

void InodeTable::leave_family(Family* family) {
  if (--family->members > 0) return;
  const auto it = families_.find(family->parent->ino);
  if (it != families_.end() && it->second == family) families_.erase(it);
  delete family;
}

}  // namespace wormhole
