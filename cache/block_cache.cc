#include "cache/block_cache.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/log.h"
#include "base/punch_hole.h"
#include "base/share_place.h"
#include "cache/checksum.h"

namespace wormhole {
namespace {

// Objects that nobody has open stay known, so that opening one again costs no lookups. Each holds a file descriptor, so
// there are no more than a quarter of those that the process may have, in all engines together; the rest is for open
// files, batches under way, the network.
size_t max_idle_objects(unsigned engines) {
  constexpr rlim_t kEnough = 512;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return std::min<rlim_t>(kEnough, limit.rlim_cur / 4) / engines;
}

// Direct writes copy nothing and leave no second copy in the page cache, but hold their buffers until the disk is done.
// While more than this is on its way, from all engines, the disk is the slower end, and the page cache takes the rest.
constexpr int64_t kMostDirectInFlight = 64 << 20;
// Offsets, lengths and memory of direct reads and writes are multiples of this on every disk of today. Blocks and
// buffers are; the end of a file mostly is not, and is written through the page cache.
constexpr uint64_t kDirectAlignment = 4096;

// How far ahead of a sequence's end a read may begin and still belong to it, in lengths of itself: the kernel's
// read-ahead asks by several workers at once, and the later of two requests may come first.
constexpr uint64_t kOvertaking = 4;

// To ask the page cache costs a fifth of a read from it. Of an object whose last reads were all there, one read in so
// many asks; a wrong guess costs one read that is as slow as through the page cache.
constexpr uint32_t kAskedWhenWarm = 8;

// As in <linux/mman.h>, which has it since Linux 6.5.
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif
struct CachestatRange {
  uint64_t offset, length;
};
struct Cachestat {
  uint64_t cached, dirty, in_writeback, evicted, recently_evicted;
};

uint64_t direct_length(uint64_t length) {
  return (length + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
}

// Gives the place of their blocks back to the file system.
void punch_regions(const std::string& objects_path, const std::vector<RegionKey>& regions) {
  for (size_t i = 0; i < regions.size();) {
    const Ino ino = regions[i].ino;
    const FileDescriptor fd(::open(object_path(objects_path, ino).c_str(), O_WRONLY | O_CLOEXEC));
    for (; i < regions.size() && regions[i].ino == ino; ++i) {
      if (!fd) continue;
      if (!punch_hole(fd.get(), ByteRange::of(regions[i].region * kRegionSize, kRegionSize)))
        log::warn("cache: no place could be given back: ino={} region={} errno={}", ino, regions[i].region, errno);
    }
  }
}

}  // namespace

// Two hex digits as a directory keep directories small (a million objects: 4000 in each).
std::string object_path(const std::string& objects_path, Ino ino) {
  return fmt::format("{}/{:02x}/{:016x}", objects_path, ino & 0xff, ino);
}

BlockCache::BlockCache(BlockCacheOptions options, Space& space, Index& index, DiskIo& disk, BufferPool& buffers,
                       Metrics& metrics)
    : options_(std::move(options)),
      space_(space),
      index_(index),
      disk_(disk),
      buffers_(buffers),
      metrics_(metrics),
      trust_index_(options_.verify == VerifyMode::kOff || (options_.verify == VerifyMode::kAuto && index.was_clean())),
      max_idle_(max_idle_objects(options_.engines)) {}

BlockCache::~BlockCache() = default;

// --- objects -------------------------------------------------------------------------------------------------------

void BlockCache::open(Ino ino, uint64_t size, bool recorded) {
  auto [it, is_new] = objects_.try_emplace(ino);
  Object& o = it->second;
  if (is_new) {
    o.ino = ino;
    o.size = size;
    o.in_pack = lies_in_pack(size);
    o.recorded = recorded;
  } else if (o.opens == 0) {
    idle_.erase(o.idle);
    if (o.dropped) --idle_dropped_;
  }
  ++o.opens;
}

void BlockCache::close(Ino ino) {
  Object& o = object(ino);
  if (--o.opens > 0) return;
  o.direct.reset();
  o.idle = idle_.insert(idle_.end(), ino);
  if (o.dropped) ++idle_dropped_;
  trim_idle();
}

void BlockCache::trim_idle() {
  for (auto it = idle_.begin(); it != idle_.end() && (idle_.size() > max_idle_ || idle_dropped_ > 0);) {
    Object& o = object(*it);
    const bool surplus = idle_.size() > max_idle_;
    if (!surplus && !o.dropped) {
      ++it;
      continue;
    }
    trust_synced(o);
    // finish_use() comes back here. What is not synced would be taken for what the index knows when it is opened again:
    // so it stays known, but a disk that takes its time shall not cost more descriptors.
    if (o.busy > 0 || (!o.dropped && !o.unsynced.empty())) {
      if (o.busy == 0) o.file.reset();
      ++it;
      continue;
    }
    if (o.dropped) {
      --idle_dropped_;
      remove_files(o.ino);
    }
    const Ino ino = *it;
    it = idle_.erase(it);
    release_place(o);
    objects_.erase(ino);
  }
}

void BlockCache::finish_use(Object& o) {
  --o.busy;
  if (o.opens == 0 && o.busy == 0) trim_idle();
}

void BlockCache::drop(Ino ino) {
  auto it = objects_.find(ino);
  if (it == objects_.end()) {
    remove_files(ino);
    return;
  }
  Object& o = it->second;
  if (o.opens == 0 && !o.dropped) ++idle_dropped_;
  o.dropped = true;
  revoke(o);
  if (o.opens == 0) trim_idle();
}

// Records first, then the file: the other way round a crash could leave records of blocks that are gone.
void BlockCache::remove_files(Ino ino) {
  index_.drop_object(ino, [path = file_path(ino)](bool ok) {
    if (ok) ::unlink(path.c_str());
  });
}

BlockCache::Object& BlockCache::object(Ino ino) { return objects_.find(ino)->second; }

BlockCache::Region& BlockCache::region(Object& o, uint64_t number) {
  auto [it, is_new] = o.regions.try_emplace(number);
  Region& r = it->second;
  if (is_new) {
    if (o.recorded) r.record = index_.region(RegionKey{o.ino, number}).value_or(RegionRecord{});
    if (o.in_pack && r.record.place == kNoPlace) r.record.present = 0;
    if (r.record.present == 0) r.record.place = kNoPlace;  // somebody has released it
    if (trust_index_) r.trusted = r.record.present;
  }
  return r;
}

bool BlockCache::has(Ino ino, BlockIndex block) {
  Object& o = object(ino);
  return region(o, block / kBlocksPerRegion).record.has(block % kBlocksPerRegion);
}

CompleteFileRef BlockCache::complete_file(Ino ino) {
  doubt_after_failure();
  Object& o = object(ino);
  if (o.complete || o.dropped || o.size == 0 || options_.verify == VerifyMode::kAlways) return o.complete;
  trust_synced(o);
  if (!o.unsynced.empty()) return nullptr;
  if (!o.trusted) {
    const bool from_index = trust_index_ && o.recorded;
    o.trusted = from_index ? index_.blocks_present(ino) : 0;
    for (auto& [number, r] : o.regions) {
      if (!from_index) *o.trusted += static_cast<uint64_t>(std::popcount(r.trusted));
    }
  }
  if (*o.trusted < block_count(o.size)) return nullptr;
  auto f = file(o, false);
  if (!f) return nullptr;
  const auto kind = o.in_pack ? CompleteFile::Kind::kInPack : CompleteFile::Kind::kOwnFile;
  o.complete = std::make_shared<CompleteFile>(*f, kind, offset_in_file(o), o.size);
  return o.complete;
}

void BlockCache::revoke(Object& o) {
  if (!o.complete) return;
  o.complete->revoke();
  o.revoked.push_back(std::move(o.complete));
  o.complete.reset();
}

// By somebody who entered before it was revoked and has not left.
bool BlockCache::is_read_inside(Object& o) {
  std::erase_if(o.revoked, [](const CompleteFileRef& file) { return file->is_unread(); });
  return !o.revoked.empty();
}

std::string BlockCache::file_path(Ino ino) const { return object_path(options_.objects_path, ino); }

// A file has its full length from the begin, so that no write has to extend it: those that do wait for each other. So
// one that is missing or shorter has lost blocks, and the holes that it would have instead would look like zeros. One
// that is longer is somebody else's work.
Result<std::shared_ptr<FileDescriptor>> BlockCache::file(Object& o, bool create) {
  if (o.in_pack) return pack_file(o, create);
  if (o.file) return o.file;
  const std::string path = file_path(o.ino);
  auto fd = open_file(path, O_RDWR);
  struct stat status {};
  const bool gone = !fd && fd.error().code == ErrorCode::kNotFound;
  const bool other = fd && ::fstat(fd->get(), &status) == 0 && static_cast<uint64_t>(status.st_size) != o.size;
  if (gone || other) {
    lose_file(o);
    // What it has is of no use, and takes room that nobody counts.
    if (other && ::ftruncate(fd->get(), 0) != 0) return fail(error_from_errno(errno, "cache: empty " + path));
    if (!create) return fail(ErrorCode::kNotFound, "cache: {} is {}", path, gone ? "gone" : "of another length");
    if (gone) fd = open_file(path, O_RDWR | O_CREAT);
    // A file system that has no room for a hole, or for so large a file.
    if (fd && ::ftruncate(fd->get(), static_cast<off_t>(o.size)) != 0)
      return fail(error_from_errno(errno, "cache: extend " + path));
  }
  if (!fd) return fail(fd.error());
  o.file = std::make_shared<FileDescriptor>(std::move(*fd));
  return o.file;
}

// With a place in it, if something is to be stored there.
Result<std::shared_ptr<FileDescriptor>> BlockCache::pack_file(Object& o, bool create) {
  if (!o.file) {
    auto f = index_.pack().file();
    if (!f) return fail(f.error());
    o.file = std::move(*f);
  }
  RegionRecord& record = region(o, 0).record;
  if (create && record.place == kNoPlace) {
    const auto place = index_.pack().allocate(static_cast<uint32_t>(o.size));
    if (!place) return fail(place.error());
    record.place = place->offset;
  }
  return o.file;
}

uint64_t BlockCache::offset_in_file(Object& o) { return o.in_pack ? region(o, 0).record.place : 0; }

// Before the object's state goes.
void BlockCache::release_place(Object& o) {
  const auto r = o.regions.find(0);
  if (!o.in_pack || r == o.regions.end()) return;
  const RegionRecord& record = r->second.record;
  if (record.present != 0 || record.place == kNoPlace) return;
  index_.release_place(o.ino, {record.place, static_cast<uint32_t>(o.size)});
}

Result<FileDescriptor> BlockCache::open_file(const std::string& path, int flags) {
  int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0 && errno == ENOENT && (flags & O_CREAT) != 0) {
    ::mkdir(path.substr(0, path.rfind('/')).c_str(), 0700);
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  }
  if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
    close_idle_files();
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  }
  if (fd < 0) return fail(error_from_errno(errno, "cache: open " + path));
  return FileDescriptor(fd);
}

