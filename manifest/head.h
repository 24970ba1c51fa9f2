// The head of a manifest: which tree it is of, where its root directory lies, who else has it. Small, and the only part
// that is signed: everything else is named by it with its hash.
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/hash256.h"
#include "manifest/page.h"

namespace wormhole {

inline constexpr uint32_t kManifestVersion = 1;
inline constexpr size_t kMostHeadBytes = 1 << 20;

// Beside what it describes, in a directory that a mount does not show.
inline constexpr std::string_view kManifestDirectory = ".wormhole";
inline constexpr std::string_view kHeadName = "manifest";
inline constexpr std::string_view kSignatureName = "manifest.minisig";

struct ManifestHead {
  // Greater in each manifest of a tree than in the one before: who has seen a signed one takes no older one for newer.
  // A first one has the seconds since the epoch, so that a tree whose manifests were lost goes on above them.
  uint64_t sequence = 0;
  int64_t created = 0;                                // when its making began; nanoseconds since the epoch
  uint64_t files = 0, directories = 0, symlinks = 0;  // in all; the root counts
  uint64_t bytes = 0;                                 // of all files
  Hash256 pages;                                      // BLAKE3 of the pages file
  uint64_t pages_bytes = 0;
  // The root directory's own. Its entry has no name.
  uint16_t root_mode = 0;
  int64_t root_mtime = 0;
  PageRef root;
  std::vector<std::string> mirrors;  // URLs of directories that hold the same tree

  bool operator==(const ManifestHead&) const = default;
};

// "pages-" and 32 hex digits: another tree has another file, so that a reader of an older head still finds his.
std::string pages_name(const Hash256& pages);
// "manifest-" and 64 hex digits, BLAKE3 of the head's bytes: the same manifest for ever.
std::string pinned_head_name(const Hash256& head);
// The signature of this very head: found without a race while a new one is put in its place.
std::string pinned_signature_name(const Hash256& head);

std::string encode(const ManifestHead& head);
// Errors: kFormat (of a later version), kCorrupt (cut short, or not one).
Result<ManifestHead> decode_head(std::string_view bytes);

}  // namespace wormhole
