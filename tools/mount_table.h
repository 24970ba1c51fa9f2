// The kernel's mount table, read without touching any mount: a stat of a mount whose server hangs would hang as well.
//
// Thread: any.
#pragma once

#include <optional>
#include <string>

namespace wormhole {

struct MountEntry {
  std::string mountpoint;
  std::string type;    // "fuse.wormhole"
  std::string source;  // the URL
};

// The topmost mount at exactly `mountpoint` (absolute, resolved).
std::optional<MountEntry> find_mount(const std::string& mountpoint);

}  // namespace wormhole