// None of its blocks is there any more.
void BlockCache::lose_file(Object& o) {
  revoke(o);
  if (o.recorded && index_.blocks_present(o.ino) > 0) {
    log::warn("the cache has lost a file, it is fetched again: ino={} path={}", o.ino, file_path(o.ino));
    index_.forget_blocks(o.ino);
  }
  for (auto& [number, r] : o.regions) r.record.present = r.trusted = r.unsynced = 0;
  o.unsynced.clear();
  if (o.trusted) o.trusted = 0;
}

std::shared_ptr<FileDescriptor> BlockCache::direct_file(Object& o) {
  if (!direct_works_ || o.direct) return o.direct;
  if (o.in_pack) return o.direct = index_.pack().direct();
  const int fd = ::open(file_path(o.ino).c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
  if (fd < 0) {
    if (errno == EINVAL) direct_works_ = false;
    return nullptr;
  }
  o.direct = std::make_shared<FileDescriptor>(fd);
  return o.direct;
}

// Nothing when it has to go through the page cache.
std::shared_ptr<FileDescriptor> BlockCache::direct_for_store(Object& o, ByteRange range) {
  // Writes to the pack are small and lie side by side: the page cache makes large ones of them.
  if (o.in_pack || !direct_works_ || range.size() % kDirectAlignment != 0 ||
      metrics_.direct_bytes_in_flight > kMostDirectInFlight)
    return nullptr;
  return direct_file(o);
}

// `wanted` by the reader, of `range`.
std::shared_ptr<FileDescriptor> BlockCache::direct_for_read(Object& o, ByteRange wanted, ByteRange range) {
  if (goes_on(o, wanted) || !direct_works_ || in_page_cache(o, range)) return nullptr;
  return direct_file(o);
}

// Whether the read goes on where another has ended, or begins the file.
bool BlockCache::goes_on(Object& o, ByteRange range) {
  const uint64_t reach = kOvertaking * range.size();
  const auto before = std::find_if(o.read_ends.begin(), o.read_ends.end(),
                                   [&](uint64_t end) { return range.begin >= end && range.begin - end <= reach; });
  const bool found = before != o.read_ends.end();
  (found ? *before : o.read_ends[o.next_read_end++ % o.read_ends.size()]) = range.end;
  return found;
}

// Any part of it: what was stored through the page cache is in it, and perhaps not on disk yet.
bool BlockCache::in_page_cache(Object& o, ByteRange range) {
  if (!page_cache_tells_) return true;
  if (++o.warm_reads % kAskedWhenWarm != 0 && o.warm_reads > kAskedWhenWarm) return true;
  CachestatRange asked{offset_in_file(o) + range.begin, range.size()};
  Cachestat found{};
  if (::syscall(SYS_cachestat, o.file->get(), &asked, &found, 0) != 0) {
    page_cache_tells_ = false;
    return true;
  }
  if (found.cached == 0) o.warm_reads = 0;
  return found.cached > 0;
}

void BlockCache::close_idle_files() {
  for (const Ino ino : idle_) {
    if (Object& o = object(ino); o.busy == 0) o.file.reset();
  }
}

void BlockCache::forget_block(Object& o, BlockIndex block) {
  hide_block(o, block);
  index_.forget_block(o.ino, block);
}

// Until the object is opened anew; the block itself may be good.
void BlockCache::hide_block(Object& o, BlockIndex block) {
  revoke(o);
  Region& r = region(o, block / kBlocksPerRegion);
  const uint64_t bit = uint64_t{1} << (block % kBlocksPerRegion);
  if (o.trusted && (r.trusted & bit) != 0) --*o.trusted;
  r.record.present &= ~bit;
  r.trusted &= ~bit;
  r.unsynced &= ~bit;
}

void BlockCache::set_trusted(Object& o, Region& r, unsigned i) {
  const uint64_t bit = uint64_t{1} << i;
  if (o.trusted && (r.trusted & bit) == 0) ++*o.trusted;
  r.trusted |= bit;
}

void BlockCache::set_present(Object& o, BlockIndex block, uint64_t checksum, Ticket ticket) {
  const uint64_t number = block / kBlocksPerRegion;
  Region& r = region(o, number);
  const unsigned i = block % kBlocksPerRegion;
  const uint64_t bit = uint64_t{1} << i;
  if (o.trusted && (r.trusted & bit) != 0) --*o.trusted;
  if (r.unsynced == 0) o.unsynced.push_back(number);
  r.record.present |= bit;
  r.record.checksum[i] = checksum;
  r.trusted &= ~bit;
  r.unsynced |= bit;
  r.ticket = ticket;
}

void BlockCache::trust_synced(Object& o) {
  if (o.unsynced.empty()) return;
  const Ticket synced = synced_->load(std::memory_order_acquire);
  doubt_after_failure();  // in this order: a batch that failed is counted before a later one tells its tickets
  std::erase_if(o.unsynced, [&](uint64_t number) {
    const auto it = o.regions.find(number);
    if (it == o.regions.end()) return true;
    Region& r = it->second;
    if (r.ticket > synced) return false;
    for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
      if (((r.unsynced >> i) & 1) != 0) set_trusted(o, r, i);
    }
    r.unsynced = 0;
    return true;
  });
}

