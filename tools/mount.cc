// `wormhole mount`, and mount.wormhole as mount(8) calls it. Returns when the mount is usable: the daemon is a child
// that reports through a pipe how its start went.
#include <fcntl.h>
#include <sys/stat.h>
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
#include "tools/daemon.h"
#include "tools/mount_options.h"
#include "tools/mount_table.h"

namespace wormhole {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

int complain(const std::string& message, int code) {
  std::fprintf(stderr, "wormhole: %s\n", message.c_str());
  return code;
}

// The place, resolved, or what is wrong with it.
Result<std::string> check_mountpoint(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    if (errno == ENOTCONN) {
      return fail(ErrorCode::kBusy, "{}: a mount without its daemon is there: end it with: umount -l {}", path, path);
    }
    if (errno == ENOENT)
      return fail(ErrorCode::kNotFound, "{}: no such directory: create it first: mkdir -p {}", path, path);
    return fail(error_from_errno(errno, path));
  }
  const std::string place = resolved;
  if (const auto mount = find_mount(place); mount && mount->type == "fuse.wormhole") {
    return fail(ErrorCode::kBusy, "{}: {} is already mounted there: unmount it first: wormhole umount {}", place,
                mount->source, place);
  }
  struct stat s {};
  if (::stat(place.c_str(), &s) != 0) {
    if (errno == ENOTCONN) {
      return fail(ErrorCode::kBusy, "{}: a mount without its daemon is there: end it with: umount -l {}", place, place);
    }
    return fail(error_from_errno(errno, place));
  }
  if (!S_ISDIR(s.st_mode)) return fail(ErrorCode::kNotDirectory, "{}: not a directory", place);
  std::error_code error;
  if (!std::filesystem::is_empty(place, error) && !error) {
    return fail(ErrorCode::kBusy, "{}: the directory is not empty: its content would be hidden; choose an empty one",
                place);
  }
  return place;
}

// The child's report: one byte, '+' or '-', and a text.
void report(int fd, bool ok, const std::string& text) {
  const std::string message = (ok ? "+" : "-") + text;
  [[maybe_unused]] const ssize_t n = ::write(fd, message.data(), message.size());
}

int read_report(int fd, const std::string& mountpoint) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) != 0;) {
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
    if (n < 0 && errno != EINTR) break;
  }
  if (text.empty()) return complain("the daemon has ended before " + mountpoint + " was mounted", kFailed);
  if (text[0] == '-') return complain(text.substr(1), kFailed);
  if (text.size() > 1) std::fprintf(stderr, "wormhole: warning: %s\n", text.c_str() + 1);
  return 0;
}

void leave_terminal() {
  ::setsid();
  if (::chdir("/") != 0) return;
  FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null.get(), fd);
}

// In the child: starts, reports, serves until the end.
int serve(MountOptions options, int report_fd) {
  leave_terminal();
  Daemon daemon(std::move(options));
  const auto started = daemon.start();
  report(report_fd, started.has_value(), started ? *started : started.error().message);
  ::close(report_fd);
  if (!started) return kFailed;
  daemon.run();
  return 0;
}

int mount_in_background(MountOptions options) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return complain(std::string("pipe: ") + std::strerror(errno), kFailed);
  const pid_t child = ::fork();
  if (child < 0) return complain(std::string("fork: ") + std::strerror(errno), kFailed);
  if (child == 0) {
    ::close(fds[0]);
    // Not exit(): what the parent has buffered is the parent's to write.
    ::_exit(serve(std::move(options), fds[1]));
  }
  ::close(fds[1]);
  const int code = read_report(fds[0], options.mountpoint);
  ::close(fds[0]);
  return code;
}

int mount_in_foreground(MountOptions options) {
  const std::string mountpoint = options.mountpoint;
  Daemon daemon(std::move(options));
  const auto started = daemon.start();
  if (!started) return complain(started.error().message, kFailed);
  if (!started->empty()) std::fprintf(stderr, "wormhole: warning: %s\n", started->c_str());
  std::fprintf(stderr, "wormhole: mounted on %s, until Ctrl-C or umount\n", mountpoint.c_str());
  daemon.run();
  return 0;
}

int mount(const std::string& url, const std::string& place, const std::vector<std::string>& lists, bool foreground) {
  MountOptions options;
  options.url = url;
  options.foreground = foreground;
  options.filesystem.uid = ::getuid();
  options.filesystem.gid = ::getgid();
  for (const std::string& list : lists) {
    if (auto s = parse_mount_options(list, options); !s) return complain(s.error().message, kUsage);
  }
  MountOptions resolved = options;  // the daemon does it again, from what was given
  if (const auto there = resolve_url(resolved); !there) return complain(there.error().message, kUsage);
  auto checked = check_mountpoint(place);
  if (!checked) return complain(checked.error().message, kFailed);
  options.mountpoint = std::move(*checked);
  return foreground ? mount_in_foreground(std::move(options)) : mount_in_background(std::move(options));
}

}  // namespace

CLI::App* add_mount_command(CLI::App& program, Run& run) {
  struct Arguments {
    std::string url, place;
    std::vector<std::string> options;
    bool foreground = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("mount", "Mount a remote tree; returns when it is usable");
  command->add_option("URL", a->url, "http://, https:// or s3:// URL of a directory or a file")->required();
  command->add_option("DIR", a->place, "where to mount it: an empty directory")->required();
  command->add_option("-o,--options", a->options, "comma-separated mount options, see man wormhole-mount")
      ->type_name("LIST");
  command->add_flag("-f,--foreground", a->foreground, "stay in the foreground and log to stderr");
  command->callback([a, &run] { run = [a] { return mount(a->url, a->place, a->options, a->foreground); }; });
  return command;
}

// mount(8) calls: mount.wormhole SPEC DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype]
int mount_helper_main(int argc, char** argv) {
  std::vector<std::string> positional, lists;
  bool fake = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "-h" || arg == "--help") {
      std::printf(
          "usage: mount.wormhole URL DIR [-o OPTIONS]\nCalled by mount(8): mount -t wormhole URL DIR. See man "
          "wormhole-mount.\n");
      return 0;
    }
    if (arg == "-V" || arg == "--version") {
      std::printf("wormhole " WORMHOLE_VERSION "\n");
      return 0;
    }
    if ((arg == "-o" || arg == "-t" || arg == "-N") && i + 1 < argc) {
      if (arg == "-o") lists.emplace_back(argv[i + 1]);
      ++i;
    } else if (arg.size() > 1 && arg[0] == '-') {
      fake |= arg.find('f') != std::string::npos;
    } else {
      positional.push_back(arg);
    }
  }
  if (positional.size() != 2) return complain("usage: mount.wormhole URL DIR [-o OPTIONS]", kUsage);
  if (fake) return 0;
  return mount(positional[0], positional[1], lists, false);
}

}  // namespace wormhole
