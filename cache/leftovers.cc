#include "cache/leftovers.h"

#include <sys/stat.h>

#include <charconv>
#include <filesystem>

#include "base/block.h"

namespace wormhole {
namespace {

std::optional<Ino> ino_of(const std::string& name) {
  Ino ino = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), ino, 16);
  return error == std::errc() && end == name.data() + name.size() ? std::optional(ino) : std::nullopt;
}

bool has_leftovers(const std::string& path, Ino ino, Index& index) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return false;
  const uint64_t known = index.blocks_present(ino) * kBlockSize;
  return known == 0 || static_cast<uint64_t>(status.st_blocks) * 512 > known;
}

}  // namespace

void find_leftovers(const std::string& objects_path, Index& index, const std::function<bool(Ino)>& visit) {
  for (uint32_t slab = 0; index.pack().punch_free(slab);) ++slab;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(objects_path, error);
  for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    const auto ino = ino_of(it->path().filename().string());
    std::error_code none;
    if (!ino || !it->is_regular_file(none)) continue;
    if (has_leftovers(it->path().string(), *ino, index) && !visit(*ino)) return;
  }
}

}  // namespace wormhole
