#include "manifest/tree_scan.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "base/block.h"
#include "base/file_descriptor.h"
#include "base/log.h"
#include "base/thread.h"
#include "manifest/blake3.h"
#include "manifest/hash_tree.h"
#include "manifest/local_directory.h"

namespace wormhole {
namespace {

// A part of a large file: a thread's work of a millisecond or two, beside which opening the file is nothing. Whole
// blocks.
constexpr uint64_t kPartBytes = 4 << 20;

// What is read at once; stays in a core's second-level cache until it is hashed.
constexpr size_t kReadBytes = 4 * kBlockSize;

// A batch is enough work to be worth waking somebody, and so little that the threads end at about the same time.
constexpr size_t kBatchItems = 256;
constexpr uint64_t kBatchBytes = 16 << 20;

// What is walked ahead of what is handed on.
constexpr size_t kBatches = 64;

// How often a file that changes while it is read is read again.
constexpr int kTries = 3;

// A file that was written in the same moment as the manifest may have changed once more without another time: clocks
// of file systems tick, at worst every two seconds (FAT).
constexpr int64_t kClockTick = 2'000'000'000;

constexpr Duration kPoll = std::chrono::milliseconds(50);

constexpr int kChanged = -1;  // beside errno

struct Item {
  enum class What : uint8_t { kBegin, kFile, kSymlink, kEnd, kLeftOut };
  What what = What::kFile;
  ManifestEntry entry;
  std::string path;  // relative to the root
  std::string why;   // left out
  FileStamp stamp;
  bool known = false;  // hash and tree are those of the known tree, or there are none

  // Of its hashing.
  std::unique_ptr<HashTreeBuilder> nodes;  // of a file of more than one block
  std::vector<std::byte> tree;
  std::atomic<uint64_t> parts_left{0};
  std::atomic<int> failure{0};  // an errno, or kChanged

