#include "net/http_server.h"

#include <fmt/format.h>
#include <microhttpd.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <thread>
#include <utility>

#include "base/file_descriptor.h"
#include "base/thread_annotations.h"
#include "net/http_conditions.h"
#include "net/range_header.h"
#include "net/served_directory.h"

namespace wormhole {
namespace {

// Clients that wait while the threads are busy; the kernel cuts it to net.core.somaxconn.
constexpr int kBacklog = 511;

// More clients than a mount has connections, and each may hold a file open: below the usual limit of 1024 descriptors.
constexpr unsigned kConnections = 480;

// A connection on which nothing moves for so long is closed.
constexpr unsigned kIdleSeconds = 60;

// What the destructor waits for requests under way.
constexpr std::chrono::seconds kGrace{1};

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

// A response under construction.
class Response {
 public:
  Response(int status, std::string_view body) : status_(status), length_(body.size()) {
    // MHD copies the bytes; its parameter lacks the const.
    response_.reset(
        MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()), MHD_RESPMEM_MUST_COPY));
  }
  // `range` of a file, by sendfile.
  Response(int status, FileDescriptor fd, ByteRange range) : status_(status), length_(range.size()) {
    response_.reset(MHD_create_response_from_fd_at_offset64(range.size(), fd.get(), range.begin));
    if (response_) fd.release();  // closed with the response
  }
  static Response error(int status) {
    Response response(status, fmt::format("{} {}\n", status, reason(status)));
    response.header("Content-Type", "text/plain; charset=utf-8");
    return response;
  }

  void header(const char* name, std::string_view value) {
    MHD_add_response_header(response_.get(), name, std::string(value).c_str());
  }
  int status() const { return status_; }
  uint64_t length() const { return length_; }
  MHD_Result queue(MHD_Connection* connection) {
    return response_ ? MHD_queue_response(connection, static_cast<unsigned>(status_), response_.get()) : MHD_NO;
  }

 private:
  std::unique_ptr<MHD_Response, ResponseDeleter> response_;
  int status_;
  uint64_t length_;
};

std::string_view request_header(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
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

// An address with its port, in the form of URLs.
std::string numeric_address(const sockaddr* address, socklen_t length, bool with_port) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
  ::getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  if (!with_port) return host;
  return address->sa_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string client_address(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (info == nullptr || info->client_addr == nullptr) return "-";
  const bool v6 = info->client_addr->sa_family == AF_INET6;
  return numeric_address(info->client_addr, v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in), /*with_port=*/false);
}

// What a client sent, fit for a line of a log.
std::string printable(std::string_view text) {
  std::string clean(text);
  const auto is_odd = [](char c) { return c <= ' ' || c > '~'; };
  std::replace_if(clean.begin(), clean.end(), is_odd, '?');
  return clean;
}

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

Result<FileDescriptor> listen_on(const std::string& host, uint16_t port) {
  const std::string shown = fmt::format("{}:{}", host, port);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return fail(ErrorCode::kInvalid, "cannot listen on {}: {}", shown, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, AddressListDeleter> list(found);
  return listen_on(*list, shown);
}

}  // namespace

// The requests, and libmicrohttpd's daemon that calls with them.
class HttpServer::Daemon {
 public:
  Daemon(ServedDirectory directory, std::function<void(std::string_view)> log)
      : directory_(std::move(directory)), log_(std::move(log)) {}
  ~Daemon() { stop(); }

