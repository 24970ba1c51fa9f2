// How many of the threads that take the kernel's requests wait for the disk at this moment. A few may: handing a read
// to an engine and taking the answer costs two changes of thread, as much as half of what the disk needs. The others
// must be free to take requests.
//
// Thread: any.
#pragma once

#include <atomic>

namespace wormhole {

class DiskTurns {
 public:
  explicit DiskTurns(int most) : free_(most) {}

  // While it is true its thread may wait for the disk.
  class Turn {
   public:
    explicit Turn(DiskTurns& turns) : turns_(turns), taken_(turns.free_.fetch_sub(1, std::memory_order_relaxed) > 0) {}
    ~Turn() { turns_.free_.fetch_add(1, std::memory_order_relaxed); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    explicit operator bool() const { return taken_; }

   private:
    DiskTurns& turns_;
    const bool taken_;
  };

 private:
  std::atomic<int> free_;
};

}  // namespace wormhole
