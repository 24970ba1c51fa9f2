// Directories as a manifest has them: *pages* of entries, sorted by name, each page compressed by itself and named by
// place and hash (docs/MANIFEST.md). A directory of one page is that page; a larger one is a page that names others.
//
// What a page says is checked before it is believed: the hash before anything else, then that every name can be one,
// that they are in order and none is there twice.
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/hash256.h"

namespace wormhole {

// A page holds about so many bytes before it is compressed: some 600 files. What one request brings, and what must be
// fetched to look up one name.
inline constexpr uint32_t kPageBytes = 64 * 1024;
// No page is larger, whatever it says; one entry with the longest name and target fits.
inline constexpr uint32_t kMostPageBytes = 1 << 20;
// Nor is anything farther in the pages file: places can be added without overflow.
inline constexpr uint64_t kMostPagesBytes = uint64_t{1} << 62;

// The pages file begins with it, so that nothing else lies at 0.
inline constexpr std::string_view kPagesMagic = "WORMPAGE";

// Where a page lies in the pages file.
struct PageRef {
  uint64_t offset = 0;
  uint32_t stored = 0;  // bytes, compressed
  uint32_t raw = 0;     // bytes, as decoded
  Hash256 hash;         // BLAKE3 of the stored bytes

  // Whether a page can be so: known before it is fetched.
  bool is_possible() const {
    return offset >= kPagesMagic.size() && offset < kMostPagesBytes && stored > 0 && stored <= raw &&
           raw <= kMostPageBytes;
  }
  bool operator==(const PageRef&) const = default;
};

struct ManifestEntry {
  enum class Type : uint8_t { kFile = 1, kDirectory = 2, kSymlink = 3 };

  std::string name;
  Type type = Type::kFile;
  uint16_t mode = 0;      // permission bits, 07777
  int64_t mtime = 0;      // seconds since the epoch
  uint32_t mtime_ns = 0;  // below 10^9

  // Of a file.
  uint64_t size = 0;            // bytes
  std::optional<Hash256> hash;  // nothing in a manifest that was made of a listing
  uint64_t tree = 0;  // where its hash tree (hash_tree.h) begins in the pages file, if it has blocks and a hash

  // Of a directory.
  PageRef page;
  uint64_t entries = 0;  // in it, not below it

  // Of a symlink: what readlink() says, 1 to 4095 bytes without NUL.
  std::string target;

  bool operator==(const ManifestEntry&) const = default;
};

// Either entries or children.
struct DirectoryPage {
  struct Child {
    std::string first;  // the first name in it
    PageRef page;
    bool operator==(const Child&) const = default;
  };
  std::vector<ManifestEntry> entries;
  std::vector<Child> children;
};

// Whether it can be a name in a tree: not empty, ".", "..", longer than 255 bytes, nor with '/' or NUL.
bool is_entry_name(std::string_view name);

// The bytes that are stored, and what names them.
struct StoredPage {
  PageRef ref;
  std::string bytes;
};
StoredPage store_page(const DirectoryPage& page, uint64_t offset);
// kCorrupt when it is not the page that `ref` names, or breaks a rule.
Result<DirectoryPage> load_page(const PageRef& ref, std::string_view stored);

// How many bytes it adds to a page.
size_t encoded_size(const ManifestEntry& entry);
size_t encoded_size(const DirectoryPage::Child& child);

// What a page says of a name: the entry; or in which page it would be; or neither, then it is not there.
struct PageLookup {
  const ManifestEntry* entry = nullptr;
  const PageRef* next = nullptr;
};
PageLookup look_up(const DirectoryPage& page, std::string_view name);

}  // namespace wormhole
