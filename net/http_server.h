// A read-only HTTP/1.1 server for a directory: files with ranges and validators, directories as an index that
// net/listing_html.cc reads back exactly. What may be reached is decided in served_directory.h, what a request deserves
// in http_conditions.h; this speaks HTTP, through libmicrohttpd.
//
// Thread: start and destruction by the owner. Requests run on the server's own threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace wormhole {

struct HttpServerOptions {
  std::string directory;
  std::string address = "127.0.0.1";  // an IPv4 or IPv6 address, or a host name
  uint16_t port = 0;                  // 0: any free one, see HttpServer::port()
  // A line for each finished request, without line end; from several threads. Empty: none.
  std::function<void(std::string_view)> log;
};

class HttpServer {
 public:
  // Answers when it returns. Errors: kNotFound, kInvalid (not a directory, unknown address), kForbidden,
  // kBusy (the address is in use), kIo.
  static Result<std::unique_ptr<HttpServer>> start(HttpServerOptions options);

  // Takes no more connections, gives the requests under way up to a second, and ends.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const { return port_; }
  // "http://127.0.0.1:8080/"
  const std::string& url() const { return url_; }

 private:
  class Daemon;
  explicit HttpServer(std::unique_ptr<Daemon> daemon, std::string url, uint16_t port);

  std::unique_ptr<Daemon> daemon_;
  std::string url_;
  uint16_t port_;
};

}  // namespace wormhole
