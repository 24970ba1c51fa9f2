#include "manifest/reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "manifest/hash_tree.h"

namespace wormhole {
namespace {

// Pages of pages of pages: three levels name more files than any file system has.
constexpr size_t kMostLevels = 8;

tl::unexpected<Error> too_deep() {
  return fail(ErrorCode::kCorrupt, "manifest: a directory has pages below pages, {} levels of them", kMostLevels);
}

}  // namespace

PageSource pages_of_file(int fd, std::string name) {
  return [fd, name = std::move(name)](ByteRange range) -> Result<std::string> {
    std::string bytes(range.size(), '\0');
    size_t have = 0;
    while (have < bytes.size()) {
      const ssize_t n = ::pread(fd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(range.begin + have));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(error_from_errno(errno, "read " + name));
      if (n == 0) return fail(ErrorCode::kCorrupt, "{} is cut short: it ends at {}", name, range.begin + have);
      have += static_cast<size_t>(n);
    }
    return bytes;
  };
}

ManifestEntry root_entry(const ManifestHead& head) {
  ManifestEntry root;
  root.type = ManifestEntry::Type::kDirectory;
  root.mode = head.root_mode;
  root.mtime = head.root_mtime;
  root.page = head.root;
  return root;
}

Result<DirectoryPage> load_page(const PageSource& source, const PageRef& page) {
  if (!page.is_possible())
    return fail(ErrorCode::kCorrupt, "manifest: no page can be at {}, {} bytes", page.offset, page.stored);
  const auto bytes = source(ByteRange::of(page.offset, page.stored));
  if (!bytes) return fail(bytes.error());
  return load_page(page, *bytes);
}

Result<std::optional<ManifestEntry>> look_up(const PageSource& source, const PageRef& directory,
                                             std::string_view name) {
  PageRef where = directory;
  for (size_t level = 0; level < kMostLevels; ++level) {
    const auto page = load_page(source, where);
    if (!page) return fail(page.error());
    const PageLookup found = look_up(*page, name);
    if (found.entry != nullptr) return *found.entry;
    if (found.next == nullptr) return std::nullopt;
    where = *found.next;
  }
  return too_deep();
}

Result<std::optional<ManifestEntry>> look_up_path(const PageSource& source, const ManifestHead& head,
                                                  std::string_view path) {
  ManifestEntry at = root_entry(head);
  while (!path.empty()) {
    const size_t slash = path.find('/');
    if (at.type != ManifestEntry::Type::kDirectory) return std::nullopt;
    auto next = look_up(source, at.page, path.substr(0, slash));
    if (!next || !*next) return next;
    at = std::move(**next);
    path = slash == path.npos ? "" : path.substr(slash + 1);
  }
  return at;
}

Result<std::vector<std::byte>> load_tree(const PageSource& source, const ManifestEntry& file) {
  if (file.tree == 0) return std::vector<std::byte>();
  const auto bytes = source(ByteRange::of(file.tree, HashTreeShape(file.size).bytes()));
  if (!bytes) return fail(bytes.error());
  const auto tree = std::as_bytes(std::span(*bytes));
  if (!is_tree_of(file.size, *file.hash, tree))
    return fail(ErrorCode::kCorrupt, "manifest: the hash tree of {} is not the file's", file.name);
  return std::vector<std::byte>(tree.begin(), tree.end());
}

ManifestCursor::ManifestCursor(const PageSource& source, const PageRef& directory)
    : source_(source), root_(directory) {}

// To the first entries at or below the page. `first`: the name that was announced for it; empty: none was.
Status ManifestCursor::descend(const PageRef& page, std::string_view first) {
  auto loaded = load_page(source_, page);
  if (!loaded) return fail(loaded.error());
  std::string_view name;
  if (!loaded->children.empty()) {
    name = loaded->children.front().first;
  } else if (!loaded->entries.empty()) {
    name = loaded->entries.front().name;
  }
  if ((!levels_.empty() && name != first) || (!last_.empty() && name <= last_))
    return fail(ErrorCode::kCorrupt, "manifest: the page at {} is not in order with the others", page.offset);
  if (loaded->children.empty()) {
    entries_ = std::move(loaded->entries);
    at_ = 0;
    return {};
  }
  if (levels_.size() == kMostLevels) return too_deep();
  levels_.push_back({.children = std::move(loaded->children), .next = 1});
  const DirectoryPage::Child below = levels_.back().children.front();
  return descend(below.page, below.first);
}

Result<const ManifestEntry*> ManifestCursor::peek() {
  if (!begun_) {
    begun_ = true;
    if (Status there = descend(root_, ""); !there) return fail(there.error());
  }
  while (at_ >= entries_.size()) {
    while (!levels_.empty() && levels_.back().next == levels_.back().children.size()) levels_.pop_back();
    if (levels_.empty()) return nullptr;
    if (!entries_.empty()) last_ = entries_.back().name;
    Level& level = levels_.back();
    const DirectoryPage::Child next = level.children[level.next++];
    if (Status there = descend(next.page, next.first); !there) return fail(there.error());
  }
  return &entries_[at_];
}

Result<const ManifestEntry*> ManifestCursor::seek(std::string_view name) {
  while (true) {
    auto at = peek();
    if (!at || *at == nullptr || (*at)->name >= name) return at;
    advance();
  }
}

}  // namespace wormhole
