// A file of the cache that holds every byte of an object, each of them trusted. Whoever has one may read the bytes
// himself, without asking the engine, as long as it is not revoked; or have the kernel serve it (FUSE passthrough).
//
// It is revoked when a block is found wrong or is to be evicted, and never becomes valid again: an object that is
// complete once more gets a new one. A reader enters, reads and leaves; while the kernel serves the file, that counts
// as one reader who stays inside. Whoever takes bytes away revokes first, and takes nothing while somebody is inside.
// So no reader sees a hole.
//
// Thread: enter() and leave() any; the rest the engine's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/file_descriptor.h"

namespace wormhole {

class CompleteFile {
 public:
  enum class Kind : uint8_t { kOwnFile, kInPack };

  // Byte i of the object lies at `offset` + i of `file`.
  CompleteFile(std::shared_ptr<FileDescriptor> file, Kind kind, uint64_t offset, uint64_t size)
      : file_(std::move(file)), kind_(kind), offset_(offset), size_(size) {}

  int fd() const { return file_->get(); }
  uint64_t offset() const { return offset_; }
  uint64_t size() const { return size_; }
  // Passthrough maps a whole file to a whole file.
  bool is_whole_file() const { return kind_ == Kind::kOwnFile; }

  // False: it is revoked; nothing may be read. True: bytes stay where they are until leave().
  bool enter() const {
    readers_.fetch_add(1, std::memory_order_seq_cst);
    if (!revoked_.load(std::memory_order_seq_cst)) return true;
    leave();
    return false;
  }
  void leave() const { readers_.fetch_sub(1, std::memory_order_release); }

  void revoke() { revoked_.store(true, std::memory_order_seq_cst); }
  // REQUIRES: revoked. False while somebody still reads.
  bool is_unread() const { return readers_.load(std::memory_order_seq_cst) == 0; }

 private:
  const std::shared_ptr<FileDescriptor> file_;
  const Kind kind_;
  const uint64_t offset_;
  const uint64_t size_;
  mutable std::atomic<uint32_t> readers_{0};
  std::atomic<bool> revoked_{false};
};

using CompleteFileRef = std::shared_ptr<CompleteFile>;

}  // namespace wormhole
