// A directory that was never listed, while its listing comes in several pages: the entries in the order in which they
// arrive. So the first of a hundred thousand are shown when the first page is there. When the last one is, there is a
// snapshot of all of them, sorted and with the same numbers, for everybody who comes from then on.
//
// An entry stays at its place and is never changed: whoever reads by places sees each of them once.
//
// Thread: any; one lock, never held while calling out. The catalog fills it, on the tree thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/thread_annotations.h"
#include "base/unique_function.h"
#include "fs/directory.h"

namespace wormhole {

class ArrivingDirectory {
 public:
  using Told = UniqueFunction<void(Status)>;
  static constexpr size_t kEnd = SIZE_MAX;

  // Lives as long as this. Null: it is not there yet, or there is none.
  const DirectoryEntry* at(size_t place) const {
    MutexLock lock(mutex_);
    return place < entries_.size() ? &entries_[place] : nullptr;
  }

  // Calls `told` once, with success when at(place) has an entry, or when all of them are there; with the listing's
  // error when that could not be had to its end. At once when it is so already.
  void when_there(size_t place, Told told) {
    Status now;
    {
      MutexLock lock(mutex_);
      if (place >= entries_.size()) {
        if (!ended_) return waiting_.push_back({place, std::move(told)});
        now = *ended_;
      }
    }
    told(std::move(now));
  }

  // --- the tree thread ---

  void add(std::vector<DirectoryEntry> entries) {
    std::vector<Told> due;
    {
      MutexLock lock(mutex_);
      for (DirectoryEntry& e : entries) entries_.push_back(std::move(e));
      for (size_t i = 0; i < waiting_.size();) {
        if (waiting_[i].place >= entries_.size()) {
          ++i;
          continue;
        }
        due.push_back(std::move(waiting_[i].told));
        waiting_[i] = std::move(waiting_.back());
        waiting_.pop_back();
      }
    }
    for (Told& told : due) told({});
  }
  // Nothing is added any more.
  void end(const Status& status) {
    std::vector<Waiter> due;
    {
      MutexLock lock(mutex_);
      ended_ = status;
      due.swap(waiting_);
    }
    for (Waiter& waiter : due) waiter.told(status);
  }

 private:
  struct Waiter {
    size_t place;
    Told told;
  };

  mutable Mutex mutex_;
  std::deque<DirectoryEntry> entries_ GUARDED_BY(mutex_);  // where an entry is, it stays
  std::optional<Status> ended_ GUARDED_BY(mutex_);
  std::vector<Waiter> waiting_ GUARDED_BY(mutex_);
};

using ArrivingRef = std::shared_ptr<ArrivingDirectory>;

}  // namespace wormhole
