// A directory as it was listed: an immutable snapshot with stable inode numbers. A new listing is merged into the old
// snapshot and gives a new one; who reads the old one (an open directory handle) goes on with it.
//
// A file's entry names one *version* of it. When size or time differ from the last listing, the entry gets a new inode
// number; when they are equal, but the file may have changed unseen within the time's granularity, it is *doubtful*
// until a HEAD has shown its validator ("racily clean", as in git's index). Its attributes are those of the listing all
// the same.
//
// Thread: values; a snapshot may be read by any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cache/index_format.h"
#include "fs/content.h"
#include "net/listing.h"

namespace wormhole {

struct DirectoryEntry {
  // listed_mtime of a version that was found by HEAD: the next listing tells what the listing makes of it.
  static constexpr int64_t kNotListedYet = INT64_MIN;

  Ino ino = 0;
  EntryType type = EntryType::kFile;
  bool doubtful = false;         // a HEAD must confirm the version before the next open
  std::optional<uint64_t> size;  // of a file; nothing: a HEAD must tell
  int64_t mtime = 0;             // seconds since the epoch, the best that is known; 0: the server does not say
  // The time as the listing gives it, and how much it is rounded: listings are compared with listings, because some
  // servers print them in a time zone of their own.
  int64_t listed_mtime = 0;
  int32_t mtime_granularity = 1;
  std::string name;
  bool gone = false;  // the server has said that it has another version: only a HEAD tells which

  // Of manifests only, as in ListedEntry.
  std::optional<uint16_t> mode;
  int32_t mtime_ns = 0;
  std::string target;
  std::shared_ptr<const Content> content;

  bool operator==(const DirectoryEntry&) const = default;
};

struct Directory {
  Ino ino = 0;
  int64_t fetched_at = 0;               // seconds since the epoch
  std::string etag;                     // Listing::etag, as long as nothing else has told more than the listing
  std::vector<DirectoryEntry> entries;  // by name, no name twice

  const DirectoryEntry* find(std::string_view name) const;
  DirectoryEntry* find(std::string_view name);
};

using DirectoryRef = std::shared_ptr<const Directory>;

// The same content, that follows another.
ContentRef with_predecessor(const Content& content, std::optional<Predecessor> predecessor);

struct MergeResult {
  Directory directory;
  std::vector<DirectoryEntry> superseded;  // files that are gone or have another version now, as they were
  struct Succession {
    Ino from, to;
  };
  std::vector<Succession> successions;  // of those, the files that have another version
};

// `old` may be null. `allocate` gives new inode numbers. `now`: seconds since the epoch, when the listing was asked
// for.
MergeResult merge_listing(const Directory* old, Ino ino, Listing listing, int64_t now,
                          const std::function<Ino()>& allocate);

// The same listing once more, asked for at `now`: what a merge with it gives.
Directory merge_unchanged(const Directory& old, int64_t now);

// The form in which the index keeps it (docs/FORMAT.md).
std::string encode(const Directory& directory);
// kCorrupt when the bytes are not such a directory.
Result<Directory> decode_directory(Ino ino, std::string_view bytes);

}  // namespace wormhole
