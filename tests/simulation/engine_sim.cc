// One engine or several in a world that goes wrong at random: reads, opens, closes, evictions and ends of the daemon,
// over a network that answers late, in any order, with failures and other versions, and a disk that fails, tears and,
// after a kill, has lost what was not synced, and files that are flipped, cut, replaced or gone. Everything follows
// from the seed: a seed that fails once fails always.
//
//   engine_sim [--seeds=FIRST-LAST | --seed=N [--trace]]
//
// What has to hold, whatever happens:
//   - a read is answered once, with the bytes of exactly the version that the index has for its inode number, or with
//     an error that is documented and has a cause
//   - who is inside of a complete file (the kernel, or a reader past the engine) finds right bytes until he leaves
//   - where nothing was damaged, no block is ever found corrupt: the index never knows more than the disk
//   - what lies in objects/ is within the limit, and what the index counts is what its regions say
//   - when everything is over, no read is unanswered and no buffer is held
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/file_descriptor.h"
#include "base/log.h"
#include "cache/index_check.h"
#include "fs/open_file.h"
#include "tests/support/reader_setup.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::FakeFetcher;

constexpr uint64_t kUnlimited = 10ull << 30;  // of the cache
constexpr uint64_t kFileSlack = 64 << 10;     // what a file may take beyond its blocks: whole pages
constexpr uint64_t kLeastMemory = 16;         // MiB: the daemon takes no less; here less shows what runs short

constexpr Ino kThePack = 0;  // among the files that are to be reclaimed

