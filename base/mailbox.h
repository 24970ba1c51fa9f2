// Many senders, one owner: the only way from thread to thread. A message is a closure that the owner runs; what it
// captures changes hands with it.
//
// Thread: post() from any thread; drain() and close() by the owner. The waker is called by a sender, outside the lock,
// when the box was empty: an owner that sleeps on something else (a ring, curl) is woken through it.
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
  bool post(Task task) {
    bool was_empty = false;
    {
      MutexLock lock(mutex_);
      if (closed_) return false;
      was_empty = tasks_.empty();
      tasks_.push_back(std::move(task));
    }
    if (was_empty) {
      if (waker_) {
        waker_();
      } else {
        arrived_.notify_one();
      }
    }
    return true;
  }

  // Moves everything that waits into `out` (which must be empty; its storage is reused by the senders).
  void drain(std::vector<Task>& out) {
    MutexLock lock(mutex_);
    out.swap(tasks_);
  }

  bool empty() {
    MutexLock lock(mutex_);
    return tasks_.empty();
  }

  // Sleeps until something waits or `deadline` has passed. For owners without a waker.
  void wait_until(TimePoint deadline) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock lock(mutex_);
    arrived_.wait_until(lock, deadline, [this]() NO_THREAD_SAFETY_ANALYSIS { return !tasks_.empty(); });
  }

  // Nothing is taken any more; what waits can still be drained.
  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }

 private:
  const std::function<void()> waker_;
  Mutex mutex_;
  std::condition_variable_any arrived_;
  std::vector<Task> tasks_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace wormhole
