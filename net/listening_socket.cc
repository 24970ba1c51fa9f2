#include "net/listening_socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cerrno>
#include <memory>

namespace wormhole {
namespace {

// Clients that wait while the threads are busy: a thousand that come at once. The kernel cuts it to net.core.somaxconn.
constexpr int kBacklog = 1024;

struct AddressListDeleter {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

Result<FileDescriptor> listen_on(const addrinfo& address, const std::string& shown) {
  FileDescriptor fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(error_from_errno(errno, "socket for " + shown));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE) return fail(ErrorCode::kBusy, "{} is in use by another program", shown);
    return fail(error_from_errno(errno, "listen on " + shown));
  }
  return fd;
}

}  // namespace

std::string numeric_host(const sockaddr* address) {
  if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return "-";
  char host[NI_MAXHOST] = "-";
  const socklen_t length = address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  ::getnameinfo(address, length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return host;
}

Result<ListeningSocket> ListeningSocket::open(const std::string& host, uint16_t port) {
  const std::string shown = fmt::format("{}:{}", host, port);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return fail(ErrorCode::kInvalid, "cannot listen on {}: {}", shown, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, AddressListDeleter> list(found);
  Result<FileDescriptor> fd = listen_on(*list, shown);
  if (!fd) return fail(fd.error());

  sockaddr_storage bound = {};
  socklen_t length = sizeof bound;
  auto* address = reinterpret_cast<sockaddr*>(&bound);
  ::getsockname(fd->get(), address, &length);
  ListeningSocket socket;
  socket.fd = std::move(*fd);
  socket.port = ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);  // the same place in both families
  const char* form = address->sa_family == AF_INET6 ? "[{}]:{}" : "{}:{}";
  socket.authority = fmt::format(fmt::runtime(form), numeric_host(address), socket.port);
  return socket;
}

}  // namespace wormhole
