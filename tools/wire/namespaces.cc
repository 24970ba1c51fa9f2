#include "tools/wire/namespaces.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

namespace wormhole::wire {

namespace {

constexpr const char* kDevice = "wire";

struct Sysctl {
  const char *path, *value;
};
// Half of a buffer is window: 16 MiB, a little more than 1 Gbit/s at 100 ms.
constexpr Sysctl kLargeBuffers[] = {
    {"/proc/sys/net/ipv4/tcp_rmem", "4096 1048576 33554432"},
    {"/proc/sys/net/ipv4/tcp_wmem", "4096 1048576 33554432"},
};
// Nothing that an earlier run has learnt slows down or speeds up the next one.
constexpr Sysctl kForgetful[] = {{"/proc/sys/net/ipv4/tcp_no_metrics_save", "1"}};

Status ip(std::vector<const char*> arguments) {
  std::string line = "ip";
  for (const char* argument : arguments) line += std::string(" ") + argument;
  arguments.insert(arguments.begin(), "ip");
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, "ip", nullptr, nullptr, const_cast<char**>(arguments.data()), environ);
  if (error != 0) return fail(error_from_errno(error, line + " (is iproute2 installed?)"));
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (status != 0) return fail(ErrorCode::kIo, "failed: {}", line);
  return {};
}

Result<FileDescriptor> open_device() {
  FileDescriptor device(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!device) return fail(error_from_errno(errno, "open /dev/net/tun"));
  ifreq request{};
  std::strncpy(request.ifr_name, kDevice, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(device.get(), TUNSETIFF, &request) != 0) return fail(error_from_errno(errno, "create a TUN device"));
  // Whole 64 KiB pieces cross the program instead of 44 packets each: that is what makes it cheap. UDP's needs
  // kernel 6.2.
  constexpr unsigned kTcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
#ifdef TUN_F_USO4
  if (::ioctl(device.get(), TUNSETOFFLOAD, kTcp | TUN_F_USO4 | TUN_F_USO6) == 0) return device;
#endif
  if (::ioctl(device.get(), TUNSETOFFLOAD, kTcp) != 0)
    return fail(error_from_errno(errno, "offloads of the TUN device"));
  return device;
}

Status write_sysctls(std::span<const Sysctl> sysctls) {
  for (const auto& [path, value] : sysctls) {
    const FileDescriptor file(::open(path, O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), value, std::strlen(value)) < 0) return fail(error_from_errno(errno, path));
  }
  return {};
}

Status configure(const End& end) {
  const std::string address = std::string(end.address) + "/24";
  const std::string mtu = std::to_string(kMtu);
  if (auto s = ip({"-n", end.name, "link", "set", "lo", "up"}); !s) return s;
  if (auto s = ip({"-n", end.name, "address", "add", address.c_str(), "dev", kDevice}); !s) return s;
  // Room for what comes while this program is not scheduled; the wire's own queue is the one that is emulated.
  return ip({"-n", end.name, "link", "set", kDevice, "mtu", mtu.c_str(), "txqueuelen", "10000", "up"});
}

}  // namespace

bool exists(const End& end) { return ::access(end.path().c_str(), F_OK) == 0; }

Status enter(const End& end) {
  const FileDescriptor space(::open(end.path().c_str(), O_RDONLY | O_CLOEXEC));
  if (!space || ::setns(space.get(), CLONE_NEWNET) != 0) return fail(error_from_errno(errno, "enter " + end.path()));
  return {};
}

Result<FileDescriptor> create(const End& end, bool large_buffers) {
  if (auto s = ip({"netns", "add", end.name}); !s) return fail(s.error());
  const FileDescriptor home(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (auto s = enter(end); !s) return fail(s.error());
  auto device = open_device();
  auto sysctls = write_sysctls(kForgetful);
  if (sysctls && large_buffers) sysctls = write_sysctls(kLargeBuffers);
  if (::setns(home.get(), CLONE_NEWNET) != 0) return fail(error_from_errno(errno, "return to the first namespace"));
  if (!device) return device;
  if (!sysctls) return fail(sysctls.error());
  if (auto s = configure(end); !s) return fail(s.error());
  return device;
}

void remove(const End& end) {
  if (exists(end)) (void)ip({"netns", "delete", end.name});
}

}  // namespace wormhole::wire
