#include "tools/control.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/log.h"
#include "base/thread.h"

namespace wormhole {
namespace {

// A client that says nothing is given up after this.
constexpr timeval kPatienceWithClient{2, 0};
// A daemon that does not answer. A disk that is busy with much older work can keep one for seconds.
constexpr timeval kPatience{10, 0};
// A daemon that works for the client: it frees disk space, or counts millions of files. One that dies closes the
// socket.
constexpr timeval kPatienceWithWork{600, 0};

// A request names at most some thousand files; who sends more is no client of ours.
constexpr size_t kLargestRequest = 1 << 20;

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return fail(ErrorCode::kInvalid, "control socket: path too long: {}", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

void set_patience(int fd, const timeval& patience) {
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

bool send_all(int fd, const std::string& text) {
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t n = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

FileDescriptor connect_to(const std::string& path, const timeval& patience) {
  const auto address = address_of(path);
  if (!address) return {};
  FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  set_patience(fd.get(), patience);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) return {};
  return fd;
}

// A name that is no UTF-8 must not end the daemon.
std::string line_of(const nlohmann::json& document) {
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The first document that is no {"said": ...}; nothing when none comes, or `heard` wants no more.
std::optional<nlohmann::json> ask(int fd, const nlohmann::json& request, const Heard& heard = nullptr) {
  if (!send_all(fd, line_of(request))) return std::nullopt;
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
    if (n <= 0) return std::nullopt;
    const size_t searched = text.size();
    text.append(buffer, static_cast<size_t>(n));
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', std::max(begin, searched))) != std::string::npos; begin = end + 1) {
      auto document = nlohmann::json::parse(text.begin() + static_cast<ptrdiff_t>(begin),
                                            text.begin() + static_cast<ptrdiff_t>(end), nullptr, false);
      if (!document.is_object()) return std::nullopt;
      const auto said = document.find("said");
      if (said == document.end()) return document;
      if (heard && !heard(*said)) return std::nullopt;
    }
    text.erase(0, begin);
  }
}

}  // namespace

std::string control_directory() {
  if (::geteuid() == 0) return "/run/wormhole";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/') return std::string(runtime) + "/wormhole";
  return "/tmp/wormhole-" + std::to_string(::geteuid());
}

Result<std::unique_ptr<ControlServer>> ControlServer::start(Handler handler, const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  struct stat s {};
  // In /tmp somebody else may have made it first, to listen in.
  if (::lstat(directory.c_str(), &s) != 0 || !S_ISDIR(s.st_mode) || s.st_uid != ::geteuid()) {
    return fail(ErrorCode::kForbidden, "control socket: {} is not a directory of this user", directory);
  }
  ::chmod(directory.c_str(), 0700);
  const std::string path = directory + "/" + std::to_string(::getpid()) + ".sock";
  const auto address = address_of(path);
  if (!address) return fail(address.error());
  ::unlink(path.c_str());
  FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0 ||
      ::listen(fd.get(), 16) != 0) {
    return fail(error_from_errno(errno, "control socket: listen on " + path));
  }
  return std::unique_ptr<ControlServer>(new ControlServer(path, std::move(fd), std::move(handler)));
}

ControlServer::ControlServer(std::string path, FileDescriptor listener, Handler handler)
    : path_(std::move(path)),
      listener_(std::move(listener)),
      end_(::eventfd(0, EFD_CLOEXEC)),
      handler_(std::move(handler)) {
  thread_ = start_thread("wh-control", [this] { run(); });
}

ControlServer::~ControlServer() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(end_.get(), &one, sizeof(one));
  thread_.join();
  ::unlink(path_.c_str());
}

void ControlServer::run() {
  pollfd fds[2] = {{listener_.get(), POLLIN, 0}, {end_.get(), POLLIN, 0}};
  while (true) {
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (fds[1].revents != 0) break;
    if (fds[0].revents == 0) continue;
    FileDescriptor client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) continue;
    join_served(false);
    Client& c = clients_.emplace_back();
    c.thread = start_thread("wh-client", [this, &c, fd = std::move(client)] {
      serve(fd.get());
      c.served.store(true);
    });
  }
  join_served(true);
}

void ControlServer::join_served(bool all) {
  std::erase_if(clients_, [all](Client& client) {
    if (!all && !client.served.load()) return false;
    client.thread.join();
    return true;
  });
}

void ControlServer::serve(int client) const {
  set_patience(client, kPatienceWithClient);
  std::string line;
  char buffer[4096];
  while (line.size() < kLargestRequest && !line.ends_with('\n')) {
    const ssize_t n = ::recv(client, buffer, sizeof(buffer), 0);
    if (n <= 0) return;
    line.append(buffer, static_cast<size_t>(n));
  }
  const auto request = nlohmann::json::parse(line, nullptr, false);
  const Say say = [client](const nlohmann::json& what) { return send_all(client, line_of({{"said", what}})); };
  send_all(client, line_of(request.is_object() ? handler_(request, say)
                                               : nlohmann::json{{"error", "this is no request of wormhole"}}));
}

std::vector<nlohmann::json> ask_all_mounts(const nlohmann::json& request, size_t* silent) {
  std::vector<nlohmann::json> answers;
  size_t without_answer = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(control_directory(), error)) {
    if (entry.path().extension() != ".sock") continue;
    const pid_t pid = std::atoi(entry.path().stem().c_str());
    const FileDescriptor fd = connect_to(entry.path(), kPatience);
    if (!fd) {  // left behind by a daemon that was killed
      if (pid > 0 && !std::filesystem::exists("/proc/" + std::to_string(pid))) ::unlink(entry.path().c_str());
      continue;
    }
    const auto asked = std::chrono::steady_clock::now();
    auto answer = ask(fd.get(), request);
    if (answer && !answer->contains("error")) answers.push_back(std::move(*answer));
    // One that ends closes the socket, which takes no time.
    if (!answer && std::chrono::steady_clock::now() - asked >= std::chrono::seconds(kPatience.tv_sec)) {
      fmt::print(stderr, "wormhole: the daemon with pid {} does not answer\n", pid);
      ++without_answer;
    }
  }
  if (silent != nullptr) *silent = without_answer;
  return answers;
}

Result<nlohmann::json> ask_mount(pid_t pid, const nlohmann::json& request, const Heard& heard,
                                 const std::string& directory) {
  const FileDescriptor fd = connect_to(directory + "/" + std::to_string(pid) + ".sock", kPatienceWithWork);
  bool given_up = false;
  auto answer = !fd ? std::nullopt : ask(fd.get(), request, [&](const nlohmann::json& said) {
    given_up = heard && !heard(said);
    return !given_up;
  });
  if (given_up) return fail(ErrorCode::kCancelled, "given up");
  if (!answer) return fail(ErrorCode::kUnreachable, "the daemon (pid {}) does not answer any more", pid);
  if (answer->contains("error")) return fail(ErrorCode::kInvalid, "{}", answer->value("error", "the daemon refuses"));
  return std::move(*answer);
}

}  // namespace wormhole
