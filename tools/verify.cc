// `wormhole cache verify`: every cached block is read and checked; what is wrong is forgotten, and fetched again.
//
//   in a mount        its daemon reads; of a whole mount all that the cache holds, otherwise the files below a path.
//                     Then it fetches what was wrong, and only that
//   --cache DIR       a cache that no daemon holds: this process reads. What was wrong is fetched when it is read
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/thread.h"
#include "cache/cache_directory.h"
#include "cache/index_check.h"
#include "tools/command.h"
#include "tools/control.h"
#include "tools/human.h"
#include "tools/interrupt.h"
#include "tools/mounted_path.h"
#include "tools/progress_bar.h"
#include "tools/tree_walk.h"
#include "tools/verification.h"

namespace wormhole {
namespace {

// Something was wrong, and is not repaired.
constexpr int kNotRepaired = 3;

// More is counted, not named.
constexpr size_t kMostNamed = 1000;

// Files that are open at once while they are repaired, and ranges in one request: it stays below 300 KB.
constexpr size_t kFilesAtOnce = 256;
constexpr size_t kRangesAtOnce = 4096;

struct VerifyOptions {
  std::vector<std::string> paths;
  std::string cache;
  bool no_repair = false;
  bool no_progress = false;
  bool json = false;
};

std::string in_files(uint64_t bytes, uint64_t files) {
  return fmt::format("{} in {} file{}", human_bytes(bytes), files, files == 1 ? "" : "s");
}

// What both ways have in common: the bar, what was found, what is said in the end.
class Report {
 public:
  explicit Report(const VerifyOptions& options) : options_(options), begin_(clock_.now()) {}

  Verified found;
  uint64_t repaired_bytes = 0;

  void begin_bar(const char* label, uint64_t total) {
    bar_.emplace(label, total, clock_, options_.no_progress ? ProgressBar::Output::kNone : ProgressBar::Output::kAuto);
    bar_->update(0);
  }
  void show(uint64_t done) { bar_->update(done); }
  void end_bar(bool finished) {
    if (finished) bar_->finish();
    bar_.reset();
  }

  void not_repaired(const std::string& path, uint64_t bytes, const std::string& why) {
    if (!unrepaired_.empty() && unrepaired_.back()["path"] == path) {
      unrepaired_.back()["bytes"] = unrepaired_.back()["bytes"].get<uint64_t>() + bytes;
    } else if (unrepaired_.size() < kMostNamed) {
      unrepaired_.push_back({{"path", path}, {"bytes", bytes}, {"error", why}});
    }
  }
  void failed(const std::string& message) {
    fmt::print(stderr, "wormhole cache verify: {}\n", message);
    if (errors_.size() < kMostNamed) errors_.push_back(message);
  }

  int finish() {
    for (const auto& u : unrepaired_) {
      fmt::print(stderr, "wormhole cache verify: {}: {} are not repaired: {}\n", u["path"].get<std::string>(),
                 human_bytes(u["bytes"]), u["error"].get<std::string>());
    }
    const int signal = interrupted_by();
    if (signal != 0) fmt::print(stderr, "wormhole cache verify: interrupted; what was found wrong is forgotten\n");
    if (options_.json) {
      print_json();
    } else if (signal == 0 && errors_.empty()) {
      fmt::print("checked {}: {}\n", in_files(found.bytes, found.files), verdict());
    }
    if (signal != 0) return 128 + signal;
    if (!errors_.empty()) return 1;
    return repaired_bytes == found.wrong_bytes ? 0 : kNotRepaired;
  }

 private:
  std::string verdict() const {
    if (found.wrong_bytes == 0) return "all is right";
    const std::string wrong = in_files(found.wrong_bytes, found.wrong_files) + " were wrong";
    if (repaired_bytes == found.wrong_bytes) return wrong + ", and are repaired";
    if (options_.no_repair || !options_.cache.empty())
      return wrong + " and are forgotten: they are fetched when they are read";
    return fmt::format("{}, {} are repaired", wrong, human_bytes(repaired_bytes));
  }

