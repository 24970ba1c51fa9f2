// `wormhole warm`: brings everything below some paths into the cache, by reading it through the mount.
//
//   survey     how much is there, how much is missing, does it fit
//   read       the tree is walked again, and several threads read what is missing
//   survey     what a full cache did not take, or what failed, is read once more; what is missing then is told
//
// The tree is walked each time anew: a list of a million files is held nowhere.
//
// The threads read through the page cache, but first let go of what is there: it may have bytes that the cache on disk
// has not. (O_DIRECT would do without. But its reads wait for the server in a way that not even kill -9 ends.)
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/byte_range.h"
#include "base/clock.h"
#include "base/file_descriptor.h"
#include "base/thread.h"
#include "tools/command.h"
#include "tools/control.h"
#include "tools/human.h"
#include "tools/interrupt.h"
#include "tools/mounted_path.h"
#include "tools/progress_bar.h"
#include "tools/survey.h"

namespace wormhole {
namespace {

// A large file fills the wire by itself; small ones cost a round trip each, and so many are on their way at once.
constexpr int kFilesAtOnce = 16;

// The largest read that the kernel passes on.
constexpr size_t kReadSize = 1 << 20;

// Files that wait for a thread: enough that none waits for the walk.
constexpr size_t kQueued = 256;

// More failures are counted, not named.
constexpr size_t kMostNamed = 1000;

// So many files in a row that cannot be read: the server is gone, and each further one would cost a timeout.
constexpr int kHopeless = 64;

// What was read is being stored a moment longer. It is looked for again so often, while it gets less.
constexpr Duration kSettle = std::chrono::milliseconds(200);
constexpr int kSettleRounds = 5;

struct WarmOptions {
  std::vector<std::string> paths;
  int files_at_once = kFilesAtOnce;
  bool pin = false;
  bool no_progress = false;
  bool json = false;
};

// --- reading -------------------------------------------------------------------------------------------------------

struct Job {
  WalkedFile file;
  uint64_t cached = 0;
  pid_t daemon = 0;
};

struct Failure {
  std::string path;
  std::string why;
};

// The threads that read. Its owner puts files in, and looks at the counters meanwhile.
class Readers {
 public:
  explicit Readers(int threads) {
    sigset_t set, before;
    ::sigemptyset(&set);
    for (const int number : kInterrupts) ::sigaddset(&set, number);
    ::pthread_sigmask(SIG_BLOCK, &set, &before);  // they are for the main thread
    for (int i = 0; i < threads; ++i) threads_.push_back(start_thread("wh-warm", [this] { run(); }));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  // REQUIRES: is_idle(). Else this waits for the server.
  ~Readers() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // False when there is no place now: after a moment.
  bool put(Job& job) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::milliseconds(50), [this] { return jobs_.size() < kQueued; }))
      return false;
    jobs_.push_back(std::move(job));
    lock.unlock();
    changed_.notify_all();
    return true;
  }
  // True when all that was put has been read; false after a moment.
  bool is_idle() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(50), [this] { return jobs_.empty() && busy_ == 0; });
  }
  uint64_t bytes() const { return bytes_.load(); }
  uint64_t files() const { return files_.load(); }
  bool is_hopeless() const { return failed_in_a_row_.load() >= kHopeless; }
  uint64_t failed() const { return failed_.load(); }
  std::vector<Failure> take_failures() {
    std::lock_guard lock(mutex_);
    return std::exchange(failures_, {});
  }

 private:
  void run() {
    const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kReadSize);
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) break;
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      ++busy_;
      lock.unlock();
      changed_.notify_all();
      const std::string why = read(job, buffer.get());
      lock.lock();
      --busy_;
      note(job, why);
      changed_.notify_all();
    }
  }

  void note(const Job& job, const std::string& why) {
    if (why.empty()) {
      ++files_;
      failed_in_a_row_ = 0;
      return;
    }
    ++failed_;
    ++failed_in_a_row_;
    if (failures_.size() < kMostNamed) failures_.push_back({job.file.path, why});
  }

  // Why it cannot be read; empty when it was.
  std::string read(const Job& job, std::byte* buffer) {
    FileDescriptor file(::open(job.file.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return std::strerror(errno);
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (job.cached == 0) return read_range(file.get(), {0, job.file.size}, buffer);
    for (uint64_t from = 0; from < job.file.size;) {
      const auto answer =
          ask_mount(job.daemon, {{"do", "missing"}, {"file", job.file.ino}, {"size", job.file.size}, {"from", from}});
      if (!answer) return answer.error().message;
      const auto ranges = answer->value("ranges", std::vector<std::array<uint64_t, 2>>{});
      if (ranges.empty()) break;
      for (const auto& [begin, end] : ranges) {
        if (std::string why = read_range(file.get(), {begin, end}, buffer); !why.empty()) return why;
      }
      from = ranges.back()[1];
    }
    return "";
  }

  std::string read_range(int fd, ByteRange range, std::byte* buffer) {
    while (!range.empty()) {
      const ssize_t n =
          ::pread(fd, buffer, std::min<uint64_t>(kReadSize, range.size()), static_cast<off_t>(range.begin));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return std::strerror(errno);
      if (n == 0) return "it is shorter than it was: another version";
      // It was not read for this machine's memory.
      ::posix_fadvise(fd, static_cast<off_t>(range.begin), n, POSIX_FADV_DONTNEED);
      range.begin += static_cast<uint64_t>(n);
      bytes_ += static_cast<uint64_t>(n);
    }
    return "";
  }

  std::atomic<uint64_t> bytes_{0}, files_{0}, failed_{0};
  std::atomic<int> failed_in_a_row_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::vector<Failure> failures_;
  int busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// --- the work ------------------------------------------------------------------------------------------------------

class Warming {
 public:
  Warming(const WarmOptions& options, std::vector<MountedPath> places)
      : options_(options), places_(std::move(places)), readers_(options.files_at_once) {}

  // It was ended before its time, and threads read on.
  bool is_reading() { return !readers_.is_idle(); }

  int run() {
    const TimePoint begin = clock_.now();
    Survey before = survey();
    if (is_over()) return finish(before, begin);
    if (const auto refusal = why_it_does_not_fit(); !refusal.empty()) {
      fmt::print(stderr, "wormhole warm: {}\n", refusal);
      if (options_.json) print_json(before, before, begin, refusal);
      return 1;
    }
    Survey now = before;
    // Once more for what a full cache has not taken, and for what failed by chance.
    for (int pass = 0; pass < 2 && !is_over(); ++pass) {
      if (pass > 0 && now.incomplete() == 0) break;
      failures_.clear();
      read(now, pass == 0 && options_.pin);
      failures_ = readers_.take_failures();
      failed_ = readers_.failed() - failed_before_;
      failed_before_ = readers_.failed();
      if (is_over()) break;
      now = settled_survey(failed_);
    }
    if (interrupted_by() == 0 && now.incomplete() > failed_) name_what_did_not_stay();
    fetched_bytes_ = readers_.bytes();
    for (const auto& [daemon, wanted] : by_daemon_) {
      if (const auto synced = ask_mount(daemon, {{"do", "sync"}}); !synced) {
        unseen_.push_back(synced.error().message);
      }
    }
    return finish(interrupted_by() != 0 || readers_.is_hopeless() ? before : now, begin);
  }

 private:
  bool is_over() const { return interrupted_by() != 0 || readers_.is_hopeless() || broken_; }

  // --- looking ---

  // With each batch, where `batch` is given. What cannot be looked at is noted once.
  Survey survey(const std::function<bool(const MountedPath&, const std::vector<WalkedFile>&,
                                         const std::vector<uint64_t>&)>& batch = nullptr) {
    Survey sum;
    by_daemon_.clear();
    unseen_.clear();
    for (const MountedPath& place : places_) {
      SurveyObserver observer;
      observer.batch = [&](const auto& files, const auto& cached) {
        return interrupted_by() == 0 && (!batch || batch(place, files, cached));
      };
      observer.failed = [&](const std::string& message) {
        if (unseen_.size() < kMostNamed) unseen_.push_back(message);
      };
      Survey one;
      if (!take_survey(place, observer, &one) && !is_over() && !batch) broken_ = true;
      add(one, &sum);
      add(one, &by_daemon_[place.daemon]);
    }
    return sum;
  }
  static void add(const Survey& one, Survey* sum) {
    sum->files += one.files;
    sum->complete += one.complete;
    sum->partial += one.partial;
    sum->bytes += one.bytes;
    sum->cached_bytes += one.cached_bytes;
    sum->pinned_files += one.pinned_files;
    sum->pinned_bytes += one.pinned_bytes;
  }

  // What was read last is not stored yet.
  Survey settled_survey(uint64_t failed) {
    Survey now = survey();
    for (int round = 0; round < kSettleRounds && now.incomplete() > failed && !is_over(); ++round) {
      std::this_thread::sleep_for(kSettle);
      const Survey later = survey();
      if (later.missing_bytes() < now.missing_bytes()) round = 0;
      now = later;
    }
    return now;
  }

  // Empty when it does.
  std::string why_it_does_not_fit() {
    for (const MountedPath& place : places_) {
      const Survey& wanted = by_daemon_[place.daemon];
      const auto cache = ask_mount(place.daemon, {{"do", "cache"}, {"files", false}});
      if (!cache) return cache.error().message;
      const auto number = [&](const char* name) { return cache->value(name, uint64_t{0}); };
      uint64_t pinned_elsewhere = 0;
      if (number("files_pinned") > wanted.pinned_files) {
        const auto pinned = ask_mount(place.daemon, {{"do", "pinned"}});
        if (!pinned) return pinned.error().message;
        const uint64_t bytes = pinned->value("bytes", uint64_t{0});
        pinned_elsewhere = bytes - std::min(bytes, wanted.pinned_bytes);
      }
      if (wanted.bytes + pinned_elsewhere <= number("holds")) continue;
      std::string why = fmt::format("{} do not fit into the cache of {}: it keeps at most {}",
                                    human_bytes(wanted.bytes), place.mountpoint, human_bytes(number("holds")));
      if (pinned_elsewhere > 0) why += fmt::format(", of which {} are pinned", human_bytes(pinned_elsewhere));
      return why + fmt::format(" (cache-size is {}; the disk has {} free, of which {} stay free)",
                               human_bytes(number("cache_size")), human_bytes(number("disk_free")),
                               human_bytes(number("min_free")));
    }
    return "";
  }

  // --- reading ---

  void read(const Survey& todo, bool pin) {
    todo_files_ = todo.incomplete();
    files_before_ = readers_.files() + readers_.failed();
    bytes_before_ = readers_.bytes();
    bar_.emplace(label(), todo.missing_bytes(), clock_,
                 options_.no_progress || todo_files_ == 0 ? ProgressBar::Output::kNone : ProgressBar::Output::kAuto);
    show();
    survey([&](const MountedPath& place, const std::vector<WalkedFile>& files, const std::vector<uint64_t>& cached) {
      if (pin && !pin_all(place, files)) return false;
      for (size_t i = 0; i < files.size(); ++i) {
        if (cached[i] >= files[i].size) continue;
        Job job{files[i], cached[i], place.daemon};
        while (!readers_.put(job)) {
          show();
          if (is_over()) return false;
        }
      }
      show();
      return !is_over();
    });
    while (!is_over() && !readers_.is_idle()) show();
    show();
    if (!is_over() && readers_.failed() == failed_before_) bar_->finish();
    bar_.reset();
  }

  bool pin_all(const MountedPath& place, const std::vector<WalkedFile>& files) {
    nlohmann::json numbers = nlohmann::json::array();
    for (const WalkedFile& file : files) numbers.push_back(file.ino);
    const auto answer = ask_mount(place.daemon, {{"do", "pin"}, {"files", numbers}});
    if (answer) return true;
    fmt::print(stderr, "wormhole warm: {}\n", answer.error().message);
    broken_ = true;
    return false;
  }

  std::string label() const {
    const uint64_t done = readers_.files() + readers_.failed() - files_before_;
    return fmt::format("{}/{} file{}", done, todo_files_, todo_files_ == 1 ? "" : "s");
  }
  void show() {
    bar_->relabel(label());
    bar_->update(readers_.bytes() - bytes_before_);
  }

  // --- the end ---

  void name_what_did_not_stay() {
    std::map<std::string, bool> known;
    for (const Failure& failure : failures_) known[failure.path] = true;
    survey([&](const MountedPath&, const std::vector<WalkedFile>& files, const std::vector<uint64_t>& cached) {
      for (size_t i = 0; i < files.size(); ++i) {
        if (cached[i] >= files[i].size || known.contains(files[i].path)) continue;
        ++failed_;
        if (failures_.size() < kMostNamed)
          failures_.push_back({files[i].path, options_.pin ? "the cache did not take all of it"
                                                           : "not all of it stayed: the cache is full of what is read "
                                                             "more (--pin keeps it)"});
      }
      return true;
    });
  }

  int finish(const Survey& after, TimePoint begin) {
    for (const Failure& failure : failures_) fmt::print(stderr, "wormhole warm: {}: {}\n", failure.path, failure.why);
    for (const std::string& message : unseen_) fmt::print(stderr, "wormhole warm: {}\n", message);
    if (failed_ > failures_.size()) fmt::print(stderr, "wormhole warm: and {} more\n", failed_ - failures_.size());
    if (readers_.is_hopeless())
      fmt::print(stderr, "wormhole warm: given up: the last {} files could not be read\n", kHopeless);
    if (interrupted_by() != 0) fmt::print(stderr, "wormhole warm: interrupted; what has come is cached\n");
    if (options_.json) {
      print_json(after, after, begin, "");
    } else if (interrupted_by() == 0 && failed_ == 0 && unseen_.empty() && !broken_) {
      fmt::print("{} of {} file{} are cached, {} were fetched{}\n", human_bytes(after.bytes), after.files,
                 after.files == 1 ? "" : "s", human_bytes(fetched_bytes_), options_.pin ? "; all are pinned" : "");
    }
    if (interrupted_by() != 0) return 128 + interrupted_by();
    return failed_ == 0 && unseen_.empty() && !broken_ ? 0 : 1;
  }

  void print_json(const Survey& wanted, const Survey& after, TimePoint begin, const std::string& error) {
    nlohmann::json failed = nlohmann::json::array();
    for (const Failure& failure : failures_) failed.push_back({{"path", failure.path}, {"error", failure.why}});
    nlohmann::json out = {{"files", wanted.files},
                          {"bytes", wanted.bytes},
                          {"files_complete", after.complete},
                          {"bytes_cached", after.cached_bytes},
                          {"bytes_fetched", fetched_bytes_},
                          {"files_failed", failed_},
                          {"failed", failed},
                          {"errors", unseen_},
                          {"pinned", options_.pin && error.empty()},
                          {"seconds", std::chrono::duration<double>(clock_.now() - begin).count()}};
    if (!error.empty()) out["error"] = error;
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  const WarmOptions& options_;
  const std::vector<MountedPath> places_;
  const SystemClock clock_;
  Readers readers_;
  std::optional<ProgressBar> bar_;
  std::map<pid_t, Survey> by_daemon_;
  std::vector<Failure> failures_;    // of the last pass
  std::vector<std::string> unseen_;  // of the last survey
  uint64_t failed_ = 0, failed_before_ = 0;
  uint64_t todo_files_ = 0, files_before_ = 0, bytes_before_ = 0;
  uint64_t fetched_bytes_ = 0;
  bool broken_ = false;  // the daemon does not answer, or the index cannot be written
};

int warm(const WarmOptions& options) {
  auto places = find_mounted(options.paths);
  if (!places) {
    fmt::print(stderr, "wormhole warm: {}\n", places.error().message);
    return 1;
  }
  catch_interrupts();
  Warming warming(options, std::move(*places));
  const int code = warming.run();
  if (warming.is_reading()) {
    // Threads that wait for a server can wait long; with the process they end at once.
    std::fflush(nullptr);
    ::_exit(code);
  }
  return code;
}

}  // namespace

CLI::App* add_warm_command(CLI::App& program, Run& run) {
  auto options = std::make_shared<WarmOptions>();
  CLI::App* command = program.add_subcommand("warm", "Bring files, or all below directories, into the cache");
  command->add_option("PATH", options->paths, "inside a mount")->required();
  command->add_flag("--pin", options->pin, "and keep them there");
  command->add_option("-j,--jobs", options->files_at_once, "files to read at the same time")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  command->add_flag("--no-progress", options->no_progress, "show nothing while it goes well");
  command->add_flag("--json", options->json, "machine-readable");
  command->callback([options, &run] { run = [options] { return warm(*options); }; });
  return command;
}

}  // namespace wormhole
