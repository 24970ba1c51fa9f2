#include "fs/ops.h"

#include "fs/fuse_version.h"

#include <fmt/format.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/log.h"
#include "fs/errno.h"
#include "fs/filesystem.h"
#include "fs/transport_uring.h"

namespace wormhole {
namespace {

// A request of the kernel, which must be answered exactly once. One that is dropped unanswered, because the mount ends
// and a mailbox is closed, is answered with EIO: no reader hangs.
//
// Somebody who waits for a request and gets a signal (Ctrl-C, kill -9) is answered with EINTR at once; without that a
// process could not even be killed while its server is silent. The real answer then comes too late and finds nobody:
// take() says so.
class Request {
 public:
  explicit Request(fuse_req_t req) : waiting_(new std::atomic<fuse_req_t>(req)) {
    ::fuse_req_interrupt_func(req, on_interrupt, waiting_.get());
  }
  Request(Request&&) noexcept = default;
  Request& operator=(Request&&) = delete;
  ~Request() {
    if (waiting_ == nullptr) return;  // moved away
    if (const fuse_req_t req = take()) ::fuse_reply_err(req, EIO);
  }

  // The request, to be answered now; null when it has been answered. The second line waits for an interrupt
  // that is being delivered at this moment (libfuse holds the request's lock meanwhile).
  fuse_req_t take() {
    const fuse_req_t req = waiting_->exchange(nullptr);
    if (req != nullptr) ::fuse_req_interrupt_func(req, nullptr, nullptr);
    return req;
  }
  void fail(const Error& error) {
    if (const fuse_req_t req = take()) ::fuse_reply_err(req, errno_of(error.code));
  }

 private:
  static void on_interrupt(fuse_req_t, void* waiting) {
    if (const fuse_req_t req = static_cast<std::atomic<fuse_req_t>*>(waiting)->exchange(nullptr))
      ::fuse_reply_err(req, EINTR);
  }