  void print_json() const {
    const nlohmann::json out = {{"files", found.files},
                                {"blocks", found.blocks},
                                {"bytes", found.bytes},
                                {"wrong_files", found.wrong_files},
                                {"wrong_blocks", found.wrong_blocks},
                                {"wrong_bytes", found.wrong_bytes},
                                {"repaired_bytes", repaired_bytes},
                                {"unrepaired", unrepaired_},
                                {"errors", errors_},
                                {"seconds", std::chrono::duration<double>(clock_.now() - begin_).count()}};
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  const VerifyOptions& options_;
  const SystemClock clock_;
  const TimePoint begin_;
  std::optional<ProgressBar> bar_;
  nlohmann::json unrepaired_ = nlohmann::json::array(), errors_ = nlohmann::json::array();
};

// --- in a mount ------------------------------------------------------------------------------------------------------

nlohmann::json numbers_of(const std::vector<WalkedFile>& files) {
  nlohmann::json numbers = nlohmann::json::array();
  for (const WalkedFile& file : files) numbers.push_back(file.ino);
  return numbers;
}

class MountVerify {
 public:
  MountVerify(const VerifyOptions& options, std::vector<MountedPath> places)
      : options_(options), places_(std::move(places)), report_(options) {}

  int run() {
    report_.begin_bar("checking", bytes_cached());
    for (const MountedPath& place : places_) check(place);
    report_.end_bar(is_well());
    if (!options_.no_repair && is_well() && report_.found.wrong_bytes > 0) {
      uint64_t lost = 0;
      for (const auto& [daemon, ranges] : wrong_) {
        for (const WrongBytes& w : ranges) lost += w.range.size();
      }
      report_.begin_bar("repairing", lost);
      for (const auto& [daemon, ranges] : wrong_) repair(daemon, ranges);
      report_.end_bar(is_well() && report_.repaired_bytes == report_.found.wrong_bytes);
    }
    return report_.finish();
  }

 private:
  bool is_well() const { return interrupted_by() == 0 && !broken_; }

  // Everything is looked at by the index: it needs no listings, and nothing is left out.
  static bool is_whole(const MountedPath& place) {
    std::error_code error;
    return std::filesystem::canonical(place.path, error) == place.mountpoint && !error;
  }

  std::optional<nlohmann::json> ask(pid_t daemon, const nlohmann::json& request, const Heard& heard = nullptr) {
    auto answer = ask_mount(daemon, request, [&](const nlohmann::json& said) {
      if (heard) heard(said);
      return interrupted_by() == 0;
    });
    if (answer) return std::move(*answer);
    if (interrupted_by() == 0) report_.failed(answer.error().message);
    broken_ = true;
    return std::nullopt;
  }

  void walk(const std::string& top, const std::function<bool(const std::vector<WalkedFile>&)>& full) {
    walk_in_batches(
        Walk::Sizes::kUnknown, top, [&](const auto& files) { return full(files) && is_well(); },
        [&](const std::string& path, int error) { report_.failed(path + ": " + std::strerror(error)); });
  }

  uint64_t bytes_cached() {
    uint64_t bytes = 0;
    for (const MountedPath& place : places_) {
      if (is_whole(place)) {
        if (const auto cache = ask(place.daemon, {{"do", "cache"}})) bytes += cache->value("bytes_cached", uint64_t{0});
        continue;
      }
      // What cannot be looked at is told by the walk that checks.
      walk_in_batches(
          Walk::Sizes::kUnknown, place.path,
          [&](const std::vector<WalkedFile>& files) {
            const auto answer = ask(place.daemon, {{"do", "cached"}, {"files", numbers_of(files)}});
            if (!answer) return false;
            for (const uint64_t n : answer->value("cached", std::vector<uint64_t>{})) bytes += n;
            return is_well();
          },
          [](const std::string&, int) {});
    }
    return bytes;
  }

  void check(const MountedPath& place) {
    auto& wrong = wrong_[place.daemon];
    const auto take = [&](const nlohmann::json& said) {
      const size_t before = report_.found.wrong.size();
      add(said, &report_.found);
      wrong.insert(wrong.end(), report_.found.wrong.begin() + static_cast<ptrdiff_t>(before),
                   report_.found.wrong.end());
      report_.show(report_.found.bytes);
      return true;
    };
    if (is_whole(place)) {
      if (!is_well() || !ask(place.daemon, {{"do", "verify"}}, take)) return;
      if (!wrong.empty() && !options_.no_repair) find_paths(place.mountpoint, wrong);
      return;
    }
    walk(place.path, [&](const std::vector<WalkedFile>& files) {
      const size_t before = wrong.size();
      if (!ask(place.daemon, {{"do", "verify"}, {"files", numbers_of(files)}}, take)) return false;
      if (wrong.size() > before) note_paths(files, wrong);
      return true;
    });
  }

