#include "tools/mount_table.h"

#include <mntent.h>

#include <cstdio>
#include <memory>

namespace wormhole {

std::optional<MountEntry> find_mount(const std::string& mountpoint) {
  const std::unique_ptr<FILE, int (*)(FILE*)> table(::setmntent("/proc/self/mounts", "r"), ::endmntent);
  std::optional<MountEntry> found;
  if (!table) return found;
  mntent entry{};
  char buffer[16384];
  while (::getmntent_r(table.get(), &entry, buffer, sizeof(buffer)) != nullptr) {
    if (mountpoint == entry.mnt_dir) found = MountEntry{entry.mnt_dir, entry.mnt_type, entry.mnt_fsname};
  }
  return found;
}

}  // namespace wormhole
