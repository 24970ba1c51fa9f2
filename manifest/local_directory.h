// A directory on the local disk: its names, sorted by their bytes as a manifest has them, with what stat says of them.
// Compact: a million entries take some 90 MB.
//
// Thread: values, any; read() waits for the disk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace wormhole {

// What tells one version of a file from another, as far as stat can.
struct FileStamp {
  uint64_t device = 0, inode = 0;
  uint64_t size = 0;
  int64_t mtime = 0, ctime = 0;  // seconds since the epoch
  uint32_t mtime_ns = 0, ctime_ns = 0;
  uint32_t mode = 0;  // st_mode, with the type

  bool operator==(const FileStamp&) const = default;
};

// Of a name below an open directory, or of the descriptor itself for "". Symlinks are not followed.
// Returns an errno, 0 when it went well.
int stamp_of(int directory, const std::string& name, FileStamp* stamp);

class LocalDirectory {
 public:
  struct Entry {
    std::string_view name;  // good for as long as the directory
    const FileStamp& stamp;
    int error;  // an errno: it could not be looked at; else 0
  };

  // `path` is relative to the open directory `root`, "" for itself; no symlink on the way is followed.
  static Result<LocalDirectory> read(int root, const std::string& path);

  const FileStamp& stamp() const { return stamp_; }  // its own
  size_t size() const { return nodes_.size(); }
  Entry operator[](size_t i) const { return {name(nodes_[i]), nodes_[i].stamp, nodes_[i].error}; }

 private:
  struct Node {
    FileStamp stamp;
    uint32_t at;      // in names_, which has less than 4 GiB
    uint16_t length;  // at most 255
    uint16_t error;
  };
  std::string_view name(const Node& node) const { return std::string_view(names_).substr(node.at, node.length); }

  FileStamp stamp_;
  std::string names_;
  std::vector<Node> nodes_;
};

// openat() that follows no symlink, not even on the way. -1 and errno when it fails.
int open_below(int root, const std::string& path, int flags);

}  // namespace wormhole
