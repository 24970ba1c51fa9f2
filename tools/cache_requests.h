// What the commands ask a daemon about its cache, over the control socket. Files are named by their inode numbers,
// which a client sees as st_ino; it sends them in batches.
//
//   {"do": "evict", "files": [5, 6]}          {"freed_bytes", "freed_files", "stayed": [{"file", "why", "bytes"}]}
//   {"do": "pin", "files": [5, 6]}            {"changed", "pinned"}: how many were not pinned before, how many are now
//   {"do": "unpin", "files": [5, 6]}          the same
//   {"do": "cached", "files": [5, 6]}         {"cached": [bytes, ...], "pinned": [true, ...]}, in the same order
//   {"do": "missing", "file": 5, "size": N, "from": 0}   {"ranges": [[begin, end], ...]}: what is not cached, the
//                                              first 4096 from there on
//   {"do": "cache", "files": true}            what the cache holds; with `files` they are counted, which takes a moment
//   {"do": "sync"}                            {}: all that was stored before is on disk and in the index
//   {"do": "pinned"}                          {"bytes"}: what is cached of all that is pinned
//   {"do": "verify", "files": [5, 6]}         {}: all that is cached of them is read and checked; without `files`
//                                              everything. Said meanwhile: {"files", "blocks", "bytes", "wrong_files",
//                                              "wrong_blocks", "wrong_bytes", "wrong": [[file, begin, end], ...]}, each
//                                              time what has been added
//   {"do": "refetch", "wrong": [[file, begin, end], ...]}   {"failed": [{"file", "bytes", "why"}]}: brings back what
//   was
//                                              wrong, of files that the client has open. Said meanwhile: {"bytes"}
//
// Thread: answer() any, several at once; it may block.
#pragma once

#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/metrics.h"
#include "cache/index.h"
#include "cache/space.h"
#include "fs/engines.h"
#include "fs/filesystem.h"
#include "tools/control.h"
#include "tools/verification.h"

namespace wormhole {

class CacheRequests {
 public:
  // All references outlive it.
  CacheRequests(Index& index, Engines& engines, Filesystem& filesystem, const Space& space, const Metrics& metrics)
      : index_(index), engines_(engines), filesystem_(filesystem), space_(space), metrics_(metrics) {}

  nlohmann::json answer(const nlohmann::json& request, const ControlServer::Say& say);

  // The mount ends: what is under way ends soon, with an error.
  void stop() { stopping_.store(true); }

 private:
  nlohmann::json evict(const std::vector<Ino>& files);
  nlohmann::json pin(const std::vector<Ino>& files, bool pinned);
  nlohmann::json cached(const std::vector<Ino>& files);
  nlohmann::json missing(Ino file, uint64_t size, uint64_t from);
  nlohmann::json contents(bool count_files);
  nlohmann::json pinned_bytes();
  nlohmann::json sync();
  nlohmann::json verify(const std::optional<std::vector<Ino>>& files, const ControlServer::Say& say);
  nlohmann::json refetch(const std::vector<WrongBytes>& wrong, const ControlServer::Say& say);

  Index& index_;
  Engines& engines_;
  Filesystem& filesystem_;
  const Space& space_;
  const Metrics& metrics_;
  std::atomic<bool> stopping_{false};
};

}  // namespace wormhole