  void note_paths(const std::vector<WalkedFile>& files, const std::vector<WrongBytes>& wrong) {
    std::unordered_map<Ino, const WalkedFile*> by_number;
    for (const WalkedFile& file : files) by_number[file.ino] = &file;
    for (const WrongBytes& w : wrong) {
      if (const auto file = by_number.find(w.ino); file != by_number.end()) paths_[w.ino] = file->second->path;
    }
  }

  void find_paths(const std::string& mountpoint, const std::vector<WrongBytes>& wrong) {
    std::unordered_map<Ino, bool> wanted;
    for (const WrongBytes& w : wrong) wanted[w.ino] = true;
    walk(mountpoint, [&](const std::vector<WalkedFile>& files) {
      for (const WalkedFile& file : files) {
        if (wanted.contains(file.ino)) paths_[file.ino] = file.path;
      }
      return true;
    });
  }

  // --- repairing ---

  void repair(pid_t daemon, const std::vector<WrongBytes>& wrong) {
    std::map<Ino, FileDescriptor> open;
    nlohmann::json ranges = nlohmann::json::array();
    for (const WrongBytes& w : wrong) {
      if (ranges.size() >= kRangesAtOnce || (open.size() >= kFilesAtOnce && !open.contains(w.ino))) {
        refetch(daemon, std::exchange(ranges, nlohmann::json::array()), std::exchange(open, {}));
      }
      if (!is_well()) return;
      if (!open.contains(w.ino)) open[w.ino] = open_file(w.ino);
      if (open[w.ino]) {
        ranges.push_back({w.ino, w.range.begin, w.range.end});
      } else {
        report_.not_repaired(path_of(w.ino), w.range.size(), why_not_open_[w.ino]);
      }
    }
    refetch(daemon, ranges, open);
  }

  std::string path_of(Ino ino) const {
    const auto path = paths_.find(ino);
    return path == paths_.end() ? fmt::format("(file {})", ino) : path->second;
  }