// A rule was broken.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Simulation {
 public:
  Simulation(uint64_t seed, bool trace)
      : random_(seed),
        trace_(trace),
        setup_(one_of<uint64_t>({1, 2, kLeastMemory}) << 20),
        snapshot_(setup_.index_path()) {
    setup_.reader_options.readahead = {one_of<uint64_t>({0, 128 << 10, 1 << 20})};
    setup_.cache_options.verify = one_of({VerifyMode::kAuto, VerifyMode::kAuto, VerifyMode::kAlways});
    setup_.space_options.limit =
        one_of<uint64_t>({kUnlimited, kUnlimited, 6 << 20, 3 << 20, 1 << 20, 1 << 20, 512 << 10, 0});
    setup_.engines = one_of({1u, 2u, 3u});
    disk_faults_ = chance(0.5);
    wire_faults_ = chance(0.5);
    changes_ = chance(0.6);
    large_files_ = chance(0.3);
    small_files_ = !large_files_ && chance(0.5);
    tiny_files_ = chance(0.5);
    harms_ = chance(0.5);
    setup_.disk.remember_writes();
    const int files = one_of({3, 6});
    for (int i = 0; i < files; ++i) {
      files_.emplace_back();
      files_.back().url = fmt::format("http://x/{}", i);
      files_.back().has_ranges = !chance(0.2);
      files_.back().has_etag = chance(0.7);
      files_.back().has_date = !files_.back().has_etag || chance(0.5);
      new_version(files_.back());
    }
    setup_.start();
    take_snapshot();
  }

  ~Simulation() {
    ending_ = true;
    if (setup_.reader != nullptr)
      setup_.stop();  // a rule was broken: those who wait are answered while they can be judged
    forget_handles();
  }

  void run(int steps) {
    for (step_ = 0; step_ < steps; ++step_) {
      one_step();
      check();
    }
    finish();
  }

 private:
  struct File {
    std::string url;
    bool has_ranges = true;
    bool has_etag = true,
         has_date = true;  // what the server tells; one of them at least, and the same for all versions
    std::vector<FakeFetcher::Version> versions;  // the last is the current one
    Ino ino = 0;                                 // what the latest listing says; 0: never listed
    size_t listed = 0;                           // the version that it saw

    const FakeFetcher::Version& current() const { return versions.back(); }
  };
  struct Handle {
    size_t file;
    Ino ino;
    uint64_t size;
    OpenFileRef open;
    uint64_t position = 0;
    const CompleteFile* inside = nullptr;  // he reads the file himself
  };
  struct Pending {
    test::AnswerRef answer = std::make_shared<test::Answer>();
    std::string what;
  };

  // --- chance --------------------------------------------------------------------------------------------------------

  bool chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random_) < p; }
  uint64_t below(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  template <typename T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + below(values.size()));
  }

  // --- the world -----------------------------------------------------------------------------------------------------

  void new_version(File& f) {
    FakeFetcher::Version v;
    v.seed = next_version_seed_++;
    const bool other_size = f.versions.empty() || chance(0.3);
    // In blocks: two regions and a bit, or one, or so few that all of them are read.
    const uint64_t largest = large_files_ && chance(0.4) ? 140 : small_files_ && chance(0.7) ? 4 : 40;
    v.size = other_size ? 1 + below((tiny_files_ && chance(0.7) ? 1 : largest) * kBlockSize) : f.current().size;
    if (f.has_etag) v.validator.etag = fmt::format("\"{}\"", v.seed);
    if (f.has_date) v.validator.last_modified = fmt::format("date {}", v.seed);
    f.versions.push_back(v);
  }

  void one_step() {
    switch (below(26)) {
      case 0:
      case 18: open(); break;
      case 1: close(); break;
      case 2:
      case 3:
      case 4:
      case 5: read(); break;
      case 6:
      case 7:
      case 8:
      case 9:
      case 10: answer_a_fetch(); break;
      case 11:
      case 12:
      case 13:
      case 14: complete_a_disk_operation(); break;
      case 15: confirm_cancelled(); break;
      case 16: rare_event(); break;
      case 17: pass_time(); break;
      case 19:
      case 20: evict_something(); break;
      case 21: run_a_task(); break;
      case 22:
      case 23: enter_or_leave(); break;
      case 24: reclaim_a_file(); break;
      default: setup_.deliver_messages();
    }
  }

  void rare_event() {
    switch (below(8)) {
      case 0:
      case 1: change_a_file(); break;
      case 2: toggle_ranges(); break;
      case 3: take_snapshot(); break;
      case 4: end_cleanly(); break;
      case 5: die(); break;
      default: break;
    }
  }

  void change_a_file() {
    if (!changes_) return;
    File& f = files_[below(files_.size())];
    new_version(f);
    trace("{} has version {} of {} bytes", f.url, f.current().seed, f.current().size);
  }
  void toggle_ranges() {
    if (!chance(0.3)) return;
    File& f = files_[below(files_.size())];
    f.has_ranges = !f.has_ranges;
    trace("{} has {} ranges", f.url, f.has_ranges ? "now" : "no");
  }
  void pass_time() {
    setup_.clock.advance(std::chrono::milliseconds(below(4000)));
    for (auto& reader : setup_.readers) reader->tick();
  }

  // --- the kernel's side ---------------------------------------------------------------------------------------------

  // A listing, perhaps an old one, and an open.
  void open() {
    if (handles_.size() >= 6) return;
    const size_t number = below(files_.size());
    File& f = files_[number];
    if (f.ino == 0 || chance(0.5)) list(f);
    trace("open {} ino={} size={}", f.url, f.ino, f.versions[f.listed].size);
    const uint64_t size = f.versions[f.listed].size;
    handles_.push_back({number, f.ino, size, open_files_->open(f.ino, size)});
    const OpenFileRef& file = handles_.back().open;
    setup_.reader_of(f.ino).open(f.ino, size, f.url, file);
    const int32_t backing = file->decide(passthrough_, [&](int fd) {
      trace("  passed through");
      kernel_[f.ino] = fd;
      return 1;
    });
    if (backing == 0) kernel_.erase(f.ino);
  }
  void list(File& f) {
    if (f.ino != 0 && f.listed + 1 == f.versions.size()) return;
    const Ino before = f.ino;
    f.ino = setup_.index->allocate_ino();
    f.listed = f.versions.size() - 1;
    if (before != 0) setup_.cache_of(before).drop(before);
  }
  void close() {
    if (handles_.empty()) return;
    const auto it = handles_.begin() + static_cast<std::ptrdiff_t>(below(handles_.size()));
    trace("close ino={}", it->ino);
    const Ino ino = it->ino;
    release(*it);
    handles_.erase(it);
    setup_.reader_of(ino).close(ino);
  }
  // As the file system does when the kernel says that a handle is closed.
  void release(Handle& h) {
    if (h.inside != nullptr) std::exchange(h.inside, nullptr)->leave();
    const OpenFileRef last = open_files_->close(*h.open);
    if (last && last->take_backing() != 0) kernel_.erase(h.ino);
  }
  void forget_handles() {
    for (Handle& h : handles_) release(h);
    handles_.clear();
  }

  // Past the engine: as a worker that finds a complete file, and as the kernel that has its descriptor.
  void enter_or_leave() {
    if (handles_.empty()) return;
    Handle& h = handles_[below(handles_.size())];
    if (h.inside != nullptr) {
      trace("leave ino={}", h.ino);
      std::exchange(h.inside, nullptr)->leave();
      return;
    }
    const CompleteFile* file = h.open->complete();
    if (file == nullptr || !file->enter()) return;
    trace("enter ino={}", h.ino);
    h.inside = file;
  }
  void look_inside() {
    if (!setup_.index) return;  // the daemon has ended
    for (const Handle& h : handles_) {
      if (h.inside != nullptr) look_at(h, h.inside->fd(), h.inside->offset());
      if (const auto kernel = kernel_.find(h.ino); kernel != kernel_.end()) look_at(h, kernel->second, 0);
    }
  }
  void look_at(const Handle& h, int fd, uint64_t begin) {
    const auto record = setup_.index->object(h.ino);
    const FakeFetcher::Version* version = record ? version_of(files_[h.file], *record) : nullptr;
    if (version == nullptr) throw Broken(fmt::format("ino={}: complete, and a version that never was", h.ino));
    const uint64_t offset = below(h.size);
    std::vector<std::byte> bytes(std::min<uint64_t>(h.size - offset, 1 + below(10'000)));
    if (::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(begin + offset)) !=
        static_cast<ssize_t>(bytes.size()))
      throw Broken(fmt::format("ino={}: a complete file is short at {}", h.ino, offset));
    if (const auto wrong = test::first_mismatch(version->seed, offset, bytes))
      throw Broken(fmt::format("ino={}: byte {} of a complete file is wrong", h.ino, *wrong));
  }
  void read() {
    if (handles_.empty()) return;
    Handle& h = handles_[below(handles_.size())];
    const uint64_t offset = chance(0.6) ? h.position : below(h.size + 10);
    const uint64_t length = 1 + below(chance(0.5) ? 5000 : 300'000);
    h.position = offset + length < h.size ? offset + length : 0;
    Pending p;
    p.what = fmt::format("read ino={} {}+{}", h.ino, offset, length);
    trace("{}", p.what);
    pending_.push_back(p);
    const File& f = files_[h.file];
    setup_.reader_of(h.ino).read(h.ino, ByteRange::of(offset, length),
                                 [this, &f, ino = h.ino, offset, a = p.answer](auto reply) mutable {
                                   judge(f, ino, offset, reply);
                                   test::into(a)(std::move(reply));
                                 });
  }

  // --- the rules -----------------------------------------------------------------------------------------------------

  // Called inside the answer. A rule that is broken is reported by check(): an exception would pass through the reader.
  void judge(const File& f, Ino ino, uint64_t offset, const Result<std::span<const iovec>>& reply) {
    if (!reply) {
      trace("  ino={} offset={}: {} \"{}\"", ino, offset, to_string(reply.error().code), reply.error().message);
      if (!may_fail_with(f, reply.error().code)) {
        broken_ = fmt::format("ino={} offset={} failed without a cause: {}", ino, offset, reply.error().message);
      }
      return;
    }
    if (reply->empty()) return;
    const auto record = setup_.index->object(ino);
    if (!record) {
      broken_ = fmt::format("ino={}: bytes of a version that is not recorded", ino);
      return;
    }
    const FakeFetcher::Version* version = version_of(f, *record);
    if (version == nullptr) {
      broken_ = fmt::format("ino={}: a version that never was", ino);
      return;
    }
    uint64_t at = offset;
    for (const iovec& v : *reply) {
      if (const auto wrong =
              test::first_mismatch(version->seed, at, {static_cast<const std::byte*>(v.iov_base), v.iov_len})) {
        broken_ = fmt::format("ino={}: byte {} of a read at {} is wrong", ino, *wrong, offset);
        return;
      }
      at += v.iov_len;
    }
    trace("  ino={} offset={}: {} bytes", ino, offset, at - offset);
  }

  static const FakeFetcher::Version* version_of(const File& f, const ObjectRecord& record) {
    const auto version =
        std::find_if(f.versions.begin(), f.versions.end(), [&](auto& v) { return v.validator == record.validator; });
    return version == f.versions.end() || version->size != record.size ? nullptr : &*version;
  }

  bool may_fail_with(const File& f, ErrorCode code) const {
    switch (code) {
      case ErrorCode::kStale: return changes_;
      case ErrorCode::kUnreachable:
      case ErrorCode::kTimedOut:
      case ErrorCode::kBadResponse: return wire_faults_ || !f.has_ranges;
      case ErrorCode::kCancelled: return ending_;
      // A body that must be taken whole, and neither cache nor memory that hold it.
      case ErrorCode::kIo:
        return disk_faults_ || setup_.space_options.limit < kUnlimited || setup_.buffers.budget() < kLeastMemory << 20;
      default: return false;
    }
  }

  void check() {
    if (!broken_.empty()) throw Broken(broken_);
    std::erase_if(pending_, [](const Pending& p) { return p.answer->times == 1; });
    look_inside();
    // A disk that fails loses blocks that the index has on record until it forgets them.
    if (!harms_ && !disk_faults_ && setup_.metrics.blocks_corrupt != 0)
      throw Broken("a block that nobody has damaged is corrupt");
    check_room();
  }

  // Not while files have what a kill has left in them.
  void check_room() {
    if (!unclaimed_.empty()) return;
    uint64_t taken = 0;
    uint64_t files = 0;
    std::string each;
    for (const auto& path : object_files()) {
      struct stat status {};
      if (::stat(path.c_str(), &status) != 0) continue;
      taken += static_cast<uint64_t>(status.st_blocks) * 512;
      each += fmt::format(" {}={}", std::filesystem::path(path).filename().string(), status.st_blocks * 512);
      ++files;
    }
    const uint64_t limit = setup_.space_options.limit;
    if (taken > limit + kRegionSize + files * kFileSlack)
      throw Broken(fmt::format("{} bytes lie in objects/, with a limit of {}:{}", taken, limit, each));
  }
  // The index of nobody: the daemon is down.
  void check_the_index() {
    const auto report = check_index(setup_.index_path());
    if (!report) throw Broken("the index: " + report.error().message);
    counted_ = report->bytes;
  }
  void check_the_sum() {
    const auto says = static_cast<uint64_t>(setup_.metrics.bytes_cached.load());
    if (says != counted_) throw Broken(fmt::format("bytes_cached={}, the regions have {}", says, counted_));
  }

  // --- the network ---------------------------------------------------------------------------------------------------

  void answer_a_fetch() {
    const auto all = setup_.fetcher.active();
    if (!all.empty()) answer(all[below(all.size())]);
  }

  // What a server and libcurl would make of it: something arrives, all of it does, or it fails.
  void answer(const FetchRequest& r) {
    const File& f = file_of(r);
    if (wire_faults_ && chance(0.1)) {
      return fail(r, one_of({ErrorCode::kUnreachable, ErrorCode::kTimedOut, ErrorCode::kBadResponse}));
    }
    const FakeFetcher::Version& now = f.current();
    auto begun = responses_.find(r.id);
    if (begun == responses_.end()) {
      if (now.size != r.object_size || r.validator.contradicts(now.validator)) return fail(r, ErrorCode::kStale);
      if (!f.has_ranges && !r.whole_body && r.range != ByteRange{0, r.object_size})
        return fail(r, ErrorCode::kNoRanges);
      begun = responses_.emplace(r.id, now).first;
    } else if (begun->second.validator.contradicts(now.validator) && chance(0.3)) {
      return fail(r, ErrorCode::kStale);  // the connection broke, and the rest is of another version
    }
    const FakeFetcher::Version version = begun->second;
    const bool whole = chance(0.5);
    trace("fetch {} {}", r.id, whole ? "completes" : "moves");
    if (r.whole_body) {
      const uint64_t chunk = 16 * kBlockSize;
      do {
        setup_.fetcher.arrive_chunk(r.id, chunk, setup_.buffers, version);
      } while (whole && setup_.fetcher.arrived(r.id) < r.object_size && is_active(r.id));
      if (setup_.fetcher.arrived(r.id) == r.object_size) setup_.fetcher.complete(r.id, version);
    } else if (whole) {
      setup_.fetcher.complete(r.id, version);
    } else {
      const uint64_t from = setup_.fetcher.arrived(r.id);
      setup_.fetcher.arrive(r.id, from + below(r.range.size() - from + 1), version);
    }
    if (!is_active(r.id)) responses_.erase(r.id);
  }
  void fail(const FetchRequest& r, ErrorCode code) {
    trace("fetch {} fails: {}", r.id, to_string(code));
    responses_.erase(r.id);
    setup_.fetcher.fail(r.id, code);
  }
  bool is_active(FetchId id) const {
    for (const FetchRequest& r : setup_.fetcher.active()) {
      if (r.id == id) return true;
    }
    return false;
  }
  const File& file_of(const FetchRequest& r) const {
    for (const File& f : files_) {
      if (f.url == r.url) return f;
    }
    throw Broken("a fetch of " + r.url);
  }
  void confirm_cancelled() { setup_.fetcher.end_cancelled(); }

  // --- the disk ------------------------------------------------------------------------------------------------------

  void complete_a_disk_operation() {
    if (setup_.disk.waiting() == 0) return;
    const size_t number = below(setup_.disk.waiting());
    if (disk_faults_ && chance(0.1)) {
      trace("disk: {} fails", setup_.disk.is_read(number) ? "a read" : "a write");
      return setup_.disk.fail(number, setup_.disk.is_read(number) ? EIO : one_of({EIO, ENOSPC}));
    }
    if (disk_faults_ && chance(0.1)) {
      trace("disk: {} is short", setup_.disk.is_read(number) ? "a read" : "a write");
      return setup_.disk.complete(number, 1 + below(setup_.disk.length(number)));
    }
    setup_.disk.complete(number);
  }

  // In an order that follows from the seed.
  std::vector<std::string> object_files() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::recursive_directory_iterator(setup_.objects_path())) {
      if (e.is_regular_file()) out.push_back(e.path().string());
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  // Somebody deletes a file, cuts it or puts another in its place.
  void harm_object_files() {
    for (const std::string& path : object_files()) {
      const uint64_t size = std::filesystem::file_size(path);
      if (size == 0 || !chance(0.2)) continue;
      trace("harm {}", path);
      switch (below(3)) {
        case 0: std::filesystem::remove(path); break;
        case 1: std::filesystem::resize_file(path, below(size)); break;
        default: write_rubbish(path, size + 1 + below(10'000));
      }
    }
  }
  void write_rubbish(const std::string& path, uint64_t size) {
    std::filesystem::remove(path);
    const FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const auto bytes = test::expected_bytes(next_version_seed_++, 0, size);
    if (::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      throw Broken("cannot write rubbish");
  }

  // After a kill the disk may have torn pages and rotten bits; the index says so of itself.
  void damage_object_files() {
    if (!harms_) return;
    harm_object_files();
    if (chance(0.5)) return;
    for (const std::string& path : object_files()) {
      const uint64_t size = std::filesystem::file_size(path);
      if (size == 0 || !chance(0.5)) continue;
      trace("damage {}", path);
      if (chance(0.1)) {
        write_rubbish(path, size);
        continue;
      }
      const FileDescriptor fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      const auto offset = static_cast<off_t>(below(size));
      char byte = 0;
      if (::pread(fd.get(), &byte, 1, offset) != 1) continue;
      byte = static_cast<char>(byte ^ (1 << below(8)));
      if (::pwrite(fd.get(), &byte, 1, offset) != 1) throw Broken("cannot damage");
    }
  }

  // --- eviction ------------------------------------------------------------------------------------------------------

  void evict_something() {
    if (chance(0.6)) {
      if (chosen_.empty()) return choose();
      return evict(take_chosen());
    }
    std::vector<RegionKey> keys;
    for (uint64_t i = 1 + below(3); i > 0; --i) {
      const File& f = files_[below(files_.size())];
      if (f.ino != 0) keys.push_back({f.ino, below(3)});
    }
    for (auto& [engine, own] : by_engine(keys)) evict(own);
  }
  using ByEngine = std::map<Ino, std::vector<RegionKey>>;
  ByEngine by_engine(const std::vector<RegionKey>& keys) const {
    ByEngine out;
    for (const RegionKey& key : keys) out[key.ino % setup_.engines].push_back(key);
    return out;
  }
  // Those of one engine: it answers sooner than another.
  std::vector<RegionKey> take_chosen() {
    std::lock_guard lock(mutex_);
    auto one = std::next(chosen_.begin(), static_cast<std::ptrdiff_t>(below(chosen_.size())));
    return chosen_.extract(one).mapped();
  }

  // What the index would have go. It chooses on its own thread, behind each commit: the second of two commits comes
  // after the choice of the first.
  void choose() {
    settle_index();
    setup_.index->start_evicting(*setup_.space, [this](const std::vector<RegionKey>& regions) {
      std::lock_guard lock(mutex_);
      chosen_ = by_engine(regions);
      return chosen_.size();
    });
    settle_index();
    setup_.index->stop_evicting();
    trace("regions of {} engines are chosen", chosen_.size());
  }
  void settle_index() {
    for (int i = 0; i < 2; ++i) {
      setup_.index->put_host("http://x", "");
      setup_.index->flush();
    }
  }

  // The process may die between any two steps of it. What is restored then is what the disk had at that moment.
  void evict(const std::vector<RegionKey>& keys) {
    trace("evict {} regions", keys.size());
    const bool dies = chance(0.05);
    const uint64_t step = below(4);
    if (dies) take_snapshot();
    const auto before = dies ? saved(keys) : std::vector<Saved>();
    setup_.cache_of(keys.front().ino).evict(keys, [this](Task task) {
      std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    });
    setup_.index->flush();
    if (!dies) return take_snapshot();
    if (step > 0) take_snapshot();
    die_at_snapshot([&] {
      if (step < 2) put_back(before, 1);     // before the commit, or before any place was given back
      if (step == 2) put_back(before, 0.5);  // in the middle of that
    });
  }
  void run_a_task() {
    if (tasks_.empty()) return;
    trace("places are free");
    Task task = std::move(tasks_.front());
    tasks_.erase(tasks_.begin());
    task();
  }

  struct Saved {
    FileDescriptor file;
    uint64_t begin;
    std::vector<std::byte> bytes;
  };
  std::vector<Saved> saved(const std::vector<RegionKey>& keys) const {
    std::vector<Saved> out;
    for (const RegionKey& key : std::set<RegionKey>(keys.begin(), keys.end())) {
      const uint64_t place = setup_.index->region(key).value_or(RegionRecord{}).place;
      const bool in_pack = place != kNoPlace;
      const std::string path = in_pack ? pack_path(setup_.index_path()) : setup_.file_of(key.ino);
      Saved s{FileDescriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC)), in_pack ? place : key.region * kRegionSize,
              std::vector<std::byte>(in_pack ? kBlockSize : kRegionSize)};
      if (!s.file) continue;
      const ssize_t n = ::pread(s.file.get(), s.bytes.data(), s.bytes.size(), static_cast<off_t>(s.begin));
      s.bytes.resize(static_cast<size_t>(std::max<ssize_t>(0, n)));
      out.push_back(std::move(s));
    }
    return out;
  }
  void put_back(const std::vector<Saved>& all, double share) {
    for (const Saved& s : all) {
      if (!chance(share)) continue;
      if (::pwrite(s.file.get(), s.bytes.data(), s.bytes.size(), static_cast<off_t>(s.begin)) < 0)
        throw Broken("cannot put back");
    }
  }

  // What a kill has left is looked for behind the back of the readers.
  void reclaim_a_file() {
    if (unclaimed_.empty()) return;
    const size_t number = below(unclaimed_.size());
    trace("reclaim ino={}", unclaimed_[number]);
    const Ino ino = unclaimed_[number];
    if (ino == kThePack) {
      for (uint32_t slab = 0; setup_.index->pack().punch_free(slab); ++slab) continue;
    } else if (!setup_.cache_of(ino).reclaim(ino)) {
      return;  // later
    }
    unclaimed_.erase(unclaimed_.begin() + static_cast<std::ptrdiff_t>(number));
  }
  void claim_nothing() {
    unclaimed_.clear();
    for (const std::string& path : object_files()) {
      const bool is_pack = path == pack_path(setup_.index_path());
      unclaimed_.push_back(is_pack ? kThePack
                                   : std::stoull(std::filesystem::path(path).filename().string(), nullptr, 16));
    }
  }
  void forget_evictions() {
    chosen_.clear();
    tasks_.clear();
  }

  // --- ends and beginnings -------------------------------------------------------------------------------------------

  // What the disk has for sure from here on.
  void take_snapshot() {
    trace("snapshot");
    snapshot_.take(*setup_.index);
    setup_.disk.synced();
    files_at_snapshot_ = files_;
    commits_at_snapshot_ = setup_.metrics.index_commits;
  }

  void end_cleanly() {
    trace("clean end");
    ending_ = true;
    setup_.stop();
    ending_ = false;
    check();
    if (!pending_.empty()) throw Broken("not answered at the end: " + pending_.front().what);
    if (setup_.metrics.buffer_bytes != 0)
      throw Broken(fmt::format("{} bytes of buffers at the end", setup_.metrics.buffer_bytes.load()));
    forget_handles();
    forget_evictions();
    responses_.clear();
    check_the_index();
    if (harms_ && chance(0.3)) {
      harm_object_files();
      claim_nothing();
    }
    setup_.start();
    check_the_sum();
    take_snapshot();
  }

  // What has been committed stays: places in the pack have been given back since, and perhaps out again.
  void die() {
    if (setup_.metrics.index_commits != commits_at_snapshot_) take_snapshot();
    die_at_snapshot();
  }
  void die_at_snapshot(const std::function<void()>& then = [] {}) {
    trace("kill");
    setup_.die_and_start(
        snapshot_, [this](size_t length) { return chance(0.5) ? below(length + 1) : 0; },
        [this, &then] {
          then();
          const bool loses = chance(0.7);
          setup_.disk.lose_written([this, loses] { return loses && chance(0.5); });
          check_the_index();
          damage_object_files();
        });
    check_the_sum();
    // Who read is dead as well. What was listed since the snapshot is forgotten; the server's versions are not.
    pending_.clear();
    forget_handles();
    forget_evictions();
    open_files_ = std::make_unique<OpenFiles>();
    responses_.clear();
    claim_nothing();
    for (size_t i = 0; i < files_.size(); ++i) {
      files_[i].ino = files_at_snapshot_[i].ino;
      files_[i].listed = files_at_snapshot_[i].listed;
    }
    take_snapshot();
  }

  // The world comes to rest: everything is answered, without an end of the daemon.
  void finish() {
    trace("finish");
    wire_faults_at_finish_ = std::exchange(wire_faults_, false);
    for (int i = 0; i < 10'000 && !(setup_.fetcher.active().empty() && setup_.disk.waiting() == 0); ++i) {
      setup_.fetcher.end_cancelled();
      if (const auto all = setup_.fetcher.active(); !all.empty()) answer(all[below(all.size())]);
      if (setup_.disk.waiting() > 0) setup_.disk.complete(below(setup_.disk.waiting()));
      wire_faults_ = wire_faults_at_finish_;  // errors of before may still be told
      check();
      wire_faults_ = false;
    }
    wire_faults_ = wire_faults_at_finish_;
    check();
    if (!pending_.empty()) throw Broken("never answered: " + pending_.front().what);
    while (!handles_.empty()) close();
    setup_.settle();
    while (!tasks_.empty()) run_a_task();
    while (!unclaimed_.empty()) reclaim_a_file();
    end_cleanly();
    setup_.stop();
    check_the_index();
    check_the_sum();
    if (setup_.metrics.buffer_bytes != 0) throw Broken("buffers are held at the end");
  }

  template <typename... Args>
  void trace(fmt::format_string<Args...> format, Args&&... args) {
    if (trace_) fmt::print("{:4} {}\n", step_, fmt::format(format, std::forward<Args>(args)...));
  }

  std::mt19937_64 random_;
  const bool trace_;
  int step_ = 0;
  bool disk_faults_ = false, wire_faults_ = false, changes_ = false, ending_ = false, wire_faults_at_finish_ = false;
  test::ReaderSetup setup_;
  test::IndexSnapshot snapshot_;
  std::vector<File> files_, files_at_snapshot_;
  uint64_t commits_at_snapshot_ = 0;
  std::vector<Handle> handles_;
  std::vector<Pending> pending_;
  Passthrough passthrough_;
  std::unique_ptr<OpenFiles> open_files_ = std::make_unique<OpenFiles>();
  std::map<Ino, int> kernel_;  // what it serves by itself
  std::mutex mutex_;           // of the next two, which the index thread fills
  ByEngine chosen_;
  std::vector<Task> tasks_;
  std::vector<Ino> unclaimed_;  // whose files may have what nobody counts
  uint64_t counted_ = 0;        // by the last look at the index
  bool large_files_ = false, small_files_ = false, tiny_files_ = false, harms_ = false;
  std::map<FetchId, FakeFetcher::Version> responses_;  // the version that a response has begun with
  uint64_t next_version_seed_ = 1;
  std::string broken_;
};

// False, with the reason on stderr, when a rule was broken.
bool run(uint64_t seed, bool trace) {
  try {
    Simulation(seed, trace).run(600);
    if (!::testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed()) return true;
    fmt::print(stderr, "engine_sim: seed {}: a fake found a broken rule (above)\n", seed);
  } catch (const Broken& broken) {
    fmt::print(stderr, "engine_sim: seed {}: {}\n", seed, broken.what());
  }
  fmt::print(stderr, "engine_sim: again, with every step: engine_sim --seed={} --trace\n", seed);
  return false;
}

int usage() {
  fmt::print(stderr, "Usage: engine_sim [--seeds=FIRST-LAST | --seed=N [--trace]]\n");
  return 2;
}

bool parse(std::string_view text, uint64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace
}  // namespace wormhole

int main(int argc, char** argv) {
  using namespace wormhole;
  ::testing::InitGoogleTest(&argc, argv);
  uint64_t first = 1;
  uint64_t last = 200;
  bool trace = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--trace") {
      trace = true;
    } else if (argument.starts_with("--seed=")) {
      if (!parse(argument.substr(7), &first)) return usage();
      last = first;
    } else if (argument.starts_with("--seeds=") && argument.find('-', 8) != std::string_view::npos) {
      const size_t dash = argument.find('-', 8);
      if (!parse(argument.substr(8, dash - 8), &first) || !parse(argument.substr(dash + 1), &last)) return usage();
    } else {
      return usage();
    }
  }
  // Memory, where there is such a file system: hundreds of daemons come and go, each with its syncs.
  if (::access("/dev/shm", W_OK) == 0) ::setenv("TEST_TMPDIR", "/dev/shm", 0);
  log::configure(trace ? log::Level::kInfo : log::Level::kOff, "");
  for (uint64_t seed = first; seed <= last; ++seed) {
    if (!run(seed, trace)) return 1;
  }
  fmt::print("engine_sim: seeds {} to {}: every rule held\n", first, last);
  return 0;
}
