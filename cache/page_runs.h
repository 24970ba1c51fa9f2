// The free and used pages of one slab: a stretch of the file that holds small cached objects.
//
// A bitmap of the used pages is all there is, in memory as on disk. An allocation takes the shortest run of free pages
// that is long enough, of those the one with the lowest address. A buddy allocator, whose blocks are of 1, 2, 4, …
// pages at multiples of their size, finds its place in fewer steps, but objects of every size between 1 and 64 KiB make
// its file 1.3 to 1.7 times as long as what they need, and this one's 1.1 to 1.2 times.
//
// Each operation looks at the bitmap once: 256 words, and a few steps for each free run.
//
// Thread: as any value.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wormhole {

// 4 KiB: a page of memory and a block of nearly every file system, so that a page that is written or punched out is
// no other object's business.
inline constexpr uint32_t kPageSize = 4096;

// A slab has 64 MiB: its record (2 KiB when full) fits one page of LMDB, so that storing an object writes no more than
// that beside it; and 1 TiB has 16384 slabs, few enough to look at all of them.
inline constexpr uint32_t kPagesPerSlab = 16384;

class PageRuns {
 public:
  // The first of so many pages, which are used from now on. Nothing when no free run is long enough. REQUIRES: > 0.
  std::optional<uint32_t> allocate(uint32_t count);

  // The same with pages that the caller names. False, and nothing has changed, unless all of them are free.
  bool take(uint32_t page, uint32_t count);

  // False, and nothing has changed, unless all of these pages are used. What was allocated may be freed in parts.
  bool free(uint32_t page, uint32_t count);

  uint32_t free_pages() const { return free_pages_; }
  // The largest allocation that would succeed, but no more than `enough`, which is found sooner.
  uint32_t longest_free_run(uint32_t enough = kPagesPerSlab) const;
  // True when all of these pages are used.
  bool used(uint32_t page, uint32_t count) const;

  // Two bytes, the number of used pages; then one bit for each page, set where it is used, up to the last byte that is
  // not 0. Little-endian, the lowest bit first.
  std::string encode() const;
  // Nothing unless the bytes are what encode() can give: the number is there to tell a record that was cut.
  static std::optional<PageRuns> decode(std::string_view bytes);

  struct Run {
    uint32_t page;
    uint32_t count;
  };
  // In order; none touches the next.
  std::vector<Run> free_runs() const;

  bool operator==(const PageRuns&) const = default;

 private:
  // Calls f(first page, length) for each free run, in order, until it returns false.
  template <typename F>
  void for_free_runs(F f) const;
  // The first page from `page` on that is used, or free; kPagesPerSlab when there is none.
  uint32_t next(uint32_t page, bool used) const;
  void set_used(uint32_t page, uint32_t count, bool used);

  std::array<uint64_t, kPagesPerSlab / 64> used_{};  // bit: page
  uint32_t free_pages_ = kPagesPerSlab;
};

}  // namespace wormhole
