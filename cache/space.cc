#include "cache/space.h"

#include <sys/statvfs.h>

#include <algorithm>

namespace wormhole {
namespace {

// How often free space is looked at. A second at 1 GB/s is 1 GB: less than 5 % of any disk that holds such a cache.
constexpr Duration kLookEvery = std::chrono::seconds(1);

// What is kept free: enough for what arrives at 1 GB/s while a batch is evicted (two commits, about 0.2 s), and not
// more than a small part of a small cache. Eviction ends when twice as much is free.
constexpr uint64_t kMostHeadroom = 256 << 20;
constexpr uint64_t kHeadroomShare = 16;

}  // namespace

uint64_t Space::used() const {
  const auto cached = std::max<int64_t>(0, metrics_.bytes_cached.load(std::memory_order_relaxed));
  return static_cast<uint64_t>(cached) + reserved_.load(std::memory_order_relaxed);
}

uint64_t Space::headroom() const { return std::min(kMostHeadroom, options_.limit / kHeadroomShare); }

bool Space::reserve(uint64_t bytes, TimePoint now) {
  if (shortage(now) > 0) return false;
  reserved_.fetch_add(bytes, std::memory_order_relaxed);
  if (used() <= options_.limit) return true;
  give_back(bytes);
  return false;
}

uint64_t Space::excess(TimePoint now) {
  const uint64_t lacking = shortage(now);
  const uint64_t has = used();
  if (has + headroom() <= options_.limit) return lacking;
  return std::max(lacking, has + std::min(2 * headroom(), options_.limit) - options_.limit);
}

Space::State Space::state() const {
  State out{options_.limit, options_.limit - headroom(), 0, 0};
  struct statvfs s {};
  if (::statvfs(options_.path.c_str(), &s) != 0) return out;
  out.disk_free = static_cast<uint64_t>(s.f_bavail) * s.f_frsize;
  out.min_free = static_cast<uint64_t>(options_.min_free * static_cast<double>(s.f_blocks)) * s.f_frsize;
  const uint64_t has = used();
  const uint64_t with_disk = has + out.disk_free;
  out.holds = std::min(out.holds, with_disk > out.min_free ? with_disk - out.min_free : 0);
  return out;
}

uint64_t Space::shortage(TimePoint now) {
  MutexLock lock(mutex_);
  if (looked_at_ != TimePoint{} && now - looked_at_ < kLookEvery) return shortage_;
  looked_at_ = now;
  struct statvfs s {};
  if (::statvfs(options_.path.c_str(), &s) != 0) return shortage_;
  const double wanted = options_.min_free * static_cast<double>(s.f_blocks);
  const double lacking = wanted - static_cast<double>(s.f_bavail);
  shortage_ = lacking > 0 ? static_cast<uint64_t>(lacking * static_cast<double>(s.f_frsize)) : 0;
  return shortage_;
}

}  // namespace wormhole
