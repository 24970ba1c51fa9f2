// What a sparse file has at one moment, to be had again later.
//
// Thread: the test's.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/file_descriptor.h"

namespace wormhole::test {

class FileContents {
 public:
  // Nothing, when there is no such file.
  explicit FileContents(std::string path) : path_(std::move(path)) {
    const FileDescriptor fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0) return;
    size_ = status.st_size;
    for (off_t at = 0; (at = ::lseek(fd.get(), at, SEEK_DATA)) >= 0;) {
      const off_t end = ::lseek(fd.get(), at, SEEK_HOLE);
      std::vector<std::byte> bytes(static_cast<size_t>(end - at));
      if (::pread(fd.get(), bytes.data(), bytes.size(), at) < 0) return;
      extents_.emplace_back(at, std::move(bytes));
      at = end;
    }
  }
  void restore() const {
    const FileDescriptor fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd || ::ftruncate(fd.get(), 0) != 0 || ::ftruncate(fd.get(), size_) != 0) return;
    for (const auto& [at, bytes] : extents_) (void)!::pwrite(fd.get(), bytes.data(), bytes.size(), at);
  }

 private:
  const std::string path_;
  off_t size_ = 0;
  std::vector<std::pair<off_t, std::vector<std::byte>>> extents_;
};

}  // namespace wormhole::test
