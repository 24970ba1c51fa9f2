#include "net/access_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "base/thread.h"

namespace wormhole {
namespace {

// How long the first line waits for company: ten writes a second cost nothing, and nobody who looks on minds.
constexpr std::chrono::milliseconds kCompany{100};

// Lines of a second or two at the rate that two cores can answer: a disk that stops for longer must not cost memory.
constexpr size_t kMostWaiting = 8 << 20;

// 0640: a log tells who read what.
Result<FileDescriptor> open_file(const std::string& path) {
  FileDescriptor file(path.empty() ? ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)
                                   : ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640));
  if (!file) return fail(error_from_errno(errno, path.empty() ? "standard error" : path));
  return file;
}

// What cannot be written has nobody who could be told.
void write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

Result<std::unique_ptr<AccessLog>> AccessLog::open(const std::string& path) {
  Result<FileDescriptor> file = open_file(path);
  if (!file) return fail(file.error());
  return std::unique_ptr<AccessLog>(new AccessLog(path, std::move(*file)));
}

AccessLog::AccessLog(std::string path, FileDescriptor file)
    : path_(std::move(path)), file_(std::move(file)), thread_(start_thread("wh-log", [this] { run(); })) {}

AccessLog::~AccessLog() {
  {
    const MutexLock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void AccessLog::add(std::string_view line) {
  bool first = false;
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() + line.size() >= kMostWaiting) {
      ++lost_;
      return;
    }
    first = waiting_.empty();
    waiting_.append(line);
    waiting_.push_back('\n');
  }
  if (first) changed_.notify_one();
}

Status AccessLog::reopen() {
  Result<FileDescriptor> file = open_file(path_);
  if (!file) return fail(file.error());
  {
    const MutexLock lock(mutex_);
    next_file_ = std::move(*file);
  }
  changed_.notify_one();
  return {};
}

void AccessLog::run() {
  std::string lines;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this]() NO_THREAD_SAFETY_ANALYSIS { return ending_ || next_file_ || !waiting_.empty(); });
    changed_.wait_for(lock, kCompany, [this]() NO_THREAD_SAFETY_ANALYSIS { return ending_ || next_file_; });
    if (lost_ > 0) waiting_ += fmt::format("{} lines were lost: the log could not be written in time\n", lost_);
    lost_ = 0;
    lines.clear();
    std::swap(lines, waiting_);
    FileDescriptor next = std::move(next_file_);
    const bool last = ending_;
    lock.unlock();
    write_all(file_.get(), lines);  // what was before a reopen() belongs to the old file
    if (next) file_ = std::move(next);
    if (last) return;
    lock.lock();
  }
}

}  // namespace wormhole
