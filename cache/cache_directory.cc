#include "cache/cache_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "cache/index_format.h"

namespace wormhole {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormatPrefix = "wormhole cache, format ";
constexpr const char* kTag =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of wormhole(1).\n";

Status write_file(const std::string& path, const std::string& text) {
  FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail(error_from_errno(errno, "cache: create " + path));
  const ssize_t n = ::write(fd.get(), text.data(), text.size());
  if (n != static_cast<ssize_t>(text.size()))
    return fail(error_from_errno(n < 0 ? errno : ENOSPC, "cache: write " + path));
  if (::fsync(fd.get()) != 0) return fail(error_from_errno(errno, "cache: sync " + path));
  return {};
}

// Ours and readable, or new, or an error that says what to do.
Status check_format(const std::string& path) {
  std::ifstream in(path + "/FORMAT");
  std::string line;
  if (in && std::getline(in, line)) {
    if (line == kFormatPrefix + std::to_string(kFormatVersion)) return {};
    if (line.starts_with(kFormatPrefix)) {
      return fail(
          ErrorCode::kFormat,
          "cache {} has format {}, this program reads format {}: choose another cache= directory, use the program "
          "that wrote it, or delete the directory (what it holds is fetched again)",
          path, line.substr(std::string(kFormatPrefix).size()), kFormatVersion);
    }
    return fail(ErrorCode::kFormat, "cache {}: its FORMAT file is not one of wormhole: choose another cache= directory",
                path);
  }
  std::error_code error;
  const auto entries = std::distance(fs::directory_iterator(path, error), fs::directory_iterator());
  if (error) return fail(error_from_errno(error.value(), "cache: open " + path));
  // An empty FORMAT alone is what a crash leaves that comes in the moment of its making.
  const bool just_begun =
      entries == 1 && fs::exists(path + "/FORMAT", error) && fs::file_size(path + "/FORMAT", error) == 0;
  if (entries != 0 && !just_begun) {
    return fail(ErrorCode::kFormat,
                "{} is not empty and is no wormhole cache: nothing in it was touched; choose an empty or a new cache= "
                "directory",
                path);
  }
  fs::permissions(path, fs::perms::owner_all, error);
  if (auto s = write_file(path + "/FORMAT", kFormatPrefix + std::to_string(kFormatVersion) + "\n"); !s) return s;
  return write_file(path + "/CACHEDIR.TAG", kTag);
}

std::string holder(int fd) {
  char text[32] = "";
  const ssize_t n = ::pread(fd, text, sizeof(text) - 1, 0);
  return n > 0 ? std::string(text, static_cast<size_t>(n)).substr(0, std::string(text).find('\n')) : "unknown";
}

// A number of this run of the machine.
std::string boot_id() {
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(in, id);
  return id;
}

// Behind pid and boot id: he found the cache left open and did not look through the index.
constexpr const char* kUnchecked = "unchecked\n";

// What whoever had the lock before has left.
struct Before {
  bool left_open = false;
  bool may_be_damaged = false;
};

Status take_lock(int fd, const std::string& path, int patience_seconds, Before* before) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(patience_seconds);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(error_from_errno(errno, "cache: lock " + path));
    if (std::chrono::steady_clock::now() >= deadline) {
      return fail(
          ErrorCode::kBusy,
          "cache {} is held by a running wormhole, pid {}: unmount it first, or choose another cache= directory", path,
          holder(fd));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  char text[128];
  const ssize_t n = ::pread(fd, text, sizeof(text), 0);
  const std::string_view left(text, n > 0 ? static_cast<size_t>(n) : 0);
  before->left_open = !left.empty();
  before->may_be_damaged = before->left_open && !left.ends_with("\n" + boot_id() + "\n");
  std::string mine = std::to_string(::getpid()) + "\n" + boot_id() + "\n";
  if (before->left_open && !before->may_be_damaged) mine += kUnchecked;
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, mine.data(), mine.size(), 0) < 0) {
    return fail(error_from_errno(errno, "cache: write the lock of " + path));
  }
  return {};
}

}  // namespace

Result<CacheDirectory> CacheDirectory::open(const std::string& path, int patience_seconds) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return fail(error_from_errno(error.value(), "cache: create directory " + path));
  if (auto s = check_format(path); !s) return fail(s.error());

  FileDescriptor lock(::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return fail(error_from_errno(errno, "cache: open " + path + "/lock"));
  Before before;
  if (auto s = take_lock(lock.get(), path, patience_seconds, &before); !s) return fail(s.error());

  for (const char* sub : {"/index", "/objects"}) {
    fs::create_directories(path + sub, error);
    if (error) return fail(error_from_errno(error.value(), "cache: create directory " + path + sub));
  }
  return CacheDirectory(path, std::move(lock), before.left_open, before.may_be_damaged);
}

void CacheDirectory::ended() { (void)!::ftruncate(lock_.get(), 0); }

}  // namespace wormhole