// The disk has not taken them, or nobody knows. Their pages may be in the page cache still: that they are right says
// nothing about later.
void BlockCache::forget_unsynced(Object& o) {
  for (const uint64_t number : std::exchange(o.unsynced, {})) {
    const auto it = o.regions.find(number);
    if (it == o.regions.end()) continue;
    for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
      if (((it->second.unsynced >> i) & 1) != 0) forget_block(o, number * kBlocksPerRegion + i);
    }
  }
}

// A sync that failed may have cost pages that were counted as stored, and the kernel does not say which. What was not
// synced is not there any more, and every other block is checked again at its next read.
void BlockCache::doubt_after_failure() {
  if (index_.failures() == failures_seen_) return;
  failures_seen_ = index_.failures();
  if (options_.verify != VerifyMode::kOff) trust_index_ = false;
  for (auto& [ino, o] : objects_) {
    forget_unsynced(o);
    for (auto& [number, region] : o.regions) region.trusted = 0;
    if (options_.verify == VerifyMode::kOff) continue;
    revoke(o);
    o.trusted.reset();
  }
}

// --- eviction ------------------------------------------------------------------------------------------------------

void BlockCache::evict(const std::vector<RegionKey>& regions, std::function<void(Task)> run_here) {
  Stayed stayed;
  evict_for(Index::EvictionFor::kRoom, release_regions(regions, &stayed), std::move(run_here), [](bool) {});
}

