// Which listing of a directory the kernel keeps in its page cache. As long as the snapshot is the same, `ls` and `find`
// read it there and ask nothing; as soon as there is another one, the next open drops what the kernel has.
//
// All handles that may fill the kernel's copy have the same snapshot, else it could become a mixture of two. And the
// copy is believed only once a handle has begun to read it: then what was there before has been dropped.
//
// Thread: any; one lock, for the time of a hash lookup.
#pragma once

#include <atomic>
#include <memory>
#include <unordered_map>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "fs/directory.h"

namespace wormhole {

// The kernel's copy of one snapshot. Who may read or fill it holds it.
class KernelListing {
 public:
  explicit KernelListing(const DirectoryRef& snapshot) : snapshot_(snapshot) {}

  bool is_of(const DirectoryRef& snapshot) const { return snapshot_.lock() == snapshot; }

  // The kernel reads the directory from its begin, and keeps it.
  void filled(TimePoint now) { filled_at_.store(now.time_since_epoch().count(), std::memory_order_relaxed); }
  bool was_filled_since(TimePoint time) const {
    return filled_at_.load(std::memory_order_relaxed) > time.time_since_epoch().count();
  }

 private:
  const std::weak_ptr<const Directory> snapshot_;
  std::atomic<TimePoint::rep> filled_at_{TimePoint::min().time_since_epoch().count()};
};

using KernelListingRef = std::shared_ptr<KernelListing>;

class KernelListings {
 public:
  // For a handle that reads `snapshot`. Null: somebody has another snapshot open, and the handle must not touch the
  // kernel's copy.
  KernelListingRef open(Ino directory, const DirectoryRef& snapshot) {
    MutexLock lock(mutex_);
    KernelListingRef& listing = listings_[directory];
    if (listing && listing->is_of(snapshot)) return listing;
    if (listing.use_count() > 1) return nullptr;
    listing = std::make_shared<KernelListing>(snapshot);
    return listing;
  }

  // The kernel has forgotten the directory, and its copy with it.
  void forget(Ino directory) {
    MutexLock lock(mutex_);
    listings_.erase(directory);
  }

 private:
  Mutex mutex_;
  std::unordered_map<Ino, KernelListingRef> listings_ GUARDED_BY(mutex_);
};

}  // namespace wormhole
