// A TCP socket that clients can connect to, from an address as users write it.
//
// Thread: any.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace wormhole {

struct ListeningSocket {
  FileDescriptor fd;      // does not block
  std::string authority;  // "127.0.0.1:8080", "[::1]:8080": numeric, with the port that it really has
  uint16_t port = 0;

  // `host` is an IPv4 or IPv6 address or a host name; port 0 is any free one. Errors: kInvalid (unknown address),
  // kForbidden, kBusy (the address is in use), kIo.
  static Result<ListeningSocket> open(const std::string& host, uint16_t port);
};

// "127.0.0.1", "::1"; "-" for an address of another family.
std::string numeric_host(const sockaddr* address);

}  // namespace wormhole
