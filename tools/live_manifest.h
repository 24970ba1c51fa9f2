// The manifest of a directory that is handed out, kept up to date: made in the background, and made anew when the
// directory has changed. Only what has changed is read again. A new manifest takes the place of the one before at once;
// who still reads that one finds it for a while.
//
// What is being written has an entry without a hash until it has been left alone for two seconds. In a signed manifest
// it is left out for so long: who asks for a signature wants nothing that cannot be checked.
//
// Where another process keeps the same manifest, it is left to that one; when it ends, this one goes on.
//
// Thread: the owner's. The work is done by wh-manifest, with wh-watch (net/directory_watch.h) and wh-hash
// (manifest/tree_scan.h).
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/thread_annotations.h"
#include "manifest/manifest_directory.h"
#include "manifest/signature.h"
#include "net/directory_watch.h"

namespace wormhole {

// How long to wait with the next manifest after one that took so long. Pure. All pages are written anew for each, so a
// large tree that changes all the time would cost a processor: so a fifth of one, but nobody waits longer than mounts
// do before they ask for a newer manifest (`ttl`, a minute). At least a second, because sequences count up by one for
// each manifest and may not overtake the clock (docs/MANIFEST.md).
inline Duration pause_after(Duration took) {
  return std::clamp<Duration>(4 * took, std::chrono::seconds(1), std::chrono::seconds(60));
}

struct LiveManifestOptions {
  std::string tree;
  std::string place;                  // the directory of the manifest; it is made if it is not there
  std::optional<SecretKey> key;       // to sign with
  std::chrono::seconds rescan{3600};  // everything is looked at so often, whatever the watch says; 0: never
};

class LiveManifest {
 public:
  // Nothing is read yet. `place` is there when it returns. Errors: kNotFound, kForbidden, kNoSpace, kIo: it cannot be
  // written, or the tree not be opened; kInvalid: `place` is the tree; kFormat: there is a manifest of a later version.
  static Result<std::unique_ptr<LiveManifest>> open(LiveManifestOptions options);
  ~LiveManifest();
  LiveManifest(const LiveManifest&) = delete;
  LiveManifest& operator=(const LiveManifest&) = delete;

  // From now on the manifest follows the tree.
  void start();
  // It comes to an end soon; the destructor waits for that. What was not finished is as if it had not been begun.
  void stop();

  const std::string& place() const { return options_.place; }

 private:
  class Writing;
  LiveManifest(LiveManifestOptions options, FileDescriptor root)
      : options_(std::move(options)), root_(std::move(root)) {}
  Status take_place();
  bool wait_for_place();
  std::unique_ptr<DirectoryWatch> watch();
  void changed(DirectoryChanges changes);
  void run();
  Status update(const DirectoryChanges& changes);
  DirectoryChanges wait_for_changes() NO_THREAD_SAFETY_ANALYSIS;  // a lock that a condition lets go of
  bool wait(Duration time) NO_THREAD_SAFETY_ANALYSIS;
  bool is_own(const std::string& directory) const;

  LiveManifestOptions options_;
  const FileDescriptor root_;
  std::string place_in_tree_;  // the path of `place` below the tree; empty: it is not there
  const SystemClock clock_;

  // Of wh-manifest, once it runs.
  std::optional<ManifestDirectory> directory_;  // none: another process has it
  std::optional<StoredManifest> current_;
  bool is_ours_ = false;                 // the current one was made here
  std::set<std::string> left_out_;       // of which the log has told
  std::set<std::string> being_written_;  // directories with files that are, to be looked at again
  TimePoint not_before_{}, rescan_at_{}, look_again_at_{};

  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  std::condition_variable_any woken_;
  DirectoryChanges waiting_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace wormhole
