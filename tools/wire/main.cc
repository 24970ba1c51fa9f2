// wire: an emulated network between two namespaces, for kernels with and without netem.
//
//   wire --rate 1G --rtt 50ms --loss 1% -- COMMAND     runs COMMAND at the near end, for as long as it takes
//   wire up --rate 1G --rtt 50ms                       leaves the wire up; prints how to get to its ends
//   wire down
//
// Near is 10.99.0.1, far 10.99.0.2. Only the network is another one: files and mounts are those of everybody. A server
// is put at the far end by `nsenter --net=/run/netns/wormhole-far SERVER`; $WIRE_NEAR and $WIRE_FAR hold both paths for
// COMMAND. Needs root, iproute2 and /dev/net/tun.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "tools/wire/line.h"
#include "tools/wire/namespaces.h"

namespace wormhole::wire {
namespace {

// Names the wire's process while it is up; locked by it.
constexpr const char* kPidFile = "/run/wormhole-wire.pid";

// The largest packet with segmentation offload and its header.
constexpr size_t kLargestPacket = 65536 + 64;

// The two lines and the devices at their ends.
class Wire {
 public:
  Wire(FileDescriptor near, FileDescriptor far, const Conditions& conditions)
      : near_{std::move(near), Line(conditions)}, far_{std::move(far), Line(with_other_seed(conditions))} {}

  // Carries packets until a signal arrives on `signals`; returns its number.
  int run(int signals) {
    for (;;) {
      std::array<pollfd, 3> waits = {pollfd{signals, POLLIN, 0}, pollfd{near_.device.get(), POLLIN, 0},
                                     pollfd{far_.device.get(), POLLIN, 0}};
      const timespec timeout = until_next();
      if (::ppoll(waits.data(), waits.size(), &timeout, nullptr) < 0 && errno != EINTR) return -1;
      if ((waits[0].revents & POLLIN) != 0) {
        signalfd_siginfo info{};
        if (::read(signals, &info, sizeof info) == sizeof info) return static_cast<int>(info.ssi_signo);
      }
      if ((waits[1].revents & POLLIN) != 0) receive(near_);
      if ((waits[2].revents & POLLIN) != 0) receive(far_);
      deliver(near_.line, far_.device);
      deliver(far_.line, near_.device);
    }
  }

  void print_counts() const {
    for (const auto& [name, line] : {std::pair{"near to far", &near_.line}, {"far to near", &far_.line}}) {
      const Counts& c = line->counts();
      std::fprintf(stderr, "wire: %s: %.1f MB in %llu segments, %llu lost, %llu dropped by the full queue\n", name,
                   static_cast<double>(c.bytes) / 1e6, static_cast<unsigned long long>(c.segments),
                   static_cast<unsigned long long>(c.lost), static_cast<unsigned long long>(c.dropped));
    }
  }

 private:
  struct Side {
    FileDescriptor device;
    Line line;  // from here to the other side
  };

  static Time now() { return std::chrono::time_point_cast<Nanoseconds>(std::chrono::steady_clock::now()); }

  static Conditions with_other_seed(Conditions conditions) {
    ++conditions.seed;
    return conditions;
  }

  timespec until_next() const {
    // Idle: a second is as good as any.
    Nanoseconds wait = std::chrono::seconds(1);
    const Time t = now();
    for (const Line* line : {&near_.line, &far_.line}) {
      if (const auto next = line->next_arrival())
        wait = std::min(wait, std::max(Nanoseconds(0), Nanoseconds(*next - t)));
    }
    return {wait.count() / 1'000'000'000, wait.count() % 1'000'000'000};
  }

  void receive(Side& side) {
    for (;;) {
      const ssize_t n = ::read(side.device.get(), buffer_.data(), buffer_.size());
      if (n <= 0) return;
      side.line.offer(now(), Packet({buffer_.begin(), buffer_.begin() + n}));
    }
  }

  static void deliver(Line& line, const FileDescriptor& device) {
    while (const auto packet = line.take(now())) {
      // A device that takes nothing is a host that drops packets; TCP knows.
      [[maybe_unused]] const ssize_t n = ::write(device.get(), packet->bytes().data(), packet->bytes().size());
    }
  }

  Side near_, far_;
  std::vector<uint8_t> buffer_ = std::vector<uint8_t>(kLargestPacket);
};

// --- values on the command line -------------------------------------------------------------------------

// "1G", "300M", "64k": powers of 1000, as rates are given.
uint64_t parse_amount(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit.empty() ? 1 : unit == "k" || unit == "K" ? 1e3 : unit == "M" ? 1e6 : unit == "G" ? 1e9 : 0;
  if (end == text.c_str() || factor == 0 || value < 0)
    throw CLI::ValidationError(text, "expected a number with k, M or G");
  return static_cast<uint64_t>(value * factor);
}

Nanoseconds parse_duration(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit == "us" ? 1e3 : unit == "ms" ? 1e6 : unit == "s" ? 1e9 : 0;
  if (end == text.c_str() || factor == 0 || value < 0)
    throw CLI::ValidationError(text, "expected a time with us, ms or s");
  return Nanoseconds(static_cast<int64_t>(value * factor));
}

double parse_share(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::string(end) != "%" || value < 0 || value > 100) {
    throw CLI::ValidationError(text, "expected a percentage, for instance 1%");
  }
  return value / 100;
}

struct Arguments {
  std::string rate = "1G", rtt = "50ms", loss = "0%", queue = "4M";
  uint64_t seed = 1;
  bool system_buffers = false;

