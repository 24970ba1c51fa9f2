// What all handles of one object share while it is open: how the kernel reads it, and a way past the engine once all of
// it is in the cache. Files with the same bytes are inodes of their own and one object.
//
// The kernel refuses to have one inode open both ways, through its page cache and passed through (EIO). So the first
// open decides, and the later ones follow until the last is closed.
//
// Thread: any.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/thread_annotations.h"
#include "cache/complete_file.h"
#include "cache/index_format.h"
#include "fs/content.h"

namespace wormhole {

struct Node;  // fs/inode_table.h

// Whether the kernel may serve complete files itself, and if not, why not.
class Passthrough {
 public:
  bool allowed() const { return allowed_.load(std::memory_order_relaxed); }
  // For good; the first reason stands.
  void refuse(std::string why);
  // "on", or "off: " and why.
  std::string state() const;

  // An id that the kernel need not keep any more (0: none); it takes them back with the next request that can say so.
  void abandon(int32_t backing);
  std::vector<int32_t> take_abandoned();

 private:
  std::atomic<bool> allowed_{true};
  mutable Mutex mutex_;
  std::string why_ GUARDED_BY(mutex_);
  std::vector<int32_t> abandoned_ GUARDED_BY(mutex_);
};

class OpenFile {
 public:
  OpenFile(Ino ino, uint64_t size, ContentRef content = nullptr)
      : ino_(ino), size_(size), content_(std::move(content)) {}

  Ino ino() const { return ino_; }  // the object's number
  uint64_t size() const { return size_; }
  const ContentRef& content() const { return content_; }

  // The engine says that all of it is there. From then on reads need not come by.
  void publish(CompleteFileRef file);
  // Null until then. It may have been revoked since: enter() tells.
  const CompleteFile* complete() const { return complete_.load(std::memory_order_acquire); }

  // How the handle that is being opened is to be read: a backing id when it is passed through, 0 when not. `connect`
  // gives the kernel the file and returns its id there, 0 when the kernel refuses.
  int32_t decide(const Passthrough& passthrough, const std::function<int32_t(int fd)>& connect);
  // After the last close: the id that is to be taken back from the kernel, 0 when there is none.
  int32_t take_backing();

 private:
  friend class OpenFiles;

  const Ino ino_;
  const uint64_t size_;
  const ContentRef content_;
  std::atomic<const CompleteFile*> complete_{nullptr};

  Mutex mutex_;
  // All that were published: a reader may still hold a pointer to one that was revoked.
  std::vector<CompleteFileRef> published_ GUARDED_BY(mutex_);
  bool decided_ GUARDED_BY(mutex_) = false;
  // While it is passed through, the kernel is inside of it.
  const CompleteFile* passed_through_ GUARDED_BY(mutex_) = nullptr;
  int32_t backing_ GUARDED_BY(mutex_) = 0;

  // The table's.
  int opens_ = 0;
  std::shared_ptr<const Node> opened_as_;  // the last
};

using OpenFileRef = std::shared_ptr<OpenFile>;

// The objects that are open now.
class OpenFiles {
 public:
  // `file`: as which it is opened.
  OpenFileRef open(Ino ino, uint64_t size, ContentRef content = nullptr, std::shared_ptr<const Node> file = nullptr);
  // The file as which it was opened last; null when it is not open.
  std::shared_ptr<const Node> opened_as(Ino ino) const;
  // The same, when it was the last close; else null.
  OpenFileRef close(OpenFile& file);

 private:
  mutable Mutex mutex_;
  std::unordered_map<Ino, OpenFileRef> files_ GUARDED_BY(mutex_);
};

}  // namespace wormhole
