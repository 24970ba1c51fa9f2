#include "manifest/writer.h"

#include <utility>

namespace wormhole {
namespace {

// One write, and one stretch of bytes to hash.
constexpr size_t kBufferBytes = 1 << 20;

// A page of pages may be larger than one of entries, for it is read once and kept: it names some 5000 pages, which are
// three million files. What has more gets a level more.
constexpr size_t kChildrenBytes = kMostPageBytes / 2;

}  // namespace

ManifestWriter::ManifestWriter(Append append) : append_(std::move(append)) {
  buffer_ = kPagesMagic;
  size_ = buffer_.size();
}

Status ManifestWriter::append(std::string_view bytes) {
  buffer_ += bytes;
  size_ += bytes.size();
  return buffer_.size() < kBufferBytes ? Status() : flush();
}

Status ManifestWriter::flush() {
  hash_.update(std::as_bytes(std::span(buffer_)));
  Status written = append_(buffer_);
  buffer_.clear();
  return written;
}

Result<PageRef> ManifestWriter::store(const DirectoryPage& page) {
  const StoredPage stored = store_page(page, size_);
  if (Status appended = append(stored.bytes); !appended) return fail(appended.error());
  return stored.ref;
}

Status ManifestWriter::close_page(Open& directory) {
  const auto ref = store(directory.page);
  if (!ref) return fail(ref.error());
  directory.children.push_back({directory.page.entries.front().name, *ref});
  directory.page.entries.clear();
  directory.bytes = 0;
  return {};
}

Status ManifestWriter::put(ManifestEntry entry) {
  Open& directory = open_.back();
  const size_t bytes = encoded_size(entry);
  if (directory.bytes > 0 && directory.bytes + bytes > kPageBytes) {
    if (Status closed = close_page(directory); !closed) return closed;
  }
  directory.bytes += bytes;
  ++directory.entries;
  directory.page.entries.push_back(std::move(entry));
  return {};
}

Status ManifestWriter::begin(ManifestEntry directory) {
  ++head_.directories;
  open_.push_back({.self = std::move(directory), .page = {}, .children = {}});
  return {};
}

Status ManifestWriter::add(ManifestEntry entry, std::span<const std::byte> tree) {
  if (entry.type == ManifestEntry::Type::kFile) {
    ++head_.files;
    head_.bytes += entry.size;
  } else {
    ++head_.symlinks;
  }
  entry.tree = tree.empty() ? 0 : size_;
  if (Status put_in = append({reinterpret_cast<const char*>(tree.data()), tree.size()}); !put_in) return put_in;
  return put(std::move(entry));
}

Result<PageRef> ManifestWriter::store_children(std::vector<DirectoryPage::Child> children) {
  while (true) {
    size_t bytes = 0;
    for (const auto& child : children) bytes += encoded_size(child);
    if (bytes <= kChildrenBytes) break;
    std::vector<DirectoryPage::Child> above;
    DirectoryPage page;
    const auto close = [&]() -> Status {
      const auto ref = store(page);
      if (!ref) return fail(ref.error());
      above.push_back({page.children.front().first, *ref});
      page.children.clear();
      bytes = 0;
      return {};
    };
    bytes = 0;
    for (auto& child : children) {
      if (bytes > kPageBytes) {
        if (Status closed = close(); !closed) return fail(closed.error());
      }
      bytes += encoded_size(child);
      page.children.push_back(std::move(child));
    }
    if (Status closed = close(); !closed) return fail(closed.error());
    children = std::move(above);
  }
  return store({.entries = {}, .children = std::move(children)});
}

Status ManifestWriter::end() {
  Open directory = std::move(open_.back());
  open_.pop_back();
  Result<PageRef> ref;
  if (directory.children.empty()) {
    ref = store(directory.page);
  } else {
    if (Status closed = close_page(directory); !closed) return closed;
    ref = store_children(std::move(directory.children));
  }
  if (!ref) return fail(ref.error());
  directory.self.page = *ref;
  directory.self.entries = directory.entries;
  if (!open_.empty()) return put(std::move(directory.self));
  head_.root = *ref;
  head_.root_mode = directory.self.mode;
  head_.root_mtime = directory.self.mtime;
  return {};
}

Result<ManifestHead> ManifestWriter::finish() {
  if (Status flushed = flush(); !flushed) return fail(flushed.error());
  head_.pages = hash_.finish();
  head_.pages_bytes = size_;
  return head_;
}

}  // namespace wormhole
