#include "net/hedging.h"

#include <algorithm>
#include <bit>

namespace wormhole {
namespace {

// What is late by less may be late because this machine or the server had another process to run for a few time slices;
// asking again then brings the same bytes twice.
constexpr Duration kLeastPatience = std::chrono::milliseconds(25);

constexpr size_t kEnough = 20;            // fewer say nothing about the slowest twentieth
constexpr uint64_t kShare = 20;           // one byte in twenty
constexpr uint64_t kAllowance = 1 << 20;  // so that the first slow request after a start may be asked again

}  // namespace

size_t Hedging::class_of(uint64_t size) {
  const int power = std::bit_width(std::max<uint64_t>(size, 1) - 1);
  return static_cast<size_t>(std::clamp(power - 16, 0, 8));
}

void Hedging::completed(uint64_t size, Duration took) {
  Class& c = classes_[class_of(size)];
  c.took[c.count++ % c.took.size()] = took;
}

std::optional<Duration> Hedging::patience(uint64_t size) const {
  const Class& c = classes_[class_of(size)];
  if (c.count < kEnough) return std::nullopt;
  auto sorted = c.took;
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(std::min(c.count, sorted.size()));
  const auto p95 = sorted.begin() + (end - sorted.begin()) * 95 / 100;
  std::nth_element(sorted.begin(), p95, end);
  return std::max(*p95, kLeastPatience);
}

bool Hedging::spend(uint64_t bytes) {
  if (hedged_ + bytes > fetched_ / kShare + kAllowance) return false;
  hedged_ += bytes;
  return true;
}

}  // namespace wormhole