  uint64_t parts() const { return (entry.size + kPartBytes - 1) / kPartBytes; }
  bool is_to_hash() const { return what == What::kFile && !known; }
  bool is_large() const { return entry.size > kPartBytes; }
};

struct Batch {
  std::deque<Item> items;  // which stay where they are
  uint64_t bytes = 0;
  uint64_t work_left = 0;  // guarded by the hashers' mutex
};

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}

bool is_older(const ManifestEntry& entry, int64_t created) {
  constexpr int64_t kSecond = 1'000'000'000;
  if (created < kClockTick) return false;  // nobody knows when that was
  const int64_t limit = created - kClockTick;
  return std::pair(entry.mtime, int64_t{entry.mtime_ns}) < std::pair(limit / kSecond, limit % kSecond);
}

ManifestEntry entry_of(std::string_view name, ManifestEntry::Type type, const FileStamp& stamp) {
  ManifestEntry entry;
  entry.name = name;
  entry.type = type;
  entry.mode = static_cast<uint16_t>(stamp.mode & 07777);
  entry.mtime = stamp.mtime;
  entry.mtime_ns = stamp.mtime_ns;
  if (type == ManifestEntry::Type::kFile) entry.size = stamp.size;
  return entry;
}

// Written so shortly before a moment, or since, that it is likely to be written on. A time that is still to come says
// nothing.
bool is_being_written(const ManifestEntry& entry, int64_t moment) {
  const int64_t now = nanoseconds_now();
  constexpr int64_t kSecond = 1'000'000'000;
  const bool is_to_come = std::pair(entry.mtime, int64_t{entry.mtime_ns}) > std::pair(now / kSecond, now % kSecond);
  return !is_to_come && !is_older(entry, moment);
}

// --- hashing -------------------------------------------------------------------------------------------------------

// The threads. Work is begun in the order in which it came.
class Hashers {
 public:
  Hashers(int root, int threads) : root_(root) {
    // Signals are for the caller's thread.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < threads; ++i) threads_.push_back(start_thread("wh-hash", [this] { run(); }));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Hashers() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // The batch stays where it is until it is done, or this is gone.
  void put(Batch& batch) {
    {
      std::lock_guard lock(mutex_);
      bool small = false;
      for (Item& item : batch.items) {
        if (!item.is_to_hash()) continue;
        if (!item.is_large()) {
          small = true;
          item.parts_left = 1;
          continue;
        }
        item.parts_left = item.parts();
        work_.push_back({&batch, &item, item.parts()});
        batch.work_left += item.parts();
      }
      if (small) {
        work_.push_back({&batch, nullptr, 1});
        ++batch.work_left;
      }
    }
    changed_.notify_all();
  }
  bool is_done(const Batch& batch) {
    std::lock_guard lock(mutex_);
    return batch.work_left == 0;
  }
  // The same; false after a moment.
  bool wait_for(const Batch& batch) {
    std::unique_lock lock(mutex_);
    return done_.wait_for(lock, kPoll, [&] { return batch.work_left == 0; });
  }

  ScanProgress progress() const {
    return {.files = files_, .bytes = bytes_, .hashed_files = hashed_files_, .hashed_bytes = hashed_bytes_};
  }

 private:
  struct Work {
    Batch* batch;
    Item* large;  // nullptr: all the others of the batch
    uint64_t parts;
    uint64_t next = 0;
  };

  void run() {
    const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kReadBytes);
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || !work_.empty(); });
      if (stopping_) return;
      const Work work = work_.front();
      if (++work_.front().next == work.parts) work_.pop_front();
      lock.unlock();
      if (work.large != nullptr) {
        hash_part(*work.large, work.next, buffer.get());
      } else {
        for (Item& item : work.batch->items) {
          if (stopping_) break;
          if (item.is_to_hash() && !item.is_large()) hash(item, {0, item.entry.size}, buffer.get());
        }
      }
      lock.lock();
      if (--work.batch->work_left == 0) done_.notify_all();
    }
  }

  void hash_part(Item& item, uint64_t part, std::byte* buffer) {
    hash(item, {part * kPartBytes, std::min((part + 1) * kPartBytes, item.entry.size)}, buffer);
  }

  void hash(Item& item, ByteRange range, std::byte* buffer) {
    if (item.entry.size > kBlockSize) {
      std::lock_guard lock(mutex_);
      if (!item.nodes) item.nodes = std::make_unique<HashTreeBuilder>(item.entry.size);
    }
    const int failure = item.failure.load() != 0 ? item.failure.load() : read(item, range, buffer);
    if (failure != 0) item.failure = failure;
    if (--item.parts_left > 0) return;
    if (item.failure != 0) return;
    if (item.nodes) item.entry.hash = item.nodes->finish(&item.tree);
    item.nodes.reset();
    ++files_;
    ++hashed_files_;
  }

  int read(Item& item, ByteRange range, std::byte* buffer) {
    // O_NONBLOCK: what is a fifo by now does not keep us.
    const FileDescriptor file(open_below(root_, item.path, O_RDONLY | O_NONBLOCK));
    if (!file) return errno == ENOENT || errno == ELOOP ? kChanged : errno;
    if (int error = compare(file.get(), item); error != 0) return error;
    if (item.nodes) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    if (item.entry.size == 0) item.entry.hash = blake3(std::string_view());
    for (uint64_t at = range.begin; at < range.end && !stopping_;) {
      const size_t want = std::min<uint64_t>(kReadBytes, range.end - at);
      for (size_t have = 0; have < want;) {
        const ssize_t n = ::pread(file.get(), buffer + have, want - have, static_cast<off_t>(at + have));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        if (n == 0) return kChanged;
        have += static_cast<size_t>(n);
      }
      if (item.nodes) {
        for (size_t begin = 0; begin < want; begin += kBlockSize) {
          item.nodes->set(block_of(at + begin),
                          blake3_block({buffer + begin, std::min(kBlockSize, want - begin)}, block_of(at + begin)));
        }
      } else {
        item.entry.hash = blake3(std::span<const std::byte>(buffer, want));
      }
      at += want;
      bytes_ += want;
      hashed_bytes_ += want;
    }
    return compare(file.get(), item);
  }

  static int compare(int fd, const Item& item) {
    FileStamp now;
    if (const int error = stamp_of(fd, "", &now); error != 0) return error;
    return now == item.stamp ? 0 : kChanged;
  }

  const int root_;
  std::atomic<uint64_t> files_{0}, bytes_{0}, hashed_files_{0}, hashed_bytes_{0};
  std::mutex mutex_;
  std::condition_variable changed_, done_;
  std::deque<Work> work_;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

// --- walking -------------------------------------------------------------------------------------------------------

class Scan {
 public:
  Scan(int root, const ScanOptions& options, ScanVisitor& visitor)
      : root_(root), options_(options), visitor_(visitor), hashers_(root, options.threads) {}

  Result<ScanProgress> run() {
    std::optional<ManifestCursor> known;
    if (options_.known != nullptr) known.emplace(options_.known->pages, options_.known->head.root);
    FileStamp stamp;
    if (const int error = stamp_of(root_, "", &stamp); error != 0)
      return fail(error_from_errno(error, "look at the directory"));
    device_ = stamp.device;
    if (Status walked = directory("", entry_of("", ManifestEntry::Type::kDirectory, stamp), known); !walked)
      return fail(walked.error());
    if (Status handed = hand_out(0); !handed) return fail(handed.error());
    return progress();
  }