  std::unique_ptr<std::atomic<fuse_req_t>> waiting_;
};

Filesystem& filesystem(fuse_req_t req) { return static_cast<SessionData*>(::fuse_req_userdata(req))->filesystem; }

OpenFile* file_of(const fuse_file_info* fi) { return reinterpret_cast<OpenFile*>(fi->fh); }

DirectoryHandle* handle_of(const fuse_file_info* fi) { return reinterpret_cast<DirectoryHandle*>(fi->fh); }

fuse_entry_param entry_param(const Filesystem::Entry& entry) {
  fuse_entry_param e{};
  e.ino = entry.attributes.stat.st_ino;
  e.attr = entry.attributes.stat;
  e.attr_timeout = entry.attributes.timeout;
  e.entry_timeout = entry.timeout;
  return e;
}

// How much may be asked for at once and in the background. Read-ahead of several readers arrives as background
// requests; the default of 12 would hold up the 13th.
constexpr unsigned kMaxBackground = 64;

void op_init(void* userdata, fuse_conn_info* connection) {
  Passthrough& passthrough = static_cast<SessionData*>(userdata)->filesystem.passthrough();
  if (!passthrough.allowed()) {
    ::fuse_unset_feature_flag(connection, FUSE_CAP_PASSTHROUGH);
  } else if (!::fuse_set_feature_flag(connection, FUSE_CAP_PASSTHROUGH)) {
    passthrough.refuse("this kernel has no FUSE passthrough (6.9 has), or was built without it");
  }
  // Lookups and readdirs of one directory need no order among themselves.
  ::fuse_set_feature_flag(connection, FUSE_CAP_PARALLEL_DIROPS);
  ::fuse_set_feature_flag(connection, FUSE_CAP_READDIRPLUS);
  ::fuse_unset_feature_flag(connection, FUSE_CAP_READDIRPLUS_AUTO);
  ::fuse_set_feature_flag(connection, FUSE_CAP_ASYNC_READ);
  ::fuse_set_feature_flag(connection, FUSE_CAP_ASYNC_DIO);
#ifdef FUSE_CAP_OVER_IO_URING
  ::fuse_unset_feature_flag(connection, FUSE_CAP_OVER_IO_URING);  // libfuse's rings: transport_uring.h says why not
#endif
  // Replies are written from our own buffers; a pipe in between gains nothing.
  ::fuse_unset_feature_flag(connection, FUSE_CAP_SPLICE_WRITE);
  ::fuse_unset_feature_flag(connection, FUSE_CAP_SPLICE_READ);
  // The kernel takes the smaller of this and what Session has set, whichever comes first.
  connection->max_readahead = kKernelReadahead;
  connection->max_background = kMaxBackground;
  connection->congestion_threshold = kMaxBackground * 3 / 4;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Filesystem& fs = filesystem(req);
  fs.lookup(parent, name, [request = Request(req), &fs](Result<Filesystem::Entry> found) mutable {
    if (!found && found.error().code != ErrorCode::kNotFound) return request.fail(found.error());
    fuse_entry_param e{};
    if (found) e = entry_param(*found);
    // Inode 0: the kernel may remember for a second that there is no such name.
    if (!found) e.entry_timeout = 1;
    const fuse_req_t r = request.take();
    const bool told = r != nullptr && ::fuse_reply_entry(r, &e) == 0;
    if (!told && found) fs.forget(e.ino, 1);
  });
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups) {
  filesystem(req).forget(ino, lookups);
  ::fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  for (size_t i = 0; i < count; ++i) filesystem(req).forget(forgets[i].ino, forgets[i].nlookup);
  ::fuse_reply_none(req);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  const auto attributes = filesystem(req).getattr(ino);
  if (attributes) {
    ::fuse_reply_attr(req, &attributes->stat, attributes->timeout);
  } else {
    ::fuse_reply_err(req, errno_of(attributes.error().code));
  }
}

// Gives the kernel the cache's file to serve by itself; 0 when it refuses, and then it is not asked again.
int32_t connect_backing(fuse_req_t req, int fd, Passthrough& passthrough) {
  errno = 0;
  const int id = ::fuse_passthrough_open(req, fd);
  if (id > 0) return id;
  switch (errno) {
    case EPERM: passthrough.refuse("it needs CAP_SYS_ADMIN"); break;
    case ELOOP:
      passthrough.refuse(
          "the cache lies on a file system that is stacked on others (overlayfs); choose another cache=");
      break;
    default: passthrough.refuse(fmt::format("the kernel refuses: {}", std::strerror(errno)));
  }
  log::info("files are not passed through: passthrough={}", passthrough.state());
  return 0;
}

// Where the bytes of an answer of this thread go: to where the kernel takes them from, or to a buffer of the thread,
// which grows to the largest read that the kernel passes on: 1 MiB, or what fs.fuse.max_pages_limit allows.
std::span<std::byte> place_for_answer(size_t size) {
  if (const auto payload = UringTransport::payload(); payload.size() >= size) return payload;
  thread_local std::unique_ptr<std::byte[]> buffer;
  thread_local size_t capacity = 0;
  if (size > capacity) {
    capacity = std::max<size_t>(size, 1 << 20);
    buffer = std::make_unique_for_overwrite<std::byte[]>(capacity);
  }
  return {buffer.get(), capacity};
}

// Of a reader here and there; a larger one is the kernel's read-ahead, which is faster with many under way.
constexpr uint64_t kWorthWaitingFor = 64 * 1024;

// Answers from the cache's file, if all of `range` is in the page cache: then no thread need be woken for it. What has
// to come from the disk this thread waits for itself while enough others are free; the rest is the engine's, which has
// many such reads under way with one thread. (The read that does not wait has made the kernel begin with it.)
// `fs` counts the read before the reply: with it the reader may close the file, and then `file` is gone.
bool reply_from_cache_file(fuse_req_t req, Filesystem& fs, const OpenFile& file, ByteRange range) {
  const CompleteFile* const complete = file.complete();
  if (complete == nullptr) return false;
  if (range.begin >= complete->size()) return ::fuse_reply_buf(req, nullptr, 0), true;
  range.end = std::min(range.end, complete->size());
  if (!complete->enter()) return false;
  iovec into{place_for_answer(range.size()).data(), range.size()};
  const auto offset = static_cast<off_t>(complete->offset() + range.begin);
  ssize_t n = ::preadv2(complete->fd(), &into, 1, offset, RWF_NOWAIT);
  // A thread of a ring has its processor's other requests behind it.
  const bool may_wait = range.size() <= kWorthWaitingFor && UringTransport::payload().empty();
  if (n != static_cast<ssize_t>(range.size()) && may_wait) {
    if (const DiskTurns::Turn turn(fs.disk_turns()); turn) n = ::preadv2(complete->fd(), &into, 1, offset, 0);
  }
  complete->leave();
  if (n != static_cast<ssize_t>(range.size())) return false;
  fs.was_read(file, range);
  ::fuse_reply_buf(req, static_cast<const char*>(into.iov_base), range.size());
  return true;
}

void op_readlink(fuse_req_t req, fuse_ino_t ino) {
  const auto target = filesystem(req).readlink(ino);
  target ? ::fuse_reply_readlink(req, target->c_str()) : ::fuse_reply_err(req, errno_of(target.error().code));
}

void op_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* fi) {
  if ((fi->flags & O_ACCMODE) != O_RDONLY) {
    ::fuse_reply_err(req, EROFS);
    return;
  }
  Filesystem& fs = filesystem(req);
  fs.open(ino, [request = Request(req), &fs](Result<OpenFile*> opened) mutable {
    if (!opened) return request.fail(opened.error());
    OpenFile& file = **opened;
    const fuse_req_t r = request.take();
    // An opener who was interrupted is gone: there will be no release.
    if (r == nullptr) return fs.passthrough().abandon(fs.release(file));
    fuse_file_info info{};
    info.fh = reinterpret_cast<uint64_t>(&file);
    info.backing_id = file.decide(fs.passthrough(), [&](int fd) { return connect_backing(r, fd, fs.passthrough()); });
    // An inode is one version: pages of an earlier open are as good as new ones. A file that is passed through has none
    // of its own.
    info.keep_cache = info.backing_id == 0;
    if (info.backing_id != 0) fs.is_passed_through(file);
    if (::fuse_reply_open(r, &info) != 0) fs.passthrough().abandon(fs.release(file));
  });
}

void op_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
  Filesystem& fs = filesystem(req);
  OpenFile& file = *file_of(fi);
  const auto range = ByteRange::of(static_cast<uint64_t>(offset), size);
  if (reply_from_cache_file(req, fs, file, range)) return;
  fs.read(file, range, [request = Request(req)](Result<std::span<const iovec>> bytes) mutable {
    if (!bytes) return request.fail(bytes.error());
    if (const fuse_req_t r = request.take()) ::fuse_reply_iov(r, bytes->data(), static_cast<int>(bytes->size()));
  });
}

