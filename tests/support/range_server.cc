#include "tests/support/range_server.h"

#include <arpa/inet.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "tests/support/pattern.h"

namespace wormhole::test {

namespace {

using Lock = std::unique_lock<std::mutex>;

// What is produced and sent at a time: small enough that a limit, a drip or a stop shows soon.
constexpr size_t kPiece = 64 * 1024;

constexpr int64_t kFirstOf2026 = 1767225600;

constexpr std::string_view kControlPrefix = "control/";

struct Range {
  uint64_t begin = 0, end = 0;  // end is exclusive
};

std::string decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 3], value, 16).ptr == &text[i + 3]) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Everything but unreserved characters; '/' stays.
std::string encode(std::string_view path) {
  std::string out;
  for (const unsigned char c : path) {
    if (std::isalnum(c) != 0 || std::strchr("-._~/", c) != nullptr) {
      out += static_cast<char>(c);
    } else {
      out += fmt::format("%{:02X}", c);
    }
  }
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string http_date(int64_t seconds) {
  return fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

const char* reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 416: return "Range Not Satisfiable";
    case 429: return "Too Many Requests";
    case 503: return "Service Unavailable";
    default: return "Whatever";
  }
}

// "bytes=a-b", "bytes=a-" and "bytes=-n"; several ranges are as good as none. Nothing: not a range.
std::optional<Range> parse_range(std::string_view header, uint64_t size) {
  if (!header.starts_with("bytes=")) return std::nullopt;
  header.remove_prefix(6);
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos) return std::nullopt;
  const auto number = [](std::string_view text) -> std::optional<uint64_t> {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  const auto first = number(header.substr(0, dash));
  const auto last = number(header.substr(dash + 1));
  if (first && last) return Range{*first, std::min(*last + 1, size)};
  if (first) return Range{*first, size};
  if (last) return Range{size - std::min(*last, size), size};
  return std::nullopt;
}

uint32_t crc32(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = (t[i] >> 1) ^ ((t[i] & 1) != 0 ? 0xedb88320u : 0);
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const unsigned char c : bytes) crc = (crc >> 8) ^ table[(crc ^ c) & 0xff];
  return ~crc;
}

