#include "net/connections.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace wormhole {
namespace {

// More than any window: what bounds the bytes under way is the window.
constexpr int kFixedBuffer = 64 << 20;

// From ten segments on (RFC 6928) the congestion window has grown to a block or more.
constexpr uint64_t kGrownAfter = 64 * 1024;

// The share of segments that came out of order is a mean over about so many measurements: a single lost packet makes a
// round trip's worth of them.
constexpr double kMeanOver = 10;
constexpr uint64_t kEnoughSegments = 100;

}  // namespace

void Connections::watch(CURL* easy) {
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &on_open);
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, this);
  ::curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, &on_close);
  ::curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, this);
}

curl_socket_t Connections::socket_of(CURL* easy) const {
  curl_socket_t socket = CURL_SOCKET_BAD;
  ::curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &socket);
  return sockets_.contains(socket) ? socket : CURL_SOCKET_BAD;
}

void Connections::carried(CURL* easy, uint64_t bytes) {
  if (auto it = sockets_.find(socket_of(easy)); it != sockets_.end()) it->second.carried += bytes;
}

bool Connections::has_unread(CURL* easy) const {
  const curl_socket_t socket = socket_of(easy);
  int bytes = 0;
  return socket != CURL_SOCKET_BAD && ::ioctl(socket, FIONREAD, &bytes) == 0 && bytes > 0;
}

bool Connections::are_young() const {
  const auto grown =
      std::count_if(sockets_.begin(), sockets_.end(), [](auto& s) { return s.second.carried >= kGrownAfter; });
  return static_cast<size_t>(grown) * 2 < sockets_.size();
}

double Connections::out_of_order() {
  uint64_t segments = 0, out_of_order = 0;
  for (auto& [socket, open] : sockets_) {
    tcp_info info{};
    socklen_t length = sizeof info;
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 ||
        length < offsetof(tcp_info, tcpi_rcv_ooopack) + sizeof info.tcpi_rcv_ooopack)
      continue;  // a kernel before 5.4
    segments += info.tcpi_data_segs_in - std::exchange(open.segments, info.tcpi_data_segs_in);
    out_of_order += info.tcpi_rcv_ooopack - std::exchange(open.out_of_order, info.tcpi_rcv_ooopack);
  }
  if (segments < kEnoughSegments) return out_of_order_;
  const double share = std::min(1.0, static_cast<double>(out_of_order) / static_cast<double>(segments));
  out_of_order_ += (share - out_of_order_) / kMeanOver;
  return out_of_order_;
}

void Connections::bound_windows(uint64_t bytes) {
  const auto window = static_cast<int>(std::min<uint64_t>(bytes, kFixedBuffer));
  for (auto& [socket, open] : sockets_) {
    if (!can_be_bound_) return;
    // The kernel raises the clamp with the buffer that it tunes; a buffer of a given size is not tuned.
    if (!std::exchange(open.buffer_is_fixed, true))
      can_be_bound_ = ::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &kFixedBuffer, sizeof kFixedBuffer) == 0;
    if (can_be_bound_) ::setsockopt(socket, IPPROTO_TCP, TCP_WINDOW_CLAMP, &window, sizeof window);
  }
}

curl_socket_t Connections::on_open(void* connections, curlsocktype, curl_sockaddr* address) {
  const int socket = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (socket < 0) return CURL_SOCKET_BAD;
  if (address->socktype == SOCK_STREAM) static_cast<Connections*>(connections)->sockets_.emplace(socket, Socket{});
  return socket;
}

int Connections::on_close(void* connections, curl_socket_t socket) {
  static_cast<Connections*>(connections)->sockets_.erase(socket);
  return ::close(socket);
}

}  // namespace wormhole
