// A read-only HTTP/1.1 server for a directory: files with ranges and validators, directories as an index that
// net/listing_html.cc reads back exactly. What may be reached is decided in served_directory.h, what a request deserves
// in http_conditions.h; this speaks HTTP, through libmicrohttpd.
//
// Thread: the owner's. Requests run on the server's own threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace wormhole {

// What may be renewed while the server runs.
struct HttpServerSecrets {
  std::string token;             // who asks must send it ("Authorization: Bearer TOKEN"); empty: anybody may ask
  std::string certificate, key;  // PEM, for HTTPS; both or none

  bool has_certificate() const { return !certificate.empty() || !key.empty(); }
};

struct HttpServerOptions {
  std::string directory;
  std::string hidden;  // a directory to hand out as /.wormhole/ (served_directory.h); empty: what `directory` has there
  std::string address = "127.0.0.1";  // an IPv4 or IPv6 address, or a host name
  uint16_t port = 0;                  // 0: any free one, see HttpServer::port()
  // Open at a time; more wait until one of them ends. Each needs two descriptors: itself, and a file. The default fits
  // into the usual limit of 1024.
  unsigned connections = 480;
  // What the destructor gives to answers under way.
  std::chrono::milliseconds grace{5000};
  HttpServerSecrets secrets;
  // A line for each finished request, without line end; from several threads. Empty: none.
  std::function<void(std::string_view)> log;
};

class HttpServer {
 public:
  // Answers when it returns. Errors: kNotFound, kInvalid (not a directory, unknown address), kForbidden,
  // kBusy (the address is in use), kIo. kInvalid as well: the certificate and its key do not go together.
  static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options);

  // Takes no more connections, waits for the answers under way, up to `grace`, and ends.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // For requests and TLS connections that begin from now on. kInvalid, and nothing changes: the certificate and its key
  // do not go together; or TLS would begin or end.
  Status replace_secrets(const HttpServerSecrets& secrets);

  uint16_t port() const { return port_; }
  // "http://127.0.0.1:8080/"
  const std::string& url() const { return url_; }

 private:
  class Daemon;
  explicit HttpServer(std::unique_ptr<Daemon> daemon, std::string url, uint16_t port, bool tls);

  std::unique_ptr<Daemon> daemon_;
  std::string url_;
  uint16_t port_;
  bool tls_;
};

}  // namespace wormhole
