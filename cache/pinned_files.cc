#include "cache/pinned_files.h"

#include <algorithm>
#include <iterator>

namespace wormhole {
namespace {

void sort_and_unite(std::vector<Ino>& files) {
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
}

}  // namespace

std::vector<Ino> PinnedFiles::add(std::vector<Ino> files) {
  sort_and_unite(files);
  std::vector<Ino> fresh;
  MutexLock lock(mutex_);
  std::set_difference(files.begin(), files.end(), files_.begin(), files_.end(), std::back_inserter(fresh));
  const auto before = static_cast<std::ptrdiff_t>(files_.size());
  files_.insert(files_.end(), fresh.begin(), fresh.end());
  std::inplace_merge(files_.begin(), files_.begin() + before, files_.end());
  return fresh;
}

std::vector<Ino> PinnedFiles::remove(std::vector<Ino> files) {
  sort_and_unite(files);
  std::vector<Ino> found;
  MutexLock lock(mutex_);
  std::erase_if(files_, [&](Ino ino) {
    if (!std::binary_search(files.begin(), files.end(), ino)) return false;
    found.push_back(ino);
    return true;
  });
  return found;
}

bool PinnedFiles::contains(Ino ino) const {
  MutexLock lock(mutex_);
  return std::binary_search(files_.begin(), files_.end(), ino);
}

uint64_t PinnedFiles::count() const {
  MutexLock lock(mutex_);
  return files_.size();
}

std::vector<Ino> PinnedFiles::all() const {
  MutexLock lock(mutex_);
  return files_;
}

}  // namespace wormhole
