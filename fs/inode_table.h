// The inodes that the kernel knows: number -> node, with the kernel's count of lookups. A node keeps its parent, so
// that the way to the root, and with it the URL, can be told at any time.
//
// Thread: any; one lock, never held while calling out.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

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

inline NodeRef node_of(const NodeRef& parent, const DirectoryEntry& entry) {
  auto node = std::make_shared<Node>();
  node->ino = entry.ino;
  node->type = entry.type;
  node->size = entry.size.value_or(0);
  node->mtime = entry.mtime;
  node->mtime_ns = entry.mtime_ns;
  node->mode = entry.mode;
  node->target = entry.target;
  node->content = entry.content;
  if (entry.type == EntryType::kSymlink) node->size = entry.target.size();
  node->name = entry.name;
  node->parent = parent;
  return node;
}

class InodeTable {
 public:
  // The root is always there.
  explicit InodeTable(const NodeRef& root) : root_(root->ino) { nodes_.emplace(root->ino, Known{root, 1}); }

  // Null when the kernel has forgotten it, or never knew it.
  NodeRef find(Ino ino) const {
    MutexLock lock(mutex_);
    auto it = nodes_.find(ino);
    return it == nodes_.end() ? nullptr : it->second.node;
  }

  // The kernel learns of `node`: its count goes up by one.
  void add_lookup(NodeRef node) {
    MutexLock lock(mutex_);
    const Ino ino = node->ino;
    auto [it, is_new] = nodes_.try_emplace(ino, Known{node, 0});
    if (!is_new) it->second.node = std::move(node);  // a size or time that is known better now
    ++it->second.lookups;
  }

  void forget(Ino ino, uint64_t lookups) {
    NodeRef gone;  // declared before the lock, so that it is freed after it
    MutexLock lock(mutex_);
    auto it = nodes_.find(ino);
    if (it == nodes_.end() || ino == root_) return;
    if (it->second.lookups > lookups) {
      it->second.lookups -= lookups;
      return;
    }
    gone = std::move(it->second.node);
    nodes_.erase(it);
  }

  size_t size() const {
    MutexLock lock(mutex_);
    return nodes_.size();
  }

 private:
  struct Known {
    NodeRef node;
    uint64_t lookups;
  };

  const Ino root_;
  mutable Mutex mutex_;
  std::unordered_map<Ino, Known> nodes_ GUARDED_BY(mutex_);
};

}  // namespace wormhole