  FileDescriptor open_file(Ino ino) {
    const auto path = paths_.find(ino);
    std::string& why = why_not_open_[ino];
    why = "no name of this mount leads to it: another version has come, or it is another mount's";
    if (path == paths_.end()) return {};
    FileDescriptor file(::open(path->second.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat s {};
    if (!file) {
      why = std::strerror(errno);
    } else if (::fstat(file.get(), &s) != 0 || s.st_ino != ino) {
      return {};
    }
    return file;
  }

  void refetch(pid_t daemon, const nlohmann::json& ranges, const std::map<Ino, FileDescriptor>& open) {
    if (ranges.empty() || !is_well()) return;
    uint64_t wanted = 0, missed = 0;
    // What was read of the wrong bytes before they were found is in the page cache of the mount.
    for (const auto& [ino, begin, end] : ranges.get<std::vector<std::array<uint64_t, 3>>>()) {
      ::posix_fadvise(open.at(ino).get(), static_cast<off_t>(begin), static_cast<off_t>(end - begin),
                      POSIX_FADV_DONTNEED);
      wanted += end - begin;
    }
    const auto answer = ask(daemon, {{"do", "refetch"}, {"wrong", ranges}}, [&](const nlohmann::json& said) {
      fetched_bytes_ += said.value("bytes", uint64_t{0});
      report_.show(fetched_bytes_);
      return true;
    });
    if (!answer) return;
    for (const auto& f : answer->value("failed", nlohmann::json::array())) {
      missed += f.value("bytes", uint64_t{0});
      report_.not_repaired(path_of(f.value("file", Ino{0})), f.value("bytes", uint64_t{0}), f.value("why", "?"));
    }
    report_.repaired_bytes += wanted - missed;
  }

  const VerifyOptions& options_;
  const std::vector<MountedPath> places_;
  Report report_;
  std::map<pid_t, std::vector<WrongBytes>> wrong_;
  std::unordered_map<Ino, std::string> paths_;  // of files of which something was wrong
  std::unordered_map<Ino, std::string> why_not_open_;
  uint64_t fetched_bytes_ = 0;
  bool broken_ = false;  // a daemon does not answer
};

// --- a cache that no daemon holds ------------------------------------------------------------------------------------

// The owner of the blocks: a thread with what an engine has of it.
class BlockOwner {
 public:
  BlockOwner(const std::string& objects, Index& index) : space_({objects}, metrics_), buffers_(~uint64_t{0}, metrics_) {
    std::promise<void> ready;
    thread_ = start_thread("wh-blocks", [this, &objects, &index, &ready] {
      loop_ = EventLoop::create();
      BlockCache cache({objects}, space_, index, *loop_, buffers_, metrics_);
      cache_ = &cache;
      ready.set_value();
      loop_->run();
    });
    ready.get_future().wait();
  }
  // What is under way is brought to its end.
  ~BlockOwner() {
    loop_->stop();
    thread_.join();
  }

  void check(RegionKey key, std::function<void(BlockCache::Checked)> done) {
    loop_->post([this, key, done = std::move(done)]() mutable { cache_->check_region(key, std::move(done)); });
  }

 private:
  Metrics metrics_;
  Space space_;
  BufferPool buffers_;
  std::unique_ptr<EventLoop> loop_;
  BlockCache* cache_ = nullptr;
  std::thread thread_;
};

// A damaged index is deleted, as a mount would do: the next one begins anew.
Status check_cache(const VerifyOptions& options, Report& report) {
  std::error_code error;
  if (!std::filesystem::exists(options.cache + "/FORMAT", error))
    return fail(ErrorCode::kNotFound, "{} is no cache of wormhole", options.cache);
  auto directory = CacheDirectory::open(options.cache, 0);
  if (!directory) return fail(directory.error());
  const auto looked_at = delete_if_damaged(directory->index_path(), true);
  if (!looked_at) return fail(looked_at.error());
  if (looked_at == IndexFound::kDamaged) {
    return fail(ErrorCode::kCorrupt,
                "the index of the cache was damaged and is deleted: what was cached is fetched again");
  }
  Metrics metrics;
  auto index = Index::open(directory->index_path(), metrics);
  if (!index) return fail(index.error());
  const CacheContents contents = (*index)->contents();
  report.begin_bar("checking", contents.small_bytes + contents.main_bytes);
  bool complete = false;
  {
    BlockOwner owner(directory->objects_path(), **index);
    Verification verification(
        **index, [&owner](RegionKey key, auto done) { owner.check(key, std::move(done)); },
        [&](const Verified& found) {
          add(to_json(found), &report.found);
          report.show(report.found.bytes);
          return interrupted_by() == 0;
        });
    complete = verification.run_all();
  }
  (*index)->flush();
  const bool written = (*index)->failures() == 0;
  // As after a pass of the scrubber: whatever an unclean end has left in doubt has been looked at.
  if (complete && written) (*index)->trust_again();
  index->reset();
  report.end_bar(complete);
  if (!written) return fail(ErrorCode::kIo, "{}: the index cannot be written", options.cache);
  // After an unclean end the next mount looks for what it has left.
  if (!directory->was_left_open()) directory->ended();
  return {};
}

// --- the command -----------------------------------------------------------------------------------------------------

int verify_cache(const VerifyOptions& options) {
  Report report(options);
  log::configure(log::Level::kError, "");  // what is found is told once, at the end
  if (auto s = check_cache(options, report); !s) report.failed(s.error().message);
  return report.finish();
}

int verify(const VerifyOptions& options) {
  catch_interrupts();
  if (!options.cache.empty()) return verify_cache(options);
  auto places = find_mounted(options.paths);
  if (!places) {
    const int signal = interrupted_by();
    fmt::print(stderr, "wormhole cache verify: {}\n", signal != 0 ? "interrupted" : places.error().message);
    return signal != 0 ? 128 + signal : 1;
  }
  return MountVerify(options, std::move(*places)).run();
}

}  // namespace

void add_verify_command(CLI::App& cache, Run& run) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* command = cache.add_subcommand("verify", "Check what is cached, and fetch again what is wrong");
  CLI::Option* paths = command->add_option("PATH", options->paths, "inside a mount; a mountpoint is all of its cache");
  CLI::Option* directory =
      command->add_option("--cache", options->cache, "a cache that no mount holds; nothing is fetched");
  CLI::Option* no_repair = command->add_flag("--no-repair", options->no_repair, "forget what is wrong, fetch nothing");
  command->add_flag("--no-progress", options->no_progress, "show nothing while it goes on");
  command->add_flag("--json", options->json, "machine-readable");
  directory->excludes(paths)->excludes(no_repair);
  command->callback([options, &run] {
    if (options->paths.empty() && options->cache.empty()) throw CLI::RequiredError("PATH or --cache");
    run = [options] { return verify(*options); };
  });
}

}  // namespace wormhole
