#include "net/http_server.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "base/file_descriptor.h"
#include "base/thread_annotations.h"
#include "net/bearer_token.h"
#include "net/http_conditions.h"
#include "net/listening_socket.h"
#include "net/range_header.h"
#include "net/served_directory.h"
#include "net/sha256.h"
#include "net/tls_identity.h"

namespace wormhole {
namespace {

// A connection on which nothing moves for so long is closed.
constexpr unsigned kIdleSeconds = 60;

// What a connection may use for a request and the header of its answer. A request line and header that do not fit are
// refused (414, 431): nobody has that much to say to a directory.
constexpr size_t kConnectionMemory = 32 * 1024;

// Bodies up to this go out in one system call together with their header, from memory: for them a copy costs less than
// sendfile's pipe and the second packet, which wakes the client twice. From there on copying costs more.
constexpr uint64_t kCopied = 64 * 1024;

// A file that is written over all the time may never be read whole in one version.
constexpr int kReadAttempts = 3;

constexpr const char* kAllowed = "GET, HEAD, OPTIONS";

// A thread waits in a read of a cold file or directory for all its connections, so there are more than cores.
unsigned thread_count() { return std::clamp(2 * std::thread::hardware_concurrency(), 4u, 16u); }

std::string_view content_type(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kTypes = {
      {{".txt", "text/plain; charset=utf-8"},
       {".md", "text/plain; charset=utf-8"},
       {".html", "text/html; charset=utf-8"},
       {".css", "text/css; charset=utf-8"},
       {".js", "text/javascript; charset=utf-8"},
       {".json", "application/json"},
       {".xml", "application/xml"},
       {".pdf", "application/pdf"},
       {".png", "image/png"},
       {".jpg", "image/jpeg"},
       {".gif", "image/gif"},
       {".svg", "image/svg+xml"},
       {".webp", "image/webp"},
       {".mp3", "audio/mpeg"},
       {".mp4", "video/mp4"},
       {".webm", "video/webm"}}};
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return name.ends_with(t.first); });
  return type == kTypes.end() ? "application/octet-stream" : type->second;
}

std::string_view reason(int status) {
  switch (status) {
    case 301: return "Moved Permanently";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 412: return "Precondition Failed";
    case 416: return "Range Not Satisfiable";
    case 503: return "Service Unavailable";
    default: return "Internal Server Error";
  }
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kForbidden: return 403;
    case ErrorCode::kBusy: return 503;
    default: return 500;
  }
}

struct ResponseDeleter {
  void operator()(MHD_Response* response) const { MHD_destroy_response(response); }
};

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, FreeMemory>;

// A response under construction.
class Response {
 public:
  explicit Response(int status, std::string_view body = "") : status_(status), length_(body.size()) {
    // MHD copies the bytes; its parameter lacks the const.
    response_.reset(
        MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()), MHD_RESPMEM_MUST_COPY));
  }
  // `range` of a file, by sendfile.
  Response(int status, FileDescriptor fd, ByteRange range) : status_(status), length_(range.size()), is_file_(true) {
    response_.reset(MHD_create_response_from_fd_at_offset64(range.size(), fd.get(), range.begin));
    if (response_) fd.release();  // closed with the response
  }
  Response(int status, Memory body, size_t size) : status_(status), length_(size) {
    response_.reset(MHD_create_response_from_buffer(size, body.get(), MHD_RESPMEM_MUST_FREE));
    if (response_) static_cast<void>(body.release());  // freed with the response
  }
  static Response error(int status) {
    Response response(status, fmt::format("{} {}\n", status, reason(status)));
    response.header("Content-Type", "text/plain; charset=utf-8");
    return response;
  }

  void header(const char* name, std::string_view value) { header(name, std::string(value).c_str()); }
  void header(const char* name, const std::string& value) { header(name, value.c_str()); }
  void header(const char* name, const char* value) { MHD_add_response_header(response_.get(), name, value); }
  int status() const { return status_; }
  uint64_t length() const { return length_; }
  bool is_file() const { return is_file_; }
  MHD_Result queue(MHD_Connection* connection) {
    return response_ ? MHD_queue_response(connection, static_cast<unsigned>(status_), response_.get()) : MHD_NO;
  }

 private:
  std::unique_ptr<MHD_Response, ResponseDeleter> response_;
  int status_;
  uint64_t length_;
  bool is_file_ = false;
};

