#include "cache/pack_space.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace wormhole {
namespace {

// 64 TiB: more than one cache has in small objects, and 8 MiB of summaries.
constexpr uint32_t kMaxSlabs = 1u << 20;

// 4 MiB: a slab that is chosen takes at least some 64 of the largest objects, or 1000 of the smallest, before the next
// one's record has to change too.
constexpr uint32_t kRoomyPages = kPagesPerSlab / 16;

constexpr size_t kSummaryBytes = 4;

SlabSummary summary_of(const PageRuns& pages) {
  return {static_cast<uint16_t>(pages.free_pages()), static_cast<uint8_t>(pages.longest_free_run(kPagesPerLargest))};
}

bool is_empty(const SlabSummary& slab) { return slab.free_pages == kPagesPerSlab; }

bool is_possible(const SlabSummary& slab) {
  if (slab.longest_run > kPagesPerLargest || slab.free_pages < slab.longest_run) return false;
  if (slab.longest_run == kPagesPerLargest) return slab.free_pages <= kPagesPerSlab;
  // A used page at least behind each run, but for the last one.
  const uint32_t runs = (kPagesPerSlab + slab.longest_run) / (slab.longest_run + 1u);
  return slab.free_pages <= runs * slab.longest_run;
}

}  // namespace

std::string encode(std::span<const SlabSummary> summaries) {
  std::string out;
  for (const SlabSummary& slab : summaries) {
    char bytes[kSummaryBytes] = {};
    std::memcpy(bytes, &slab.free_pages, 2);
    std::memcpy(bytes + 2, &slab.longest_run, 1);
    out.append(bytes, sizeof(bytes));
  }
  return out;
}

std::optional<std::vector<SlabSummary>> decode_summaries(std::string_view bytes) {
  if (bytes.empty() || bytes.size() % kSummaryBytes != 0) return std::nullopt;
  if (bytes.size() > kSummaryBytes * kSlabsPerSummary) return std::nullopt;
  std::vector<SlabSummary> result;
  for (; !bytes.empty(); bytes.remove_prefix(kSummaryBytes)) {
    SlabSummary slab;
    std::memcpy(&slab.free_pages, bytes.data(), 2);
    std::memcpy(&slab.longest_run, bytes.data() + 2, 1);
    if (bytes[3] != 0 || !is_possible(slab)) return std::nullopt;
    result.push_back(slab);
  }
  return result;
}

PackSpace::PackSpace(Load load, size_t slabs_in_memory)
    : load_(std::move(load)), slabs_in_memory_(std::max<size_t>(slabs_in_memory, 1)) {}

std::optional<PackSpace> PackSpace::open(std::span<const std::string> summaries, Load load, size_t slabs_in_memory) {
  PackSpace pack(std::move(load), slabs_in_memory);
  for (const std::string& record : summaries) {
    const auto slabs = decode_summaries(record);
    // Only the last record may be short.
    if (!slabs || pack.slabs_.size() % kSlabsPerSummary != 0 || pack.slabs_.size() >= kMaxSlabs) return std::nullopt;
    for (const SlabSummary& slab : *slabs) {
      pack.slabs_.push_back({slab, slab});
      pack.used_pages_ += kPagesPerSlab - slab.free_pages;
    }
  }
  return pack;
}

std::optional<PackPlace> PackSpace::allocate(uint32_t bytes) {
  if (bytes == 0 || bytes > kLargestPlace) return std::nullopt;
  const uint32_t count = (bytes + kPageSize - 1) / kPageSize;
  for (;;) {
    auto number = choose(count);
    if (!number) number = append();
    if (!number) return std::nullopt;
    Slab* const from = slab(*number);
    if (from == nullptr) continue;  // damaged, so it counts as full from now on
    const uint32_t first = *from->pages.allocate(count);
    from->held.emplace(first, count);
    set_now(*number, summary_of(from->pages));
    current_ = number;
    return PackPlace{*number * kSlabSize + uint64_t{first} * kPageSize, count * kPageSize};
  }
}

bool PackSpace::record(PackPlace place) {
  const auto pages = pages_of(place);
  Slab* const in = pages ? let_go(*pages) : nullptr;
  if (in == nullptr) return false;
  dirty_.insert(pages->slab);
  return true;
}

bool PackSpace::forget(PackPlace place) {
  const auto pages = pages_of(place);
  Slab* const in = pages ? slab(pages->slab) : nullptr;
  if (in == nullptr || !in->pages.used(pages->first, pages->count)) return false;
  const auto behind = in->held.lower_bound(pages->first + pages->count);
  if (behind != in->held.begin()) {
    const auto& [first, count] = *std::prev(behind);
    if (first + count > pages->first) return false;
  }
  in->held.emplace(pages->first, pages->count);
  dirty_.insert(pages->slab);
  return true;
}

bool PackSpace::free(PackPlace place) {
  const auto pages = pages_of(place);
  Slab* const in = pages ? let_go(*pages) : nullptr;
  if (in == nullptr) return false;
  in->pages.free(pages->first, pages->count);
  set_now(pages->slab, summary_of(in->pages));
  return true;
}

