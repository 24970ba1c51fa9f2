// Every file at or below a path, through the mount, one after the other: what is in memory is the way down, not the
// tree. Other mounts below are left out.
//
// Thread: any; it waits for the mount.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace wormhole {

struct WalkedFile {
  std::string path;
  uint64_t ino = 0;   // st_ino
  uint64_t size = 0;  // 0 with Sizes::kUnknown
};

// What takes part in a walk.
struct Walk {
  // A size can cost a request to the server, where the listing does not tell it.
  enum class Sizes : uint8_t { kExact, kUnknown };
  Sizes sizes = Sizes::kUnknown;
  // False ends the walk.
  std::function<bool(WalkedFile file)> file;
  // What cannot be looked at; the walk goes on behind it.
  std::function<void(const std::string& path, int error_number)> failed;

  // False when it was ended.
  bool run(const std::string& top) const;

 private:
  bool directory(int fd, const std::string& path, dev_t device) const;
};

// The same in batches: `full` is called with each, and with what is left at the end. False ends it.
bool walk_in_batches(Walk::Sizes sizes, const std::string& top,
                     const std::function<bool(const std::vector<WalkedFile>&)>& full,
                     const std::function<void(const std::string& path, int error_number)>& failed);

}  // namespace wormhole