 private:
  // `self`: as it was found. `known`: its entries in the known tree.
  Status directory(const std::string& path, ManifestEntry self, std::optional<ManifestCursor>& known) {
    if (known && options_.following && options_.following->changed != nullptr &&
        !options_.following->changed->contains(path))
      return known_directory(path, std::move(self), known);
    const auto here = LocalDirectory::read(root_, path);
    if (!here) return path.empty() ? fail(here.error()) : left_out(path, here.error().message);
    Item& begin = add(Item::What::kBegin, path);
    begin.entry = entry_of(self.name, ManifestEntry::Type::kDirectory, here->stamp());
    for (size_t i = 0; i < here->size(); ++i) {
      if (Status added = entry(path, (*here)[i], known); !added) return added;
      if (Status handed = next_batch(false); !handed) return handed;
    }
    add(Item::What::kEnd, path);
    return next_batch(false);
  }

  // As the known tree has it, but for what is below it.
  Status known_directory(const std::string& path, ManifestEntry self, std::optional<ManifestCursor>& known) {
    add(Item::What::kBegin, path).entry = std::move(self);
    while (true) {
      const auto at = known->peek();
      if (!at) return fail(at.error());
      if (*at == nullptr) break;
      const ManifestEntry& entry = **at;
      const std::string below = join(path, entry.name);
      if (entry.type == ManifestEntry::Type::kDirectory) {
        std::optional<ManifestCursor> entries(std::in_place, options_.known->pages, entry.page);
        if (Status walked = directory(below, entry, entries); !walked) return walked;
      } else {
        const bool is_file = entry.type == ManifestEntry::Type::kFile;
        Item& item = add(is_file ? Item::What::kFile : Item::What::kSymlink, below);
        item.entry = entry;
        item.known = is_file;
      }
      known->advance();
      if (Status handed = next_batch(false); !handed) return handed;
    }
    add(Item::What::kEnd, path);
    return next_batch(false);
  }

  Status entry(const std::string& directory_path, LocalDirectory::Entry local, std::optional<ManifestCursor>& known) {
    const std::string path = join(directory_path, local.name);
    const ManifestEntry* before = look_up_known(known, local.name);
    if (S_ISDIR(local.stamp.mode)) {
      if (path == kManifestDirectory) return {};
      if (options_.excluded == std::pair(local.stamp.device, local.stamp.inode)) return {};
      if (options_.one_file_system && local.stamp.device != device_) return {};
      std::optional<ManifestCursor> below;
      if (before != nullptr && before->type == ManifestEntry::Type::kDirectory)
        below.emplace(options_.known->pages, before->page);
      return directory(path, entry_of(local.name, ManifestEntry::Type::kDirectory, local.stamp), below);
    }
    if (local.error != 0) return left_out(path, std::strerror(local.error));
    if (S_ISLNK(local.stamp.mode)) return symlink(path, local);
    if (!S_ISREG(local.stamp.mode)) {
      log::info("skipped, it is neither a file nor a directory nor a symlink: path={}", path);
      return {};
    }
    Item& item = add(Item::What::kFile, path);
    item.entry = entry_of(local.name, ManifestEntry::Type::kFile, local.stamp);
    item.stamp = local.stamp;
    if (before != nullptr && before->type == ManifestEntry::Type::kFile && before->hash &&
        before->size == item.entry.size && before->mtime == item.entry.mtime &&
        before->mtime_ns == item.entry.mtime_ns && is_older(*before, options_.known->head.created)) {
      item.known = true;
      item.entry.hash = before->hash;
      item.entry.tree = before->tree;
    } else if (is_not_to_read_now(item)) {
      item.known = true;  // all that there is to know of it now
    } else {
      batch_->bytes += item.entry.size;
    }
    return {};
  }

  bool is_not_to_read_now(const Item& item) const {
    return options_.following && item.is_large() && is_being_written(item.entry, options_.following->begun);
  }

  Status symlink(const std::string& path, LocalDirectory::Entry local) {
    char target[4096];
    const ssize_t n = ::readlinkat(root_, path.c_str(), target, sizeof target);
    if (n <= 0 || n == sizeof target)
      return left_out(path, n < 0 ? std::strerror(errno) : "where it leads is empty or too long");
    Item& item = add(Item::What::kSymlink, path);
    item.entry = entry_of(local.name, ManifestEntry::Type::kSymlink, local.stamp);
    item.entry.target.assign(target, static_cast<size_t>(n));
    return {};
  }

  // Nothing when the known manifest says nothing of it, or cannot be read any more.
  const ManifestEntry* look_up_known(std::optional<ManifestCursor>& known, std::string_view name) {
    if (!known) return nullptr;
    const auto at = known->seek(name);
    if (!at) {
      log::warn("the manifest before is damaged, its files are hashed again: error={}", at.error().message);
      known.reset();
      return nullptr;
    }
    return *at != nullptr && (*at)->name == name ? *at : nullptr;
  }

