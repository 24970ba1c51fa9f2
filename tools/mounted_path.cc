#include "tools/mounted_path.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tools/control.h"
#include "tools/mount_table.h"

namespace wormhole {
namespace {

std::string name_of(uid_t user) {
  const passwd* entry = ::getpwuid(user);
  return entry != nullptr ? entry->pw_name : fmt::format("with the number {}", user);
}

Error of_another_user(const std::string& path, const WormholeMount& mount) {
  return {ErrorCode::kForbidden, fmt::format("{}: the mount on {} belongs to the user {}: the command has to be theirs",
                                             path, mount.mountpoint, name_of(mount.user))};
}

// What stat() says is not always what is the matter.
Error cannot_be_looked_at(const std::string& path, int error) {
  const auto mount = find_wormhole_above(std::filesystem::absolute(path).lexically_normal());
  if (error == EACCES && mount && mount->user != ::geteuid()) return of_another_user(path, *mount);
  if (error == ENOTCONN && mount) {
    return {ErrorCode::kUnreachable,
            fmt::format("{}: the mount has no daemon any more: end it with: umount -l {}", path, mount->mountpoint)};
  }
  return error_from_errno(error, path);
}

pid_t daemon_of(dev_t device) {
  const std::string wanted = fmt::format("{}:{}", major(device), minor(device));
  for (const auto& mount : ask_all_mounts({{"do", "status"}})) {
    if (mount.value("device", "") == wanted) return mount.value("pid", 0);
  }
  return 0;
}

}  // namespace

Result<MountedPath> find_mounted(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) return fail(cannot_be_looked_at(path, errno));
  const auto mount = find_wormhole(s.st_dev);
  if (!mount) return fail(ErrorCode::kInvalid, "{}: not inside a mount of wormhole", path);
  const pid_t daemon = daemon_of(s.st_dev);
  if (daemon == 0 && mount->user != ::geteuid()) return fail(of_another_user(path, *mount));
  if (daemon == 0)
    return fail(ErrorCode::kUnreachable, "{}: no daemon answers for the mount on {}", path, mount->mountpoint);
  return MountedPath{path, S_ISDIR(s.st_mode), mount->mountpoint, s.st_dev, daemon};
}

Result<std::vector<MountedPath>> find_mounted(const std::vector<std::string>& paths) {
  std::vector<MountedPath> out;
  for (const std::string& path : paths) {
    auto found = find_mounted(path);
    if (!found) return fail(found.error());
    out.push_back(std::move(*found));
  }
  return out;
}

}  // namespace wormhole
