#include "net/curl_loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

namespace wormhole {
namespace {

uint32_t events_for(int what) { return (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u); }

int selected_by(uint32_t events) {
  return (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
         (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
}

}  // namespace

CurlLoop::CurlLoop()
    : multi_(::curl_multi_init()),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  ::curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &on_socket);
  ::curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  watch(wake_.get(), CURL_POLL_IN);
}

CurlLoop::~CurlLoop() { ::curl_multi_cleanup(multi_); }

int CurlLoop::on_socket(CURL* /*easy*/, curl_socket_t socket, int what, void* loop, void* /*ours*/) {
  static_cast<CurlLoop*>(loop)->watch(socket, what);
  return 0;
}

void CurlLoop::watch(curl_socket_t socket, int what) {
  if (what == CURL_POLL_REMOVE) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, socket, nullptr);
    return;
  }
  // Only the epoll knows whether it has the socket: one that was closed is gone from it, whatever has its number now.
  epoll_event wanted{.events = events_for(what), .data = {.fd = socket}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket, &wanted) != 0 && errno == EEXIST)
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, socket, &wanted);
}

int CurlLoop::next_timer() const {
  long milliseconds = -1;
  ::curl_multi_timeout(multi_, &milliseconds);
  return static_cast<int>(std::min<long>(milliseconds, 60'000));
}

void CurlLoop::perform() {
  int running = 0;
  const int ready = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), 0);
  for (int i = 0; i < ready; ++i) {
    // A wake-up is for the next wait().
    if (events_[i].data.fd == wake_.get()) continue;
    ::curl_multi_socket_action(multi_, events_[i].data.fd, selected_by(events_[i].events), &running);
  }
  // Also what was added or continued since, and what those have left to do.
  if (next_timer() == 0) ::curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
}

bool CurlLoop::wait(int milliseconds) {
  const int timer = next_timer();
  const int most = timer < 0 ? milliseconds : std::min(milliseconds, timer);
  const int ready = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), most);
  const bool woken = std::any_of(events_.begin(), events_.begin() + std::max(0, ready),
                                 [&](auto& event) { return event.data.fd == wake_.get(); });
  eventfd_t times = 0;
  if (woken) ::eventfd_read(wake_.get(), &times);
  return ready > (woken ? 1 : 0);
}

void CurlLoop::wake() const { ::eventfd_write(wake_.get(), 1); }

}  // namespace wormhole
