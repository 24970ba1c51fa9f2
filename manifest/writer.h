// The pages file of a manifest, written from its first byte to its last while a tree is walked: an entry at a time, in
// the order of names, a directory's own entries between its begin() and end(). A page is written when it is full, and a
// directory's last when the directory ends, so what is in memory is a page for each level of the way down.
//
// The same tree makes the same file, byte for byte.
//
// Thread: the owner's.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "manifest/blake3.h"
#include "manifest/head.h"
#include "manifest/page.h"

namespace wormhole {

class ManifestWriter {
 public:
  // Takes the next bytes of the file.
  using Append = std::function<Status(std::string_view)>;
  explicit ManifestWriter(Append append);

  // A directory begins; the first is the root, which has no name. Its `page` and `entries` are found at its end.
  // REQUIRES, here and of add(): a name that is greater than the one before it in the same directory.
  Status begin(ManifestEntry directory);
  // A file or a symlink. `tree`: of a file that has one (hash_tree.h); where it lies is filled in.
  Status add(ManifestEntry entry, std::span<const std::byte> tree = {});
  Status end();

  // Once the root has ended: what the head says of the tree. Sequence, time and mirrors are the caller's.
  Result<ManifestHead> finish();

 private:
  struct Open {
    ManifestEntry self;
    DirectoryPage page;  // entries that have no page yet
    size_t bytes = 0;    // of these
    uint64_t entries = 0;
    std::vector<DirectoryPage::Child> children;  // pages that are full
  };

  Status append(std::string_view bytes);
  Status flush();
  Status put(ManifestEntry entry);
  Status close_page(Open& directory);
  Result<PageRef> store(const DirectoryPage& page);
  Result<PageRef> store_children(std::vector<DirectoryPage::Child> children);

  const Append append_;
  std::string buffer_;
  uint64_t size_ = 0;  // bytes of the file, with those in the buffer
  Blake3 hash_;
  std::vector<Open> open_;
  ManifestHead head_;
};

}  // namespace wormhole
