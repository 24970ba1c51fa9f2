#include "base/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

namespace wormhole {
namespace {

size_t shift_of(size_t size) { return static_cast<size_t>(std::bit_width(size - 1)); }

std::byte* map_pages(size_t size) {
  void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(p);
}

}  // namespace

Buffer::~Buffer() {
  if (pool_ != nullptr) pool_->recycle(data_, capacity_);
}

BufferRef slice(const BufferRef& whole, size_t offset, size_t size) {
  struct Slice {
    Slice(BufferRef w, std::byte* data, size_t bytes) : whole(std::move(w)), part(data, bytes, nullptr) {}
    BufferRef whole;
    Buffer part;
  };
  auto slice = std::make_shared<Slice>(whole, whole->data() + offset, size);
  return {slice, &slice->part};
}

BufferPool::~BufferPool() {
  for (size_t shift = 0; shift < free_.size(); ++shift) {
    for (std::byte* p : free_[shift]) ::munmap(p, size_t{1} << shift);
  }
}

BufferRef BufferPool::allocate(size_t size) {
  const size_t shift = std::max(kMinShift, shift_of(std::max<size_t>(size, 1)));
  const size_t capacity = size_t{1} << shift;
  std::byte* data = nullptr;
  if (shift <= kMaxShift) {
    MutexLock lock(mutex_);
    auto& list = free_[shift];
    if (!list.empty()) {
      data = list.back();
      list.pop_back();
      free_bytes_ -= capacity;
    }
  }
  if (data == nullptr) {
    give_back(capacity);
    data = map_pages(capacity);
  }
  metrics_.buffer_bytes.fetch_add(static_cast<int64_t>(capacity), std::memory_order_relaxed);
  return std::make_shared<Buffer>(data, capacity, this);
}

// Unused buffers of other sizes make room for `capacity` more, so that all of it stays within the budget.
void BufferPool::give_back(size_t capacity) {
  MutexLock lock(mutex_);
  for (size_t shift = kMaxShift; shift >= kMinShift && free_bytes_ > 0; --shift) {
    while (!free_[shift].empty() && outstanding() + free_bytes_ + capacity > budget_) {
      ::munmap(free_[shift].back(), size_t{1} << shift);
      free_[shift].pop_back();
      free_bytes_ -= size_t{1} << shift;
    }
  }
}

void BufferPool::recycle(std::byte* data, size_t capacity) {
  metrics_.buffer_bytes.fetch_sub(static_cast<int64_t>(capacity), std::memory_order_relaxed);
  const size_t shift = shift_of(capacity);
  if (shift <= kMaxShift) {
    MutexLock lock(mutex_);
    if (free_bytes_ + capacity <= budget_ / kKeptShare && outstanding() + free_bytes_ + capacity <= budget_) {
      free_[shift].push_back(data);
      free_bytes_ += capacity;
      return;
    }
  }
  ::munmap(data, capacity);
}

}  // namespace wormhole
