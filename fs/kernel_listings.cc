#include "fs/kernel_listings.h"

#include <string>

#include "cache/checksum.h"

namespace wormhole {
namespace {

// Beside the name; no byte of it is padding.
struct Told {
  uint64_t ino, size;
  int64_t mtime;
  int32_t mtime_ns;
  uint16_t mode, name_length;
  uint32_t mode_is_known, size_is_known;
  uint32_t type, gone;
};
static_assert(sizeof(Told) == 48);

}  // namespace

uint64_t fingerprint_of(const Directory& snapshot) {
  std::string told;
  told.reserve(snapshot.entries.size() * (sizeof(Told) + 16));
  for (const DirectoryEntry& e : snapshot.entries) {
    const Told one{e.ino,
                   e.type == EntryType::kSymlink ? e.target.size() : e.size.value_or(0),
                   e.mtime,
                   e.mtime_ns,
                   e.mode.value_or(0),
                   static_cast<uint16_t>(e.name.size()),
                   e.mode.has_value(),
                   e.size.has_value(),
                   static_cast<uint32_t>(e.type),
                   e.gone};
    told.append(reinterpret_cast<const char*>(&one), sizeof one);
    told += e.name;
  }
  return block_checksum(reinterpret_cast<const std::byte*>(told.data()), told.size());
}

}  // namespace wormhole
