#include "tools/live_manifest.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "manifest/tree_scan.h"
#include "manifest/writer.h"

namespace wormhole {
namespace {

using std::chrono::seconds;

// What was the current manifest within ten times of a mount's default `ttl` can still be read, if all of these together
// are not larger than this.
constexpr Retention kRetention = {.count = 1, .age = seconds(600), .bytes = 256 << 20};

// A file system's clock ticks every two seconds at worst: then what was being written is old enough to be read.
constexpr seconds kLookAgain{3};

// When it failed: the disk is full, say.
constexpr seconds kTryAgain{30};

// Another process has the place: when to see whether it has ended.
constexpr seconds kAskForPlace{5};

// No directory can be watched: as often as a mount asks.
constexpr seconds kBlindRescan{60};

constexpr seconds kProgress{10};

// A third of the share that somebody else gets of a processor: readers of files come first, but it is made on a busy
// machine as well.
constexpr int kNice = 5;

// Of what is left out, this much is named.
constexpr size_t kMostNamed = 1000;

// Half of the processors are left to those who ask for files.
int hashing_threads() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency() / 2)); }

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == path.npos ? "" : path.substr(0, slash);
}

void add(DirectoryChanges& all, DirectoryChanges more) {
  all.rescan |= more.rescan;
  all.directories.merge(more.directories);
  if (all.rescan) all.directories.clear();
}

}  // namespace

// From a scan into the pages.
class LiveManifest::Writing final : public ScanVisitor {
 public:
  Writing(LiveManifest& owner, UnnamedFile& pages)
      : owner_(owner), writer_([&pages](std::string_view bytes) { return pages.append(bytes); }) {}

  Status begin_directory(const ManifestEntry& directory, const std::string&) override {
    return writer_.begin(directory);
  }
  Status entry(ManifestEntry entry, std::span<const std::byte> tree, const std::string& path) override {
    if (entry.type == ManifestEntry::Type::kFile && !entry.hash) {
      ++being_written_;
      owner_.being_written_.insert(parent_of(path));
      if (owner_.options_.key) return {};
    }
    return writer_.add(std::move(entry), tree);
  }
  Status end_directory() override { return writer_.end(); }
  Status left_out(const std::string& path, const std::string& why) override {
    if (owner_.left_out_.size() < kMostNamed && owner_.left_out_.insert(path).second)
      log::warn("manifest: left out: path={} reason=\"{}\"", path, why);
    return {};
  }
  bool goes_on(const ScanProgress& progress) override {
    if (const TimePoint now = owner_.clock_.now(); now - told_ >= kProgress) {
      told_ = now;
      log::info("manifest: is being made: files={} bytes={} read={}", progress.files, progress.bytes,
                progress.hashed_bytes);
    }
    return !owner_.stopping_;
  }

  Result<ManifestHead> finish() { return writer_.finish(); }
  uint64_t being_written() const { return being_written_; }

 private:
  LiveManifest& owner_;
  ManifestWriter writer_;
  uint64_t being_written_ = 0;
  TimePoint told_ = owner_.clock_.now();
};

// --- its life -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<LiveManifest>> LiveManifest::open(LiveManifestOptions options) {
  FileDescriptor root(::open(options.tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail(error_from_errno(errno, "open " + options.tree));
  std::unique_ptr<LiveManifest> manifest(new LiveManifest(std::move(options), std::move(root)));
  if (Status taken = manifest->take_place(); !taken && taken.error().code != ErrorCode::kBusy)
    return fail(taken.error());
  std::error_code ignored;
  const std::string tree = std::filesystem::canonical(manifest->options_.tree, ignored).string() + "/";
  const std::string place = std::filesystem::canonical(manifest->options_.place, ignored).string();
  if (place + "/" == tree)
    return fail(ErrorCode::kInvalid, "{}: a manifest cannot lie among what it tells of", manifest->options_.place);
  if (place.starts_with(tree)) manifest->place_in_tree_ = place.substr(tree.size());
  return manifest;
}

LiveManifest::~LiveManifest() {
  stop();
  if (thread_.joinable()) thread_.join();
}

void LiveManifest::start() {
  thread_ = start_thread("wh-manifest", [this] { run(); });
}

void LiveManifest::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  woken_.notify_all();
}

// kBusy: another process has it.
Status LiveManifest::take_place() {
  auto directory = ManifestDirectory::open_to_write(options_.place);
  if (!directory) return fail(directory.error());
  directory_.emplace(std::move(*directory));
  auto current = directory_->current();
  if (!current && current.error().code == ErrorCode::kFormat) return fail(current.error());
  if (current) {
    if (!current->signature.empty() && !options_.key)
      log::warn("the manifest before was signed, and this one will not be: mounts that demand a signature refuse it");
    current_ = std::move(*current);
  } else if (current.error().code != ErrorCode::kNotFound) {
    log::warn("the manifest before is of no use: {}", current.error().message);
  }
  return {};
}

bool LiveManifest::wait_for_place() {
  if (directory_) return true;
  log::info("another process keeps the manifest: place={}", options_.place);
  while (wait(kAskForPlace)) {
    const Status taken = take_place();
    if (taken) return true;
    if (taken.error().code == ErrorCode::kBusy) continue;
    log::error("the manifest is not kept up to date: {}", taken.error().message);
    return false;
  }
  return false;
}