void BlockCache::evict_on_request(const std::vector<RegionKey>& regions, std::function<void(Task)> run_here,
                                  EvictionDone done) {
  Stayed stayed;
  std::vector<RegionKey> going = release_regions(regions, &stayed);
  evict_for(Index::EvictionFor::kRequest, std::move(going), std::move(run_here),
            [stayed = std::move(stayed), done = std::move(done)](bool ok) mutable {
              done({ok, std::move(stayed)});
            });
}

void BlockCache::evict_for(Index::EvictionFor why, std::vector<RegionKey> going, std::function<void(Task)> run_here,
                           std::function<void(bool)> done) {
  // On the index thread: freeing takes its time. This cache may have ended by then.
  struct Freeing {
    std::vector<RegionKey> regions;
    std::string objects_path;
    std::function<void(Task)> run_here;
    std::function<void(bool)> done;
  };
  auto freeing = std::make_unique<Freeing>(Freeing{going, options_.objects_path, std::move(run_here), std::move(done)});
  index_.evict(std::move(going), why,
               [this, &space = space_, &metrics = metrics_, freeing = std::move(freeing)](bool ok, uint64_t bytes) {
                 if (ok) punch_regions(freeing->objects_path, freeing->regions);
                 space.end_eviction(bytes);
                 metrics.bytes_evicted.fetch_add(bytes, std::memory_order_relaxed);
                 freeing->run_here([this, going = std::move(freeing->regions)] { free_regions(going); });
                 freeing->done(ok);
               });
}

