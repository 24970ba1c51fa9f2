#include "fs/filesystem.h"

namespace wormhole {
namespace {

// A file's inode is one version of it: its attributes never change. An hour, so that the kernel may forget them some
// time.
constexpr double kFileAttributeTimeout = 3600;

// What st_blksize proposes to programs like cp: the largest read that the kernel passes on in one request.
constexpr blksize_t kPreferredRead = 1 << 20;

}  // namespace

Filesystem::Filesystem(FilesystemOptions options, double name_timeout, Catalog& catalog, Engines& engines,
                       Lookahead& lookahead, Metrics& metrics, const Clock& clock)
    : options_(options),
      name_timeout_(name_timeout),
      catalog_(catalog),
      engines_(engines),
      lookahead_(lookahead),
      metrics_(metrics),
      clock_(clock),
      started_(clock.unix_seconds()),
      root_ino_(catalog.root()->ino),
      inodes_(catalog.root()),
      disk_turns_(options.disk_waiters) {}

Filesystem::Attributes Filesystem::attributes_of(const Node& node) const {
  Attributes a{};
  const bool directory = node.type == EntryType::kDirectory;
  a.timeout = directory ? name_timeout_ : kFileAttributeTimeout;
  a.stat.st_ino = external(node.ino);
  const mode_t kind = directory ? S_IFDIR : node.type == EntryType::kSymlink ? S_IFLNK : S_IFREG;
  const mode_t mode = node.mode.value_or(directory ? 0555 : 0444);
  a.stat.st_mode = kind | (kind == S_IFLNK ? 0777 : mode & ~options_.umask);
  a.stat.st_nlink = directory ? 2 : 1;
  a.stat.st_uid = options_.uid;
  a.stat.st_gid = options_.gid;
  a.stat.st_size = static_cast<off_t>(node.size);
  a.stat.st_blocks = static_cast<blkcnt_t>((node.size + 511) / 512);
  a.stat.st_blksize = kPreferredRead;
  // A directory of which no listing gives a time, as the root, is as old as the mount.
  const int64_t mtime = directory && node.mtime == 0 ? started_ : node.mtime;
  a.stat.st_mtim = a.stat.st_ctim = a.stat.st_atim = {mtime, node.mtime_ns};
  return a;
}

void Filesystem::set_root(std::optional<uint16_t> mode, int64_t mtime) {
  auto root = std::make_shared<Node>(*inodes_.find(root_ino_));
  root->mode = mode;
  root->mtime = mtime;
  inodes_.replace_root(std::move(root));
}

Filesystem::Entry Filesystem::entry_of(const NodeRef& node) const { return Entry{attributes_of(*node), name_timeout_}; }

void Filesystem::lookup(Ino parent, std::string_view name, EntryReply reply) {
  NodeRef directory = inodes_.find(internal(parent));
  if (directory == nullptr) return reply(fail(ErrorCode::kStale, "inode {} is not known", parent));
  lookahead_.looked_up(directory, name);
  catalog_.entry(directory, std::string(name),
                 [this, directory, reply = std::move(reply)](Result<DirectoryEntry> found) mutable {
                   if (!found) return reply(fail(found.error()));
                   NodeRef node = node_of(directory, *found);
                   inodes_.add_lookup(node);
                   reply(entry_of(node));
                 });
}

void Filesystem::forget(Ino ino, uint64_t lookups) {
  inodes_.forget(internal(ino), lookups);
  if (!inodes_.contains(internal(ino))) kernel_listings_.forget(internal(ino));
}

Result<Filesystem::Attributes> Filesystem::getattr(Ino ino) const {
  const NodeRef node = inodes_.find(internal(ino));
  if (node == nullptr) return fail(ErrorCode::kStale, "inode {} is not known", ino);
  return attributes_of(*node);
}

Result<std::string> Filesystem::readlink(Ino ino) const {
  const NodeRef node = inodes_.find(internal(ino));
  if (node == nullptr) return fail(ErrorCode::kStale, "inode {} is not known", ino);
  if (node->type != EntryType::kSymlink) return fail(ErrorCode::kInvalid, "inode {} is no symlink", ino);
  return node->target;
}

// A doubtful file is confirmed by a HEAD; a small one that was never read by its bytes, which are wanted anyway.
void Filesystem::open(Ino ino, OpenReply reply) {
  NodeRef node = inodes_.find(internal(ino));
  if (node == nullptr) return reply(fail(ErrorCode::kStale, "inode {} is not known", ino));
  lookahead_.opened(node);
  catalog_.confirm_if_read(node, [this, node, reply = std::move(reply)](Result<bool> confirmed) mutable {
    if (!confirmed) return reply(fail(std::move(confirmed.error())));
    *confirmed ? open_current(node, std::move(reply)) : fetch_and_open(node, std::move(reply));
  });
}

void Filesystem::fetch_and_open(const NodeRef& node, OpenReply reply) {
  engines_.fetch_whole(engines_.object_of(*node), node->size, catalog_.url_of(*node), node->content, Lane::kDemand,
                       [this, node, shared = std::make_unique<OpenReply>(std::move(reply))](Result<bool> fetched) {
                         if (fetched && *fetched) {
                           catalog_.confirmed(node);
                           return open_current(node, std::move(*shared));
                         }
                         // Which version there is now, a HEAD tells.
                         if (!fetched && fetched.error().code == ErrorCode::kStale) catalog_.distrust(node);
                         confirm_and_open(node, std::move(*shared));
                       });
}

void Filesystem::confirm_and_open(const NodeRef& node, OpenReply reply) {
  catalog_.confirm(node, [this, node, reply = std::move(reply)](Status current) mutable {
    if (!current) return reply(fail(std::move(current.error())));
    open_current(node, std::move(reply));
  });
}

// A file that the kernel may pass through waits for the engine's word whether all of it is there. A smaller one shares
// its file with others, and need not wait.
void Filesystem::open_current(const NodeRef& node, OpenReply reply) {
  OpenFileRef file = open_files_.open(engines_.object_of(*node), node->size, node->content, node);
  OpenFile* const f = file.get();
  if (lies_in_pack(f->size()) || !passthrough_.allowed()) {
    engines_.open(std::move(file), catalog_.url_of(*node), nullptr);
    return reply(f);
  }
  // A reply that is dropped because the mount ends is the caller's error; nobody is to release it then.
  engines_.open(std::move(file), catalog_.url_of(*node),
                [f, reply = std::make_unique<OpenReply>(std::move(reply))]() mutable { (*reply)(f); });
}

NodeRef Filesystem::opened_as(Ino object) const {
  NodeRef file = open_files_.opened_as(object);
  return file ? file : node(object);
}

int32_t Filesystem::release(OpenFile& file) {
  const Ino ino = file.ino();
  const uint64_t size = file.size();
  const OpenFileRef last = open_files_.close(file);
  const int32_t backing = last ? last->take_backing() : 0;
  if (backing != 0) engines_.is_passed_through(ino, last->size());  // until now
  engines_.close(ino, !lies_in_pack(size));
  return backing;
}

void Filesystem::was_read(const OpenFile& file, ByteRange range) {
  metrics_.read_requests.fetch_add(1, std::memory_order_relaxed);
  metrics_.bytes_from_cache.fetch_add(range.size(), std::memory_order_relaxed);
  engines_.was_read(file.ino(), range);
}

void Filesystem::is_passed_through(const OpenFile& file) {
  metrics_.opens_passed_through.fetch_add(1, std::memory_order_relaxed);
  engines_.is_passed_through(file.ino(), file.size());
}

void Filesystem::opendir(Ino ino, DirectoryReply reply) {
  NodeRef node = inodes_.find(internal(ino));
  if (node == nullptr) return reply(fail(ErrorCode::kStale, "inode {} is not known", ino));
  lookahead_.listed(node);
  catalog_.open_directory(
      node, [this, node, reply = std::move(reply)](Result<Catalog::OpenedDirectory> opened) mutable {
        if (!opened) return reply(fail(opened.error()));
        if (const ArrivingRef& arriving = opened->arriving) {
          arriving->when_there(ArrivingDirectory::kEnd, [this, node](const Status& all) {
            if (all) lookahead_.listing_arrived(node);
          });
          return reply(std::make_unique<DirectoryHandle>(DirectoryHandle{node, {}, arriving, {}, false}));
        }
        lookahead_.listing_arrived(node);
        const DirectoryRef& snapshot = opened->snapshot;
        KernelListingRef in_kernel = kernel_listings_.open(node->ino, snapshot);
        // Not longer than the names are believed, which come with the listing: each would be looked up by itself.
        const auto name_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(name_timeout_));
        const bool keep = in_kernel && in_kernel->was_filled_since(clock_.now() - name_timeout);
        reply(std::make_unique<DirectoryHandle>(DirectoryHandle{node, snapshot, {}, std::move(in_kernel), keep}));
      });
}

