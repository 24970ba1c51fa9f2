// The event loop on a few threads that call pread and pwrite: for kernels and containers without io_uring.
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/thread.h"
#include "base/thread_annotations.h"

namespace wormhole {

std::unique_ptr<EventLoop> make_uring_loop();

namespace {

// Each waits for one disk operation at a time; a disk gains little beyond four when the page cache absorbs writes.
constexpr int kThreads = 4;

class ThreadLoop final : public EventLoop {
 public:
  ThreadLoop() {
    for (int i = 0; i < kThreads; ++i) {
      threads_.push_back(start_thread("wh-disk-" + std::to_string(i), [this] { work(); }));
    }
  }
  ~ThreadLoop() override {
    {
      MutexLock lock(mutex_);
      ending_ = true;
    }
    work_arrived_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  const char* name() const override { return "threads"; }
  bool post(Task task) override { return mailbox_.post(std::move(task)); }
  bool post_later(Task task) override { return mailbox_.post_later(std::move(task)); }

  void every(Duration period, UniqueFunction<void()> tick) override {
    period_ = period;
    tick_ = std::move(tick);
    next_tick_ = std::chrono::steady_clock::now() + period;
  }

  void read(int fd, uint64_t offset, void* into, size_t length, DiskDone done) override {
    start(Operation{true, fd, offset, into, length, std::move(done)});
  }
  void write(int fd, uint64_t offset, const void* from, size_t length, DiskDone done) override {
    start(Operation{false, fd, offset, const_cast<void*>(from), length, std::move(done)});
  }

  void run() override {
    while (!stopping_.load(std::memory_order_acquire) || in_flight_ > 0) {
      const TimePoint now = std::chrono::steady_clock::now();
      home_.wait_until(tick_ ? next_tick_ : now + std::chrono::seconds(1));
      take_messages();
      if (tick_ && std::chrono::steady_clock::now() >= next_tick_) {
        next_tick_ = std::chrono::steady_clock::now() + period_;
        tick_();
      }
    }
    mailbox_.close();
    // What was accepted before the box was closed is done in full.
    take_messages();
    while (in_flight_ > 0) {
      home_.wait_until(std::chrono::steady_clock::now() + std::chrono::seconds(1));
      take_messages();
    }
  }

  void stop() override {
    mailbox_.post([this] { stopping_.store(true, std::memory_order_release); });
  }

 private:
  struct Operation {
    bool is_read;
    int fd;
    uint64_t offset;
    void* memory;
    size_t length;
    DiskDone done;
  };

  void take_messages() {
    // In this order: a sign that is taken away here means a message that is found after it.
    for (Mailbox* box : {&home_, &mailbox_}) {
      box->drain(messages_);
      for (Task& task : messages_) task();
      messages_.clear();
    }
  }

  void start(Operation op) {
    ++in_flight_;
    {
      MutexLock lock(mutex_);
      work_.push_back(std::move(op));
    }
    work_arrived_.notify_one();
  }

  // A disk thread: take one, do it, send the result home.
  void work() NO_THREAD_SAFETY_ANALYSIS {
    while (true) {
      std::unique_ptr<Operation> op;
      {
        std::unique_lock lock(mutex_);
        work_arrived_.wait(lock, [this]() NO_THREAD_SAFETY_ANALYSIS { return ending_ || !work_.empty(); });
        if (work_.empty()) return;
        op = std::make_unique<Operation>(std::move(work_.front()));
        work_.pop_front();
      }
      const auto offset = static_cast<off_t>(op->offset);
      const ssize_t n = op->is_read ? ::pread(op->fd, op->memory, op->length, offset)
                                    : ::pwrite(op->fd, op->memory, op->length, offset);
      const int64_t result = n < 0 ? -errno : n;
      home_.post([this, op = std::move(op), result]() mutable {
        --in_flight_;
        op->done(result);
      });
    }
  }

  // Any thread. `home_` is where the owner sleeps: the disk threads' results come here, also after the box for
  // everybody is closed, and a sign that there is something in that one.
  Mailbox home_;
  Mailbox mailbox_{[this] { home_.post([] {}); }};
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  std::condition_variable_any work_arrived_;
  std::deque<Operation> work_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;

  // The owning thread.
  std::vector<Task> messages_;
  unsigned in_flight_ = 0;
  Duration period_{};
  TimePoint next_tick_{};
  UniqueFunction<void()> tick_;
};

}  // namespace

std::unique_ptr<EventLoop> EventLoop::create(Backend backend) {
  if (backend != Backend::kThreads) {
    if (auto loop = make_uring_loop()) return loop;
    if (backend == Backend::kUring) return nullptr;
  }
  return std::make_unique<ThreadLoop>();
}

}  // namespace wormhole
