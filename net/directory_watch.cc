#include "net/directory_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/file_descriptor.h"
#include "base/log.h"
#include "base/thread.h"

namespace wormhole {
namespace {

using Clock = std::chrono::steady_clock;

// IN_MODIFY beside IN_CLOSE_WRITE: some writers never close. IN_EXCL_UNLINK: nobody sees files that have no name.
constexpr uint32_t kEvents = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE |
                             IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK;

// A batch that names more directories than this says no more than "look at all of them", and costs memory.
constexpr size_t kMostDirectories = 100'000;

// Some hundred events with names of usual length; at least one of any length fits.
constexpr size_t kBuffer = 64 * 1024;

std::string child_of(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

// The names of the directories in `path`, which may be gone.
std::vector<std::string> subdirectories(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, DirectoryCloser> stream(::opendir(path.c_str()));
  while (const dirent* entry = stream ? ::readdir(stream.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    bool is_directory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN) {  // some file systems do not say
      struct stat status = {};
      is_directory =
          ::fstatat(::dirfd(stream.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    }
    if (is_directory) names.emplace_back(name);
  }
  return names;
}

}  // namespace

class DirectoryWatch::Watcher {
 public:
  Watcher(std::string root, OnChanges on_changes, const DirectoryWatchOptions& options)
      : root_(std::move(root)), on_changes_(std::move(on_changes)), options_(options), debounce_(options) {}

  ~Watcher() {
    if (!thread_.joinable()) return;
    ::eventfd_write(end_.get(), 1);
    thread_.join();
  }

  Status start() {
    end_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!end_) return fail(error_from_errno(errno, "eventfd"));
    if (Status watched = watch_everything(); !watched) return watched;
    thread_ = start_thread("wh-watch", [this] { run(); });
    return {};
  }

 private:
  using Paths = std::map<std::string, int>;  // directories and their watches; in order, so that a subtree is a range

  // From nothing. Status: of the root alone.
  Status watch_everything() {
    inotify_ = FileDescriptor(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    watches_.clear();
    paths_.clear();
    blind_ = false;
    if (!inotify_ && errno == EMFILE) {
      return fail(ErrorCode::kBusy, "cannot watch {}: fs.inotify.max_user_instances is used up", root_);
    }
    if (!inotify_) return fail(error_from_errno(errno, "inotify"));
    const int error = watch("");
    if (error == ENOTDIR) return fail(ErrorCode::kInvalid, "{} is not a directory", root_);
    if (error != 0 && error != ENOSPC) return fail(error_from_errno(error, "watch " + root_));
    watch_below("");
    if (!goes_on()) return fail(ErrorCode::kCancelled, "interrupted");
    if (!blind_) blindness_is_known_ = false;
    return {};
  }

  // Watches a directory before it looks what is in it, so that nothing comes into it unseen; then all below it.
  void watch_tree(const std::string& directory) {
    if (watch(directory) == 0) watch_below(directory);
  }

  void watch_below(const std::string& directory) {
    std::vector<std::string> to_do{directory};
    while (!to_do.empty() && !blind_ && goes_on()) {
      const std::string parent = std::move(to_do.back());
      to_do.pop_back();
      for (const std::string& name : subdirectories(full(parent))) {
        std::string path = child_of(parent, name);
        if (watch(path) != 0) continue;
        note(path);
        to_do.push_back(std::move(path));
      }
    }
  }

  bool goes_on() const { return !options_.goes_on || options_.goes_on(); }

  // An errno: it is gone, no directory any more, or cannot be watched. 0 when it is watched.
  int watch(const std::string& directory) {
    const int watch = ::inotify_add_watch(inotify_.get(), full(directory).c_str(), kEvents);
    if (watch < 0) {
      const int error = errno;
      // What we must not read nobody scans either; its parent tells when that changes.
      if (error != ENOENT && error != ENOTDIR && error != ELOOP && error != EACCES) go_blind(directory, error);
      return error;
    }
    // The kernel knows it under another name: it was moved, and we have not heard of where it went from.
    const auto known = watches_.find(watch);
    if (known != watches_.end() && known->second->first != directory) paths_.erase(known->second);
    // The name had another directory: that was deleted, and we have not heard of it.
    const auto before = paths_.find(directory);
    if (before != paths_.end() && before->second != watch) forget(before);
    watches_[watch] = paths_.insert_or_assign(directory, watch).first;
    return 0;
  }

  void go_blind(const std::string& directory, int error) {
    blind_ = true;
    blind_until_ = Clock::now() + options_.blind;
    if (std::exchange(blindness_is_known_, true)) return;
    log::warn("not every directory can be watched for changes: root={} directory={} error={}{}", root_, directory,
              std::strerror(error), error == ENOSPC ? " hint=raise fs.inotify.max_user_watches" : "");
  }

  void forget_tree(const std::string& directory) {
    forget(paths_.find(directory));
    const std::string below = directory + "/";
    for (auto it = paths_.lower_bound(below); it != paths_.end() && it->first.starts_with(below);) it = forget(it);
  }

  Paths::iterator forget(Paths::iterator path) {
    if (path == paths_.end()) return path;
    ::inotify_rm_watch(inotify_.get(), path->second);  // may be gone already
    watches_.erase(path->second);
    return paths_.erase(path);
  }

  std::string full(const std::string& directory) const { return directory.empty() ? root_ : root_ + "/" + directory; }

  // --- what has changed ---

  void note(const std::string& directory) {
    if (!running_) return;  // what is there at the start is no change
    debounce_.change(Clock::now());
    if (changes_.rescan) return;
    changes_.directories.insert(directory);
    if (changes_.directories.size() > kMostDirectories) note_all();
  }

  void note_all() {
    debounce_.change(Clock::now());
    changes_ = {{}, true};
  }

  // The queue was too short, or the root itself is another one: what is known is worth nothing.
  void begin_again(const char* why) {
    log::warn("changes of directories were missed, all are looked at again: root={} reason={}", root_, why);
    watch_again();
  }

  // All that was known of the old watches is void, and so are events of theirs that were not taken yet.
  void watch_again() {
    note_all();
    if (Status watched = watch_everything(); !watched) {
      blind_ = true;
      blind_until_ = Clock::now() + options_.blind;
      log::warn("directories cannot be watched: {}", watched.error().message);
    }
  }

  // False when everything has begun again.
  bool take(const inotify_event& event) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      begin_again("the kernel's queue was full");
      return false;
    }
    const auto watch = watches_.find(event.wd);
    if (watch == watches_.end()) return true;  // of a directory that we have let go of
    const std::string directory = watch->second->first;
    if ((event.mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) != 0) {
      if (directory.empty()) {
        begin_again("the directory itself was moved, deleted or unmounted");
        return false;
      }
      if ((event.mask & IN_UNMOUNT) != 0) note(directory);
    } else if ((event.mask & IN_IGNORED) != 0) {  // the kernel has let go of it
      paths_.erase(watch->second);
      watches_.erase(watch);
    } else if (event.len > 0) {  // else the directory's own attributes, of which its parent tells, too
      note(directory);
      if ((event.mask & IN_ISDIR) != 0) take_child(child_of(directory, event.name), event.mask);
    }
    return true;
  }

  // Something has happened to a directory in a directory.
  void take_child(const std::string& child, uint32_t mask) {
    if ((mask & (IN_MOVED_FROM | IN_DELETE)) != 0) forget_tree(child);
    const bool may_be_read_now = (mask & IN_ATTRIB) != 0 && !paths_.contains(child);
    if ((mask & (IN_CREATE | IN_MOVED_TO)) == 0 && !may_be_read_now) return;
    note(child);
    watch_tree(child);
  }

  // --- the thread ---

  void run() {
    running_ = true;
    while (wait()) {
      read_events();
      if (blind_ && Clock::now() >= blind_until_) watch_again();
      if (const auto due = debounce_.due(); due && *due <= Clock::now()) {
        debounce_.told();
        on_changes_(std::exchange(changes_, {}));
      }
    }
  }

  // Until something happens or is due. False: the end.
  bool wait() const {
    std::optional<Clock::time_point> until = debounce_.due();
    if (blind_) until = std::min(until.value_or(blind_until_), blind_until_);
    int timeout = -1;
    if (until) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now());
      timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, INT_MAX));
    }
    std::array<pollfd, 2> polled = {{{end_.get(), POLLIN, 0}, {inotify_.get(), POLLIN, 0}}};
    ::poll(polled.data(), polled.size(), timeout);
    return polled[0].revents == 0;
  }

  void read_events() {
    alignas(inotify_event) std::array<char, kBuffer> buffer;
    const ssize_t size = ::read(inotify_.get(), buffer.data(), buffer.size());
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      if (!take(*event)) return;
      at += static_cast<ssize_t>(sizeof *event + event->len);
    }
  }

  const std::string root_;
  const OnChanges on_changes_;
  const DirectoryWatchOptions options_;
  FileDescriptor inotify_, end_;
  Paths paths_;
  std::unordered_map<int, Paths::iterator> watches_;
  bool running_ = false;
  bool blind_ = false;               // some directories are not watched
  bool blindness_is_known_ = false;  // from the log
  Clock::time_point blind_until_;
  Debounce debounce_;
  DirectoryChanges changes_;
  std::thread thread_;
};

DirectoryWatch::DirectoryWatch(std::unique_ptr<Watcher> watcher) : watcher_(std::move(watcher)) {}

DirectoryWatch::~DirectoryWatch() = default;

Result<std::unique_ptr<DirectoryWatch>> DirectoryWatch::start(const std::string& root, OnChanges on_changes,
                                                              const DirectoryWatchOptions& options) {
  auto watcher = std::make_unique<Watcher>(root, std::move(on_changes), options);
  if (Status started = watcher->start(); !started) return fail(started.error());
  return std::unique_ptr<DirectoryWatch>(new DirectoryWatch(std::move(watcher)));
}

}  // namespace wormhole