// A valid gzip stream (RFC 1952) of stored deflate blocks: nothing gets smaller, and no library is needed.
std::string gzip(std::string_view bytes) {
  constexpr size_t kStoredBlock = 0xffff;
  const auto little = [](uint32_t value, int length) {
    std::string out;
    for (int i = 0; i < length; ++i) out += static_cast<char>(value >> (8 * i));
    return out;
  };
  std::string out("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
  size_t at = 0;
  do {
    const auto length = static_cast<uint32_t>(std::min(kStoredBlock, bytes.size() - at));
    out += at + length == bytes.size() ? '\1' : '\0';
    out += little(length, 2) + little(~length, 2);
    out += bytes.substr(at, length);
    at += length;
  } while (at < bytes.size());
  return out + little(crc32(bytes), 4) + little(static_cast<uint32_t>(bytes.size()), 4);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// "GET /x HTTP/1.1" and header lines; keys in lower case, the request line under "".
std::map<std::string, std::string> parse_head(std::string_view head) {
  std::map<std::string, std::string> fields;
  bool first = true;
  while (!head.empty()) {
    const size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    if (std::exchange(first, false)) {
      fields[""] = line;
      continue;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const size_t value = line.find_first_not_of(' ', colon + 1);
    fields[lower(std::string(line.substr(0, colon)))] = value == std::string_view::npos ? "" : line.substr(value);
  }
  return fields;
}

}  // namespace

// --- contents -------------------------------------------------------------------------------------------

void RangeServer::Content::read(uint64_t offset, std::byte* out, size_t length) const {
  if (is_formula) {
    fill_pattern(seed, offset, std::span(out, length));
  } else {
    std::memcpy(out, bytes.data() + offset, length);
  }
}

std::string RangeServer::Content::etag() const { return fmt::format("\"{:x}-{:x}-{:x}\"", version, size, seed); }

int64_t RangeServer::Content::mtime() const { return kFirstOf2026 + static_cast<int64_t>(version) * 60; }

// --- one connection -------------------------------------------------------------------------------------

// What goes back: a text, or the bytes of an object.
struct RangeServer::Answer {
  int status = 200;
  std::string headers;  // lines beyond those of the framing
  std::string text;
  ContentRef content;  // when set, `range` of it is the body
  Range range;
  Behaviour behaviour;
  std::optional<size_t> entry;  // in the log, counted from the first request ever
  uint64_t releases = 0;        // of its gate, so far: a later one ends its stall

  uint64_t body_size() const { return content ? range.end - range.begin : text.size(); }
};

// The socket, with the limits of a behaviour between the body and it. Every send returns false when the connection is
// over.
class RangeServer::Wire {
 public:
  Wire(RangeServer& server, int socket) : server_(server), socket_(socket) {}

  void begin(const Request& request, const Answer& answer) {
    path_ = request.path;
    behaviour_ = &answer.behaviour;
    entry_ = answer.entry;
    releases_ = answer.releases;
    sent_ = 0;
    stalled_ = false;
  }

  bool raw(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Bytes of the body, up to where the behaviour says that something happens.
  bool body(std::string_view bytes) {
    while (!bytes.empty()) {
      uint64_t room = bytes.size();
      for (const auto& limit : {behaviour_->close_after, behaviour_->reset_after, stall()}) {
        if (limit) room = std::min(room, *limit - sent_);
      }
      if (room == 0) {
        if (!act()) return false;
        continue;
      }
      if (behaviour_->bytes_per_second != 0) room = drip(room);
      account(room);  // first: who has read the bytes finds them in the log
      if (!framed(bytes.substr(0, room))) return false;
      bytes.remove_prefix(room);
      sent_ += room;
    }
    // A limit right behind the last byte: the body is complete, its connection is not left in good order.
    return !at_limit(behaviour_->reset_after) || act();
  }

  bool end() { return !behaviour_->chunked || raw("0\r\n\r\n"); }

  // Nothing when the peer is gone, or speaks no HTTP.
  std::optional<Request> read_request() {
    size_t end = 0;
    while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!receive()) return std::nullopt;
    }
    auto fields = parse_head(std::string_view(received_).substr(0, end));
    received_.erase(0, end + 4);
    const std::string& line = fields[""];
    const size_t space = line.find(' ');
    const size_t last = line.rfind(' ');
    if (space == std::string::npos || last <= space + 1) return std::nullopt;
    const std::string target = line.substr(space + 1, last - space - 1);
    const size_t question = std::min(target.find('?'), target.size());

    Request request;
    request.method = line.substr(0, space);
    request.path = decode(std::string_view(target).substr(0, question)).substr(1);
    request.query = question < target.size() ? target.substr(question + 1) : "";
    request.range = fields["range"];
    request.if_range = fields["if-range"];
    request.keep_alive = line.ends_with("/1.1") && lower(fields["connection"]) != "close";
    const size_t body_size = std::strtoull(fields["content-length"].c_str(), nullptr, 10);
    if (lower(fields["expect"]) == "100-continue" && !raw("HTTP/1.1 100 Continue\r\n\r\n")) return std::nullopt;
    while (received_.size() < body_size) {
      if (!receive()) return std::nullopt;
    }
    request.body = received_.substr(0, body_size);
    received_.erase(0, body_size);
    return request;
  }

 private:
  bool at_limit(const std::optional<uint64_t>& limit) const { return limit && *limit == sent_; }
  std::optional<uint64_t> stall() const { return stalled_ ? std::nullopt : behaviour_->stall_after; }

  bool receive() {
    std::array<char, 16 * 1024> piece;
    const ssize_t n = ::recv(socket_, piece.data(), piece.size(), 0);
    if (n < 0 && errno == EINTR) return true;
    if (n <= 0) return false;
    received_.append(piece.data(), static_cast<size_t>(n));
    return true;
  }

  bool framed(std::string_view bytes) {
    if (!behaviour_->chunked) return raw(bytes);
    return raw(fmt::format("{:x}\r\n", bytes.size())) && raw(bytes) && raw("\r\n");
  }

  bool act() {
    if (at_limit(behaviour_->reset_after)) {
      // The bytes before it should arrive; a reset throws away what the peer has not read yet.
      std::this_thread::sleep_for(Milliseconds(50));
      const linger now{1, 0};
      setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      return false;  // the close that follows is the reset
    }
    if (at_limit(behaviour_->close_after)) return false;
    stalled_ = true;
    Lock lock(server_.mutex_);
    const Gate& gate = server_.gates_[path_];
    server_.changed_.wait(lock, [&] { return server_.stopping_ || gate.releases != releases_; });
    return !server_.stopping_;
  }

  // 50 pieces a second; sleeps for the time that the next piece takes.
  uint64_t drip(uint64_t room) {
    const uint64_t piece = std::clamp<uint64_t>(behaviour_->bytes_per_second / 50, 1, room);
    const auto pause =
        std::chrono::duration<double>(static_cast<double>(piece) / static_cast<double>(behaviour_->bytes_per_second));
    Lock lock(server_.mutex_);
    server_.changed_.wait_for(lock, pause, [&] { return server_.stopping_; });
    return piece;
  }

  void account(uint64_t bytes) {
    Lock lock(server_.mutex_);
    if (entry_ && *entry_ >= server_.log_begin_) server_.log_[*entry_ - server_.log_begin_].body_bytes += bytes;
  }

  RangeServer& server_;
  const int socket_;
  std::string received_;  // and not parsed yet

  // Of the answer that is being sent.
  std::string path_;
  const Behaviour* behaviour_ = nullptr;
  std::optional<size_t> entry_;
  uint64_t releases_ = 0;
  uint64_t sent_ = 0;
  bool stalled_ = false;
};

void RangeServer::serve(Connection& connection, uint64_t number) {
  Wire wire(*this, connection.socket.get());
  for (bool alive = true; alive;) {
    const auto request = wire.read_request();
    if (!request) break;
    const auto answer =
        request->path.starts_with(kControlPrefix) ? control(*request) : wait_and_decide(*request, number);
    if (!answer) break;
    wire.begin(*request, *answer);
    alive = send(wire, *request, *answer);
  }
  Lock lock(mutex_);
  connection.socket.reset();
  connection.finished = true;
}

// Nothing when the server stops meanwhile.
std::optional<RangeServer::Answer> RangeServer::wait_and_decide(const Request& request, uint64_t connection) {
  Lock lock(mutex_);
  const size_t entry = log_begin_ + log_.size();
  log_.push_back({request.method, request.path, request.range, request.if_range, connection, 0, 0});
  changed_.notify_all();
  Gate& gate = gates_[request.path];
  if (gate.holding) {
    const uint64_t ticket = gate.arrived++;
    changed_.wait(lock, [&] { return stopping_ || ticket < gate.let_go; });
  }
  if (stopping_) return std::nullopt;
  Answer answer = decide(request);
  answer.entry = entry;
  answer.releases = gate.releases;
  if (entry >= log_begin_) log_[entry - log_begin_].status = answer.status;
  return answer;
}

// The behaviour for this request, counted down.
Behaviour RangeServer::take_behaviour(const Request& request) {
  const auto found = behaviours_.find(request.path);
  if (found == behaviours_.end()) return {};
  Behaviour behaviour = found->second;
  const bool shows = request.method != "HEAD" || behaviour.status != 0 || !behaviour.redirect.empty();
  if (shows && behaviour.times > 0 && --found->second.times == 0) behaviours_.erase(found);
  return behaviour;
}

RangeServer::Answer RangeServer::decide(const Request& request) {
  const auto text = [](int status, std::string headers = "") {
    Answer answer;
    answer.status = status;
    answer.headers = std::move(headers);
    answer.text = fmt::format("{} {}\n", status, reason(status));
    return answer;
  };
  const Behaviour behaviour = take_behaviour(request);
  if (behaviour.status != 0) {
    std::string headers;
    if (behaviour.retry_after) headers = fmt::format("Retry-After: {}\r\n", *behaviour.retry_after);
    if (behaviour.status == 401) headers += "WWW-Authenticate: Basic realm=\"range-server\"\r\n";
    return text(behaviour.status, headers);
  }
  if (!behaviour.redirect.empty()) return text(302, "Location: " + behaviour.redirect + "\r\n");

  const auto found = objects_.find(request.path);
  if (found == objects_.end()) {
    if (request.path.empty() || request.path.ends_with('/')) {
      auto page = listing(request.path);
      if (!page) return text(404);
      Answer answer;
      answer.headers = "Content-Type: text/html\r\n";
      answer.text = std::move(*page);
      return answer;
    }
    if (listing(request.path + '/')) return text(301, "Location: /" + encode(request.path) + "/\r\n");
    return text(404);
  }

  Answer answer;
  answer.behaviour = behaviour;
  answer.content = found->second;
  const Content& content = *answer.content;
  answer.range = {0, content.size};
  const bool html = request.path.empty() || request.path.ends_with('/');
  answer.headers = html ? "Content-Type: text/html\r\n" : "Content-Type: application/octet-stream\r\n";
  std::string if_range_match;
  const std::string date = http_date(content.mtime());
  switch (behaviour.validators) {
    case Behaviour::Validators::kStrongEtag:
      answer.headers += "ETag: " + content.etag() + "\r\nLast-Modified: " + date + "\r\n";
      break;
    case Behaviour::Validators::kWeakEtag: answer.headers += "ETag: W/" + content.etag() + "\r\n"; break;
    case Behaviour::Validators::kLastModified: answer.headers += "Last-Modified: " + date + "\r\n"; break;
    case Behaviour::Validators::kNone: break;
  }
  if (!behaviour.ignore_range) answer.headers += "Accept-Ranges: bytes\r\n";

  const bool same_version =
      request.if_range.empty() ||
      (behaviour.validators == Behaviour::Validators::kStrongEtag && request.if_range == content.etag()) ||
      ((behaviour.validators == Behaviour::Validators::kStrongEtag ||
        behaviour.validators == Behaviour::Validators::kLastModified) &&
       request.if_range == date);
  const auto range = parse_range(request.range, content.size);
  if (!range || behaviour.ignore_range || !same_version) return answer;
  if (range->begin >= range->end) return text(416, fmt::format("Content-Range: bytes */{}\r\n", content.size));
  answer.status = 206;
  answer.range = *range;
  const uint64_t shift = behaviour.content_range == Behaviour::ContentRange::kWrong ? 1 : 0;
  if (behaviour.content_range != Behaviour::ContentRange::kMissing) {
    answer.headers +=
        fmt::format("Content-Range: bytes {}-{}/{}\r\n", range->begin + shift, range->end - 1 + shift, content.size);
  }
  return answer;
}

std::optional<RangeServer::Answer> RangeServer::control(const Request& request) {
  std::function<ControlReply(const ControlRequest&)> handler;
  {
    Lock lock(mutex_);
    handler = control_;
  }
  ControlReply reply{404, "no control here\n"};
  if (handler)
    reply = handler({request.method, request.path.substr(kControlPrefix.size()), request.query, request.body});
  Answer answer;
  answer.status = reply.status;
  answer.text = reply.body;
  return answer;
}

// False when the connection ends with this answer.
bool RangeServer::send(Wire& wire, const Request& request, const Answer& answer) {
  const Behaviour& behaviour = answer.behaviour;
  std::string zipped;
  if (behaviour.gzip) {
    std::string plain = answer.text;
    if (answer.content) {
      plain.resize(answer.body_size());
      answer.content->read(answer.range.begin, reinterpret_cast<std::byte*>(plain.data()), plain.size());
    }
    zipped = gzip(plain);
  }
  std::string head = fmt::format("HTTP/1.{} {} {}\r\nServer: range-server\r\n{}", behaviour.http10 ? 0 : 1,
                                 answer.status, reason(answer.status), answer.headers);
  if (behaviour.gzip) head += "Content-Encoding: gzip\r\n";
  if (behaviour.chunked) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (!behaviour.http10) {
    head += fmt::format("Content-Length: {}\r\n", behaviour.gzip ? zipped.size() : answer.body_size());
  }
  const bool keep_alive = request.keep_alive && !behaviour.http10 && behaviour.extra == 0;
  if (!keep_alive) head += "Connection: close\r\n";
  if (!wire.raw(head + "\r\n")) return false;
  if (request.method == "HEAD") return keep_alive;

  if (behaviour.gzip) return wire.body(zipped) && wire.end() && keep_alive;
  if (!answer.content) return wire.body(answer.text) && wire.end() && keep_alive;
  std::vector<std::byte> piece(kPiece);
  for (uint64_t at = answer.range.begin; at < answer.range.end;) {
    const size_t length = std::min<uint64_t>(kPiece, answer.range.end - at);
    answer.content->read(at, piece.data(), length);
    if (!wire.body({reinterpret_cast<const char*>(piece.data()), length})) return false;
    at += length;
  }
  return wire.body(std::string(behaviour.extra, 'x')) && wire.end() && keep_alive;
}

// Nothing when no object lies below `directory` ("" or "a/b/").
std::optional<std::string> RangeServer::listing(const std::string& directory) const {
  std::set<std::string> directories;
  std::string files;
  const auto row = [](const std::string& name, int64_t mtime, const std::string& size) {
    return fmt::format("<a href=\"{}\">{}</a> {:%d-%b-%Y %H:%M} {:>19}\r\n", encode(name), escape_html(name),
                       fmt::gmtime(static_cast<std::time_t>(mtime)), size);
  };
  bool any = directory.empty();
  for (auto i = objects_.lower_bound(directory); i != objects_.end() && i->first.starts_with(directory); ++i) {
    any = true;
    const std::string name = i->first.substr(directory.size());
    const size_t slash = name.find('/');
    if (slash != std::string::npos) {
      directories.insert(name.substr(0, slash + 1));
    } else if (!name.empty()) {
      files += row(name, i->second->mtime(), std::to_string(i->second->size));
    }
  }
  if (!any) return std::nullopt;
  std::string rows;
  for (const auto& name : directories) rows += row(name, kFirstOf2026, "-");
  const std::string title = escape_html("Index of /" + directory);
  return fmt::format(
      "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<h1>{0}</h1><hr><pre><a href=\"../\">../</a>\r\n"
      "{1}{2}</pre><hr></body>\r\n</html>\r\n",
      title, rows, files);
}

// --- the server -----------------------------------------------------------------------------------------

RangeServer::RangeServer(uint16_t port) : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const int on = 1;
  setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  socklen_t length = sizeof address;
  if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(listener_.get(), SOMAXCONN) != 0 ||
      ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw std::system_error(errno, std::generic_category(), fmt::format("listen on 127.0.0.1:{}", port));
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

RangeServer::~RangeServer() {
  {
    Lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    for (Connection& connection : connections_) {
      if (!connection.finished && connection.socket) ::shutdown(connection.socket.get(), SHUT_RDWR);
    }
  }
  ::shutdown(listener_.get(), SHUT_RDWR);  // wakes accept()
  acceptor_.join();
  for (Connection& connection : connections_) connection.thread.join();
}

void RangeServer::accept_loop() {
  for (uint64_t number = 0;; ++number) {
    FileDescriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    Lock lock(mutex_);
    if (stopping_) return;
    if (!socket) continue;
    const int on = 1;
    setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections_.remove_if([](Connection& connection) {
      if (connection.finished) connection.thread.join();
      return connection.finished;
    });
    Connection& connection = connections_.emplace_back();
    connection.socket = std::move(socket);
    connection.thread = std::thread([this, &connection, number] { serve(connection, number); });
  }
}

std::string RangeServer::url(std::string_view path) const {
  return fmt::format("http://127.0.0.1:{}/{}", port_, encode(path));
}

void RangeServer::put(const std::string& path, uint64_t size, uint64_t seed, uint64_t version) {
  auto content = std::make_shared<Content>();
  content->size = size;
  content->seed = seed;
  content->version = version;
  Lock lock(mutex_);
  objects_[path] = std::move(content);
}

void RangeServer::put_bytes(const std::string& path, std::string bytes, uint64_t version) {
  auto content = std::make_shared<Content>();
  content->size = bytes.size();
  content->bytes = std::move(bytes);
  content->is_formula = false;
  content->version = version;
  Lock lock(mutex_);
  objects_[path] = std::move(content);
}

void RangeServer::remove(const std::string& path) {
  Lock lock(mutex_);
  objects_.erase(path);
}

void RangeServer::behave(const std::string& path, Behaviour behaviour) {
  Lock lock(mutex_);
  behaviours_[path] = std::move(behaviour);
}

void RangeServer::hold(const std::string& path) {
  Lock lock(mutex_);
  gates_[path].holding = true;
}

void RangeServer::release(const std::string& path, uint64_t count) {
  Lock lock(mutex_);
  gates_[path].let_go += count;
  changed_.notify_all();
}

void RangeServer::release(const std::string& path) {
  Lock lock(mutex_);
  Gate& gate = gates_[path];
  gate.holding = false;
  gate.let_go = gate.arrived;
  ++gate.releases;
  changed_.notify_all();
}

std::vector<LoggedRequest> RangeServer::requests() const {
  Lock lock(mutex_);
  return log_;
}

std::vector<LoggedRequest> RangeServer::requests(const std::string& path) const {
  std::vector<LoggedRequest> all = requests();
  std::erase_if(all, [&](const LoggedRequest& request) { return request.path != path; });
  return all;
}

uint64_t RangeServer::body_bytes(const std::string& path) const {
  uint64_t sum = 0;
  for (const LoggedRequest& request : requests(path)) sum += request.body_bytes;
  return sum;
}

void RangeServer::forget_requests() {
  Lock lock(mutex_);
  log_begin_ += log_.size();
  log_.clear();
}

bool RangeServer::wait_for_requests(const std::string& path, size_t count, Milliseconds timeout) const {
  Lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] {
    return std::count_if(log_.begin(), log_.end(), [&](const LoggedRequest& r) { return r.path == path; }) >=
           static_cast<ptrdiff_t>(count);
  });
}

void RangeServer::set_control(std::function<ControlReply(const ControlRequest&)> handler) {
  Lock lock(mutex_);
  control_ = std::move(handler);
}

}  // namespace wormhole::test
