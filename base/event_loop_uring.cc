// The event loop on io_uring.
//
// What is in flight is the array `slots_`: a request beyond it waits in `queued_`, in order; that is the back-pressure
// towards the disk. Completions are collected first and their callbacks run afterwards, so that a callback may start
// new operations without recursion.
#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <vector>

#include "base/event_loop.h"
#include "base/file_descriptor.h"
#include "base/log.h"

namespace wormhole {
namespace {

// Operations in flight. A disk of today is busy with 32 to 64; twice that leaves no gap between two submissions.
constexpr unsigned kSlots = 128;

// What begins goes to the kernel in batches, because a call for each costs a fifth more CPU. But a disk that has run
// dry idles until the batch is complete: with 16 reads of 4 KiB at a time that answered all that had ended before
// anything began, the disk gave 0.80 of what it gives fio. With batches that are as large as what it still has, and 4
// at most, it gives all of it (docs/BENCHMARKS.md).
constexpr size_t kLargestBatch = 4;

// How long to look for work before going to sleep. A sleep and wake-up costs 5 to 10 us on such machines, as much as a
// small read from the page cache; on a machine with one or two cores spinning takes the time from those that
// would bring the work, so it is short.
constexpr Duration kSpin = std::chrono::microseconds(5);

class UringLoop final : public EventLoop {
 public:
  ~UringLoop() override {
    if (ring_ready_) ::io_uring_queue_exit(&ring_);
  }

  bool init() {
    wake_fd_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_fd_) return false;
    // One thread submits and reaps, so completions may wait for it instead of interrupting it (Linux 6.1). An older
    // kernel refuses the flags: then without.
    int error = -EINVAL;
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
    error = ::io_uring_queue_init(kSlots * 2, &ring_,
                                  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
#endif
    if (error == -EINVAL) error = ::io_uring_queue_init(kSlots * 2, &ring_, 0);
    if (error != 0) {
      log::info("io_uring is not available: error={}", -error);
      return false;
    }
    ring_ready_ = true;
    for (unsigned i = 0; i < kSlots; ++i) free_slots_.push_back(i);
    return true;
  }

  const char* name() const override { return "io_uring"; }

  bool post(Task task) override { return mailbox_.post(std::move(task)); }
  bool post_later(Task task) override { return mailbox_.post_later(std::move(task)); }

  void every(Duration period, UniqueFunction<void()> tick) override {
    period_ = period;
    tick_ = std::move(tick);
    next_tick_ = std::chrono::steady_clock::now() + period;
  }

  void read(int fd, uint64_t offset, void* into, size_t length, DiskDone done) override {
    queued_.push_back(Operation{Kind::kRead, fd, offset, into, length, std::move(done)});
  }
  void write(int fd, uint64_t offset, const void* from, size_t length, DiskDone done) override {
    queued_.push_back(Operation{Kind::kWrite, fd, offset, const_cast<void*>(from), length, std::move(done)});
  }

  void run() override {
    while (true) {
      bool worked = take_messages();
      worked |= start_queued();
      worked |= run_completions();
      run_tick();
      if (worked) {
        idle_since_ = {};
        continue;
      }
      if (stopping_.load(std::memory_order_acquire)) {
        if (in_flight_ == 0) break;
      } else if (spin()) {
        continue;
      }
      sleep();
    }
    mailbox_.close();
    // What was accepted before the box was closed is done in full.
    take_messages();
    while (in_flight_ > 0 || !queued_.empty()) {
      bool worked = start_queued();
      worked |= run_completions();
      if (!worked) ::io_uring_submit_and_wait(&ring_, 1);
    }
  }

  void stop() override {
    stopping_.store(true, std::memory_order_release);
    wake();
  }

 private:
  enum class Kind : uint8_t { kRead, kWrite };
  struct Operation {
    Kind kind;
    int fd;
    uint64_t offset;
    void* memory;
    size_t length;
    DiskDone done;
  };
  struct Completed {
    DiskDone done;
    int64_t result;
  };
  static constexpr uint64_t kWakeTag = ~uint64_t{0};

  bool take_messages() {
    mailbox_.drain(messages_);
    const bool any = !messages_.empty();
    for (Task& task : messages_) {
      task();
      keep_disk_busy();
    }
    messages_.clear();
    return any;
  }

