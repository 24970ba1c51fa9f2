// Brings bytes that the cache has lost back from the server: reads them by the engine, which fetches and stores what is
// not there. Not through the mount: the kernel may have the pages, or may serve the file by itself.
//
// Thread: run() any, it blocks.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/index.h"
#include "fs/filesystem.h"
#include "tools/verification.h"

namespace wormhole {

struct NotRefetched {
  Ino ino = 0;
  uint64_t bytes = 0;
  std::string why;
};

class Refetch {
 public:
  // Called a few times a second with the bytes that have come since the last call. False ends it.
  using Tell = std::function<bool(uint64_t bytes)>;

  // Both outlive it, and what it has begun: that ends when the mount does.
  Refetch(Filesystem& filesystem, Index& index, Tell tell)
      : filesystem_(filesystem), index_(index), tell_(std::move(tell)) {}

  // The files must be known to the kernel (somebody has them open). What is told is what is not in the cache
  // afterwards; nothing when it was ended.
  std::optional<std::vector<NotRefetched>> run(const std::vector<WrongBytes>& lost);

 private:
  struct State;
  void begin(size_t item, const WrongBytes& lost);
  bool wait_until_under_way_at_most(size_t count);
  bool is_cached(const WrongBytes& bytes) const;

  Filesystem& filesystem_;
  Index& index_;
  const Tell tell_;
  std::shared_ptr<State> state_;
};

}  // namespace wormhole
