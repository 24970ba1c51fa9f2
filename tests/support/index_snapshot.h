// The index as a kill would leave it: what is durable at the moment of take(), and no clean end. restore() makes it the
// index of the next start.
//
// Thread: the test's; the index is open at take() and closed at restore().
#pragma once

#include <filesystem>
#include <string>

#include "cache/index.h"

namespace wormhole::test {

class IndexSnapshot {
 public:
  explicit IndexSnapshot(std::string index_path) : path_(std::move(index_path)) {}

  void take(Index& index) {
    index.flush();
    std::filesystem::copy_file(path_ + "/data.mdb", path_ + ".snapshot",
                               std::filesystem::copy_options::overwrite_existing);
  }
  void restore() {
    std::filesystem::remove(path_ + "/lock.mdb");
    std::filesystem::copy_file(path_ + ".snapshot", path_ + "/data.mdb",
                               std::filesystem::copy_options::overwrite_existing);
  }

 private:
  const std::string path_;
};

}  // namespace wormhole::test
