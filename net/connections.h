// The TCP connections that libcurl holds open for us: how many there are, how far they have grown, and how much each
// may have under way (receive_window.h).
//
// Thread: net.
#pragma once

#include <curl/curl.h>

#include <cstdint>
#include <map>

#include "net/receive_window.h"

namespace wormhole {

class Connections {
 public:
  // The handle's sockets are opened and closed here.
  // REQUIRES: outlives the connections of all multi handles that `easy` is added to.
  void watch(CURL* easy);
  // The handle, still attached to its connection, has brought so many bytes of a body.
  void carried(CURL* easy, uint64_t bytes);
  // Whether bytes have come on the handle's connection that nobody has read yet: then this side is late, not the wire.
  bool has_unread(CURL* easy) const;

  size_t open() const { return sockets_.size(); }
  // Whether most of them have not carried enough yet to be out of slow start's first steps.
  bool are_young() const;

  // Of the segments that come, the share that comes out of order, lately: they wait behind a lost one. To be called
  // several times a second.
  double out_of_order();

  // All of them get a window of `bytes`. Needs CAP_NET_ADMIN; without it TCP does what it does.
  void bound_windows(uint64_t bytes);

 private:
  struct Socket {
    bool buffer_is_fixed = false;  // so the kernel tunes it no more
    uint64_t carried = 0;
    uint32_t segments = 0, out_of_order = 0;  // that have come, of TCP; at the last measurement
  };

  // CURL_SOCKET_BAD: it has none, or not one of TCP.
  curl_socket_t socket_of(CURL* easy) const;
  static curl_socket_t on_open(void* connections, curlsocktype purpose, curl_sockaddr* address);
  static int on_close(void* connections, curl_socket_t socket);

  std::map<curl_socket_t, Socket> sockets_;
  double out_of_order_ = 0;
  bool can_be_bound_ = true;
};

}  // namespace wormhole