  // Takes the socket over.
  Status start(FileDescriptor socket) {
    // clang-format off: an option and its value share a line
    daemon_ = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, nullptr, nullptr, &Daemon::on_request,
                               this, MHD_OPTION_LISTEN_SOCKET, socket.get(), MHD_OPTION_THREAD_POOL_SIZE,
                               thread_count(), MHD_OPTION_CONNECTION_LIMIT, kConnections, MHD_OPTION_CONNECTION_TIMEOUT,
                               kIdleSeconds, MHD_OPTION_UNESCAPE_CALLBACK, &Daemon::leave_escaped, nullptr,
                               MHD_OPTION_NOTIFY_COMPLETED, &Daemon::on_completed, this, MHD_OPTION_END);
    // clang-format on
    if (daemon_ == nullptr) return fail(ErrorCode::kIo, "the HTTP server does not start: {}", std::strerror(errno));
    socket_ = std::move(socket);
    return {};
  }

 private:
  // From its first header line to its last byte.
  struct Request {
    std::string client, method, url, range;
    int status = 0;
    uint64_t length = 0;
  };

  void stop() {
    if (daemon_ == nullptr) return;
    MHD_quiesce_daemon(daemon_);  // the socket is ours again
    socket_.reset();
    {
      std::unique_lock lock(mutex_);
      idle_.wait_for(lock, kGrace, [this]() NO_THREAD_SAFETY_ANALYSIS { return active_ == 0; });
    }
    MHD_stop_daemon(daemon_);
  }

  // Paths are taken apart before they are decoded: an encoded '/' is no separator.
  static size_t leave_escaped(void*, MHD_Connection*, char* text) { return std::strlen(text); }

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method,
                               const char* /*version*/, const char* /*upload*/, size_t* upload_size, void** state) {
    return static_cast<Daemon*>(self)->request(connection, url, method, upload_size, state);
  }

  static void on_completed(void* self, MHD_Connection*, void** state, MHD_RequestTerminationCode code) {
    const std::unique_ptr<Request> request(static_cast<Request*>(*state));
    *state = nullptr;
    if (request) static_cast<Daemon*>(self)->completed(*request, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
  }

  // Called once when the header is there, and again for each piece of an upload and at its end.
  MHD_Result request(MHD_Connection* connection, const char* url, const char* method, size_t* upload_size,
                     void** state) {
    if (*state == nullptr) {
      *state = begin(connection, url, method);
      return MHD_YES;
    }
    if (*upload_size != 0) {  // nobody uploads here; a body is read and dropped
      *upload_size = 0;
      return MHD_YES;
    }
    Request& request = *static_cast<Request*>(*state);
    Response response = answer(connection, request);
    request.status = response.status();
    request.length = request.method == "HEAD" || request.status == 304 ? 0 : response.length();
    return response.queue(connection);
  }

  Request* begin(MHD_Connection* connection, const char* url, const char* method) {
    auto request = std::make_unique<Request>();
    request->client = client_address(connection);
    request->method = method;
    request->url = url;
    request->range = request_header(connection, "Range");
    const MutexLock lock(mutex_);
    ++active_;
    return request.release();
  }

  void completed(const Request& request, bool whole) {
    if (log_) {
      log_(fmt::format("{} {} {} {} {}{}{}{}", request.client, request.method, printable(request.url), request.status,
                       request.length, request.range.empty() ? "" : " ", printable(request.range),
                       whole ? "" : " broken off"));
    }
    const MutexLock lock(mutex_);
    if (--active_ == 0) idle_.notify_all();
  }

  Response answer(MHD_Connection* connection, const Request& request) const {
    if (request.method != "GET" && request.method != "HEAD") {
      Response response = Response::error(405);
      response.header("Allow", "GET, HEAD");
      return response;
    }
    if (!request.url.starts_with('/')) return Response::error(400);
    const Result<ServedPath> path = ServedPath::parse(request.url);
    if (!path) return Response::error(404);
    Result<ServedFile> file = directory_.find(*path);
    if (!file) return Response::error(status_of(file.error().code));
    if (!file->is_directory) {
      if (path->ends_with_slash) return Response::error(404);
      return answer_file(conditions_of(connection, request.method == "HEAD"), std::move(*file), *path);
    }
    return path->ends_with_slash ? answer_directory(std::move(*file), *path) : redirect_to_directory(*path);
  }

  static Response response_of(const FileAnswer& answer, ServedFile& file) {
    switch (answer.status) {
      case 200:
      case 206: return {answer.status, std::move(file.fd), answer.body};
      // Only the header is sent; its Content-Length is that of the file (RFC 9110, section 8.6).
      case 304: return {304, std::move(file.fd), {0, file.size}};
      default: return Response::error(answer.status);
    }
  }

  static Response answer_file(const RequestConditions& conditions, ServedFile file, const ServedPath& path) {
    const FileAnswer answer = answer_file_request(conditions, file.validator, file.size);
    Response response = response_of(answer, file);
    response.header("ETag", file.validator.etag);
    response.header("Last-Modified", file.validator.last_modified);
    response.header("Accept-Ranges", "bytes");
    if (answer.status == 206) response.header("Content-Range", content_range_header(answer.body, file.size));
    if (answer.status == 416) response.header("Content-Range", fmt::format("bytes */{}", file.size));
    if (answer.status == 200 || answer.status == 206) {
      response.header("Content-Type", content_type(path.segments.back()));
    }
    return response;
  }

  Response answer_directory(ServedFile directory, const ServedPath& path) const {
    const Result<std::string> page = directory_.index(std::move(directory), path);
    if (!page) return Response::error(status_of(page.error().code));
    Response response(200, *page);
    response.header("Content-Type", "text/html; charset=utf-8");
    return response;
  }

  static Response redirect_to_directory(const ServedPath& path) {
    Response response = Response::error(301);
    response.header("Location", path.encoded());
    return response;
  }

  const ServedDirectory directory_;
  const std::function<void(std::string_view)> log_;
  MHD_Daemon* daemon_ = nullptr;
  FileDescriptor socket_;
  Mutex mutex_;
  std::condition_variable_any idle_;
  int active_ GUARDED_BY(mutex_) = 0;  // requests between their header and their last byte
};

HttpServer::HttpServer(std::unique_ptr<Daemon> daemon, std::string url, uint16_t port)
    : daemon_(std::move(daemon)), url_(std::move(url)), port_(port) {}

HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options) {
  Result<ServedDirectory> directory = ServedDirectory::open(options.directory);
  if (!directory) return fail(directory.error());
  Result<FileDescriptor> socket = listen_on(options.address, options.port);
  if (!socket) return fail(socket.error());

  sockaddr_storage bound = {};
  socklen_t length = sizeof bound;
  auto* address = reinterpret_cast<sockaddr*>(&bound);
  ::getsockname(socket->get(), address, &length);
  // The port has the same place in both families.
  const uint16_t port = ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);
  std::string url = "http://" + numeric_address(address, length, /*with_port=*/true) + "/";

  auto daemon = std::make_unique<Daemon>(std::move(*directory), std::move(options.log));
  if (Status started = daemon->start(std::move(*socket)); !started) return fail(started.error());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(daemon), std::move(url), port));
}

}  // namespace wormhole
