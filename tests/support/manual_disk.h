// A disk whose operations wait until the test completes them, in any order, with any result. What is completed without
// an order to fail is really done, on the real file.
//
// Thread: the test's.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "base/disk_io.h"
#include "base/file_descriptor.h"

namespace wormhole::test {

class ManualDisk final : public DiskIo {
 public:
  void read(int fd, uint64_t offset, void* into, size_t length, DiskDone done) override {
    ++reads_;
    waiting_.push_back({true, fd, offset, into, length, std::move(done)});
  }
  void write(int fd, uint64_t offset, const void* from, size_t length, DiskDone done) override {
    ++writes_;
    waiting_.push_back({false, fd, offset, const_cast<void*>(from), length, std::move(done)});
  }

  size_t waiting() const { return waiting_.size(); }
  // So many were ever asked for.
  size_t reads() const { return reads_; }
  size_t writes() const { return writes_; }

  // Does the `number`-th of those that wait; at most `at_most` bytes of it.
  void complete(size_t number = 0, size_t at_most = SIZE_MAX) {
    Operation op = take(number);
    const size_t length = std::min(op.length, at_most);
    const auto offset = static_cast<off_t>(op.offset);
    if (remembers_ && !op.is_read) remember(op.fd, op.offset, length);
    const ssize_t n =
        op.is_read ? ::pread(op.fd, op.memory, length, offset) : ::pwrite(op.fd, op.memory, length, offset);
    op.done(n < 0 ? -errno : n);
  }
  // Nothing is done; the result is `-error`.
  void fail(size_t number, int error) { take(number).done(-error); }

  // Completes what waits and what follows from it. While a broken disk is ordered, all of one kind fails.
  void complete_all() {
    while (!waiting_.empty()) {
      const int error = waiting_.front().is_read ? read_error_ : write_error_;
      error == 0 ? complete() : fail(0, error);
    }
  }
  // The power goes: of what waits, `done_bytes(length)` of each write reaches the disk, and nobody is told of anything.
  template <typename F>
  void lose_all(F done_bytes) {
    for (Operation& op : std::exchange(waiting_, {})) {
      const size_t length = op.is_read ? 0 : done_bytes(op.length);
      if (length > 0) (void)!::pwrite(op.fd, op.memory, length, static_cast<off_t>(op.offset));
    }
  }
  // From now on it is known what each write has written over, until it is synced.
  void remember_writes() { remembers_ = true; }
  void synced() { written_.clear(); }
  // The power goes: of the writes since synced(), those are undone of which `is_lost()` says so.
  template <typename F>
  void lose_written(F is_lost) {
    for (; !written_.empty(); written_.pop_back()) {
      if (is_lost()) written_.back().undo();
    }
  }
  bool is_read(size_t number) const { return waiting_[number].is_read; }
  size_t length(size_t number) const { return waiting_[number].length; }

  // From now on, for complete_all(); 0: a good disk again.
  void break_reads(int error) { read_error_ = error; }
  void break_writes(int error) { write_error_ = error; }

 private:
  struct Operation {
    bool is_read;
    int fd;
    uint64_t offset;
    void* memory;
    size_t length;
    DiskDone done;
  };

  struct Written {
    FileDescriptor file;
    uint64_t offset;
    std::vector<std::byte> before;

    void undo() const {
      const auto at = static_cast<off_t>(offset);
      const bool hole = std::all_of(before.begin(), before.end(), [](std::byte b) { return b == std::byte{0}; });
      if (hole) {
        // Room that was not taken before is not taken now.
        (void)::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                          static_cast<off_t>(before.size()));
      } else {
        (void)!::pwrite(file.get(), before.data(), before.size(), at);
      }
    }
  };
  // By a descriptor of its own: the other may be for direct writes, or closed by then.
  void remember(int fd, uint64_t offset, size_t length) {
    Written w{FileDescriptor(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDWR | O_CLOEXEC)), offset,
              std::vector<std::byte>(length)};
    if (!w.file || ::pread(w.file.get(), w.before.data(), length, static_cast<off_t>(offset)) < 0) return;
    written_.push_back(std::move(w));
  }

  Operation take(size_t number) {
    const auto it = waiting_.begin() + static_cast<std::ptrdiff_t>(number);
    Operation op = std::move(*it);
    waiting_.erase(it);
    return op;
  }

  std::deque<Operation> waiting_;
  bool remembers_ = false;
  std::vector<Written> written_;
  size_t reads_ = 0;
  size_t writes_ = 0;
  int read_error_ = 0;
  int write_error_ = 0;
};

}  // namespace wormhole::test
