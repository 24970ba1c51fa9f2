#include "fs/session.h"

#include "fs/fuse_version.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "base/thread.h"
#include "fs/filesystem.h"
#include "fs/ops.h"
#include "fs/transport_uring.h"

namespace wormhole {
namespace {

// What the kernel reads ahead of a sequential reader, in KiB: several of its largest requests, so that the copy to the
// reader and the reply of the next request overlap. The default of 128 is one small request at a time.
constexpr int kKernelReadaheadKib = kKernelReadahead / 1024;

// Interrupts the sleep of libfuse's loop; does nothing else.
constexpr int kWakeSignal = SIGUSR1;

void catch_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(kWakeSignal, &action, nullptr);  // without SA_RESTART
}

// libfuse prints its own messages to stderr; they belong into the log, and the last one into the error.
thread_local std::string t_last_message;

void on_libfuse_message(enum fuse_log_level level, const char* format, va_list args) {
  const int error = errno;
  char line[1024];
  ::vsnprintf(line, sizeof(line), format, args);
  std::string_view text(line);
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  t_last_message = text;
  if (level <= FUSE_LOG_ERR) {
    log::warn("libfuse: {}", text);
  } else {
    log::debug("libfuse: {}", text);
  }
  errno = error;
}

// The "major:minor" under which the kernel keeps the mount's settings, from the mount table: a stat would ask
// ourselves.
std::string device_of(const std::string& mountpoint) {
  std::ifstream table("/proc/self/mountinfo");
  std::string line, device;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string id, parent, dev, root, where;
    fields >> id >> parent >> dev >> root >> where;
    if (where == mountpoint) device = dev;
  }
  return device;
}

}  // namespace

Session::Session(SessionOptions options, FuseTransportState transport, Filesystem& filesystem)
    : options_(std::move(options)),
      transport_(std::move(transport)),
      data_(std::make_unique<SessionData>(SessionData{filesystem})) {}

Result<std::unique_ptr<Session>> Session::mount(SessionOptions options, Filesystem& filesystem) {
  ::fuse_set_log_func(on_libfuse_message);
  catch_wake_signal();
  auto transport = choose_transport(options.transport);
  if (!transport) return fail(transport.error());
  std::unique_ptr<Session> self(new Session(std::move(options), std::move(*transport), filesystem));
  std::string list = "fsname=" + self->options_.source + ",subtype=wormhole,default_permissions,ro";
  // A comma separates options; in a URL it must be escaped.
  for (size_t i = std::strlen("fsname="); i < std::strlen("fsname=") + self->options_.source.size(); ++i) {
    if (list[i] == ',') list.insert(i++, "\\");
  }
  for (const std::string& o : self->options_.options) list += "," + o;

  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  ::fuse_opt_add_arg(&args, "wormhole");
  ::fuse_opt_add_arg(&args, "-o");
  ::fuse_opt_add_arg(&args, list.c_str());
  t_last_message.clear();
  self->session_ = ::fuse_session_new(&args, &fuse_ops(), sizeof(fuse_lowlevel_ops), self->data_.get());
  ::fuse_opt_free_args(&args);
  if (self->session_ == nullptr) {
    return fail(ErrorCode::kInvalid, "mount options are refused: {} ({})", list, t_last_message);
  }
  if (::fuse_session_mount(self->session_, self->options_.mountpoint.c_str()) != 0) {
    return fail(ErrorCode::kForbidden, "mount on {} failed: {}", self->options_.mountpoint,
                t_last_message.empty() ? "fusermount3 or the kernel refused" : t_last_message);
  }
  self->mounted_ = true;
  if (auto s = self->attach_rings(); !s) return fail(s.error());
  return self;
}

Session::~Session() {
  stop();
  if (session_ != nullptr) ::fuse_session_destroy(session_);
}

Status Session::attach_rings() {
  if (!transport_.uring) return {};
  auto rings = UringTransport::attach(session_, options_.threads);
  if (!rings) return without_uring(rings.error().message);
  rings_ = std::move(*rings);
  data_->rings = rings_.get();
  return {};
}

// Somebody who asks for uring gets it or an error.
Status Session::without_uring(const std::string& why_not) {
  if (options_.transport == FuseTransport::kUring) return fail(ErrorCode::kInvalid, "transport=uring: {}", why_not);
  transport_ = {false, why_not};
  return {};
}

Status Session::start(std::function<void()> ended) {
  loop_ended_ = false;
  thread_ = start_thread("wh-fuse", [this, ended = std::move(ended)] {
    fuse_loop_config* config = ::fuse_loop_cfg_create();
    ::fuse_loop_cfg_set_max_threads(config, options_.threads);
    ::fuse_loop_cfg_set_idle_threads(config, options_.threads);
    const int result = ::fuse_session_loop_mt(session_, config);
    ::fuse_loop_cfg_destroy(config);
    if (result != 0) log::info("the FUSE loop has ended: result={}", result);
    if (rings_ != nullptr) rings_->loop_has_ended();
    loop_ended_ = true;
    ended();
  });
  if (rings_ != nullptr) {
    const auto decided = rings_->wait_until_decided();
    if (!decided) return fail(decided.error());
    if (auto s = decided->uring ? Status{} : without_uring(decided->why_not); !s) return s;
  }
  raise_kernel_readahead();
  return {};
}

void Session::raise_kernel_readahead() const {
  const std::string device = device_of(options_.mountpoint);
  if (device.empty() || ::geteuid() != 0) return;
  std::ofstream setting("/sys/class/bdi/" + device + "/read_ahead_kb");
  setting << kKernelReadaheadKib << std::flush;
  log::debug("kernel read-ahead: device={} kib={} ok={}", device, kKernelReadaheadKib, setting.good());
}

void Session::stop() {
  if (!mounted_) return;
  mounted_ = false;
  end_loop();
  if (rings_ != nullptr) rings_->stop();
  // Nobody else uses the connection now, so this closes it: every reader in the kernel gets an error.
  ::fuse_session_unmount(session_);
}

// libfuse's loop looks at its end only when something wakes it. An unmount does not while files are open, and not every
// version does so itself: a signal interrupts its sleep, repeated in case it came just before.
void Session::end_loop() {
  ::fuse_session_exit(session_);
  while (!loop_ended_) {
    ::pthread_kill(thread_.native_handle(), kWakeSignal);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (thread_.joinable()) thread_.join();
}

}  // namespace wormhole
