// The inodes that the kernel knows: number -> node, with the kernel's count of lookups. A node keeps its parent, so
// that the way to the root, and with it the URL, can be told at any time.
//
// The kernel may know a million files at a time (find -size), so the table keeps of a file no node, but a *record*: one
// piece of memory, about 110 bytes for a file of a manifest with a name of 12; a node is made of it when somebody asks.
// Directories are few, others point to them, and they are kept as they are.
//
// Thread: any; one lock, never held while calling out.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/thread_annotations.h"
#include "cache/index_format.h"
#include "fs/content.h"
#include "fs/directory.h"
#include "net/listing.h"

namespace wormhole {

// One version of a file, or a directory. Never changed after it is made.
struct Node {
  Ino ino = 0;
  EntryType type = EntryType::kFile;
  uint64_t size = 0;
  int64_t mtime = 0;
  // Of manifests only, as in DirectoryEntry.
  int32_t mtime_ns = 0;
  std::optional<uint16_t> mode;
  std::string target;
  ContentRef content;
  std::string name;
  std::shared_ptr<const Node> parent;  // null for the root
};

using NodeRef = std::shared_ptr<const Node>;

NodeRef node_of(const NodeRef& parent, const DirectoryEntry& entry);

class InodeTable {
 public:
  // The root is always there.
  explicit InodeTable(const NodeRef& root);
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;
  ~InodeTable();

  // Null when the kernel has forgotten it, or never knew it.
  NodeRef find(Ino ino) const;
  bool contains(Ino ino) const;

  // The kernel learns of `node`: its count goes up by one. Where it is known already, a size or time may be known
  // better now.
  void add_lookup(const NodeRef& node);
  void forget(Ino ino, uint64_t lookups);
  // As add_lookup, but for the count. REQUIRES: it has the root's number.
  void replace_root(NodeRef node);

  size_t size() const;

 private:
  struct Record;
  struct Family;
  struct Known {
    NodeRef node;
    uint64_t lookups;
  };

  Record* make_record(const Node& node) REQUIRES_LOCK(mutex_);
  void free_record(Record* record) REQUIRES_LOCK(mutex_);
  static NodeRef node_of_record(const Record& record);
  Family* join_family(const Node& node) REQUIRES_LOCK(mutex_);
  void leave_family(Family* family) REQUIRES_LOCK(mutex_);
  Record** place_of(Ino ino) const REQUIRES_LOCK(mutex_);
  void grow() REQUIRES_LOCK(mutex_);

  const Ino root_;
  mutable Mutex mutex_;
  std::unordered_map<Ino, Known> directories_ GUARDED_BY(mutex_);
  // A hash table whose chains go through the records.
  mutable std::vector<Record*> records_ GUARDED_BY(mutex_);
  size_t count_ GUARDED_BY(mutex_) = 0;
  std::unordered_map<Ino, Family*> families_ GUARDED_BY(mutex_);  // the newest of each directory
};

}  // namespace wormhole
