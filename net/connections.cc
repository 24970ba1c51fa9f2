#include "net/connections.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace wormhole {
namespace {

// More than any window: what bounds the bytes under way is the window.
constexpr int kFixedBuffer = 64 << 20;

// From ten segments on (RFC 6928) the congestion window has grown to a block or more.
constexpr uint64_t kGrownAfter = 64 * 1024;

}  // namespace

void Connections::watch(CURL* easy) {
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &on_open);
  ::curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, this);
  ::curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, &on_close);
  ::curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, this);
}

void Connections::carried(CURL* easy, uint64_t bytes) {
  curl_socket_t socket = CURL_SOCKET_BAD;
  ::curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &socket);
  if (auto it = sockets_.find(socket); it != sockets_.end()) it->second.carried += bytes;
}

bool Connections::are_young() const {
  const auto grown =
      std::count_if(sockets_.begin(), sockets_.end(), [](auto& s) { return s.second.carried >= kGrownAfter; });
  return static_cast<size_t>(grown) * 2 < sockets_.size();
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
