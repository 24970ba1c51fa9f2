// Which lock protects what, in a form that clang checks (-Wthread-safety, preset dev). Empty for other compilers.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#pragma once

#include <mutex>

#if defined(__clang__)
#define WORMHOLE_ANNOTATE(x) __attribute__((x))
#else
#define WORMHOLE_ANNOTATE(x)
#endif

#define GUARDED_BY(x) WORMHOLE_ANNOTATE(guarded_by(x))
#define REQUIRES_LOCK(...) WORMHOLE_ANNOTATE(requires_capability(__VA_ARGS__))
#define EXCLUDES_LOCK(...) WORMHOLE_ANNOTATE(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS WORMHOLE_ANNOTATE(no_thread_safety_analysis)

namespace wormhole {

// std::mutex with the attributes that the analysis needs (libstdc++ has none).
class WORMHOLE_ANNOTATE(capability("mutex")) Mutex {
 public:
  void lock() WORMHOLE_ANNOTATE(acquire_capability()) { mutex_.lock(); }
  void unlock() WORMHOLE_ANNOTATE(release_capability()) { mutex_.unlock(); }
  bool try_lock() WORMHOLE_ANNOTATE(try_acquire_capability(true)) { return mutex_.try_lock(); }

 private:
  std::mutex mutex_;
};

// A lock for the current scope; the form of std::lock_guard that the analysis follows.
class WORMHOLE_ANNOTATE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) WORMHOLE_ANNOTATE(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() WORMHOLE_ANNOTATE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace wormhole
