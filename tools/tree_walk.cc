#include "tools/tree_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

namespace wormhole {
namespace {

// So many files are told to a daemon at once: 10 KB, and a few milliseconds of its work.
constexpr size_t kBatch = 1024;

bool is_dots(const char* name) { return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0; }

}  // namespace

bool Walk::run(const std::string& top) const {
  struct stat s {};
  if (::stat(top.c_str(), &s) != 0) {
    failed(top, errno);
    return true;
  }
  if (!S_ISDIR(s.st_mode)) return file({top, s.st_ino, static_cast<uint64_t>(s.st_size)});
  const int fd = ::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    failed(top, errno);
    return true;
  }
  return directory(fd, top, s.st_dev);
}

// Takes the descriptor.
bool Walk::directory(int fd, const std::string& path, dev_t device) const {
  struct stat own {};
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd), ::closedir);
  if (!stream) {
    failed(path, errno);
    ::close(fd);
    return true;
  }
  if (::fstat(fd, &own) != 0 || own.st_dev != device) return true;
  const std::string prefix = path.ends_with('/') ? path : path + "/";
  while (true) {
    errno = 0;
    const dirent* e = ::readdir(stream.get());
    if (e == nullptr) {
      if (errno != 0) failed(path, errno);
      return true;
    }
    if (is_dots(e->d_name)) continue;
    const std::string below = prefix + e->d_name;
    if (e->d_type == DT_DIR) {
      const int child = ::openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (child < 0) {
        failed(below, errno);
      } else if (!directory(child, below, device)) {
        return false;
      }
      continue;
    }
    WalkedFile found{below, e->d_ino, 0};
    if (sizes == Sizes::kExact) {
      struct stat s {};
      if (::fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0) {
        failed(below, errno);
        continue;
      }
      found.ino = s.st_ino;  // a newer version than the one that was listed
      found.size = static_cast<uint64_t>(s.st_size);
    }
    if (!file(std::move(found))) return false;
  }
}

bool walk_in_batches(Walk::Sizes sizes, const std::string& top,
                     const std::function<bool(const std::vector<WalkedFile>&)>& full,
                     const std::function<void(const std::string& path, int error_number)>& failed) {
  std::vector<WalkedFile> batch;
  Walk walk;
  walk.sizes = sizes;
  walk.failed = failed;
  walk.file = [&](WalkedFile file) {
    batch.push_back(std::move(file));
    if (batch.size() < kBatch) return true;
    const bool go_on = full(batch);
    batch.clear();
    return go_on;
  };
  return walk.run(top) && (batch.empty() || full(batch));
}

}  // namespace wormhole