  void add_to(CLI::App* app) {
    app->add_option("--rate", rate, "bits per second in each direction")->capture_default_str();
    app->add_option("--rtt", rtt, "there and back")->capture_default_str();
    app->add_option("--loss", loss, "share of packets lost in each direction")->capture_default_str();
    app->add_option("--queue", queue, "bytes that wait for the line before packets are dropped")->capture_default_str();
    app->add_option("--seed", seed, "of the losses")->capture_default_str();
    app->add_flag("--system-buffers", system_buffers, "leave the limits of TCP's buffers as the kernel has them");
  }

  Conditions conditions() const {
    return {parse_amount(rate), parse_duration(rtt) / 2, parse_amount(queue), parse_share(loss), seed};
  }
};

// --- the commands ---------------------------------------------------------------------------------------

int complain(const std::string& message) {
  std::fprintf(stderr, "wire: %s\n", message.c_str());
  return 1;
}

// Held while a wire is up, so that there is one only; the kernel lets go of it with the process.
Result<FileDescriptor> lock_pid_file() {
  FileDescriptor file(::open(kPidFile, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file) return fail(error_from_errno(errno, std::string("open ") + kPidFile));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::kBusy, "a wire is up already (see {}): `wire down` ends it", kPidFile);
  }
  return file;
}

Status write_pid(const FileDescriptor& file, pid_t pid) {
  const std::string text = std::to_string(pid) + "\n";
  if (::ftruncate(file.get(), 0) != 0 || ::pwrite(file.get(), text.data(), text.size(), 0) < 0) {
    return fail(error_from_errno(errno, kPidFile));
  }
  return {};
}

void remove_ends() {
  remove(kNear);
  remove(kFar);
}

// The end of a wire, by its holder.
void take_down() {
  remove_ends();
  ::unlink(kPidFile);
}

Result<Wire> string_up(const Arguments& arguments) {
  remove_ends();  // of a wire that was killed
  auto near = create(kNear, !arguments.system_buffers);
  if (!near) return fail(near.error());
  auto far = create(kFar, !arguments.system_buffers);
  if (!far) return fail(far.error());
  return Wire(std::move(*near), std::move(*far), arguments.conditions());
}

FileDescriptor take_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  // The default slack of 50 us would be added to every delay.
  ::prctl(PR_SET_TIMERSLACK, 1);
  return FileDescriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

[[noreturn]] void become(const std::vector<std::string>& command) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (const auto s = enter(kNear); !s) ::_exit(complain(s.error().message));
  ::setenv("WIRE_NEAR", kNear.path().c_str(), 1);
  ::setenv("WIRE_FAR", kFar.path().c_str(), 1);
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  complain(command[0] + ": " + std::strerror(errno));
  ::_exit(127);
}

int run_command(const Arguments& arguments, const std::vector<std::string>& command) {
  const auto lock = lock_pid_file();
  if (!lock) return complain(lock.error().message);
  auto wire = string_up(arguments);
  if (!wire) {
    remove_ends();
    return complain(wire.error().message);
  }
  const FileDescriptor signals = take_signals();
  (void)write_pid(*lock, ::getpid());
  const pid_t child = ::fork();
  if (child == 0) become(command);
  int status = 0;
  for (bool ended = false; !ended;) {
    const int signal = wire->run(signals.get());
    if (signal == SIGCHLD) {
      ended = ::waitpid(child, &status, WNOHANG) == child;
    } else {
      ::kill(child, signal);  // its end is ours
    }
  }
  wire->print_counts();
  take_down();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int up(const Arguments& arguments) {
  auto lock = lock_pid_file();
  if (!lock) return complain(lock.error().message);
  auto wire = string_up(arguments);
  if (!wire) {
    remove_ends();
    return complain(wire.error().message);
  }
  const pid_t child = ::fork();
  if (child < 0) return complain(std::strerror(errno));
  if (child > 0) {
    std::printf("near  %s  nsenter --net=%s\nfar   %s  nsenter --net=%s\n", kNear.address, kNear.path().c_str(),
                kFar.address, kFar.path().c_str());
    return 0;
  }
  ::setsid();
  const FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {0, 1, 2}) ::dup2(null.get(), fd);
  const FileDescriptor signals = take_signals();
  (void)write_pid(*lock, ::getpid());
  while (wire->run(signals.get()) == SIGCHLD) {
  }
  take_down();
  return 0;
}

int down() {
  std::ifstream file(kPidFile);
  pid_t pid = 0;
  const bool held = !lock_pid_file();
  if (held && file >> pid && pid > 1) {
    ::kill(pid, SIGTERM);
    for (int i = 0; i < 100 && ::access(kPidFile, F_OK) == 0; ++i) ::usleep(20'000);
  }
  take_down();  // what a wire that was killed has left
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app{"An emulated network between two namespaces: rate, round trip time, queue, loss.", "wire"};
  Arguments arguments;
  arguments.add_to(&app);
  std::vector<std::string> command;
  app.add_option("COMMAND", command, "runs at the near end, behind --");
  Arguments up_arguments;
  CLI::App* up_app = app.add_subcommand("up", "leave the wire up");
  up_arguments.add_to(up_app);
  CLI::App* down_app = app.add_subcommand("down", "take it down");
  app.positionals_at_end();
  try {
    app.parse(argc, argv);
    (void)(up_app->parsed() ? up_arguments : arguments).conditions();  // says now what is malformed
  } catch (const CLI::Error& error) {
    return app.exit(error);
  }
  if (::geteuid() != 0) return complain("must be root, to create network namespaces");
  if (up_app->parsed()) return up(up_arguments);
  if (down_app->parsed()) return down();
  if (command.empty()) return complain("what shall run? wire [OPTIONS] -- COMMAND, wire up, wire down, or wire --help");
  return run_command(arguments, command);
}

}  // namespace
}  // namespace wormhole::wire

int main(int argc, char** argv) { return wormhole::wire::main(argc, argv); }
