// The kernel's mount table, read without touching any mount: a stat of a mount whose server hangs would hang as well.
//
// Thread: any.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

namespace wormhole {

struct MountEntry {
  std::string mountpoint;
  std::string type;    // "fuse.wormhole"
  std::string source;  // the URL
};

// The topmost mount at exactly `mountpoint` (absolute, resolved).
std::optional<MountEntry> find_mount(const std::string& mountpoint);

// A mount of wormhole, as a line of /proc/self/mountinfo tells it.
struct WormholeMount {
  dev_t device = 0;  // the st_dev of everything in it
  std::string mountpoint;
  uid_t user = 0;  // who mounted it
};

// Nothing for mounts of other types, and for what is no such line.
std::optional<WormholeMount> parse_mountinfo(std::string_view line);

// Of several mountpoints of one mount (mount --bind) the first.
std::optional<WormholeMount> find_wormhole(dev_t device);
// The topmost mount that `path` (absolute) begins with, if it is one of wormhole.
std::optional<WormholeMount> find_wormhole_above(const std::string& path);

}  // namespace wormhole
