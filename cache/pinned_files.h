// The files that are never evicted, by inode number: a sorted list, 8 bytes for each, so that a million of them are 8
// MB and a look is some 100 ns. The index keeps the same on disk.
//
// Thread: any; one lock, never held while calling out.
#pragma once

#include <vector>

#include "base/thread_annotations.h"
#include "cache/index_format.h"

namespace wormhole {

class PinnedFiles {
 public:
  // In any order, also with numbers that are there already (or are not there). Returns those that were new (that were
  // there): each costs a move of the list, but for many at once it is one.
  std::vector<Ino> add(std::vector<Ino> files);
  std::vector<Ino> remove(std::vector<Ino> files);

  bool contains(Ino ino) const;
  uint64_t count() const;
  // A copy, in order.
  std::vector<Ino> all() const;

 private:
  mutable Mutex mutex_;
  std::vector<Ino> files_ GUARDED_BY(mutex_);  // in order, none twice
};

}  // namespace wormhole
