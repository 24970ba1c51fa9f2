// What a cache remembers of a tree's manifest: for rollbacks, and for a mount that cannot ask the origin. Kept as a
// line of text "name=value ..." in the index; unknown names are skipped.
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "manifest/head.h"

namespace wormhole {

struct KnownManifest {
  uint64_t sequence = 0;  // the highest that was believed; 0: none
  // Of the root directory.
  uint16_t mode = 0;
  int64_t mtime = 0;  // seconds since the epoch
  std::vector<std::string> mirrors;

  bool operator==(const KnownManifest&) const = default;
};

KnownManifest known_manifest(const ManifestHead& head);

std::string encode(const KnownManifest& manifest);
// What cannot be read is as if it was not there.
KnownManifest decode_known_manifest(std::string_view text);

}  // namespace wormhole