  // Between two callbacks: begins what waits as soon as it is as much as the disk still has, or a batch.
  void keep_disk_busy() {
    if (queued_.size() >= std::clamp<size_t>(in_flight_, 1, kLargestBatch)) start_queued();
  }

  // Everything that waits and finds a slot goes to the kernel with one call.
  bool start_queued() {
    bool any = false;
    while (!queued_.empty() && !free_slots_.empty()) {
      io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
      if (sqe == nullptr) break;
      const unsigned slot = free_slots_.back();
      free_slots_.pop_back();
      slots_[slot] = std::move(queued_.front());
      queued_.pop_front();
      const Operation& op = slots_[slot];
      const auto length = static_cast<unsigned>(op.length);
      if (op.kind == Kind::kRead) {
        ::io_uring_prep_read(sqe, op.fd, op.memory, length, op.offset);
      } else {
        ::io_uring_prep_write(sqe, op.fd, op.memory, length, op.offset);
      }
      ::io_uring_sqe_set_data64(sqe, slot);
      ++in_flight_;
      any = true;
    }
    if (any) ::io_uring_submit(&ring_);
    return any;
  }

  bool run_completions() {
    if (in_flight_ == 0 && !wake_armed_) return false;
    collect();
    const bool any = !completed_.empty();
    for (Completed& c : completed_) {
      c.done(c.result);
      keep_disk_busy();
    }
    completed_.clear();
    return any;
  }

  void collect() {
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const uint64_t tag = ::io_uring_cqe_get_data64(cqe);
      const int result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      if (tag == kWakeTag) {
        wake_armed_ = false;
        continue;
      }
      completed_.push_back(Completed{std::move(slots_[tag].done), result});
      free_slots_.push_back(static_cast<unsigned>(tag));
      --in_flight_;
    }
  }

  void run_tick() {
    if (!tick_) return;
    const TimePoint now = std::chrono::steady_clock::now();
    if (now < next_tick_) return;
    next_tick_ = now + period_;
    tick_();
  }

  // True while it is worth looking again at once.
  bool spin() {
    const TimePoint now = std::chrono::steady_clock::now();
    if (idle_since_ == TimePoint{}) idle_since_ = now;
    return now - idle_since_ < kSpin;
  }

  void sleep() {
    idle_since_ = {};
    if (!wake_armed_) {
      io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
      if (sqe == nullptr) return;
      ::io_uring_prep_read(sqe, wake_fd_.get(), &wake_count_, sizeof(wake_count_), 0);
      ::io_uring_sqe_set_data64(sqe, kWakeTag);
      wake_armed_ = true;
    }
    // The order matters: say "asleep", then look once more. A sender does it the other way round.
    asleep_.store(true, std::memory_order_seq_cst);
    if (!mailbox_.empty() || (stopping_.load(std::memory_order_seq_cst) && in_flight_ == 0)) {
      asleep_.store(false, std::memory_order_relaxed);
      ::io_uring_submit(&ring_);
      return;
    }
    const auto wait = std::chrono::duration_cast<std::chrono::nanoseconds>(
        tick_ ? std::max(Duration{0}, next_tick_ - std::chrono::steady_clock::now()) : std::chrono::seconds(1));
    __kernel_timespec timeout{wait.count() / 1'000'000'000, wait.count() % 1'000'000'000};
    io_uring_cqe* cqe = nullptr;
    ::io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
    asleep_.store(false, std::memory_order_relaxed);
  }

  void wake() {
    if (!asleep_.exchange(false, std::memory_order_seq_cst)) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_fd_.get(), &one, sizeof(one));
  }

  // Any thread.
  Mailbox mailbox_{[this] { wake(); }};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> asleep_{false};
  FileDescriptor wake_fd_;

  // The owning thread.
  io_uring ring_{};
  bool ring_ready_ = false;
  std::array<Operation, kSlots> slots_{};
  std::vector<unsigned> free_slots_;
  std::deque<Operation> queued_;
  std::vector<Completed> completed_;
  std::vector<Task> messages_;
  unsigned in_flight_ = 0;
  bool wake_armed_ = false;
  uint64_t wake_count_ = 0;
  TimePoint idle_since_{};
  Duration period_{};
  TimePoint next_tick_{};
  UniqueFunction<void()> tick_;
};

}  // namespace

std::unique_ptr<EventLoop> make_uring_loop() {
  auto loop = std::make_unique<UringLoop>();
  if (!loop->init()) return nullptr;
  return loop;
}

}  // namespace wormhole