std::string_view request_header(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
}

// How a request's header was written, as far as two readers of it could differ about where it ends.
struct Framing {
  bool malformed = false;  // a name with a blank, which some take for another name (RFC 9112, section 5.1)
  bool has_body = false;
};

Framing framing_of(MHD_Connection* connection) {
  Framing framing;
  const auto look = [](void* state, MHD_ValueKind, const char* name, const char* value) {
    auto& found = *static_cast<Framing*>(state);
    if (std::strpbrk(name, " \t\r\n\v\f") != nullptr) found.malformed = true;
    if (::strcasecmp(name, "Transfer-Encoding") == 0) found.has_body = true;
    if (::strcasecmp(name, "Content-Length") == 0 && std::strcmp(value == nullptr ? "" : value, "0") != 0) {
      found.has_body = true;
    }
    return MHD_YES;
  };
  MHD_get_connection_values(connection, MHD_HEADER_KIND, look, &framing);
  return framing;
}

RequestConditions conditions_of(MHD_Connection* connection, bool head) {
  RequestConditions conditions;
  conditions.range = head ? "" : request_header(connection, "Range");  // it is defined for GET alone
  conditions.if_range = request_header(connection, "If-Range");
  conditions.if_match = request_header(connection, "If-Match");
  conditions.if_none_match = request_header(connection, "If-None-Match");
  conditions.if_modified_since = request_header(connection, "If-Modified-Since");
  conditions.if_unmodified_since = request_header(connection, "If-Unmodified-Since");
  return conditions;
}

// What a client sent, fit to stand between quotes in a line of the log; as nginx and Apache write it.
std::string quotable(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (const char c : text) {
    if (c < ' ' || c > '~' || c == '"' || c == '\\') {
      fmt::format_to(std::back_inserter(clean), "\\x{:02X}", static_cast<unsigned char>(c));
    } else {
      clean += c;
    }
  }
  return clean;
}

// "21/Nov/2026:19:47:39 +0000": put together once a second, not once a request.
std::string_view log_time() {
  thread_local std::time_t shown = -1;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != shown) text = fmt::format("{:%d/%b/%Y:%H:%M:%S} +0000", fmt::gmtime(now));
  shown = now;
  return text;
}

using Clock = std::chrono::steady_clock;

// A client's connection, from its accept to its end.
struct Client {
  std::string address;
  int fd = -1;
  std::shared_ptr<const TlsIdentity> identity;  // null: no TLS
};

// From its first header line to its last byte.
struct Request {
  const Client* client = nullptr;
  Clock::time_point begun;
  std::string method, url, version, range, referer, agent;
  int status = 0;
  uint64_t length = 0;
  bool corked = false;
};

// The combined format of nginx and Apache; then the seconds it took, the range that was asked for, and whether the
// client took all of it.
std::string log_line(const Request& request, bool whole) {
  const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : quotable(text); };
  const std::chrono::duration<double> took = Clock::now() - request.begun;
  return fmt::format(R"({} - - [{}] "{} {} {}" {} {} "{}" "{}" {:.6f} "{}" {})", request.client->address, log_time(),
                     quotable(request.method), quotable(request.url), quotable(request.version), request.status,
                     request.length, or_dash(request.referer), or_dash(request.agent), took.count(),
                     or_dash(request.range), whole ? "whole" : "broken");
}

}  // namespace

// The requests, and libmicrohttpd's daemon that calls with them.
class HttpServer::Daemon {
 public:
  Daemon(ServedDirectory directory, const HttpServerOptions& options)
      : directory_(std::move(directory)), log_(options.log), grace_(options.grace) {}
  ~Daemon() { stop(); }

