#include "manifest/local_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/file_descriptor.h"

namespace wormhole {

int stamp_of(int directory, const std::string& name, FileStamp* stamp) {
  struct stat s {};
  if (::fstatat(directory, name.c_str(), &s, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT) != 0) return errno;
  *stamp = {.device = s.st_dev,
            .inode = s.st_ino,
            .size = static_cast<uint64_t>(s.st_size),
            .mtime = s.st_mtim.tv_sec,
            .ctime = s.st_ctim.tv_sec,
            .mtime_ns = static_cast<uint32_t>(s.st_mtim.tv_nsec),
            .ctime_ns = static_cast<uint32_t>(s.st_ctim.tv_nsec),
            .mode = s.st_mode};
  return 0;
}

int open_below(int root, const std::string& path, int flags) {
  const char* name = path.empty() ? "." : path.c_str();
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, root, name, &how, sizeof how);
  // Before Linux 5.6, and in containers that do not know the call: the last step alone is guarded.
  if (fd < 0 && (errno == ENOSYS || errno == EPERM)) return ::openat(root, name, flags | O_CLOEXEC | O_NOFOLLOW);
  return static_cast<int>(fd);
}

Result<LocalDirectory> LocalDirectory::read(int root, const std::string& path) {
  LocalDirectory out;
  const int fd = open_below(root, path, O_RDONLY | O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fd < 0 ? nullptr : ::fdopendir(fd), ::closedir);
  if (!directory) return fail(error_from_errno(errno, "open the directory"));
  if (const int error = stamp_of(fd, "", &out.stamp_); error != 0)
    return fail(error_from_errno(error, "look at the directory"));
  while (true) {
    errno = 0;
    const dirent* d = ::readdir(directory.get());
    if (d == nullptr) break;
    const std::string name = d->d_name;
    if (name == "." || name == "..") continue;
    Node node{};
    node.error = static_cast<uint16_t>(stamp_of(fd, name, &node.stamp));
    if (node.error == ENOENT) continue;  // it is gone meanwhile
    if (out.names_.size() > UINT32_MAX - name.size())
      return fail(ErrorCode::kInvalid, "the directory has more than 4 GiB of names");
    node.at = static_cast<uint32_t>(out.names_.size());
    node.length = static_cast<uint16_t>(name.size());
    out.names_ += name;
    out.nodes_.push_back(node);
  }
  if (errno != 0) return fail(error_from_errno(errno, "read the directory"));
  // Bytes, not characters: char_traits compares them unsigned, as a manifest's order wants it.
  std::ranges::sort(out.nodes_, {}, [&](const Node& node) { return out.name(node); });
  return out;
}

}  // namespace wormhole
