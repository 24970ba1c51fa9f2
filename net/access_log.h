// Lines of many threads in one file. A thread of its own writes them, many at once: who answers a request does not wait
// for a disk, and does not pay for a system call.
//
// Thread: add() any; the rest the owner's.
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/thread_annotations.h"

namespace wormhole {

class AccessLog {
 public:
  // Appends to the file `path`, which is made if it is not there; standard error when `path` is empty. Errors:
  // kNotFound, kForbidden, kNoSpace, kIo.
  static Result<std::unique_ptr<AccessLog>> open(const std::string& path);
  // Writes what is left.
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  // `line` without its end. In the file within a tenth of a second; lost when the file takes nothing for so long that
  // 8 MiB wait, and then a line says how many were.
  void add(std::string_view line);

  // The file that has the name now: for whoever moves the old one away. The old one stays in use if that fails.
  Status reopen();

 private:
  AccessLog(std::string path, FileDescriptor file);
  void run() NO_THREAD_SAFETY_ANALYSIS;  // a lock that a condition lets go of

  const std::string path_;
  FileDescriptor file_;  // the thread's
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::string waiting_ GUARDED_BY(mutex_);
  uint64_t lost_ GUARDED_BY(mutex_) = 0;
  FileDescriptor next_file_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace wormhole
