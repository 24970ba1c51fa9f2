// The directory that a manifest lies in (kManifestDirectory at the root of the tree, where a web server finds it), as
// its publisher sees it. A new manifest comes whole or not at all: each file is written under another name, synced, and
// renamed; the head is the last. Who has read an older head finds its pages until it is removed.
//
// Thread: the owner's.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "manifest/head.h"
#include "manifest/reader.h"
#include "manifest/signature.h"

namespace wormhole {

// The text of a head's signature; the trusted comment has time and sequence.
std::string sign_head(const SecretKey& key, const ManifestHead& head, std::string_view bytes);

// One that was found, with its pages open.
struct StoredManifest {
  ManifestHead head;
  std::string head_bytes;
  std::string signature;  // text; empty when there is none
  std::shared_ptr<FileDescriptor> pages_file;
  PageSource pages;
};

// A file of the directory that has no name yet; it is gone when this goes without one.
class UnnamedFile {
 public:
  UnnamedFile(UnnamedFile&& other) noexcept;
  UnnamedFile& operator=(UnnamedFile&&) = delete;
  ~UnnamedFile();

  Status append(std::string_view bytes);
  // Syncs, and renames: what had the name before is replaced.
  Status become(const std::string& name);

 private:
  friend class ManifestDirectory;
  UnnamedFile(int directory, std::string name, FileDescriptor file, std::string path);

  int directory_;
  std::string name_;  // meanwhile; empty once it has its own
  FileDescriptor file_;
  std::string path_;  // of the directory, for messages
};

// Which manifests stay when a new one takes their place, for those who still read them. They lie in the same directory,
// a tree of a million files some 100 MB each.
struct Retention {
  size_t count = 1;             // the youngest in any case
  std::chrono::seconds age{0};  // of the others those that were the current one within this time,
  uint64_t bytes = 0;           // as long as their pages are no more than this
};

class ManifestDirectory {
 public:
  // To look at. kNotFound when it is not there.
  static Result<ManifestDirectory> open(const std::string& path);
  // To write; it is made if need be, and held against other writers: kBusy when there is one. What an earlier writer
  // left half-written is removed.
  static Result<ManifestDirectory> open_to_write(const std::string& path);
  ManifestDirectory(ManifestDirectory&& other) noexcept
      : path_(std::move(other.path_)),
        directory_(std::move(other.directory_)),
        made_(std::exchange(other.made_, false)) {}
  ~ManifestDirectory();  // removes it when it was made and stayed empty

  const std::string& path() const { return path_; }
  std::pair<uint64_t, uint64_t> identity() const;  // device and inode

  // The manifest that a reader finds now. kNotFound when there is none; kFormat and kCorrupt as decode_head(), and when
  // its pages are not there.
  Result<StoredManifest> current() const;
  // The greatest sequence of all that are there; 0: none is.
  uint64_t greatest_sequence() const;
  // What one that was begun then (nanoseconds since the epoch) has to have.
  uint64_t next_sequence(int64_t created) const {
    return std::max(greatest_sequence() + 1, static_cast<uint64_t>(created / 1'000'000'000));
  }

  Result<UnnamedFile> new_file();
  struct Published {
    Hash256 hash;  // of the head
    size_t removed = 0;
  };
  // `pages`: complete. `sign` makes a signature's text of the head's bytes; without it the manifest is not signed.
  Result<Published> publish(UnnamedFile pages, const ManifestHead& head,
                            const std::function<std::string(std::string_view)>& sign, const Retention& retention = {});

 private:
  ManifestDirectory(std::string path, FileDescriptor directory)
      : path_(std::move(path)), directory_(std::move(directory)) {}
  Status write(const std::string& name, std::string_view bytes);
  Result<std::string> read(const std::string& name, size_t most) const;
  std::vector<std::string> names() const;
  void remove(const std::string& name) const;
  std::chrono::seconds age_of(const std::string& name) const;
  size_t remove_old(const ManifestHead& head, const Hash256& hash, Retention retention) const;

  std::string path_;
  FileDescriptor directory_;
  bool made_ = false;
};

}  // namespace wormhole
