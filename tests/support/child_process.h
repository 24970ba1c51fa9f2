// A piece of a test in a process of its own: to hold what only a process can hold, to lose its rights, or to die
// without ending anything.
//
// Thread: forks, so the caller should have no other threads that hold locks.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <utility>

namespace wormhole::test {

class ChildProcess {
 public:
  // `body` returns the exit status. Nothing is destroyed at its end: the child dies by _exit, as by a kill.
  template <typename F>
  explicit ChildProcess(F body) {
    std::fflush(nullptr);  // or what waits there is written twice
    pid_ = ::fork();
    if (pid_ == 0) ::_exit(body());
  }
  ~ChildProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // The exit status; -1 when a signal ended it.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace wormhole::test
