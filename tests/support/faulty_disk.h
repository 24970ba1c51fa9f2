// A disk that misbehaves on order, in front of another: the n-th read or write from now on fails, is short, or brings a
// wrong byte; or reads wait. Everything else passes.
//
// Thread: the owner of the loop behind it, as DiskIo; orders may be given while nothing is under way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/disk_io.h"

namespace wormhole::test {

class FaultyDisk final : public DiskIo {
 public:
  struct Fault {
    int error = 0;                   // an errno: nothing is done
    size_t at_most = SIZE_MAX;       // short: so many bytes are read or written
    size_t flip_byte_at = SIZE_MAX;  // of what a read brings
  };

  explicit FaultyDisk(DiskIo& behind) : behind_(behind) {}

  // `nth` counts from 1: the next one.
  void order_read(size_t nth, Fault fault) { read_faults_[reads_ + nth] = fault; }
  void order_write(size_t nth, Fault fault) { write_faults_[writes_ + nth] = fault; }

  // Reads wait until hold_reads(false).
  void hold_reads(bool hold) {
    hold_reads_ = hold;
    if (hold) return;
    for (Held& h : std::exchange(held_, {})) behind_.read(h.fd, h.offset, h.into, h.length, std::move(h.done));
  }
  size_t held() const { return held_.size(); }

  size_t reads() const { return reads_; }
  size_t writes() const { return writes_; }

  void read(int fd, uint64_t offset, void* into, size_t length, DiskDone done) override {
    const Fault fault = take(read_faults_, ++reads_);
    if (fault.error != 0) return behind_.read(-1, 0, into, 0, answer(-fault.error, std::move(done)));
    if (fault.flip_byte_at != SIZE_MAX) {
      auto* byte = static_cast<std::byte*>(into) + fault.flip_byte_at;
      done = [byte, done = std::make_unique<DiskDone>(std::move(done))](int64_t result) mutable {
        *byte ^= std::byte{1};
        (*done)(result);
      };
    }
    if (hold_reads_) return held_.push_back({fd, offset, into, length, std::move(done)});
    behind_.read(fd, offset, into, std::min(length, fault.at_most), std::move(done));
  }

  void write(int fd, uint64_t offset, const void* from, size_t length, DiskDone done) override {
    const Fault fault = take(write_faults_, ++writes_);
    if (fault.error != 0) return behind_.write(-1, 0, from, 0, answer(-fault.error, std::move(done)));
    behind_.write(fd, offset, from, std::min(length, fault.at_most), std::move(done));
  }

 private:
  // The disk behind answers what is not its business, so that an answer never comes from inside the call.
  static DiskDone answer(int64_t result, DiskDone done) {
    return [result, done = std::make_unique<DiskDone>(std::move(done))](int64_t) mutable { (*done)(result); };
  }
  static Fault take(std::map<size_t, Fault>& faults, size_t number) {
    auto it = faults.find(number);
    return it == faults.end() ? Fault{} : faults.extract(it).mapped();
  }

  struct Held {
    int fd;
    uint64_t offset;
    void* into;
    size_t length;
    DiskDone done;
  };

  DiskIo& behind_;
  bool hold_reads_ = false;
  std::vector<Held> held_;
  size_t reads_ = 0;
  size_t writes_ = 0;
  std::map<size_t, Fault> read_faults_, write_faults_;
};

}  // namespace wormhole::test
