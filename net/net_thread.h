// The net thread: it owns a libcurl multi handle and all that runs on it. Its loop: take commands, start what may
// start, help what is slow, let libcurl work, tell the sinks what has arrived, retire what has ended, measure, sleep.
//
// A transfer moves between: waiting (in a lane's queue) -> active (attempts under way) -> done, or delayed (until its
// next attempt) -> waiting.
//
// Told in four files: net_thread.cc (commands, the loop, what starts), net_thread_second.cc (another request beside one
// that is under way), net_thread_end.cc (how requests end), net_thread_upkeep.cc (measuring, keeping warm).
//
// Thread: construction, destruction, post(), link(), profiles() and servers() from any; the rest is the net thread's.
#pragma once

#include <curl/curl.h>

#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mailbox.h"
#include "base/metrics.h"
#include "net/attempt.h"
#include "net/connections.h"
#include "net/credentials.h"
#include "net/curl_loop.h"
#include "net/curl_options.h"
#include "net/hedging.h"
#include "net/named_mirrors.h"
#include "net/rate_limit.h"
#include "net/request_setup.h"
#include "net/server.h"

namespace wormhole {

class NetThread {
 public:
  NetThread(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock);
  ~NetThread();

  bool post(Task task) { return mailbox_.post(std::move(task)); }
  LinkEstimate link() const;
  // These wait for the net thread.
  std::map<std::string, HostProfile> profiles();
  std::vector<ServerState> servers();

  // Commands, on the net thread.
  void add(std::unique_ptr<Transfer> t);
  void cancel(FetchId id);
  void promote(FetchId id);
  void want(FetchId id, ByteRange bytes);
  void use_content_mirrors(const std::vector<KnownMirror>& mirrors);

 private:
  using TransferRef = std::unique_ptr<Transfer>;

  // Speculation leaves this many of the connections to reads that wait.
  static constexpr int kKeptForDemand = 2;
  // How often rates are taken and second attempts considered.
  static constexpr Duration kMeasureEvery = std::chrono::milliseconds(100);
  // A connection is kept open while the tree was used lately. A server closes idle ones after 60 s or more (nginx,
  // Caddy); those that do it after 5 s (Apache) would have to be asked all the time, and are not.
  static constexpr Duration kWarmFor = std::chrono::minutes(5);
  static constexpr Duration kWarmingEvery = std::chrono::seconds(45);
  // From here on what is under way, and not the CPU, bounds the rate.
  static constexpr Duration kLongTrip = std::chrono::milliseconds(5);
  // At least 1.
  static int milliseconds_of(Duration d) {
    return static_cast<int>(std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(d).count()));
  }

  void run();
  void take_messages();
  void sleep();

  // waiting -> active
  void enqueue(TransferRef t);
  Duration others_turn(const Transfer& t) const;
  void add_server(const Url& base, ServerRole role, const HostProfile& known);
  bool mirrors_may_serve(const Transfer& t) const;
  Server* choose(const Transfer& t, uint64_t bytes, const Server* avoid) const;
  Server* server_for(const Transfer& t, bool small) const;
  std::deque<TransferRef>& lane(Lane l) { return waiting_[static_cast<size_t>(l)]; }
  bool nothing_waits() const;
  void count_ending();
  bool start_next(TimePoint now);
  bool start_waiting();
  Attempt& start_attempt(Transfer& t, Server& server, ByteRange range);

  // active: libcurl's callbacks, and what is told of them
  static size_t on_header(char* line, size_t size, size_t count, void* attempt);
  static size_t on_body(char* bytes, size_t size, size_t count, void* attempt);
  size_t take_body(Attempt& a, std::string_view bytes);
  void share_version(const Transfer& t);
  void tell_progress();
  void tell_wanted(Transfer& t);
  void resume_paused();

  // active: another attempt beside the first
  bool start_wanted(TimePoint now);
  static bool will_bring_soon(const Transfer& t, uint64_t offset, TimePoint now);
  void help_slow(TimePoint now);
  static bool may_help(const Server& server);
  bool hedge(Transfer& t, TimePoint now);
  bool share(Transfer& t, TimePoint now);

  // active -> done, or delayed
  void retire_finished();
  std::unique_ptr<Attempt> take_off(Attempt* raw);
  void end_attempts(Transfer& t);
  void end_useless_attempts(Transfer& t);
  TransferRef take_active(Transfer* raw);
  void attempt_ended(Transfer& t, std::unique_ptr<Attempt> a, CURLcode code);
  void learn(const Attempt& a, const Status& status);
  bool try_elsewhere(Transfer& t, const Attempt& a, const Status& status);
  Status outcome(const Transfer& t, const Attempt& a, CURLcode code) const;
  void finish(TransferRef t, Status status, const Attempt* last);

  // delayed, cancelled, out of patience
  void wake_delayed(TimePoint now);
  void expire(std::deque<TransferRef>& queue, TimePoint now);
  void expire_active(TimePoint now);
  void end_cancelled(TimePoint now);
  void end_all();

  void measure(TimePoint now);
  void bound_receive_windows();
  void compare_transports(TimePoint now);
  void keep_warm(TimePoint now);
  void warm(int connections);
  size_t waiting_readers() const;
  size_t idle_connections() const;
  bool opens_a_connection(const Transfer& t, const Server& server) const;
  int poll_timeout() const;
  double jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  const CurlOptions options_;
  Metrics& metrics_;
  const Clock& clock_;

  // For other threads, renewed with each measurement.
  std::atomic<uint64_t> link_rate_{0}, link_round_trip_us_{0}, link_part_{0};
  std::atomic<int> link_connections_{0};

  // The net thread's.
  bool stopping_ = false;
  std::vector<Task> messages_;  // in hand
  Credentials credentials_;
  RequestSetup setup_;
  BodyTaker taker_;
  Hedging hedging_;
  RateLimit rate_limit_;
  std::optional<Url> origin_;
  Connections connections_;
  CurlLoop loop_;
  Mailbox mailbox_{[this] { loop_.wake(); }};
  std::vector<std::unique_ptr<Server>> servers_;         // the origin first; none ever goes
  std::array<std::deque<TransferRef>, kLanes> waiting_;  // by lane
  std::vector<TransferRef> active_, delayed_;
  int active_documents_ = 0;
  std::unordered_map<FetchId, Transfer*> by_id_;
  std::vector<CURL*> idle_handles_;
  TimePoint last_request_{};  // of the file system's
  TimePoint last_arrival_{};  // of a body's bytes
  TimePoint last_measured_{};
  TimePoint next_warming_{};
  bool has_spares_ = false;
  TimePoint next_spares_{};
  TimePoint last_small_{};  // request of a reader
  size_t readers_ = 0;      // of small pieces, who wait at the same time
  std::minstd_rand random_{std::random_device{}()};
  std::thread thread_;
};

}  // namespace wormhole
