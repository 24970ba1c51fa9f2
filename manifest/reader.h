// The directories of a manifest, found by their pages. Whoever brings the bytes need not be trusted: a page that is not
// the one that was named is kCorrupt.
//
// Who fetches pages without waiting uses load_page() and look_up() of page.h; this is for those who may wait.
//
// Thread: a PageSource any, as far as what stands behind it can be called so; a cursor its owner's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/error.h"
#include "manifest/head.h"
#include "manifest/page.h"

namespace wormhole {

// Bytes of the pages file: all of the range, or an error. Waits for them.
using PageSource = std::function<Result<std::string>(ByteRange)>;

// Of a local file, which stays open for as long as the source is used; `name` is for messages.
PageSource pages_of_file(int fd, std::string name);

// The root as an entry; it has no name.
ManifestEntry root_entry(const ManifestHead& head);

Result<DirectoryPage> load_page(const PageSource& source, const PageRef& page);
// Nothing when the directory has no such name. One page is loaded, of a large directory two.
Result<std::optional<ManifestEntry>> look_up(const PageSource& source, const PageRef& directory, std::string_view name);
// The same for a path, "a/b/c"; "" is the root. Symlinks are not followed.
Result<std::optional<ManifestEntry>> look_up_path(const PageSource& source, const ManifestHead& head,
                                                  std::string_view path);
// The file's tree; empty when it has none. kCorrupt when it is not the file's.
Result<std::vector<std::byte>> load_tree(const PageSource& source, const ManifestEntry& file);

// The entries of a directory in the order of their names; one page of them is in memory at a time.
class ManifestCursor {
 public:
  // The source outlives the cursor.
  ManifestCursor(const PageSource& source, const PageRef& directory);

  // The entry that it stands at, good until the next call of anything; nullptr behind the last one.
  Result<const ManifestEntry*> peek();
  // Goes on to the one behind it.
  void advance() { ++at_; }
  // Goes on to the first one that is not less than `name`: names are asked for in their order.
  Result<const ManifestEntry*> seek(std::string_view name);

 private:
  Status descend(const PageRef& page, std::string_view first);

  const PageSource& source_;
  PageRef root_;
  bool begun_ = false;
  struct Level {
    std::vector<DirectoryPage::Child> children;
    size_t next = 0;
  };
  std::vector<Level> levels_;
  std::vector<ManifestEntry> entries_;
  size_t at_ = 0;
  std::string last_;  // the last name of the page before
};

}  // namespace wormhole
