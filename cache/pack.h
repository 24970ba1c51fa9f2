// The pack: one file, objects/pack, in which all cached objects lie that have no more than one block. A hundred
// thousand small files so cost one file, one sync for a batch of them, and one read each.
//
// pack_space.h says which places are given out; here are the file and the lock. The file is as long as the slabs, so
// that one that was cut or replaced by another is noticed when it is opened: its holes would look like zeros. The place
// of an object that goes is punched out before it is given out again, so that the file takes no more of the disk than
// what is stored.
//
// Thread: any. One lock, held over file system calls that do not wait for the disk (ftruncate, fallocate), and over a
// look at the index (PackSpace::Load).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/thread_annotations.h"
#include "cache/pack_space.h"

namespace wormhole {

// Of the cache whose index is in `index_path`: it lies among the object files.
std::string pack_path(const std::string& index_path);

class Pack {
 public:
  using FileRef = std::shared_ptr<FileDescriptor>;

  Pack(std::string path, const PackSpace::Load& load) : path_(std::move(path)), load_(load), space_(load) {}

  // The records of a pack that was used before, once, before everything else. False: the file is not there, or has
  // another length, or the records cannot be right; then what lies in it is not to be trusted.
  bool open(std::span<const std::string> summaries);

  // The file, made when it is missing, and the same for direct I/O (null where the file system has none).
  Result<FileRef> file();
  FileRef direct();

  // As PackSpace; the file is made longer when need be. Errors: kNoSpace, kIo, as the system says.
  Result<PackPlace> allocate(uint32_t bytes);
  // As PackSpace, and the file has a hole there before the lock is given up.
  void free(PackPlace place);

  // The index thread's, for its transactions (PackSpace).
  bool record(PackPlace place);
  bool forget(PackPlace place);
  PackRecords take_dirty();  // and slabs at the end that are empty go
  void written(bool durable);

  // A crash leaves bytes in places that are on no record, and behind the last slab: they take room that nobody counts.
  // Frees those of slab `number`; false when there is no such slab.
  bool punch_free(uint32_t number);

 private:
  Result<FileRef> open_file() REQUIRES_LOCK(mutex_);
  Status fit_file() REQUIRES_LOCK(mutex_);
  void punch(ByteRange range) REQUIRES_LOCK(mutex_);

  const std::string path_;
  const PackSpace::Load load_;
  Mutex mutex_;
  PackSpace space_ GUARDED_BY(mutex_);
  FileRef file_ GUARDED_BY(mutex_);
  FileRef direct_ GUARDED_BY(mutex_);
  bool direct_works_ GUARDED_BY(mutex_) = true;
  uint64_t file_size_ GUARDED_BY(mutex_) = 0;  // once it is open
};

}  // namespace wormhole
