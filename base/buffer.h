// Memory for bytes on their way: page-aligned, in few sizes, recycled while hot. Bytes that are bound for a reader, the
// disk and further readers at once share one buffer by reference count; nobody copies.
//
// The pool counts what is out (`outstanding()`); whoever starts new work asks `has_room()` first. A buffer that is
// needed to make progress is given even above the budget: the pool never fails and never waits.
//
// Thread: any; a buffer's contents belong to whoever fills it until he publishes how far he came.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/metrics.h"
#include "base/thread_annotations.h"

namespace wormhole {

class BufferPool;

class Buffer {
 public:
  // `pool` takes the memory back; null: it is another's.
  Buffer(std::byte* data, size_t capacity, BufferPool* pool) : data_(data), capacity_(capacity), pool_(pool) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  std::byte* const data_;
  const size_t capacity_;
  BufferPool* const pool_;
};

using BufferRef = std::shared_ptr<Buffer>;

// A part of a buffer, which keeps all of it.
BufferRef slice(const BufferRef& whole, size_t offset, size_t size);

class BufferPool {
 public:
  // `budget` in bytes; `metrics` outlives the pool, the pool outlives its buffers.
  BufferPool(uint64_t budget, Metrics& metrics) : budget_(budget), metrics_(metrics) {}
  ~BufferPool();

  // A buffer of at least `size` bytes (> 0), contents undefined.
  BufferRef allocate(size_t size);

  uint64_t budget() const { return budget_; }
  uint64_t outstanding() const { return static_cast<uint64_t>(metrics_.buffer_bytes.load(std::memory_order_relaxed)); }
  bool has_room(uint64_t bytes) const { return outstanding() + bytes <= budget_; }

 private:
  friend class Buffer;

  // Powers of two from 4 KiB (a page) to 16 MiB (larger than any part); larger ones are not recycled.
  static constexpr size_t kMinShift = 12;
  static constexpr size_t kMaxShift = 24;
  // Unused memory that is kept for the next buffers, as a share of the budget: half of it holds the parts of a
  // stream at full speed (a quarter did not: a tenth of the time went into clearing fresh pages), and the rest goes
  // back.
  static constexpr uint64_t kKeptShare = 2;

  void give_back(size_t capacity);
  void recycle(std::byte* data, size_t capacity);

  const uint64_t budget_;
  Metrics& metrics_;
  Mutex mutex_;
  std::array<std::vector<std::byte*>, kMaxShift + 1> free_ GUARDED_BY(mutex_);
  uint64_t free_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace wormhole
