// libcurl's transfers, driven by what happens to their sockets: a connection costs something when it has something to
// do. curl_multi_perform and curl_multi_poll ask the kernel for each transfer each time, so that each of 126 requests
// under way pays for the packets of all others.
//
// Thread: wake() from any; the rest is the thread's that has made it.
#pragma once

#include <curl/curl.h>
#include <sys/epoll.h>

#include <array>

#include "base/clock.h"
#include "base/file_descriptor.h"

namespace wormhole {

class CurlLoop {
 public:
  CurlLoop();
  // REQUIRES: no easy handle is left in it.
  ~CurlLoop();

  CURLM* multi() const { return multi_; }

  // What sockets and libcurl's own timers have ready. Never waits.
  void perform();
  // Until a socket is ready, a timer of libcurl is due, wake() was called since the last wait, or so many milliseconds
  // are over. True: a socket is ready.
  bool wait(int milliseconds);
  void wake() const;

 private:
  static int on_socket(CURL* easy, curl_socket_t socket, int what, void* loop, void* ours);
  void watch(curl_socket_t socket, int what);
  // Milliseconds until libcurl wants to be called; -1: it does not.
  int next_timer() const;

  CURLM* const multi_;
  const FileDescriptor epoll_, wake_;
  // As many as are worth a call; what does not fit is there the next time.
  std::array<epoll_event, 64> events_;
};

}  // namespace wormhole
