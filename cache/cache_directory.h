// The directory that a cache lives in: whose it is, which format it has, and that only one daemon holds it.
//
//   FORMAT        "wormhole cache, format N": present in every cache, written first
//   CACHEDIR.TAG  tells backup programs to leave it out (https://bford.info/cachedir/)
//   lock          flock'ed by the daemon that holds the cache; its pid and the machine's boot id are the content
//   daemon.log    the daemon's log, unless it is sent elsewhere
//   index/        LMDB        objects/  one sparse file per object version
//
// A directory that is not empty and has no FORMAT belongs to somebody else: it is refused and nothing in it is touched.
//
// Thread: start and end of the process.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace wormhole {

class CacheDirectory {
 public:
  // Creates the directory if it is missing (with parents), checks it and takes the lock; a new cache gets mode 0700.
  // Waits up to `patience_seconds` for a daemon that holds it: one that has just been unmounted is still writing its
  // last commit.
  //   kFormat  another format version, or somebody else's directory     kBusy  a daemon holds it: the message names its
  //   pid kForbidden, kNoSpace, kIo  as the system says
  static Result<CacheDirectory> open(const std::string& path, int patience_seconds);

  const std::string& path() const { return path_; }
  std::string index_path() const { return path_ + "/index"; }
  // The last daemon did not end: it was killed, or the machine stopped.
  bool was_left_open() const { return was_left_open_; }
  // And the machine has stopped since: what was being written may be torn. What a process has left that was only
  // killed, the kernel has brought to the disk. But when two in a row did not end, they may have died of the index.
  bool may_be_damaged() const { return may_be_damaged_; }
  // Everything is on disk: the next one finds nothing left open.
  void ended();

  std::string objects_path() const { return path_ + "/objects"; }

 private:
  CacheDirectory(std::string path, FileDescriptor lock, bool was_left_open, bool may_be_damaged)
      : path_(std::move(path)),
        lock_(std::move(lock)),
        was_left_open_(was_left_open),
        may_be_damaged_(may_be_damaged) {}

  std::string path_;
  FileDescriptor lock_;
  bool was_left_open_;
  bool may_be_damaged_;
};

}  // namespace wormhole
