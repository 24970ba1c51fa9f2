// Which listing of a directory the kernel keeps in its page cache. As long as the snapshot says the same, `ls` and
// `find` read it there and ask nothing; as soon as there is one that says something else, the next open drops what the
// kernel has. What a snapshot says is known by its *fingerprint*: in a large tree it does not stay in memory, and is
// another object each time it is read from the index.
//
// All handles that may fill the kernel's copy have the same snapshot, else it could become a mixture of two. And the
// copy is believed only once a handle has begun to read it: then what was there before has been dropped.
//
// Thread: any; one lock, for the time of a hash lookup.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "fs/directory.h"

namespace wormhole {

// Of all that the kernel is told of the entries; 64 bits.
uint64_t fingerprint_of(const Directory& snapshot);

// The kernel's copy of what a snapshot says. Who may read or fill it holds it.
class KernelListing {
 public:
  explicit KernelListing(uint64_t fingerprint) : fingerprint_(fingerprint) {}

  uint64_t fingerprint() const { return fingerprint_; }

  // The kernel reads the directory from its begin, and keeps it.
  void filled(TimePoint now) { filled_at_.store(now.time_since_epoch().count(), std::memory_order_relaxed); }
  bool was_filled_since(TimePoint time) const {
    return filled_at_.load(std::memory_order_relaxed) > time.time_since_epoch().count();
  }

 private:
  const uint64_t fingerprint_;
  std::atomic<TimePoint::rep> filled_at_{TimePoint::min().time_since_epoch().count()};
};

using KernelListingRef = std::shared_ptr<KernelListing>;

class KernelListings {
 public:
  // For a handle that reads `snapshot`. Null: somebody has another snapshot open, and the handle must not touch the
  // kernel's copy.
  KernelListingRef open(Ino directory, const DirectoryRef& snapshot) {
    if (KernelListingRef listing = known(directory, snapshot)) return listing;
    const uint64_t fingerprint = fingerprint_of(*snapshot);
    MutexLock lock(mutex_);
    Known& known = listings_[directory];
    const bool is_same = known.listing && known.listing->fingerprint() == fingerprint;
    if (!is_same && known.listing.use_count() > 1) return nullptr;
    if (!is_same) known.listing = std::make_shared<KernelListing>(fingerprint);
    known.snapshot = snapshot;
    return known.listing;
  }

  // The kernel has forgotten the directory, and its copy with it.
  void forget(Ino directory) {
    MutexLock lock(mutex_);
    listings_.erase(directory);
  }

 private:
  struct Known {
    KernelListingRef listing;
    std::weak_ptr<const Directory> snapshot;  // the last of which it was found to be: no fingerprint need be taken
  };

  KernelListingRef known(Ino directory, const DirectoryRef& snapshot) {
    MutexLock lock(mutex_);
    const auto it = listings_.find(directory);
    return it != listings_.end() && it->second.snapshot.lock() == snapshot ? it->second.listing : nullptr;
  }

  Mutex mutex_;
  std::unordered_map<Ino, Known> listings_ GUARDED_BY(mutex_);
};

}  // namespace wormhole