void op_release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  Filesystem& fs = filesystem(req);
  fs.passthrough().abandon(fs.release(*file_of(fi)));
  for (const int32_t id : fs.passthrough().take_abandoned()) ::fuse_passthrough_close(req, id);
  ::fuse_reply_err(req, 0);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  filesystem(req).opendir(ino, [request = Request(req)](Result<std::unique_ptr<DirectoryHandle>> handle) mutable {
    if (!handle) return request.fail(handle.error());
    fuse_file_info info{};
    info.fh = reinterpret_cast<uint64_t>(handle->get());
    info.cache_readdir = (*handle)->in_kernel != nullptr;
    info.keep_cache = (*handle)->keep;
    const fuse_req_t r = request.take();
    if (r != nullptr && ::fuse_reply_open(r, &info) == 0) (void)handle->release();
  });
}

void op_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  delete handle_of(fi);
  ::fuse_reply_err(req, 0);
}

// An offset is the index of the next entry: an entry of the handle stays at its place.
void reply_directory(fuse_req_t req, size_t size, off_t offset, const DirectoryHandle& handle, bool plus) {
  Filesystem& fs = filesystem(req);
  char* const buffer = reinterpret_cast<char*>(place_for_answer(size).data());
  size_t used = 0;
  for (auto index = static_cast<uint64_t>(offset);; ++index) {
    const auto dirent = fs.readdir(handle, index, plus);
    if (!dirent) break;
    const std::string name(dirent->name);
    const auto next = static_cast<off_t>(index + 1);
    fuse_entry_param e = entry_param(dirent->entry);
    if (!dirent->looked_up) e.ino = 0;  // "no attributes": the kernel looks the name up when it needs them
    const size_t needed = plus ? ::fuse_add_direntry_plus(req, buffer + used, size - used, name.c_str(), &e, next)
                               : ::fuse_add_direntry(req, buffer + used, size - used, name.c_str(), &e.attr, next);
    if (needed > size - used) {
      if (dirent->looked_up) fs.forget(e.ino, 1);
      break;
    }
    used += needed;
  }
  ::fuse_reply_buf(req, buffer, used);
}

