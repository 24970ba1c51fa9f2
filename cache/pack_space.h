// The space of the pack, the one file that holds the small cached objects: who gives out its places and takes them
// back. It knows neither the file nor the index; the caller writes the bytes and the records.
//
// The pack is a row of slabs of 64 MiB, each with its own bitmap of used pages (cache/page_runs.h), which is
// one record. A bitmap is loaded when it is first needed; from the start only a summary of each slab is known, 4
// bytes. So it does not matter for a mount how much is cached.
//
// A place goes through these states. On record are exactly the places that a record of an object names, so that
// after a crash nothing is lost and nothing is given out twice:
//
//              allocate()         record()             forget()         free()
//      free ──────────────► held ──────────► on record ─────────► held ────────► free
//
//   record() and forget() belong to the transaction that writes, or deletes, the record of the object that names the
//   place: what take_dirty() gives goes into that same transaction. Where this cannot be exact, record() comes too
//   early and forget() too late, never the other way round: then a crash loses a place, but no two objects get the same
//   one.
//
//   free() may be called only when no record on the disk can name the place: after the transaction that forgot it is
//   durable, or at once if it was never in one. From then on the place is given out again. A transaction that failed
//   may have reached the disk nevertheless: what it recorded stays held until a later one has deleted it.
//
// Between take_dirty() and written() the slabs in question stay in memory, because load() might still give their old
// form; and so does each slab with a held place.
//
// Which slab: the one that was used last, as long as something fits, so that what is stored together is together and
// a transaction changes few slabs; then the fullest one, so that the others may become empty and, at the end, go. The
// nearly full ones come last: a slab with a few holes would be a changed record for a few objects.
//
// Thread: one at a time; the owner sees to it. load() is called from within and must not call back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/block.h"
#include "base/byte_range.h"
#include "cache/page_runs.h"

namespace wormhole {

inline constexpr uint64_t kSlabSize = uint64_t{kPageSize} * kPagesPerSlab;

// What has more than one block has an object file of its own.
inline constexpr uint32_t kLargestPlace = kBlockSize;
inline constexpr uint32_t kPagesPerLargest = kLargestPlace / kPageSize;

// Summaries in one record: 1 KiB, so that several fit a page of LMDB and writing one costs little; 16 GiB of pack.
inline constexpr uint32_t kSlabsPerSummary = 256;

struct PackPlace {
  uint64_t offset = 0;  // in the pack; a multiple of kPageSize
  uint32_t length = 0;  // as allocated, whole pages; what is handed back may also have the length that was asked for

  bool operator==(const PackPlace&) const = default;
};

// What is known of a slab that is not in memory.
struct SlabSummary {
  uint16_t free_pages = kPagesPerSlab;
  uint8_t longest_run = kPagesPerLargest;  // of free pages; more than kPagesPerLargest are not counted

  bool operator==(const SlabSummary&) const = default;
};

// Four bytes for each: free pages (2), longest run (1), 0.
std::string encode(std::span<const SlabSummary> summaries);
// Nothing unless each of them can be true of a slab, and there are 1 to kSlabsPerSummary.
std::optional<std::vector<SlabSummary>> decode_summaries(std::string_view bytes);

// The records to write in one transaction.
struct PackRecords {
  struct Record {
    uint32_t number;
    std::optional<std::string> bytes;  // nothing: the record is to be deleted, if there is one
  };
  std::vector<Record> slabs;      // as PageRuns::encode(); a slab without a place on record has none
  std::vector<Record> summaries;  // number n: of the slabs from n * kSlabsPerSummary on
};

class PackSpace {
 public:
  // The record of a slab, as take_dirty() gave it. Not asked for slabs that are empty by their summary.
  using Load = std::function<std::optional<std::string>(uint32_t slab)>;

  // 128: 2 KiB each, together 0.3 MiB, for 8 GiB of pack without a look at the index.
  static constexpr size_t kSlabsInMemory = 128;

  // An empty pack.
  explicit PackSpace(Load load, size_t slabs_in_memory = kSlabsInMemory);

  // The pack with these records of summaries, in order; none for an empty one. Nothing when they cannot be right: then
  // nobody knows what is free, and the pack is to be emptied.
  static std::optional<PackSpace> open(std::span<const std::string> summaries, Load load,
                                       size_t slabs_in_memory = kSlabsInMemory);

  // A place for 1 to kLargestPlace bytes, held from now on; at most kPageSize - 1 bytes longer. Appends a slab when it
  // fits nowhere. Nothing for another number of bytes, or when the pack is as large as it can be.
  std::optional<PackPlace> allocate(uint32_t bytes);

  // As the picture above says. False, and nothing has changed, when the place is not in the state that the step begins
  // with: a record of an object was wrong, or the slab's own could not be read.
  bool record(PackPlace place);
  bool forget(PackPlace place);
  bool free(PackPlace place);

  // Whether take_dirty() has something to give.
  bool dirty() const { return !dirty_.empty(); }
  // All that has changed since the last call. To be answered with written() before the next call.
  PackRecords take_dirty();
  // What take_dirty() gave is durable, so that load() gives it from now on; or it is to be given again.
  void written(bool durable);

  // Slabs at the end that are empty go.
  void trim();
  // Of slab `number`, what nobody has, held places not included, as ranges of the pack. Nothing when it is damaged.
  std::vector<ByteRange> free_ranges(uint32_t number);

  uint32_t slabs() const { return static_cast<uint32_t>(slabs_.size()); }
  uint64_t size() const { return slabs_.size() * kSlabSize; }
  uint64_t used() const { return used_pages_ * kPageSize; }  // bytes, in whole pages; damaged slabs count as full
  // Slabs whose record was missing or did not match the summary. Nothing is given out from them.
  size_t damaged() const { return damaged_.size(); }
  size_t in_memory() const { return loaded_.size(); }

 private:
  struct Slab {
    PageRuns pages;                     // held places are used here
    std::map<uint32_t, uint32_t> held;  // first page -> number
    uint64_t last_use = 0;
  };
  struct Summaries {
    SlabSummary now;       // as in memory
    SlabSummary recorded;  // without the held places, at the last take_dirty()
  };
  // A place as pages of a slab.
  struct Pages {
    uint32_t slab;
    uint32_t first;
    uint32_t count;
  };

  static std::optional<Pages> pages_of(PackPlace place);
  // Of slabs into which an allocation of so many pages fits, the one to use.
  std::optional<uint32_t> choose(uint32_t count) const;
  std::optional<uint32_t> append();
  // Loads it if need be. Null if there is no such slab or it is damaged.
  Slab* slab(uint32_t number);
  // The place is held no longer; its slab. Null, and nothing has changed, when it was not held.
  Slab* let_go(Pages pages);
  void set_now(uint32_t number, SlabSummary summary);
  void drop_unused(size_t limit);

  Load load_;
  size_t slabs_in_memory_;
  std::vector<Summaries> slabs_;
  std::unordered_map<uint32_t, Slab> loaded_;
  std::set<uint32_t> dirty_;    // also such that are gone from the end
  std::set<uint32_t> writing_;  // given to the caller, not yet durable
  std::set<uint32_t> damaged_;
  std::optional<uint32_t> current_;  // allocated from last
  uint64_t used_pages_ = 0;
  uint64_t uses_ = 0;
};

}  // namespace wormhole
