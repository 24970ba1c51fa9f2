// The file system without any FUSE type: lookups, attributes, directories, handles and reads, over the catalog (names)
// and the engines (bytes). fs/ops.cc puts it in front of the kernel; tests call it directly.
//
// The root's inode number is kRootIno, whatever the index calls it.
//
// Thread: every function from any; answers come on the caller's thread when memory suffices, else on the tree or an
// engine thread. Nothing blocks.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <memory>
#include <span>

#include "base/clock.h"
#include "base/metrics.h"
#include "fs/catalog.h"
#include "fs/disk_turns.h"
#include "fs/engines.h"
#include "fs/inode_table.h"
#include "fs/kernel_listings.h"
#include "fs/lookahead.h"
#include "fs/open_file.h"

namespace wormhole {

inline constexpr Ino kRootIno = 1;

struct FilesystemOptions {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 022;
  int disk_waiters = 0;  // so many of the threads that take requests may wait for the disk
};

// An open directory: the snapshot that its readers walk through, whatever happens to the directory meanwhile; or what
// arrives of a first listing, in that order.
struct DirectoryHandle {
  NodeRef node;
  DirectoryRef snapshot;  // or else
  ArrivingRef arriving;
  KernelListingRef in_kernel;  // null: the kernel must keep nothing of it
  bool keep = false;           // what the kernel has of it is right
};

class Filesystem {
 public:
  struct Attributes {
    struct stat stat;
    double timeout;  // seconds for which the kernel may believe them
  };
  struct Entry {
    Attributes attributes;
    double timeout;  // seconds for which the name means this inode
  };
  using EntryReply = UniqueFunction<void(Result<Entry>), 48>;
  using OpenReply = UniqueFunction<void(Result<OpenFile*>), 48>;
  using DirectoryReply = UniqueFunction<void(Result<std::unique_ptr<DirectoryHandle>>), 48>;

  // All references outlive the file system. `name_timeout`: the catalog's ttl, seconds.
  Filesystem(FilesystemOptions options, double name_timeout, Catalog& catalog, Engines& engines, Lookahead& lookahead,
             Metrics& metrics, const Clock& clock);

  // What a manifest says of the root directory; nothing and 0 when there is none. The kernel believes what it had for
  // name_timeout.
  void set_root(std::optional<uint16_t> mode, int64_t mtime);

  // Counts as one lookup of the inode; forget() takes lookups back. Errors as Catalog::entry.
  void lookup(Ino parent, std::string_view name, EntryReply reply);
  void forget(Ino ino, uint64_t lookups);
  // kStale when the kernel asks for an inode that it has forgotten.
  Result<Attributes> getattr(Ino ino) const;
  // kInvalid when it is no symlink.
  Result<std::string> readlink(Ino ino) const;

  // kStale when the name has another version on the server: the kernel then looks the name up again. The file is the
  // caller's until release().
  void open(Ino ino, OpenReply reply);
  void read(OpenFile& file, ByteRange range, ReadReply reply) { engines_.read(file.ino(), range, std::move(reply)); }
  // The id that is to be taken back from the kernel, 0 when there is none.
  int32_t release(OpenFile& file);
  // What does not come by: a read that was answered from OpenFile::complete(), a file that the kernel serves.
  void was_read(const OpenFile& file, ByteRange range);
  void is_passed_through(const OpenFile& file);
  Passthrough& passthrough() { return passthrough_; }
  DiskTurns& disk_turns() { return disk_turns_; }

  void opendir(Ino ino, DirectoryReply reply);
  // What the `index`-th entry looks like; index 0 and 1 are "." and "..". With `plus` the entry counts as looked up, if
  // its attributes are known. Nothing behind the end.
  struct Dirent {
    std::string_view name;  // lives as long as the handle
    Entry entry;
    bool looked_up = false;
  };
  std::optional<Dirent> readdir(const DirectoryHandle& handle, uint64_t index, bool plus);
  // Calls `told` when readdir() can tell what is at `index`, which is at once unless the listing is still arriving.
  // Errors: as Catalog::directory, when it could not be had to its end. The handle is not touched any more then.
  void when_readable(const DirectoryHandle& handle, uint64_t index, UniqueFunction<void(Status)> told) const;

  // Never asks the network.
  struct statvfs statfs() const;

 private:
  Ino internal(Ino ino) const { return ino == kRootIno ? root_ino_ : ino; }
  Ino external(Ino ino) const { return ino == root_ino_ ? kRootIno : ino; }
  void open_current(const NodeRef& node, OpenReply reply);
  void fetch_and_open(const NodeRef& node, OpenReply reply);
  void confirm_and_open(const NodeRef& node, OpenReply reply);
  Attributes attributes_of(const Node& node) const;
  Entry entry_of(const NodeRef& node) const;

  const FilesystemOptions options_;
  const double name_timeout_;
  Catalog& catalog_;
  Engines& engines_;
  Lookahead& lookahead_;
  Metrics& metrics_;
  const Clock& clock_;
  const int64_t started_;  // seconds since the epoch
  const Ino root_ino_;
  InodeTable inodes_;
  KernelListings kernel_listings_;
  OpenFiles open_files_;
  Passthrough passthrough_;
  DiskTurns disk_turns_;

 public:
  // A file that has its bytes in this object: the one that was opened last, or that gave it its number. Null when none
  // is known.
  NodeRef opened_as(Ino object) const;
  // The node behind an inode number; null when it is not known.
  NodeRef node(Ino ino) const { return inodes_.find(internal(ino)); }
};

}  // namespace wormhole