namespace {

constexpr uint64_t kDots = 2;  // "." and ".." come first

const DirectoryEntry* entry_at(const DirectoryHandle& handle, uint64_t place) {
  if (handle.arriving) return handle.arriving->at(place);
  return place < handle.snapshot->entries.size() ? &handle.snapshot->entries[place] : nullptr;
}

}  // namespace

void Filesystem::when_readable(const DirectoryHandle& handle, uint64_t index, UniqueFunction<void(Status)> told) const {
  if (!handle.arriving || index < kDots) return told({});
  handle.arriving->when_there(index - kDots, std::move(told));
}

std::optional<Filesystem::Dirent> Filesystem::readdir(const DirectoryHandle& handle, uint64_t index, bool plus) {
  if (index == 0 && handle.in_kernel) handle.in_kernel->filled(clock_.now());
  if (index < kDots) {
    const Node& node = index == 1 && handle.node->parent ? *handle.node->parent : *handle.node;
    return Dirent{index == 0 ? "." : "..", Entry{attributes_of(node), 0}, false};
  }
  const DirectoryEntry* const found = entry_at(handle, index - kDots);
  if (found == nullptr) return std::nullopt;
  const DirectoryEntry& entry = *found;
  NodeRef node = node_of(handle.node, entry);
  Dirent out{entry.name, entry_of(node), false};
  // What only a HEAD can tell is asked when somebody needs it, not for every name of a directory.
  if (!plus || (entry.type == EntryType::kFile && (!entry.size || entry.gone))) return out;
  inodes_.add_lookup(node);
  out.looked_up = true;
  return out;
}

struct statvfs Filesystem::statfs() const {
  struct statvfs s {};
  s.f_bsize = s.f_frsize = kBlockSize;
  // What is cached is what this file system uses of this machine; there is nothing to be had in it.
  s.f_blocks = static_cast<fsblkcnt_t>(metrics_.bytes_cached.load(std::memory_order_relaxed)) / kBlockSize;
  s.f_files = inodes_.size();
  s.f_namemax = 255;
  s.f_flag = ST_RDONLY | ST_NOSUID | ST_NODEV;
  return s;
}

}  // namespace wormhole
