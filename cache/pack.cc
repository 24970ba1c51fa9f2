#include "cache/pack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/punch_hole.h"

namespace wormhole {

std::string pack_path(const std::string& index_path) {
  return std::filesystem::path(index_path).parent_path() / "objects" / "pack";
}

bool Pack::open(std::span<const std::string> summaries) {
  struct stat status {};
  const uint64_t length = ::stat(path_.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
  MutexLock lock(mutex_);
  if (auto space = PackSpace::open(summaries, load_)) {
    space_ = std::move(*space);
    return space_.size() == length;
  }
  // Nobody knows what is free: nothing of what there is, then. What is in it can be read and can go.
  log::error("what is free in the pack is not known, it is continued behind its end: path={} bytes={}", path_, length);
  std::vector<std::string> full;
  for (uint64_t slabs = (length + kSlabSize - 1) / kSlabSize; slabs > 0;) {
    const uint64_t n = std::min<uint64_t>(slabs, kSlabsPerSummary);
    full.push_back(encode(std::vector<SlabSummary>(n, SlabSummary{0, 0})));
    slabs -= n;
  }
  if (auto space = PackSpace::open(full, load_)) space_ = std::move(*space);
  return false;
}

Result<Pack::FileRef> Pack::file() {
  MutexLock lock(mutex_);
  return open_file();
}

Result<Pack::FileRef> Pack::open_file() {
  if (file_) return file_;
  FileDescriptor fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail(error_from_errno(errno, "cache: open " + path_));
  file_ = std::make_shared<FileDescriptor>(std::move(fd));
  file_size_ = static_cast<uint64_t>(status.st_size);
  if (auto s = fit_file(); !s) {
    file_.reset();
    return fail(s.error());
  }
  return file_;
}

// To the length of the slabs.
Status Pack::fit_file() {
  if (file_ == nullptr || file_size_ == space_.size()) return {};
  if (::ftruncate(file_->get(), static_cast<off_t>(space_.size())) != 0)
    return fail(error_from_errno(errno, "cache: extend " + path_));
  file_size_ = space_.size();
  return {};
}

Pack::FileRef Pack::direct() {
  MutexLock lock(mutex_);
  if (direct_ || !direct_works_) return direct_;
  FileDescriptor fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT));
  if (fd) direct_ = std::make_shared<FileDescriptor>(std::move(fd));
  direct_works_ = direct_ || errno != EINVAL;
  return direct_;
}

Result<PackPlace> Pack::allocate(uint32_t bytes) {
  MutexLock lock(mutex_);
  if (auto f = open_file(); !f) return fail(f.error());
  const auto place = space_.allocate(bytes);
  if (!place) return fail(ErrorCode::kNoSpace, "cache: the pack is as large as it can be");
  if (auto s = fit_file(); !s) {
    space_.free(*place);
    return fail(s.error());
  }
  return *place;
}

void Pack::free(PackPlace place) {
  MutexLock lock(mutex_);
  if (space_.free(place)) punch(ByteRange::of(place.offset, in_pages(place.length)));
}

void Pack::punch(ByteRange range) {
  if (auto f = open_file(); !f) return;
  if (!punch_hole(file_->get(), range))
    log::warn("cache: no place could be given back: path={} offset={} errno={}", path_, range.begin, errno);
}

bool Pack::record(PackPlace place) {
  MutexLock lock(mutex_);
  return space_.record(place);
}

bool Pack::forget(PackPlace place) {
  MutexLock lock(mutex_);
  return space_.forget(place);
}

PackRecords Pack::take_dirty() {
  MutexLock lock(mutex_);
  space_.trim();
  return space_.take_dirty();
}

// The file is shortened after the records, and what has been appended meanwhile stays.
void Pack::written(bool durable) {
  MutexLock lock(mutex_);
  space_.written(durable);
  if (!durable) return;
  if (auto s = fit_file(); !s) log::warn("{}", s.error().message);
}

bool Pack::punch_free(uint32_t number) {
  MutexLock lock(mutex_);
  if (auto f = open_file(); !f || number >= space_.slabs()) return false;
  for (const ByteRange range : space_.free_ranges(number)) punch(range);
  return true;
}

}  // namespace wormhole
