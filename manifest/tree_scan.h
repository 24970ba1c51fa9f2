// A local tree as the entries of a manifest, in the manifest's order, hashed by several threads.
//
// The caller walks, a directory at a time, and puts what it meets into batches. The threads hash the files of a batch:
// small ones together, one of more than 4 MiB in parts, by as many threads as are free. The results of the oldest
// batch are handed to the visitor, in order, while the next ones are hashed; so many batches wait, and no more, and
// what is in memory does not grow with the tree (with its largest directory it does: some 80 bytes an entry, and with
// its largest file: 32 bytes for each block).
//
// What a file's entry says is of one moment: the file is looked at before and after it is read, and read again when the
// two differ.
//
// A tree that is followed is scanned again and again: what is being written just now is not waited for, and directories
// of which it is known that nothing in them has changed are not looked at.
//
// Thread: the caller's; the visitor is called on it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "manifest/page.h"
#include "manifest/reader.h"

namespace wormhole {

// An older manifest of the same tree: files of the same size and time are taken from it, and not read.
struct KnownTree {
  ManifestHead head;
  PageSource pages;  // may be called by several threads
};

// Since the epoch: the time of a scan, as the times of files are told.
int64_t nanoseconds_now();

// Of a tree that is followed.
struct Following {
  int64_t begun = 0;  // this scan; as nanoseconds_now()
  // Paths of directories, without a slash at either end, "" is the root: only in these something can be another than in
  // the known tree. nullptr: in any.
  const std::set<std::string>* changed = nullptr;
};

struct ScanOptions {
  int threads = 1;
  bool one_file_system = false;
  const KnownTree* known = nullptr;
  // A file that changes while it is read has an entry without a hash then, and is not left out; nor is a large one read
  // that was written just now: who goes on to write it makes all reading futile. Such files need another look.
  std::optional<Following> following;
  // A directory that is not part of the tree, wherever it lies: device and inode.
  std::optional<std::pair<uint64_t, uint64_t>> excluded;
};

struct ScanProgress {
  uint64_t files = 0, bytes = 0;                // done, of any kind
  uint64_t hashed_files = 0, hashed_bytes = 0;  // of these, those that were read
};

// Errors that the visitor returns end the scan.
class ScanVisitor {
 public:
  virtual ~ScanVisitor() = default;
  // The root first, which has no name; `page` and `entries` are not known. Its entries follow, in the order of names,
  // a subdirectory's between its begin and its end.
  virtual Status begin_directory(const ManifestEntry& directory, const std::string& path) = 0;
  // A file or a symlink; `tree` is the hash tree of a file that has one. `path` is relative to the root.
  virtual Status entry(ManifestEntry entry, std::span<const std::byte> tree, const std::string& path) = 0;
  virtual Status end_directory() = 0;
  // In the place of an entry that cannot be read. The scan goes on. (Fifos, sockets and devices are skipped, with a
  // line in the log.)
  virtual Status left_out(const std::string& path, const std::string& why) = 0;
  // Several times a second. False: it ends, with kCancelled.
  virtual bool goes_on(const ScanProgress& progress) = 0;
};

// `root`: an open directory, that stays open. The directory kManifestDirectory in it is not part of the tree.
// Errors: the visitor's; kCancelled; of the root, when it cannot be read.
Result<ScanProgress> scan_tree(int root, const ScanOptions& options, ScanVisitor& visitor);

}  // namespace wormhole