// An empty answer is the end of the directory: so it waits for an entry where one may come. Whoever was interrupted
// meanwhile may have closed the handle.
void reply_when_readable(fuse_req_t req, size_t size, off_t offset, const DirectoryHandle& handle, bool plus) {
  if (!handle.arriving) return reply_directory(req, size, offset, handle, plus);
  filesystem(req).when_readable(handle, static_cast<uint64_t>(offset),
                                [request = Request(req), size, offset, &handle, plus](const Status& there) mutable {
                                  if (!there) return request.fail(there.error());
                                  if (const fuse_req_t r = request.take())
                                    reply_directory(r, size, offset, handle, plus);
                                });
}

void op_readdir(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
  reply_when_readable(req, size, offset, *handle_of(fi), false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* fi) {
  reply_when_readable(req, size, offset, *handle_of(fi), true);
}

void op_statfs(fuse_req_t req, fuse_ino_t) {
  const struct statvfs s = filesystem(req).statfs();
  ::fuse_reply_statfs(req, &s);
}

void op_access(fuse_req_t req, fuse_ino_t, int mask) { ::fuse_reply_err(req, (mask & W_OK) != 0 ? EROFS : 0); }

// The mount is read-only, so the kernel refuses writes by itself; after a "remount,rw" it would not.
template <typename... Args>
void op_refuse(fuse_req_t req, Args...) {
  ::fuse_reply_err(req, EROFS);
}

fuse_lowlevel_ops make_ops() {
  fuse_lowlevel_ops ops{};
  ops.init = op_init;
  ops.lookup = op_lookup;
  ops.forget = op_forget;
  ops.forget_multi = op_forget_multi;
  ops.getattr = op_getattr;
  ops.readlink = op_readlink;
  ops.open = op_open;
  ops.read = op_read;
  ops.release = op_release;
  ops.opendir = op_opendir;
  ops.readdir = op_readdir;
  ops.readdirplus = op_readdirplus;
  ops.releasedir = op_releasedir;
  ops.statfs = op_statfs;
  ops.access = op_access;
  ops.setattr = op_refuse;
  ops.mknod = op_refuse;
  ops.mkdir = op_refuse;
  ops.unlink = op_refuse;
  ops.rmdir = op_refuse;
  ops.symlink = op_refuse;
  ops.rename = op_refuse;
  ops.link = op_refuse;
  ops.create = op_refuse;
  ops.write = op_refuse;
  ops.setxattr = op_refuse;
  ops.removexattr = op_refuse;
  ops.fallocate = op_refuse;
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& fuse_ops() {
  static const fuse_lowlevel_ops ops = make_ops();
  return ops;
}

}  // namespace wormhole