// They are not there any more, and nothing is stored in them until free_regions().
std::vector<RegionKey> BlockCache::release_regions(const std::vector<RegionKey>& regions, Stayed* stayed) {
  std::vector<RegionKey> out;
  for (const RegionKey& key : regions) {
    if (going_.contains(key)) continue;
    if (const auto why = why_stay(key)) {
      stayed->emplace_back(key, *why);
      continue;
    }
    if (auto it = objects_.find(key.ino); it != objects_.end()) {
      Object& o = it->second;
      if (auto r = o.regions.find(key.region); r != o.regions.end()) {
        release_place(o);
        if (o.trusted) *o.trusted -= static_cast<uint64_t>(std::popcount(r->second.trusted));
        o.regions.erase(r);
      } else {
        o.trusted.reset();  // counted anew when it is asked for
      }
    }
    going_.insert(key);
    out.push_back(key);
  }
  std::sort(out.begin(), out.end());  // so that those of one file follow each other
  return out;
}

// Nothing: it may go.
std::optional<BlockCache::Stays> BlockCache::why_stay(RegionKey key) {
  if (index_.pinned().contains(key.ino)) return Stays::kPinned;
  const auto it = objects_.find(key.ino);
  if (it == objects_.end()) return std::nullopt;
  Object& o = it->second;
  if (o.dropped) return Stays::kOpen;
  if (auto r = o.regions.find(key.region); r != o.regions.end() && r->second.busy > 0) return Stays::kBusy;
  if (o.complete && !o.complete->is_unread()) return Stays::kOpen;
  revoke(o);
  // Somebody may have entered just before, or before it was revoked for another reason.
  if (is_read_inside(o)) return Stays::kOpen;
  return std::nullopt;
}

// What a write that failed has left, and what was found wrong, takes room that nobody counts. It stays where somebody
// may be reading: he entered, or began, when it was there.
void BlockCache::punch_absent(Object& o, ByteRange range) {
  if (o.in_pack) return;  // it goes with the place
  if (!o.file || is_read_inside(o)) return;
  for (BlockIndex b = block_of(range.begin); b <= block_of(range.end - 1); ++b) {
    const uint64_t number = b / kBlocksPerRegion;
    if (region(o, number).busy > 0 || ((known(o.ino, number) >> (b % kBlocksPerRegion)) & 1) != 0) continue;
    punch_hole(o.file->get(), ByteRange::of(b * kBlockSize, kBlockSize));
  }
}

// The region's blocks that are present, or are on record and only hidden.
uint64_t BlockCache::known(Ino ino, uint64_t number) {
  const uint64_t recorded = index_.region(RegionKey{ino, number}).value_or(RegionRecord{}).present;
  const auto o = objects_.find(ino);
  return o == objects_.end() ? recorded : recorded | region(o->second, number).record.present;
}

