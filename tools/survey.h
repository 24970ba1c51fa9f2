// How much is cached of what lies at or below a path: the tree is walked through the mount, and the daemon is asked
// about the files, a batch at a time. A million files take some seconds, and no memory.
//
// Thread: any; it waits for the mount and its daemon.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/mounted_path.h"
#include "tools/tree_walk.h"

namespace wormhole {

struct Survey {
  uint64_t files = 0;
  uint64_t complete = 0;      // all of it is cached; an empty file always
  uint64_t partial = 0;       // something of it is
  uint64_t bytes = 0;         // of all files
  uint64_t cached_bytes = 0;  // of these
  uint64_t pinned_files = 0;
  uint64_t pinned_bytes = 0;  // cached, of pinned files

  uint64_t incomplete() const { return files - complete; }
  uint64_t missing_bytes() const { return bytes - cached_bytes; }
};

struct SurveyObserver {
  // With the bytes that are cached of each. False ends the survey.
  std::function<bool(const std::vector<WalkedFile>&, const std::vector<uint64_t>& cached)> batch;
  // What could not be looked at.
  std::function<void(const std::string& message)> failed;
};

// Adds to `survey`. False when it was ended, or the daemon does not answer any more.
bool take_survey(const MountedPath& place, const SurveyObserver& observer, Survey* survey);

}  // namespace wormhole
