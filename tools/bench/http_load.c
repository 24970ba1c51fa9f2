// Asks an HTTP/1.1 server for files over and over: a client that costs little, so that the server is what is measured.
// Bodies are dropped in the kernel (MSG_TRUNC) and not compared; only status and length are checked.
//
//   http_load PORT CONNECTIONS SECONDS PATTERN COUNT    PATTERN is a printf format of a path, given 0 … COUNT-1 in turn
//
// Prints one line of JSON: requests that have ended, bytes of bodies (also of those under way), seconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kHeaderRoom = 8192, kBodyRoom = 1 << 20, kEventsAtOnce = 64 };

struct client {
  int fd;
  size_t header_size;     // bytes of the response's header so far
  long long body_left;    // -1: still in the header
  char header[kHeaderRoom];
};

static const char* pattern;
static long long count, asked, requests, bytes;
static char* body;

static void die(const char* what) {
  fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void ask(struct client* c) {
  char path[512], request[1024];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf(path, sizeof path, pattern, (int)(asked++ % count));
#pragma GCC diagnostic pop
  const int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
  if (send(c->fd, request, (size_t)size, MSG_NOSIGNAL) != size) die("send");
  c->header_size = 0;
  c->body_left = -1;
}

static void read_header(struct client* c) {
  const ssize_t n = recv(c->fd, c->header + c->header_size, kHeaderRoom - 1 - c->header_size, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("the server closed the connection");
  c->header_size += (size_t)n;
  c->header[c->header_size] = 0;
  const char* end = strstr(c->header, "\r\n\r\n");
  if (end == NULL) {
    if (c->header_size == kHeaderRoom - 1) die("the header is too long");
    return;
  }
  const char* length = strcasestr(c->header, "\r\nContent-Length:");
  if (strncmp(c->header, "HTTP/1.1 200", 12) != 0 || length == NULL || length > end) {
    fprintf(stderr, "http_load: not an answer with a length: %.200s\n", c->header);
    exit(1);
  }
  const long long with_header = (long long)(c->header + c->header_size - (end + 4));
  bytes += with_header;
  c->body_left = atoll(length + 17) - with_header;
}

static void read_body(struct client* c) {
  const size_t most = c->body_left < kBodyRoom ? (size_t)c->body_left : kBodyRoom;
  const ssize_t n = recv(c->fd, body, most, MSG_TRUNC);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("the server closed the connection");
  bytes += n;
  c->body_left -= n;
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const int connections = atoi(argv[2]);
  const double seconds = atof(argv[3]);
  pattern = argv[4];
  count = atoll(argv[5]);
  body = malloc(kBodyRoom);
  struct client* clients = calloc((size_t)connections, sizeof *clients);
  const int poll = epoll_create1(0);
  if (body == NULL || clients == NULL || poll < 0) die("start");
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < connections; ++i) {
    struct client* c = &clients[i];
    const int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr*)&server, sizeof server) != 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event) != 0) die("epoll_ctl");
  }
  const double begin = now();
  for (int i = 0; i < connections; ++i) ask(&clients[i]);
  double elapsed = 0;
  while ((elapsed = now() - begin) < seconds) {
    struct epoll_event events[kEventsAtOnce];
    const int ready = epoll_wait(poll, events, kEventsAtOnce, 10000);
    if (ready == 0) die("nothing comes for 10 s");
    for (int i = 0; i < ready; ++i) {
      struct client* c = events[i].data.ptr;
      if (c->body_left < 0) {
        read_header(c);
      } else {
        read_body(c);
      }
      if (c->body_left == 0) {
        ++requests;
        ask(c);
      }
    }
  }
  printf("{\"requests\": %lld, \"bytes\": %lld, \"seconds\": %.6f}\n", requests, bytes, elapsed);
  return 0;
}