// After a crash objects/ may have what the index does not know: blocks that were not recorded yet, regions and files
// that were to go.
bool BlockCache::reclaim(Ino ino) {
  if (const auto record = index_.object(ino); record && lies_in_pack(record->size)) {
    ::unlink(file_path(ino).c_str());  // of no use
    return true;
  }
  const auto it = objects_.find(ino);
  Object* o = it == objects_.end() ? nullptr : &it->second;
  if (o != nullptr && (o->busy > 0 || o->dropped || is_read_inside(*o))) return false;
  if (o != nullptr && o->complete) return true;  // it has all it should
  const auto goes = going_.lower_bound(RegionKey{ino, 0});
  if (goes != going_.end() && goes->ino == ino) return false;
  if ((o == nullptr || o->opens == 0) && index_.blocks_present(ino) == 0) {
    free_file(ino);
    return true;
  }
  const FileDescriptor fd(::open(file_path(ino).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return true;
  // Region by region, those that have anything.
  for (off_t at = 0; (at = ::lseek(fd.get(), at, SEEK_DATA)) >= 0;) {
    const uint64_t number = static_cast<uint64_t>(at) / kRegionSize;
    const uint64_t present = known(ino, number);
    for (unsigned i = 0; i < kBlocksPerRegion; ++i) {
      if (((present >> i) & 1) == 0)
        punch_hole(fd.get(), ByteRange::of(number * kRegionSize + i * kBlockSize, kBlockSize));
    }
    at = static_cast<off_t>((number + 1) * kRegionSize);
  }
  return true;
}

// They may be stored again. A file of which nothing is left goes, unless it is open.
void BlockCache::free_regions(const std::vector<RegionKey>& regions) {
  for (const RegionKey& key : regions) going_.erase(key);
  for (size_t i = 0; i < regions.size(); ++i) {
    const Ino ino = regions[i].ino;
    if (i > 0 && regions[i - 1].ino == ino) continue;
    auto it = objects_.find(ino);
    if (it != objects_.end() && (it->second.opens > 0 || it->second.busy > 0)) continue;
    if (index_.blocks_present(ino) == 0) free_file(ino);
  }
}

void BlockCache::free_file(Ino ino) {
  if (auto it = objects_.find(ino); it != objects_.end()) {
    idle_.erase(it->second.idle);
    release_place(it->second);
    objects_.erase(it);
  }
  ::unlink(file_path(ino).c_str());
}

// --- a read: start_read -> read_done -> verify -----------------------------------------------------------------------

struct BlockCache::Read {
  ByteRange wanted;  // what the caller asked for
  ByteRange range;   // what is read: the same, whole blocks when they must be checked, or from a page's begin
  bool check = false;
  uint64_t got = 0;
  BufferRef buffer;
  std::shared_ptr<FileDescriptor> file;
  std::shared_ptr<FileDescriptor> direct;  // when it bypasses the page cache
  ReadDone done;
};

bool BlockCache::all_trusted(Object& o, ByteRange range) {
  if (options_.verify == VerifyMode::kAlways) return false;
  if (options_.verify == VerifyMode::kOff) return true;
  for (BlockIndex b = block_of(range.begin); b <= block_of(range.end - 1); ++b) {
    if (((region(o, b / kBlocksPerRegion).trusted >> (b % kBlocksPerRegion)) & 1) == 0) return false;
  }
  return true;
}

void BlockCache::read(Ino ino, ByteRange range, ReadDone done) {
  doubt_after_failure();
  Object& o = object(ino);
  trust_synced(o);
  const bool trusted = all_trusted(o, range);
  start(ino, range, trusted ? Purpose::kRead : Purpose::kReadAndCheck, std::move(done));
}

void BlockCache::start(Ino ino, ByteRange range, Purpose purpose, ReadDone done) {
  Object& o = object(ino);
  auto f = file(o, false);
  if (!f) {
    // Gone, and forgotten; or it cannot be opened now (no descriptors), and its blocks are fetched all the same.
    for (BlockIndex b = block_of(range.begin); b <= block_of(range.end - 1); ++b) hide_block(o, b);
    log::warn("cache file cannot be opened, its blocks are fetched again: ino={} error=\"{}\"", ino, f.error().message);
    done(fail(ErrorCode::kCorrupt, "{}", f.error().message));
    return;
  }
  auto read = std::make_unique<Read>();
  read->wanted = range;
  read->check = purpose != Purpose::kRead;
  read->range = read->check ? align_to_blocks(range, o.size) : range;
  read->file = *f;
  // What is only to be checked shall not push out what is read.
  read->direct = purpose != Purpose::kCheck ? direct_for_read(o, range, read->range)
                 : direct_works_            ? direct_file(o)
                                            : nullptr;
  if (read->direct) read->range.begin -= read->range.begin % kDirectAlignment;
  read->buffer = buffers_.allocate(direct_length(read->range.size()));
  read->done = std::move(done);
  ++o.busy;
  count_busy(o, read->range, 1);
  start_read(ino, std::move(read));
}

void BlockCache::start_read(Ino ino, std::unique_ptr<Read> read) {
  const int fd = (read->direct ? read->direct : read->file)->get();
  const uint64_t offset = offset_in_file(object(ino)) + read->range.begin + read->got;
  void* into = read->buffer->data() + read->got;
  const size_t length = read->direct ? direct_length(read->range.size()) : read->range.size() - read->got;
  disk_.read(fd, offset, into, length,
             [this, ino, read = std::move(read)](int64_t result) mutable { read_done(ino, std::move(read), result); });
}

void BlockCache::read_done(Ino ino, std::unique_ptr<Read> read, int64_t result) {
  Object& o = object(ino);
  if (read->direct) {
    // What it may have left is not aligned, and is read through the page cache.
    read->direct.reset();
    if (result == -EINVAL) {
      direct_works_ = false;
      return start_read(ino, std::move(read));
    }
  }
  if (result > 0) {
    read->got += static_cast<uint64_t>(result);
    if (read->got < read->range.size()) return start_read(ino, std::move(read));  // a short read goes on
  }
  count_busy(o, read->range, -1);
  Result<ReadResult> answer = ReadResult{read->buffer, read->wanted.begin - read->range.begin};
  if (result <= 0) {
    // An error, or an end of file where the index says that there are bytes (the file was cut).
    for (BlockIndex b = block_of(read->range.begin); b <= block_of(read->range.end - 1); ++b) forget_block(o, b);
    punch_absent(o, read->range);
    log::warn("cache read failed, the blocks are fetched again: ino={} offset={} result={}", ino, read->range.begin,
              result);
    answer = fail(ErrorCode::kIo, "cache: read: {}", result);
  } else if (read->check && !verify(o, *read)) {
    answer = fail(ErrorCode::kCorrupt, "cache: a block's checksum is wrong");
  }
  ReadDone done = std::move(read->done);
  read.reset();
  done(std::move(answer));
  finish_use(object(ino));
}

bool BlockCache::verify(Object& o, const Read& read) {
  bool good = true;
  for (BlockIndex b = block_of(read.range.begin); b <= block_of(read.range.end - 1); ++b) {
    Region& r = region(o, b / kBlocksPerRegion);
    const unsigned i = b % kBlocksPerRegion;
    if (!r.record.has(i)) {  // forgotten while this read was under way
      good = false;
      continue;
    }
    const ByteRange bytes = block_range(b, o.size);
    if (block_checksum(read.buffer->data() + (bytes.begin - read.range.begin), bytes.size()) == r.record.checksum[i]) {
      if (((r.unsynced >> i) & 1) == 0) set_trusted(o, r, i);
      continue;
    }
    good = false;
    metrics_.blocks_corrupt.fetch_add(1, std::memory_order_relaxed);
    log::warn("cached block is corrupt, it is fetched again: ino={} block={}", o.ino, b);
    forget_block(o, b);
  }
  if (!good) punch_absent(o, read.range);
  return good;
}

// --- a check of what nobody reads ------------------------------------------------------------------------------------

struct BlockCache::Check {
  RegionKey key;
  BlockIndex next = 0;
  Checked checked;
  CheckDone done;
};

void BlockCache::check_region(RegionKey key, CheckDone done) {
  const auto record = index_.object(key.ino);
  if (!record || going_.contains(key)) return done({});
  open(key.ino, record->size, true);
  const uint64_t blocks = region(object(key.ino), key.region).record.present;
  check_next(std::make_unique<Check>(Check{key, key.region * kBlocksPerRegion, {blocks, 0, 0}, std::move(done)}));
}

// The next run of blocks that are there; several at once, as many as are worth a request of the disk.
void BlockCache::check_next(std::unique_ptr<Check> check) {
  constexpr uint64_t kAtOnce = (1 << 20) / kBlockSize;
  const Ino ino = check->key.ino;
  const BlockIndex end = std::min((check->key.region + 1) * kBlocksPerRegion, block_count(object(ino).size));
  BlockIndex first = check->next;
  while (first < end && !has(ino, first)) ++first;
  if (first >= end) {
    check->checked.wrong = check->checked.blocks & ~region(object(ino), check->key.region).record.present;
    close(ino);
    return check->done(check->checked);
  }
  BlockIndex last = first + 1;
  while (last < end && last - first < kAtOnce && has(ino, last)) ++last;
  check->next = last;
  const ByteRange range{first * kBlockSize, std::min(last * kBlockSize, object(ino).size)};
  check->checked.bytes += range.size();
  start(ino, range, Purpose::kCheck,
        [this, check = std::move(check)](const Result<ReadResult>&) mutable { check_next(std::move(check)); });
}

void BlockCache::trust_index(uint64_t failures) {
  if (options_.verify != VerifyMode::kAuto || index_.failures() != failures) return;
  trust_index_ = true;
  for (auto& [ino, o] : objects_) {
    for (auto& [number, r] : o.regions) r.trusted = r.record.present & ~r.unsynced;
    o.trusted.reset();
  }
}

// --- a store -------------------------------------------------------------------------------------------------------

struct BlockCache::Store {
  StoredBlocks blocks;
  ByteRange range;
  CopiedBytes copied;
  BufferRef bytes;
  std::shared_ptr<FileDescriptor> direct;  // when it bypasses the page cache
  StoreDone done;
};

bool BlockCache::may_store(ByteRange range, Ino ino) {
  for (uint64_t r = range.begin / kRegionSize; r <= (range.end - 1) / kRegionSize; ++r) {
    if (going_.contains(RegionKey{ino, r})) return false;
  }
  if (space_.reserve(in_pages(range.size()), std::chrono::steady_clock::now())) return true;
  index_.make_room();
  return false;
}

void BlockCache::count_busy(Object& o, ByteRange range, int by) {
  for (uint64_t r = range.begin / kRegionSize; r <= (range.end - 1) / kRegionSize; ++r) region(o, r).busy += by;
}

void BlockCache::store(Ino ino, ByteRange range, BufferRef bytes, PageCache page_cache, StoreDone done,
                       CopiedBytes copied) {
  Object& o = object(ino);
  if (o.dropped || !may_store(range, ino)) {
    metrics_.stores_without_room.fetch_add(1, std::memory_order_relaxed);
    return done(false);
  }
  auto f = file(o, true);
  if (!f) {
    if (!store_error_logged_) log::warn("nothing more is cached for now: {}", f.error().message);
    store_error_logged_ = true;
    metrics_.store_errors.fetch_add(1, std::memory_order_relaxed);
    space_.give_back(in_pages(range.size()));
    return done(false);
  }
  StoredBlocks blocks{ino, *f, block_of(range.begin), {}, range.size(), o.in_pack ? offset_in_file(o) : kNoPlace};
  for (BlockIndex b = blocks.first; b <= block_of(range.end - 1); ++b) {
    const ByteRange r = block_range(b, o.size);
    blocks.checksums.push_back(block_checksum(bytes->data() + (r.begin - range.begin), r.size()));
  }
  ++o.busy;
  count_busy(o, range, 1);
  auto store = std::make_unique<Store>(
      Store{std::move(blocks), range, std::move(copied), std::move(bytes), nullptr, std::move(done)});
  if (page_cache == PageCache::kBypass) store->direct = direct_for_store(o, range);
  if (store->direct) metrics_.direct_bytes_in_flight += static_cast<int64_t>(range.size());
  start_store(ino, std::move(store));
}

void BlockCache::start_store(Ino ino, std::unique_ptr<Store> store) {
  const int fd = (store->direct ? store->direct : store->blocks.file)->get();
  const std::byte* from = store->bytes->data();
  const ByteRange range = store->range;
  disk_.write(
      fd, offset_in_file(object(ino)) + range.begin, from, range.size(),
      [this, ino, store = std::move(store)](int64_t result) mutable { store_done(ino, std::move(store), result); });
}

void BlockCache::store_done(Ino ino, std::unique_ptr<Store> store, int64_t result) {
  if (store->direct) {
    metrics_.direct_bytes_in_flight -= static_cast<int64_t>(store->range.size());
    store->direct.reset();
    // Some file systems open a file so, and refuse only the write.
    if (result == -EINVAL) {
      direct_works_ = false;
      return start_store(ino, std::move(store));
    }
  }
  Object& obj = object(ino);
  count_busy(obj, store->range, -1);
  // A short write is as good as none: a disk that is full or broken.
  const bool ok = result == static_cast<int64_t>(store->range.size());
  if (ok) {
    const Ticket ticket = ++last_ticket_;
    for (size_t i = 0; i < store->blocks.checksums.size(); ++i) {
      set_present(obj, store->blocks.first + i, store->blocks.checksums[i], ticket);
    }
    metrics_.blocks_stored.fetch_add(store->blocks.checksums.size(), std::memory_order_relaxed);
    const auto file = store->copied.file && !obj.in_pack ? store->blocks.file : nullptr;
    index_.put_blocks(std::move(store->blocks),
                      [&space = space_, &metrics = metrics_, n = in_pages(store->range.size()), synced = synced_,
                       ticket, file, copied = std::move(store->copied)](bool committed) {
                        if (committed) synced->store(ticket, std::memory_order_release);
                        space.give_back(n);
                        if (!committed || !file) return;
                        for (const ByteRange& run : copied.ranges)
                          metrics.bytes_shared += share_place(copied.file->get(), file->get(), run);
                      });
  } else {
    punch_absent(obj, store->range);
    space_.give_back(in_pages(store->range.size()));
    metrics_.store_errors.fetch_add(1, std::memory_order_relaxed);
    if (!store_error_logged_) log::warn("a block could not be cached: ino={} result={}", ino, result);
    store_error_logged_ = true;
  }
  StoreDone finished = std::move(store->done);
  store.reset();
  finished(ok);
  finish_use(object(ino));
}

}  // namespace wormhole
