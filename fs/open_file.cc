#include "fs/open_file.h"

#include <utility>

namespace wormhole {

void Passthrough::refuse(std::string why) {
  MutexLock lock(mutex_);
  if (why_.empty()) why_ = std::move(why);
  allowed_.store(false, std::memory_order_relaxed);
}

std::string Passthrough::state() const {
  MutexLock lock(mutex_);
  return why_.empty() ? "on" : "off: " + why_;
}

void Passthrough::abandon(int32_t backing) {
  if (backing == 0) return;
  MutexLock lock(mutex_);
  abandoned_.push_back(backing);
}

std::vector<int32_t> Passthrough::take_abandoned() {
  MutexLock lock(mutex_);
  return std::exchange(abandoned_, {});
}

void OpenFile::publish(CompleteFileRef file) {
  MutexLock lock(mutex_);
  if (complete_.load(std::memory_order_relaxed) == file.get()) return;
  complete_.store(file.get(), std::memory_order_release);
  published_.push_back(std::move(file));
}

int32_t OpenFile::decide(const Passthrough& passthrough, const std::function<int32_t(int fd)>& connect) {
  MutexLock lock(mutex_);
  if (std::exchange(decided_, true)) return backing_;
  const CompleteFile* file = complete();
  if (!passthrough.allowed() || file == nullptr || !file->is_whole_file()) return 0;
  if (!file->enter()) return 0;
  backing_ = connect(file->fd());
  backing_ == 0 ? file->leave() : void(passed_through_ = file);
  return backing_;
}

int32_t OpenFile::take_backing() {
  MutexLock lock(mutex_);
  if (passed_through_ != nullptr) std::exchange(passed_through_, nullptr)->leave();
  return std::exchange(backing_, 0);
}

OpenFileRef OpenFiles::open(Ino ino, uint64_t size, ContentRef content, std::shared_ptr<const Node> file) {
  MutexLock lock(mutex_);
  OpenFileRef& open = files_[ino];
  if (open == nullptr) open = std::make_shared<OpenFile>(ino, size, std::move(content));
  ++open->opens_;
  open->opened_as_.swap(file);  // the one before is freed after the lock
  return open;
}

std::shared_ptr<const Node> OpenFiles::opened_as(Ino ino) const {
  MutexLock lock(mutex_);
  const auto it = files_.find(ino);
  return it == files_.end() ? nullptr : it->second->opened_as_;
}

OpenFileRef OpenFiles::close(OpenFile& file) {
  MutexLock lock(mutex_);
  if (--file.opens_ > 0) return nullptr;
  auto it = files_.find(file.ino_);
  OpenFileRef last = std::move(it->second);
  files_.erase(it);
  return last;
}

}  // namespace wormhole