  Item& add(Item::What what, const std::string& path) {
    if (!batch_) batch_ = std::make_unique<Batch>();
    Item& item = batch_->items.emplace_back();
    item.what = what;
    item.path = path;
    return item;
  }
  Status left_out(const std::string& path, std::string why) {
    add(Item::What::kLeftOut, path).why = std::move(why);
    return {};
  }

  Status next_batch(bool now) {
    if (!batch_ || (!now && batch_->items.size() < kBatchItems && batch_->bytes < kBatchBytes)) return {};
    batches_.push_back(std::move(batch_));
    hashers_.put(*batches_.back());
    return hand_out(kBatches);
  }

  // What is done, and the oldest until no more than `most` batches wait.
  Status hand_out(size_t most) {
    if (most == 0) {
      if (Status put = next_batch(true); !put) return put;
    }
    while (!batches_.empty() && (batches_.size() > most || hashers_.is_done(*batches_.front()))) {
      if (Status done = wait_for(*batches_.front()); !done) return done;
      for (Item& item : batches_.front()->items) {
        if (Status handed = hand(item); !handed) return handed;
      }
      batches_.pop_front();
    }
    return {};
  }

  Status wait_for(const Batch& batch) {
    do {
      if (!visitor_.goes_on(progress())) return fail(ErrorCode::kCancelled, "interrupted");
    } while (!hashers_.wait_for(batch));
    return {};
  }

  ScanProgress progress() const {
    ScanProgress all = hashers_.progress();
    all.files += known_files_;
    all.bytes += known_bytes_;
    return all;
  }

  Status hand(Item& item) {
    switch (item.what) {
      case Item::What::kBegin: return visitor_.begin_directory(item.entry, item.path);
      case Item::What::kEnd: return visitor_.end_directory();
      case Item::What::kSymlink: return visitor_.entry(std::move(item.entry), {}, item.path);
      case Item::What::kLeftOut: return visitor_.left_out(item.path, item.why);
      case Item::What::kFile: break;
    }
    if (item.known) return hand_known(item);
    if (item.failure == 0) return visitor_.entry(std::move(item.entry), item.tree, item.path);
    if (item.failure != kChanged) return visitor_.left_out(item.path, std::strerror(item.failure));
    return hash_again(item);
  }

  // What a manifest says is believed as far as it fits together.
  Status hand_known(Item& item) {
    if (options_.known == nullptr) return visitor_.entry(std::move(item.entry), {}, item.path);  // it has no tree
    const auto tree = load_tree(options_.known->pages, item.entry);
    if (!tree) {
      log::warn("a file is hashed again: path={} error={}", item.path, tree.error().message);
      return hash_again(item);
    }
    ++known_files_;
    known_bytes_ += item.entry.size;
    return visitor_.entry(std::move(item.entry), *tree, item.path);
  }

  // Now that it is known as it is.
  Status hash_again(const Item& before) {
    for (int i = 1; i < kTries; ++i) {
      again_ = std::make_unique<Batch>();
      Item& item = again_->items.emplace_back();
      item.path = before.path;
      if (const int error = stamp_of(root_, item.path, &item.stamp); error != 0)
        return error == ENOENT ? Status() : visitor_.left_out(item.path, std::strerror(error));
      if (!S_ISREG(item.stamp.mode)) return visitor_.left_out(item.path, "it is no file any more");
      item.entry = entry_of(before.entry.name, ManifestEntry::Type::kFile, item.stamp);
      if (is_not_to_read_now(item)) break;
      hashers_.put(*again_);
      if (Status done = wait_for(*again_); !done) return done;
      if (item.failure == 0) return visitor_.entry(std::move(item.entry), item.tree, item.path);
      if (item.failure != kChanged) return visitor_.left_out(item.path, std::strerror(item.failure));
    }
    if (options_.following) {
      const Item& last = again_->items.front();
      return visitor_.entry(entry_of(before.entry.name, ManifestEntry::Type::kFile, last.stamp), {}, before.path);
    }
    return visitor_.left_out(before.path, "it changes while it is read");
  }

  const int root_;
  const ScanOptions& options_;
  ScanVisitor& visitor_;
  uint64_t device_ = 0;
  uint64_t known_files_ = 0, known_bytes_ = 0;
  std::unique_ptr<Batch> batch_;                // that is being filled
  std::unique_ptr<Batch> again_;                // of one file that has changed
  std::deque<std::unique_ptr<Batch>> batches_;  // that are hashed, the oldest first
  Hashers hashers_;                             // ends before what it works on
};

}  // namespace

int64_t nanoseconds_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Result<ScanProgress> scan_tree(int root, const ScanOptions& options, ScanVisitor& visitor) {
  return Scan(root, options, visitor).run();
}

}  // namespace wormhole
