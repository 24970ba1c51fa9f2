#include "cache/page_runs.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace wormhole {
namespace {

// The bitmap is copied to and from memory as it is.
static_assert(std::endian::native == std::endian::little);
static_assert(kPagesPerSlab <= UINT16_MAX, "the number of used pages has two bytes");

// Calls f(word, mask) for the words that hold `count` bits from `first` on.
template <typename F>
void for_words(uint32_t first, uint32_t count, F f) {
  while (count > 0) {
    const uint32_t bit = first % 64;
    const uint32_t here = std::min(count, 64 - bit);
    f(first / 64, ~uint64_t{0} >> (64 - here) << bit);
    first += here;
    count -= here;
  }
}

}  // namespace

std::optional<uint32_t> PageRuns::allocate(uint32_t count) {
  uint32_t best = 0;
  uint32_t best_length = kPagesPerSlab + 1;
  for_free_runs([&](uint32_t first, uint32_t length) {
    if (length >= count && length < best_length) {
      best = first;
      best_length = length;
    }
    return best_length != count;
  });
  if (best_length > kPagesPerSlab) return std::nullopt;
  set_used(best, count, true);
  return best;
}

bool PageRuns::take(uint32_t page, uint32_t count) {
  if (page > kPagesPerSlab || count > kPagesPerSlab - page || next(page, true) < page + count) return false;
  set_used(page, count, true);
  return true;
}

bool PageRuns::free(uint32_t page, uint32_t count) {
  if (!used(page, count)) return false;
  set_used(page, count, false);
  return true;
}

uint32_t PageRuns::longest_free_run(uint32_t enough) const {
  uint32_t longest = 0;
  for_free_runs([&](uint32_t, uint32_t length) {
    longest = std::max(longest, std::min(length, enough));
    return longest < enough;
  });
  return longest;
}

bool PageRuns::used(uint32_t page, uint32_t count) const {
  if (page > kPagesPerSlab || count > kPagesPerSlab - page) return false;
  bool all = true;
  for_words(page, count, [&](uint32_t word, uint64_t mask) { all &= (used_[word] & mask) == mask; });
  return all;
}

std::string PageRuns::encode() const {
  const auto used_pages = static_cast<uint16_t>(kPagesPerSlab - free_pages_);
  std::string out(sizeof(used_pages) + sizeof(used_), '\0');
  std::memcpy(out.data(), &used_pages, sizeof(used_pages));
  std::memcpy(out.data() + sizeof(used_pages), used_.data(), sizeof(used_));
  out.resize(std::max(out.find_last_not_of('\0') + 1, sizeof(used_pages)));
  return out;
}

std::optional<PageRuns> PageRuns::decode(std::string_view bytes) {
  uint16_t used_pages = 0;
  PageRuns result;
  if (bytes.size() < sizeof(used_pages) || bytes.size() > sizeof(used_pages) + sizeof(used_)) return std::nullopt;
  std::memcpy(&used_pages, bytes.data(), sizeof(used_pages));
  bytes.remove_prefix(sizeof(used_pages));
  if (!bytes.empty() && bytes.back() == '\0') return std::nullopt;
  std::memcpy(result.used_.data(), bytes.data(), bytes.size());
  for (const uint64_t word : result.used_) result.free_pages_ -= static_cast<uint32_t>(std::popcount(word));
  if (kPagesPerSlab - result.free_pages_ != used_pages) return std::nullopt;
  return result;
}

std::vector<PageRuns::Run> PageRuns::free_runs() const {
  std::vector<Run> out;
  for_free_runs([&](uint32_t page, uint32_t count) {
    out.push_back({page, count});
    return true;
  });
  return out;
}

template <typename F>
void PageRuns::for_free_runs(F f) const {
  for (uint32_t page = next(0, false); page < kPagesPerSlab;) {
    const uint32_t end = next(page, true);
    if (!f(page, end - page)) return;
    page = next(end, false);
  }
}

uint32_t PageRuns::next(uint32_t page, bool used) const {
  const uint64_t flip = used ? 0 : ~uint64_t{0};
  uint64_t ahead = ~uint64_t{0} << (page % 64);
  for (uint32_t word = page / 64; word < used_.size(); ++word) {
    if (const uint64_t bits = (used_[word] ^ flip) & ahead; bits != 0) {
      return word * 64 + static_cast<uint32_t>(std::countr_zero(bits));
    }
    ahead = ~uint64_t{0};
  }
  return kPagesPerSlab;
}

void PageRuns::set_used(uint32_t page, uint32_t count, bool used) {
  for_words(page, count, [&](uint32_t word, uint64_t mask) {
    if (used) {
      used_[word] |= mask;
    } else {
      used_[word] &= ~mask;
    }
  });
  free_pages_ = used ? free_pages_ - count : free_pages_ + count;
}

}  // namespace wormhole
