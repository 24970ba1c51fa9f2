// Where a path of the command line lies: in which mount of wormhole, and which daemon answers for it.
//
// Thread: any.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace wormhole {

struct MountedPath {
  std::string path;  // as it was given
  bool is_directory = false;
  std::string mountpoint;
  dev_t device = 0;
  pid_t daemon = 0;
};

// Errors are for the user, each names the path: it does not exist, it is in no mount of wormhole, nobody answers for
// the mount, or it belongs to another user.
Result<MountedPath> find_mounted(const std::string& path);
// All, or the first error.
Result<std::vector<MountedPath>> find_mounted(const std::vector<std::string>& paths);

}  // namespace wormhole