std::unique_ptr<DirectoryWatch> LiveManifest::watch() {
  std::error_code ignored;  // a watch follows no links
  const std::string tree = std::filesystem::canonical(options_.tree, ignored).string();
  auto watch = DirectoryWatch::start(tree, [this](DirectoryChanges changes) { changed(std::move(changes)); },
                                     {.goes_on = [this] { return !stopping_; }});
  if (watch) return std::move(*watch);
  if (stopping_) return nullptr;
  log::warn("changes are not seen at once, everything is looked at every {} s: {}", kBlindRescan.count(),
            watch.error().message);
  options_.rescan = kBlindRescan;
  return nullptr;
}

void LiveManifest::run() {
  ::setpriority(PRIO_PROCESS, 0, kNice);  // of this thread and those that it starts
  if (!wait_for_place()) return;
  // Before the first scan, so that nothing is missed.
  const std::unique_ptr<DirectoryWatch> watching = watch();
  DirectoryChanges changes = {{}, true};
  bool is_first = true;
  while (!stopping_) {
    const TimePoint began = clock_.now();
    const bool was_quiet = being_written_.empty();
    const Status updated = update(changes);
    const TimePoint ended = clock_.now();
    // What the first one takes, the next ones do not.
    not_before_ = ended + pause_after(std::exchange(is_first, false) ? Duration(0) : ended - began);
    if (was_quiet) look_again_at_ = began + kLookAgain;
    if (changes.rescan) rescan_at_ = ended + options_.rescan;
    if (stopping_) break;
    if (!updated) {
      log::warn("the manifest is not up to date, tried again in {} s: {}", kTryAgain.count(), updated.error().message);
      if (updated.error().code == ErrorCode::kCorrupt) {  // the one before: everything is read
        current_.reset();
        changes = {{}, true};
      }
      not_before_ = ended + kTryAgain;
      const MutexLock lock(mutex_);
      add(waiting_, std::move(changes));
    }
    changes = wait_for_changes();
  }
}

// --- changes --------------------------------------------------------------------------------------------------------

// What a manifest is not about.
bool LiveManifest::is_own(const std::string& directory) const {
  const auto is_below = [&](std::string_view top) {
    return directory.starts_with(top) && (directory.size() == top.size() || directory[top.size()] == '/');
  };
  return is_below(kManifestDirectory) || (!place_in_tree_.empty() && is_below(place_in_tree_));
}

void LiveManifest::changed(DirectoryChanges changes) {
  std::erase_if(changes.directories, [this](const std::string& directory) { return is_own(directory); });
  if (changes.empty()) return;
  {
    const MutexLock lock(mutex_);
    add(waiting_, std::move(changes));
  }
  woken_.notify_all();
}

// False: it ends.
bool LiveManifest::wait(Duration time) {
  std::unique_lock lock(mutex_);
  woken_.wait_for(lock, time, [this] { return stopping_.load(); });
  return !stopping_;
}

DirectoryChanges LiveManifest::wait_for_changes() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const TimePoint now = clock_.now();
    if (options_.rescan > seconds(0) && now >= rescan_at_) add(waiting_, {{}, true});
    if (!being_written_.empty() && now >= look_again_at_) add(waiting_, {std::exchange(being_written_, {}), false});
    if (!waiting_.empty() && now >= not_before_) return std::exchange(waiting_, {});
    TimePoint until = TimePoint::max();
    if (options_.rescan > seconds(0)) until = rescan_at_;
    if (!being_written_.empty()) until = std::min(until, look_again_at_);
    if (!waiting_.empty()) until = not_before_;
    until == TimePoint::max() ? woken_.wait(lock) : static_cast<void>(woken_.wait_until(lock, until));
  }
  return {};
}

// --- a manifest -----------------------------------------------------------------------------------------------------

Status LiveManifest::update(const DirectoryChanges& changes) {
  const TimePoint began = clock_.now();
  const int64_t created = nanoseconds_now();
  auto pages = directory_->new_file();
  if (!pages) return fail(pages.error());
  Writing writing(*this, *pages);
  KnownTree known;
  ScanOptions scan;
  scan.threads = hashing_threads();
  scan.excluded = directory_->identity();
  scan.following = {.begun = created, .changed = changes.rescan ? nullptr : &changes.directories};
  if (current_) {
    known = {.head = current_->head, .pages = current_->pages};
    scan.known = &known;
  }
  const auto scanned = scan_tree(root_.get(), scan, writing);
  if (!scanned) return fail(scanned.error());
  auto head = writing.finish();
  if (!head) return fail(head.error());
  const bool is_same = current_ && current_->head.pages == head->pages && current_->head.root_mode == head->root_mode &&
                       current_->head.root_mtime == head->root_mtime;
  // One that was there before may have another signature, or none.
  if (is_same && (is_ours_ || (!options_.key && current_->signature.empty()))) return {};
  head->created = created;
  head->sequence = directory_->next_sequence(created);
  const auto sign = [&](std::string_view bytes) { return sign_head(*options_.key, *head, bytes); };
  const auto published = directory_->publish(
      std::move(*pages), *head, options_.key ? sign : std::function<std::string(std::string_view)>(), kRetention);
  if (!published) return fail(published.error());
  auto current = directory_->current();
  if (!current) return fail(current.error());
  current_ = std::move(*current);
  is_ours_ = true;
  log::info("manifest: sequence={} files={} bytes={} read={} being-written={} seconds={:.3f}", head->sequence,
            head->files, head->bytes, scanned->hashed_bytes, writing.being_written(),
            std::chrono::duration<double>(clock_.now() - began).count());
  return {};
}

}  // namespace wormhole
