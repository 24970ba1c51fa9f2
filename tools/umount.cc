// `wormhole umount`: ends a mount and waits until its daemon has written everything.
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/file_descriptor.h"
#include "tools/command.h"
#include "tools/control.h"
#include "tools/mount_table.h"

namespace wormhole {
namespace {

// A daemon's last commit is a few syncs; one that takes longer than this is reported.
constexpr int kPatienceMilliseconds = 30'000;

// Without asking the mount: its server may hang. Only the parent is resolved.
std::string resolve(const std::string& place) {
  std::string path = std::filesystem::absolute(place).lexically_normal();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  char parent[PATH_MAX];
  if (slash == std::string::npos || ::realpath(path.substr(0, std::max<size_t>(slash, 1)).c_str(), parent) == nullptr)
    return path;
  return (std::string(parent) == "/" ? "" : std::string(parent)) + path.substr(slash);
}

pid_t daemon_of(const std::string& place) {
  for (const auto& mount : ask_all_mounts({{"do", "status"}})) {
    if (mount.value("mountpoint", "") == place) return mount.value("pid", 0);
  }
  return 0;
}

// fusermount3 has said why, on stderr.
constexpr int kFusermountRefused = -1;

// 0, an errno, or kFusermountRefused: another user than root needs its help.
int detach(const std::string& place, bool lazy) {
  if (::geteuid() == 0) return ::umount2(place.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0 ? 0 : errno;
  const pid_t child = ::fork();
  if (child == 0) {
    ::execlp("fusermount3", "fusermount3", lazy ? "-uz" : "-u", "--", place.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : kFusermountRefused;
}

// A pidfd and not /proc: a daemon that has ended but is not yet reaped counts as ended.
bool wait_for_end(const FileDescriptor& daemon) {
  pollfd p{daemon.get(), POLLIN, 0};
  return ::poll(&p, 1, kPatienceMilliseconds) == 1;
}

int umount(const std::string& argument, bool lazy) {
  const std::string place = resolve(argument);
  const auto mount = find_mount(place);
  if (!mount || mount->type != "fuse.wormhole") {
    std::fprintf(stderr, "wormhole: %s: no wormhole is mounted there\n", place.c_str());
    return 1;
  }
  const pid_t pid = daemon_of(place);
  // Opened before the end, so that the number cannot mean another process.
  const FileDescriptor daemon(pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1);
  const int error = detach(place, lazy);
  if (error == kFusermountRefused) {
    std::fprintf(stderr,
                 "wormhole: fusermount3 has not unmounted %s; if it is in use, --lazy detaches it all the same\n",
                 place.c_str());
    return 1;
  }
  if (error != 0) {
    std::fprintf(stderr, "wormhole: umount %s: %s%s\n", place.c_str(), std::strerror(error),
                 error == EBUSY ? ": some program uses it (see: fuser -vm DIR); --lazy detaches it all the same" : "");
    return 1;
  }
  if (daemon && !lazy && !wait_for_end(daemon)) {
    std::fprintf(stderr, "wormhole: unmounted, but the daemon (pid %d) is still writing\n", static_cast<int>(pid));
    return 1;
  }
  return 0;
}

}  // namespace

CLI::App* add_umount_command(CLI::App& program, Run& run) {
  struct Arguments {
    std::string place;
    bool lazy = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("umount", "Unmount, and wait until everything is on disk");
  command->add_option("DIR", a->place, "the mountpoint")->required();
  command->add_flag("-l,--lazy", a->lazy, "detach now, also when it is in use; do not wait");
  command->callback([a, &run] { run = [a] { return umount(a->place, a->lazy); }; });
  return command;
}

}  // namespace wormhole
