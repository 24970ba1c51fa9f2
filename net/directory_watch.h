// Tells which directories of a tree change, by inotify: for what is derived from a tree and has to follow it, as a
// manifest does.
//
// What is told is a hint to look again, never a fact about a file: a directory that is named may be gone, and two
// changes may have been told as one. Nothing is left out: where the kernel cannot say which directories have changed,
// `rescan` says that it may be any.
//
// Thread: start() and destruction the owner's. Batches come from the watch's own thread, wh-watch; none after the
// destructor has returned.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/error.h"

namespace wormhole {

struct DirectoryChanges {
  // Paths below the root, without a slash at either end; "" is the root. Something in the directory itself has changed:
  // a name came or went, or a file in it has other bytes or attributes. Of a directory that came, all below it are here
  // as well; of one that went, only its parent is.
  std::set<std::string> directories;
  bool rescan = false;  // anything may have changed; `directories` is empty

  bool empty() const { return directories.empty() && !rescan; }
};

struct DirectoryWatchOptions {
  // A batch is told when nothing has changed for `quiet`: a copy of a tree or the write of a file is one event, not a
  // thousand. But no change waits longer than `at_most`.
  std::chrono::milliseconds quiet{500};
  std::chrono::milliseconds at_most{3000};
  // While some directories cannot be watched: how often to say `rescan`, and to try again to watch them.
  std::chrono::milliseconds blind{60'000};
  // Asked while a tree is walked, which may take long: false ends it, start() with kCancelled. From the thread of
  // start(), and from wh-watch. Empty: it goes on.
  std::function<bool()> goes_on;
};

// When a batch is due. Pure: the clock is the caller's.
class Debounce {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit Debounce(const DirectoryWatchOptions& options) : quiet_(options.quiet), at_most_(options.at_most) {}

  void change(Time now) {
    if (!first_) first_ = now;
    last_ = now;
  }
  // Nothing when nothing has changed.
  std::optional<Time> due() const {
    if (!first_) return std::nullopt;
    return std::min(last_ + quiet_, *first_ + at_most_);
  }
  void told() { first_.reset(); }

 private:
  std::chrono::milliseconds quiet_, at_most_;
  std::optional<Time> first_;
  Time last_;
};

class DirectoryWatch {
 public:
  using OnChanges = std::function<void(DirectoryChanges)>;

  // When it returns, every change from now on will be told: who scans the tree afterwards misses nothing. Symbolic
  // links are not followed. More directories than the kernel watches for one user (fs.inotify.max_user_watches) are no
  // error: a line in the log says so, and `rescan` comes every `options.blind`. Errors: kNotFound, kInvalid (not a
  // directory), kForbidden, kBusy (too many watches of this kind for one user), kCancelled, kIo.
  static Result<std::unique_ptr<DirectoryWatch>> start(const std::string& root, OnChanges on_changes,
                                                       const DirectoryWatchOptions& options = {});
  // Waits for a batch that is just being told; what has not been told is not told any more.
  ~DirectoryWatch();
  DirectoryWatch(const DirectoryWatch&) = delete;
  DirectoryWatch& operator=(const DirectoryWatch&) = delete;

 private:
  class Watcher;
  explicit DirectoryWatch(std::unique_ptr<Watcher> watcher);
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace wormhole