PackRecords PackSpace::take_dirty() {
  PackRecords out;
  std::set<uint32_t> summaries;
  for (const uint32_t number : dirty_) {
    summaries.insert(number / kSlabsPerSummary);
    std::optional<std::string> bytes;
    if (const auto it = loaded_.find(number); it != loaded_.end()) {
      PageRuns recorded = it->second.pages;
      for (const auto& [first, count] : it->second.held) recorded.free(first, count);
      slabs_[number].recorded = summary_of(recorded);
      if (!is_empty(slabs_[number].recorded)) bytes = recorded.encode();
    }
    out.slabs.push_back({number, std::move(bytes)});
  }
  for (const uint32_t number : summaries) {
    std::vector<SlabSummary> slabs;
    for (size_t i = size_t{number} * kSlabsPerSummary; i < slabs_.size() && slabs.size() < kSlabsPerSummary; ++i) {
      slabs.push_back(slabs_[i].recorded);
    }
    out.summaries.push_back({number, slabs.empty() ? std::nullopt : std::optional(encode(slabs))});
  }
  writing_.merge(dirty_);
  dirty_.clear();
  return out;
}

void PackSpace::written(bool durable) {
  if (!durable) dirty_.merge(writing_);
  writing_.clear();
  drop_unused(slabs_in_memory_);
}

void PackSpace::trim() {
  while (!slabs_.empty() && is_empty(slabs_.back().now)) {
    slabs_.pop_back();
    const auto number = static_cast<uint32_t>(slabs_.size());
    loaded_.erase(number);
    dirty_.insert(number);
  }
  if (current_ && *current_ >= slabs_.size()) current_.reset();
}

std::vector<ByteRange> PackSpace::free_ranges(uint32_t number) {
  std::vector<ByteRange> out;
  Slab* const in = slab(number);
  if (in == nullptr) return out;
  for (const auto& run : in->pages.free_runs()) {
    out.push_back(ByteRange::of(number * kSlabSize + uint64_t{run.page} * kPageSize, uint64_t{run.count} * kPageSize));
  }
  return out;
}

std::optional<PackSpace::Pages> PackSpace::pages_of(PackPlace place) {
  const uint64_t number = place.offset / kSlabSize;
  const auto first = static_cast<uint32_t>(place.offset % kSlabSize / kPageSize);
  if (place.offset % kPageSize != 0 || number >= kMaxSlabs) return std::nullopt;
  if (place.length == 0 || place.length > kLargestPlace) return std::nullopt;
  return Pages{static_cast<uint32_t>(number), first, (place.length + kPageSize - 1) / kPageSize};
}

std::optional<uint32_t> PackSpace::choose(uint32_t count) const {
  const auto fits = [&](uint32_t number) { return slabs_[number].now.longest_run >= count; };
  if (current_ && fits(*current_)) return current_;
  // The fullest of the roomy slabs; if there is none, the roomiest of the others. Of equals, the first.
  uint32_t best_rank = 0;
  std::optional<uint32_t> best;
  for (uint32_t number = 0; number < slabs_.size(); ++number) {
    if (!fits(number)) continue;
    const uint32_t free = slabs_[number].now.free_pages;
    const uint32_t rank = free >= kRoomyPages ? 2 * kPagesPerSlab - free : free;
    if (rank <= best_rank) continue;
    best_rank = rank;
    best = number;
  }
  return best;
}

std::optional<uint32_t> PackSpace::append() {
  if (slabs_.size() >= kMaxSlabs) return std::nullopt;
  const auto number = static_cast<uint32_t>(slabs_.size());
  slabs_.emplace_back();
  // Also before something of it is on record: the summaries have to be complete.
  dirty_.insert(number);
  return number;
}

PackSpace::Slab* PackSpace::slab(uint32_t number) {
  if (number >= slabs_.size() || damaged_.contains(number)) return nullptr;
  auto it = loaded_.find(number);
  if (it == loaded_.end()) {
    std::optional<PageRuns> pages;
    if (is_empty(slabs_[number].now)) {
      pages.emplace();
    } else if (const auto bytes = load_(number)) {
      pages = PageRuns::decode(*bytes);
    }
    if (!pages || summary_of(*pages) != slabs_[number].now) {
      const SlabSummary full{0, 0};
      set_now(number, full);
      slabs_[number].recorded = full;
      damaged_.insert(number);
      return nullptr;
    }
    drop_unused(slabs_in_memory_ - 1);
    it = loaded_.try_emplace(number, Slab{*pages, {}, 0}).first;
  }
  it->second.last_use = ++uses_;
  return &it->second;
}

PackSpace::Slab* PackSpace::let_go(Pages pages) {
  Slab* const in = slab(pages.slab);
  if (in == nullptr) return nullptr;
  const auto held = in->held.find(pages.first);
  if (held == in->held.end() || held->second != pages.count) return nullptr;
  in->held.erase(held);
  return in;
}

void PackSpace::set_now(uint32_t number, SlabSummary summary) {
  used_pages_ += slabs_[number].now.free_pages;
  used_pages_ -= summary.free_pages;
  slabs_[number].now = summary;
}

void PackSpace::drop_unused(size_t limit) {
  if (loaded_.size() <= limit) return;
  std::vector<std::pair<uint64_t, uint32_t>> unused;  // by last use
  for (const auto& [number, slab] : loaded_) {
    if (!slab.held.empty() || dirty_.contains(number) || writing_.contains(number)) continue;
    unused.emplace_back(slab.last_use, number);
  }
  std::sort(unused.begin(), unused.end());
  unused.resize(std::min(unused.size(), loaded_.size() - limit));
  for (const auto& [last_use, number] : unused) loaded_.erase(number);
}

}  // namespace wormhole
