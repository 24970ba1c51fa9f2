// Reads and writes of files that do not wait: the seam to the disk. The event loop of an engine implements it with
// io_uring or a thread pool; tests put something in between that fails, tears and forgets.
//
// Thread: the owner of the loop, who also runs the completions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/unique_function.h"

namespace wormhole {

// Bytes done, or -errno. As in pread(2) and pwrite(2) it may be less than was asked for.
using DiskDone = UniqueFunction<void(int64_t result)>;

class DiskIo {
 public:
  virtual ~DiskIo() = default;
  // `fd` and the memory stay valid until `done` has run.
  virtual void read(int fd, uint64_t offset, void* into, size_t length, DiskDone done) = 0;
  virtual void write(int fd, uint64_t offset, const void* from, size_t length, DiskDone done) = 0;
};

}  // namespace wormhole
