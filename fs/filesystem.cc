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
  if (inodes_.find(internal(ino)) == nullptr) kernel_listings_.forget(internal(ino));
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
  engines_.fetch_whole(node->ino, node->size, catalog_.url_of(*node), node->content, Lane::kDemand,
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

void Filesystem::confirm_and_open(NodeRef node, OpenReply reply) {
  catalog_.confirm(node, [this, node, reply = std::move(reply)](Status current) mutable {
    if (!current) return reply(fail(std::move(current.error())));
    open_current(node, std::move(reply));
  });
}

// A file that the kernel may pass through waits for the engine's word whether all of it is there. A smaller one shares
// its file with others, and need not wait.
void Filesystem::open_current(const NodeRef& node, OpenReply reply) {
  OpenFileRef file = open_files_.open(node->ino, node->size, node->content);
  OpenFile* const f = file.get();
  if (lies_in_pack(f->size()) || !passthrough_.allowed()) {
    engines_.open(std::move(file), catalog_.url_of(*node), nullptr);
    return reply(f);
  }
  // A reply that is dropped because the mount ends is the caller's error; nobody is to release it then.
  engines_.open(std::move(file), catalog_.url_of(*node),
                [f, reply = std::make_unique<OpenReply>(std::move(reply))]() mutable { (*reply)(f); });
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
  catalog_.directory(node, [this, node, reply = std::move(reply)](Result<DirectoryRef> listing) mutable {
    if (!listing) return reply(fail(listing.error()));
    lookahead_.listing_arrived(node);
    KernelListingRef in_kernel = kernel_listings_.open(node->ino, *listing);
    // Not longer than the names are believed, which come with the listing: each would be looked up by itself.
    const auto name_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(name_timeout_));
    const bool keep = in_kernel && in_kernel->was_filled_since(clock_.now() - name_timeout);
    reply(std::make_unique<DirectoryHandle>(DirectoryHandle{node, *listing, std::move(in_kernel), keep}));
  });
}

std::optional<Filesystem::Dirent> Filesystem::readdir(const DirectoryHandle& handle, uint64_t index, bool plus) {
  constexpr uint64_t kDots = 2;
  if (index == 0 && handle.in_kernel) handle.in_kernel->filled(clock_.now());
  if (index < kDots) {
    const Node& node = index == 1 && handle.node->parent ? *handle.node->parent : *handle.node;
    return Dirent{index == 0 ? "." : "..", Entry{attributes_of(node), 0}, false};
  }
  if (index - kDots >= handle.snapshot->entries.size()) return std::nullopt;
  const DirectoryEntry& entry = handle.snapshot->entries[index - kDots];
  NodeRef node = node_of(handle.node, entry);
  Dirent out{entry.name, entry_of(node), false};
  // What only a HEAD can tell is asked when somebody needs it, not for every name of a directory.
  if (!plus || (entry.type == EntryType::kFile && (!entry.size || entry.gone))) return out;
  inodes_.add_lookup(std::move(node));
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
