// The bytes of the index's records. See docs/FORMAT.md; a change here is a new kFormatVersion.
//
// All integers are little-endian, except inside keys, where they are big-endian so that LMDB's order is theirs.
//
// Thread: values, any.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/block.h"
#include "base/hash256.h"
#include "base/version.h"

namespace wormhole {

// Records are copied to and from memory as they are; a big-endian machine would need conversions.
static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t kFormatVersion = 6;

// An inode number names one version of one remote file, or one directory, for ever: it is never given twice within
// a cache. The cached object of a file has the same number.
using Ino = uint64_t;

// What is known of a file's version. Written when the first response has fixed the validator.
struct ObjectRecord {
  uint64_t size = 0;
  Validator validator;

  bool operator==(const ObjectRecord&) const = default;
};

// What the URL of a mount has turned out to be, so that it can be mounted while the server is away.
struct RootRecord {
  Ino ino = 0;  // of the root directory
  bool single_file = false;
  std::string url;  // after redirects

  bool operator==(const RootRecord&) const = default;
};

// Where a region stands in one of the two queues of eviction_policy.h: the order in which regions came.
struct QueuePosition {
  bool main = false;
  uint64_t sequence = 0;  // below 2^63; 0: in none
  auto operator<=>(const QueuePosition&) const = default;
};

// An object of so many bytes lies in the pack (cache/pack.h), a larger one in a file of its own.
inline bool lies_in_pack(uint64_t object_size) { return object_size <= kBlockSize; }

inline constexpr uint64_t kNoPlace = ~uint64_t{0};

// Which blocks of one region (64 blocks) are on disk, with the XXH3-64 of each.
struct RegionRecord {
  uint64_t present = 0;  // bit i: block (region * 64 + i)
  QueuePosition position;
  uint64_t place = kNoPlace;                          // the offset in the pack; kNoPlace: it has a file
  std::array<uint64_t, kBlocksPerRegion> checksum{};  // meaningful where the bit is set

  bool has(unsigned i) const { return (present >> i) & 1; }
};

struct RegionKey {
  Ino ino;
  uint64_t region;
  auto operator<=>(const RegionKey&) const = default;
};

// What the bytes of a file are, whatever its name. The size belongs to it: it tells how far an object of it goes.
struct ContentKey {
  Hash256 hash;  // BLAKE3
  uint64_t size = 0;
  auto operator<=>(const ContentKey&) const = default;
};

// A file that has this content.
struct ContentUse {
  ContentKey content;
  Ino file = 0;
  auto operator<=>(const ContentUse&) const = default;
};

// How far the scrubber has come.
struct ScrubRecord {
  RegionKey next{};      // the pass goes on here; zero: none is under way
  int64_t ended_at = 0;  // the last one; seconds since the epoch

  bool operator==(const ScrubRecord&) const = default;
};

// Every value in LMDB has a checksum of key and value behind it. What does not match is as good as not there: LMDB
// itself would not notice a flipped bit.
std::string seal(std::string_view key, std::string_view value);
std::optional<std::string_view> unseal(std::string_view key, std::string_view sealed);

std::string encode_key(Ino ino);
std::optional<Ino> decode_ino(std::string_view bytes);
std::string encode_key(RegionKey key);
std::optional<RegionKey> decode_region_key(std::string_view bytes);

// Such keys have the order of the queues, small before main.
std::string encode_key(QueuePosition position);
std::optional<QueuePosition> decode_queue_position(std::string_view bytes);

// Those of one content follow each other.
std::string encode_key(const ContentUse& use);
std::optional<ContentUse> decode_content_use(std::string_view bytes);

std::string encode(const ObjectRecord& record);
std::optional<ObjectRecord> decode_object(std::string_view bytes);

std::string encode(const ScrubRecord& record);
std::optional<ScrubRecord> decode_scrub(std::string_view bytes);

std::string encode(const RootRecord& record);
std::optional<RootRecord> decode_root(std::string_view bytes);

// Only as many checksums as the highest present block needs: a small file costs 32 bytes, a full region 536.
std::string encode(const RegionRecord& record);
std::optional<RegionRecord> decode_region(std::string_view bytes);

}  // namespace wormhole
