// The loop of an engine thread: it takes messages, submits disk operations in batches, runs completions, spins a
// bounded time and then sleeps on all of it together.
//
// Two implementations stand behind this face: io_uring (event_loop_uring.cc, the only file that includes <liburing.h>)
// and, where the kernel or a container's seccomp filter refuses io_uring, a small thread pool (event_loop_threads.cc).
//
// Thread: create() and run() on the owning thread, as read() and write(); post() and stop() from any.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/disk_io.h"
#include "base/mailbox.h"

namespace wormhole {

class EventLoop : public DiskIo {
 public:
  enum class Backend { kAuto, kUring, kThreads };

  // kAuto: io_uring, or threads where it cannot be had. kUring: nullptr when it cannot be had.
  static std::unique_ptr<EventLoop> create(Backend backend = Backend::kAuto);

  // "io_uring" or "threads"; for status and logs.
  virtual const char* name() const = 0;

  // Runs `task` on the owning thread, soon and in the order of the posts. False after the loop has ended: the task is
  // destroyed unrun.
  virtual bool post(Task task) = 0;
  // The same, in the same order, but a loop that sleeps is not woken for it: before the next task or tick.
  virtual bool post_later(Task task) = 0;

  // Calls `tick` on the owning thread about every `period`, for deadlines. One at most.
  virtual void every(Duration period, UniqueFunction<void()> tick) = 0;

  // Runs until stop(), and then until nothing is in flight any more.
  virtual void run() = 0;
  virtual void stop() = 0;
};

}  // namespace wormhole