  // Takes the socket over.
  Status start(FileDescriptor socket, const HttpServerOptions& options) {
    if (Status taken = replace_secrets(options.secrets); !taken) return taken;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_TURBO;
    std::vector<MHD_OptionItem> more;
    if (options.secrets.has_certificate()) {
      flags |= MHD_USE_TLS;
      // What it starts with; connections get what is current (on_connection).
      more.push_back({MHD_OPTION_HTTPS_MEM_CERT, 0, const_cast<char*>(options.secrets.certificate.c_str())});
      more.push_back({MHD_OPTION_HTTPS_MEM_KEY, 0, const_cast<char*>(options.secrets.key.c_str())});
    }
    more.push_back({MHD_OPTION_END, 0, nullptr});
    // clang-format off: an option and its value share a line
    daemon_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &Daemon::on_request, this, MHD_OPTION_LISTEN_SOCKET,
                               socket.get(), MHD_OPTION_THREAD_POOL_SIZE, thread_count(), MHD_OPTION_CONNECTION_LIMIT,
                               std::max(options.connections, thread_count()), MHD_OPTION_CONNECTION_TIMEOUT,
                               kIdleSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionMemory,
                               MHD_OPTION_STRICT_FOR_CLIENT, 1,  // two ways to read a request are one too many
                               MHD_OPTION_UNESCAPE_CALLBACK, &Daemon::leave_escaped, nullptr,
                               MHD_OPTION_NOTIFY_CONNECTION, &Daemon::on_connection, this, MHD_OPTION_NOTIFY_COMPLETED,
                               &Daemon::on_completed, this, MHD_OPTION_ARRAY, more.data(), MHD_OPTION_END);
    // clang-format on
    if (daemon_ == nullptr) return fail(ErrorCode::kIo, "the HTTP server does not start: {}", std::strerror(errno));
    socket_ = std::move(socket);
    return {};
  }

  Status replace_secrets(const HttpServerSecrets& secrets) {
    std::shared_ptr<const TlsIdentity> identity;
    if (secrets.has_certificate()) {
      auto created = TlsIdentity::create(secrets.certificate, secrets.key);
      if (!created) return fail(created.error());
      identity = std::move(*created);
    }
    const MutexLock lock(mutex_);
    identity_ = std::move(identity);
    token_ = std::make_shared<const std::string>(secrets.token);
    return {};
  }

 private:
  void stop() {
    if (daemon_ == nullptr) return;
    // The workers may still be taking the socket out of their epolls, so its number stays taken until they have ended.
    MHD_quiesce_daemon(daemon_);
    ::shutdown(socket_.get(), SHUT_RDWR);
    ending_ = true;
    {
      std::unique_lock lock(mutex_);
      idle_.wait_for(lock, grace_, [this]() NO_THREAD_SAFETY_ANALYSIS { return active_ == 0; });
    }
    MHD_stop_daemon(daemon_);
    socket_.reset();
  }

  // Paths are taken apart before they are decoded: an encoded '/' is no separator.
  static size_t leave_escaped(void*, MHD_Connection*, char* text) { return std::strlen(text); }

  static void on_connection(void* self, MHD_Connection* connection, void** state, MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED) *state = static_cast<Daemon*>(self)->welcome(connection);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) delete static_cast<Client*>(std::exchange(*state, nullptr));
  }

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method,
                               const char* version, const char* /*upload*/, size_t* upload_size, void** state) {
    auto* daemon = static_cast<Daemon*>(self);
    if (*state == nullptr) {  // the header is there
      *state = daemon->begin(connection, url, method, version);
      return MHD_YES;
    }
    if (*upload_size != 0) {  // nobody uploads here; a body is read and dropped
      *upload_size = 0;
      return MHD_YES;
    }
    return daemon->respond(connection, *static_cast<Request*>(*state));
  }

  static void on_completed(void* self, MHD_Connection*, void** state, MHD_RequestTerminationCode code) {
    const std::unique_ptr<Request> request(static_cast<Request*>(*state));
    *state = nullptr;
    if (request) static_cast<Daemon*>(self)->completed(*request, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
  }

  Client* welcome(MHD_Connection* connection) {
    auto client = std::make_unique<Client>();
    client->address =
        numeric_host(MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    client->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    {
      const MutexLock lock(mutex_);
      client->identity = identity_;
    }
    if (client->identity) {
      client->identity->show_in(MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session);
    }
    return client.release();
  }

  Request* begin(MHD_Connection* connection, const char* url, const char* method, const char* version) {
    auto request = std::make_unique<Request>();
    request->client = static_cast<const Client*>(
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context);
    request->begun = Clock::now();
    request->method = method;
    request->url = url;
    request->version = version;
    if (log_) {
      request->range = request_header(connection, "Range");
      request->referer = request_header(connection, "Referer");
      request->agent = request_header(connection, "User-Agent");
    }
    const MutexLock lock(mutex_);
    ++active_;
    return request.release();
  }

  MHD_Result respond(MHD_Connection* connection, Request& request) {
    const Framing framing = framing_of(connection);
    Response response = framing.malformed ? Response::error(400) : answer(connection, request);
    // After a body that somebody else may have read otherwise, the next bytes are nobody's request.
    if (ending_ || framing.malformed || framing.has_body) response.header("Connection", "close");
    request.status = response.status();
    request.length = request.method == "HEAD" || request.status == 304 ? 0 : response.length();
    if (response.is_file() && request.length > 0 && !request.client->identity) cork(request, true);
    return response.queue(connection);
  }

  void completed(Request& request, bool whole) {
    if (request.corked) cork(request, false);
    if (log_) log_(log_line(request, whole));
    const MutexLock lock(mutex_);
    if (--active_ == 0) idle_.notify_all();
  }

  // Header and body are two system calls; without this they were two packets.
  static void cork(Request& request, bool on) {
    const int value = on ? 1 : 0;
    ::setsockopt(request.client->fd, IPPROTO_TCP, TCP_CORK, &value, sizeof value);
    request.corked = on;
  }

  Response answer(MHD_Connection* connection, const Request& request) const {
    if (!is_welcome(connection)) return unauthorized();
    if (request.method == "OPTIONS") return options();
    if (request.method != "GET" && request.method != "HEAD") {
      Response response = Response::error(405);
      response.header("Allow", kAllowed);
      return response;
    }
    if (!request.url.starts_with('/')) return Response::error(400);
    const Result<ServedPath> path = ServedPath::parse(request.url);
    if (!path) return Response::error(404);
    for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
      Result<ServedFile> file = directory_.find(*path);
      if (!file) return Response::error(status_of(file.error().code));
      if (file->is_directory) {
        return path->ends_with_slash ? answer_directory(connection, std::move(*file), *path)
                                     : redirect_to_directory(*path);
      }
      if (path->ends_with_slash) return Response::error(404);
      const bool is_head = request.method == "HEAD";
      auto response = answer_file(conditions_of(connection, is_head), is_head, std::move(*file), *path);
      if (response) return std::move(*response);
    }
    return Response::error(503);
  }

  bool is_welcome(MHD_Connection* connection) const {
    std::shared_ptr<const std::string> token;
    {
      const MutexLock lock(mutex_);
      token = token_;
    }
    return token->empty() || is_authorized(request_header(connection, "Authorization"), *token);
  }

  static Response unauthorized() {
    Response response = Response::error(401);
    response.header("WWW-Authenticate", "Bearer realm=\"wormhole\"");
    return response;
  }

  static Response options() {
    Response response(204);
    response.header("Allow", kAllowed);
    return response;
  }

  // Nothing when the file was written while it was read.
  static std::optional<Response> response_of(const FileAnswer& answer, bool is_head, ServedFile& file) {
    switch (answer.status) {
      case 200:
      case 206: break;
      // Only the header is sent; its Content-Length is that of the file (RFC 9110, section 8.6).
      case 304: return Response(304, std::move(file.fd), {0, file.size});
      default: return Response::error(answer.status);
    }
    const size_t size = answer.body.size();
    if (is_head || size > kCopied) return Response(answer.status, std::move(file.fd), answer.body);
    Memory body(std::malloc(std::max<size_t>(size, 1)));
    if (!file.read({static_cast<char*>(body.get()), size}, answer.body.begin)) return std::nullopt;
    return Response(answer.status, std::move(body), size);
  }

  static std::optional<Response> answer_file(const RequestConditions& conditions, bool is_head, ServedFile file,
                                             const ServedPath& path) {
    const FileAnswer answer = answer_file_request(conditions, file.validator, file.size);
    std::optional<Response> response = response_of(answer, is_head, file);
    if (!response) return std::nullopt;
    response->header("ETag", file.validator.etag);
    response->header("Last-Modified", file.validator.last_modified);
    response->header("Accept-Ranges", "bytes");
    if (answer.status == 206) response->header("Content-Range", content_range_header(answer.body, file.size));
    if (answer.status == 416) response->header("Content-Range", fmt::format("bytes */{}", file.size));
    if (answer.status == 200 || answer.status == 206) {
      response->header("Content-Type", content_type(path.segments.back()));
    }
    return response;
  }

  // The page's hash is its ETag: so a client who has it already is told, and sent nothing.
  Response answer_directory(MHD_Connection* connection, ServedFile directory, const ServedPath& path) const {
    const Result<std::string> page = directory_.index(std::move(directory), path);
    if (!page) return Response::error(status_of(page.error().code));
    Sha256 hash;
    hash.update(std::as_bytes(std::span(*page)));
    const Validator validator{'"' + to_hex(hash.digest()).substr(0, 32) + '"', ""};
    RequestConditions conditions;
    conditions.if_none_match = request_header(connection, "If-None-Match");
    const bool has_it = answer_file_request(conditions, validator, page->size()).status == 304;
    Response response(has_it ? 304 : 200, has_it ? std::string() : *page);
    response.header("ETag", validator.etag);
    if (!has_it) response.header("Content-Type", "text/html; charset=utf-8");
    return response;
  }

  static Response redirect_to_directory(const ServedPath& path) {
    Response response = Response::error(301);
    response.header("Location", path.encoded());
    return response;
  }

  const ServedDirectory directory_;
  const std::function<void(std::string_view)> log_;
  const std::chrono::milliseconds grace_;
  MHD_Daemon* daemon_ = nullptr;
  FileDescriptor socket_;
  std::atomic<bool> ending_ = false;  // the next answer on a connection is its last
  mutable Mutex mutex_;
  std::condition_variable_any idle_;
  int active_ GUARDED_BY(mutex_) = 0;  // requests between their header and their last byte
  std::shared_ptr<const TlsIdentity> identity_ GUARDED_BY(mutex_);
  std::shared_ptr<const std::string> token_ GUARDED_BY(mutex_);  // "": whoever asks
};

HttpServer::HttpServer(std::unique_ptr<Daemon> daemon, std::string url, uint16_t port, bool tls)
    : daemon_(std::move(daemon)), url_(std::move(url)), port_(port), tls_(tls) {}

HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options) {
  Result<ServedDirectory> directory = ServedDirectory::open(options.directory, options.hidden);
  if (!directory) return fail(directory.error());
  Result<ListeningSocket> socket = ListeningSocket::open(options.address, options.port);
  if (!socket) return fail(socket.error());

  const bool tls = options.secrets.has_certificate();
  std::string url = fmt::format("{}://{}/", tls ? "https" : "http", socket->authority);
  auto daemon = std::make_unique<Daemon>(std::move(*directory), options);
  if (Status started = daemon->start(std::move(socket->fd), options); !started) return fail(started.error());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(daemon), std::move(url), socket->port, tls));
}

Status HttpServer::replace_secrets(const HttpServerSecrets& secrets) {
  if (secrets.has_certificate() != tls_) return fail(ErrorCode::kInvalid, "TLS cannot be turned on or off");
  return daemon_->replace_secrets(secrets);
}

}  // namespace wormhole
