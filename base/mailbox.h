// Many senders, one owner: the only way from thread to thread. A message is a closure that the owner runs; what it
// captures changes hands with it.
//
// Thread: post() and post_later() from any thread; drain() and close() by the owner. The waker is called by a sender,
// outside the lock, when nobody has called since the last drain(): an owner that sleeps on something else (a ring,
// curl) is woken through it.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/thread_annotations.h"
#include "base/unique_function.h"

namespace wormhole {

using Task = UniqueFunction<void()>;

class Mailbox {
 public:
  // With a waker the owner sleeps elsewhere; without one it sleeps in wait_until().
  explicit Mailbox(std::function<void()> waker = nullptr) : waker_(std::move(waker)) {}

  // False when the owner has closed the box: the message is dropped, which answers what it captured.
  bool post(Task task) { return put(std::move(task), true); }

  // As post(), in the same order, but wakes nobody: the owner runs it before the next that does, or when he wakes up by
  // himself. For owners who do so soon enough.
  bool post_later(Task task) { return put(std::move(task), false); }

  // Moves everything that waits into `out` (which must be empty; its storage is reused by the senders).
  void drain(std::vector<Task>& out) {
    MutexLock lock(mutex_);
    out.swap(tasks_);
    called_ = false;
  }

  // Whether nothing waits that should be run now.
  bool empty() {
    MutexLock lock(mutex_);
    return !called_;
  }

  // Sleeps until something waits or `deadline` has passed. For owners without a waker.
  void wait_until(TimePoint deadline) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock lock(mutex_);
    arrived_.wait_until(lock, deadline, [this]() NO_THREAD_SAFETY_ANALYSIS { return called_; });
  }

  // Nothing is taken any more; what waits can still be drained.
  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }

 private:
  // More is not kept for later: about a megabyte.
  static constexpr size_t kMostLater = 8192;

  bool put(Task task, bool now) {
    {
      MutexLock lock(mutex_);
      if (closed_) return false;
      tasks_.push_back(std::move(task));
      now |= tasks_.size() >= kMostLater;
      if (!now || std::exchange(called_, true)) return true;
    }
    if (waker_) {
      waker_();
    } else {
      arrived_.notify_one();
    }
    return true;
  }

  const std::function<void()> waker_;
  Mutex mutex_;
  std::condition_variable_any arrived_;
  std::vector<Task> tasks_ GUARDED_BY(mutex_);
  bool called_ GUARDED_BY(mutex_) = false;  // the owner, since the last drain()
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace wormhole
