// A small HTTP/1.1 server for what a well-behaved one cannot be asked to do: it ignores ranges, lies about them, breaks
// off, drips, stalls, compresses, changes an object between two requests. It keeps a log of what it was asked, and
// can hold requests back until a test lets them go, so that an order of events is scripted instead of slept for.
//
// An object is named by its decoded path without the leading '/'; "" is the root. A path that ends in '/' and has
// objects below it answers with a listing in nginx' style.
//
// Thread: every call from any thread. One thread accepts, one serves each connection.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/file_descriptor.h"

namespace wormhole::test {

// How an object is served. The fields combine; all at their defaults: by the book.
struct Behaviour {
  static constexpr int kForever = -1;
  enum class ContentRange { kRight, kWrong, kMissing };  // wrong: shifted by one byte
  enum class Validators { kStrongEtag, kWeakEtag, kLastModified, kNone };

  // For how many requests this lasts; afterwards the object is served by the book. A HEAD counts only where it shows
  // (status, redirect).
  int times = kForever;

  // Something else instead of the object.
  int status = 0;                       // 401, 403, 404, 416, 429, 500, 503...: this and a short text
  std::optional<int> retry_after = {};  // seconds, with `status`
  std::string redirect = {};            // 302 to this URL

  // The head.
  bool ignore_range = false;  // 200 and the whole body, whatever range was asked for
  ContentRange content_range = ContentRange::kRight;
  Validators validators = Validators::kStrongEtag;  // a strong ETag comes with Last-Modified, a weak one without
  bool http10 = false;                              // HTTP/1.0: the end of the body is the end of the connection

  // The body. Counted in bytes of the body.
  std::optional<uint64_t> close_after = {};  // ends the connection in good order, too early
  std::optional<uint64_t> reset_after = {};  // RST
  std::optional<uint64_t> stall_after = {};  // sends nothing more until release()
  uint64_t extra = 0;                        // more bytes than announced
  bool chunked = false;                      // no Content-Length
  bool gzip = false;                         // Content-Encoding: gzip, though nobody asked
  uint64_t bytes_per_second = 0;             // drips at this rate; 0: as fast as it goes
};

struct LoggedRequest {
  std::string method;
  std::string path;  // decoded, without the leading '/'
  std::string range;
  std::string if_range;
  uint64_t connection = 0;  // counted from 0
  int status = 0;           // 0 while the answer has not begun
  uint64_t body_bytes = 0;  // sent so far
};

class RangeServer {
 public:
  using Milliseconds = std::chrono::milliseconds;

  // Listens on 127.0.0.1, on a free port unless one is given.
  explicit RangeServer(uint16_t port = 0);
  ~RangeServer();  // ends all connections
  RangeServer(const RangeServer&) = delete;
  RangeServer& operator=(const RangeServer&) = delete;

  uint16_t port() const { return port_; }
  std::string url(std::string_view path = "") const;

  // An object of `size` bytes by the formula of pattern.h. Its ETag and date follow from `version`: the time is
  // 2026-01-01 plus `version` minutes. Replaces an object of that name; what is being sent stays as it was.
  void put(const std::string& path, uint64_t size, uint64_t seed, uint64_t version = 1);
  // The same for given bytes.
  void put_bytes(const std::string& path, std::string bytes, uint64_t version = 1);
  void remove(const std::string& path);

  // Holds for directories as well: behave("", {.status = 403}).
  void behave(const std::string& path, Behaviour behaviour);

  // From now on requests for `path` are logged and wait.
  void hold(const std::string& path);
  // Lets the first `count` of those that wait (or will) go on, in the order of their arrival.
  void release(const std::string& path, uint64_t count);
  // Ends the hold, and the stalls of the requests that were answered so far.
  void release(const std::string& path);

  std::vector<LoggedRequest> requests() const;
  std::vector<LoggedRequest> requests(const std::string& path) const;
  uint64_t body_bytes(const std::string& path) const;
  void forget_requests();
  // True when the log has at least `count` requests for `path`; waits that long for them.
  bool wait_for_requests(const std::string& path, size_t count, Milliseconds timeout = Milliseconds(5000)) const;

  // Requests below /control/ are answered by `handler` and not logged (range_server_main.cc).
  struct ControlRequest {
    std::string method, path, query, body;  // path: what follows /control/, decoded
  };
  struct ControlReply {
    int status = 200;
    std::string body;
  };
  void set_control(std::function<ControlReply(const ControlRequest&)> handler);

 private:
  // What is sent for one version of an object. Never changed, so that a response that is under way is one version.
  struct Content {
    uint64_t size = 0;
    uint64_t seed = 0;
    std::string bytes;  // used when is_formula is false
    bool is_formula = true;
    uint64_t version = 1;

    void read(uint64_t offset, std::byte* out, size_t length) const;
    std::string etag() const;
    int64_t mtime() const;
  };
  using ContentRef = std::shared_ptr<const Content>;

  // Where requests for a path wait. Paths without an object have one too.
  struct Gate {
    bool holding = false;
    uint64_t arrived = 0;   // tickets given out
    uint64_t let_go = 0;    // tickets below this one pass
    uint64_t releases = 0;  // stalls end when this changes
  };

  struct Connection {
    FileDescriptor socket;
    std::thread thread;
    bool finished = false;
  };
  struct Request {
    std::string method, path, query, range, if_range, body;
    bool keep_alive = true;
  };
  struct Answer;
  class Wire;

  void accept_loop();
  void serve(Connection& connection, uint64_t number);
  std::optional<Answer> wait_and_decide(const Request& request, uint64_t connection);
  std::optional<Answer> control(const Request& request);
  Answer decide(const Request& request);             // mutex_ is held
  Behaviour take_behaviour(const Request& request);  // mutex_ is held
  bool send(Wire& wire, const Request& request, const Answer& answer);
  std::optional<std::string> listing(const std::string& directory) const;  // mutex_ is held

  FileDescriptor listener_;
  uint16_t port_ = 0;
  std::thread acceptor_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;  // the log grew, a gate opened, stopping
  bool stopping_ = false;                    // all below: mutex_
  std::map<std::string, ContentRef> objects_;
  std::map<std::string, Behaviour> behaviours_;
  std::map<std::string, Gate> gates_;
  std::vector<LoggedRequest> log_;
  uint64_t log_begin_ = 0;  // the number of log_'s first request; what is before it is forgotten
  std::list<Connection> connections_;
  std::function<ControlReply(const ControlRequest&)> control_;
};

}  // namespace wormhole::test
