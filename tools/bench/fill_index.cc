// Makes a cache whose index knows many files: to measure what a mount of such a cache costs.
//
//   fill_index CACHE URL DIRECTORIES FILES
//
// CACHE is made, or must hold no tree of URL yet. Below the root of URL are DIRECTORIES directories, named 0, 1 and so
// on, with FILES files each, of one block, all of which the index says are on disk. The bytes themselves are not there:
// nothing may be read.
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "base/metrics.h"
#include "cache/cache_directory.h"
#include "cache/index.h"
#include "fs/directory.h"

namespace wormhole {
namespace {

// Any time in the past: the listings are older than every time to live.
constexpr int64_t kLongAgo = 1'600'000'000;
// As many bytes as a small file has; they fill one block.
constexpr uint64_t kFileSize = 10'000;

DirectoryEntry entry(std::string name, EntryType type, Index& index) {
  DirectoryEntry e;
  e.ino = index.allocate_ino();
  e.type = type;
  e.mtime = e.listed_mtime = kLongAgo;
  if (type == EntryType::kFile) e.size = kFileSize;
  e.name = std::move(name);
  return e;
}

void put(Directory& directory, Index& index) {
  std::ranges::sort(directory.entries, {}, &DirectoryEntry::name);
  directory.fetched_at = kLongAgo;
  index.put_directory(directory.ino, encode(directory));
}

void put_file(const DirectoryEntry& file, const std::shared_ptr<FileDescriptor>& bytes, Index& index) {
  // As long as those of nginx.
  index.put_object(file.ino,
                   {kFileSize, {fmt::format("\"{:08x}-{:x}\"", file.ino, kFileSize), "Sun, 13 Sep 2020 12:26:40 GMT"}});
  const auto place = index.pack().allocate(kFileSize);
  if (!place) return;
  index.put_blocks({file.ino, bytes, 0, {file.ino}, kFileSize, place->offset}, [](bool) {});
}

void fill(const std::string& url, long directories, long files, Index& index) {
  // Stands for all the object files that the index wants synced.
  const auto bytes = std::make_shared<FileDescriptor>(::memfd_create("bytes", MFD_CLOEXEC));
  Directory root;
  root.ino = index.allocate_ino();
  index.put_root(url, {root.ino, false, url});
  for (long d = 0; d < directories; ++d) {
    root.entries.push_back(entry(fmt::format("{}", d), EntryType::kDirectory, index));
    Directory directory;
    directory.ino = root.entries.back().ino;
    for (long f = 0; f < files; ++f) {
      directory.entries.push_back(entry(fmt::format("file-{:08}", f), EntryType::kFile, index));
      put_file(directory.entries.back(), bytes, index);
    }
    put(directory, index);
    index.flush();  // what waits is in memory
  }
  put(root, index);
}

int run(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: fill_index CACHE URL DIRECTORIES FILES\n", stderr);
    return 2;
  }
  const auto failed = [](const Error& error) {
    fmt::print(stderr, "fill_index: {}\n", error.message);
    return 1;
  };
  const auto cache = CacheDirectory::open(argv[1], 0);
  if (!cache) return failed(cache.error());
  Metrics metrics;
  const auto index = Index::open(cache->index_path(), metrics);
  if (!index) return failed(index.error());
  if ((*index)->root(argv[2])) return failed({ErrorCode::kInvalid, "the cache knows this URL already"});
  fill(argv[2], std::atol(argv[3]), std::atol(argv[4]), **index);
  (*index)->flush();
  return (*index)->failures() == 0 ? 0 : failed({ErrorCode::kIo, "the index cannot be written"});
}

}  // namespace
}  // namespace wormhole

int main(int argc, char** argv) { return wormhole::run(argc, argv); }
