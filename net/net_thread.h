// The net thread: it owns a libcurl multi handle and all that runs on it. Its loop: take commands, start what may
// start, help what is slow, let libcurl work, tell the sinks what has arrived, retire what has ended, measure, sleep.
//
// A transfer moves between: waiting (in a lane's queue) -> active (attempts under way) -> done, or delayed (until its
// next attempt) -> waiting.
//
// Thread: construction, destruction, post(), link() and profiles() from any; the rest is the net thread's.
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
#include "base/thread_annotations.h"
#include "net/attempt.h"
#include "net/credentials.h"
#include "net/curl_options.h"
#include "net/hedging.h"
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
  std::map<std::string, HostProfile> profiles() const;

  // Commands, on the net thread.
  void add(std::unique_ptr<Transfer> t);
  void cancel(FetchId id);
  void promote(FetchId id);

 private:
  using TransferRef = std::unique_ptr<Transfer>;

  void run();
  void sleep();

  // waiting -> active
  void enqueue(TransferRef t);
  bool may_start() const;
  bool mirrors_may_serve(const Transfer& t) const;
  Server* server_for(const Transfer& t) const;
  std::deque<TransferRef>& lane(Lane l) { return waiting_[static_cast<size_t>(l)]; }
  bool nothing_waits() const;
  void count_ending();
  void start_waiting();
  Attempt& start_attempt(Transfer& t, Server& server, ByteRange range);

  // active: libcurl's callbacks, and what is told of them
  static size_t on_header(char* line, size_t size, size_t count, void* attempt);
  static size_t on_body(char* bytes, size_t size, size_t count, void* attempt);
  size_t take_body(Attempt& a, std::string_view bytes);
  static curl_socket_t on_open_socket(void* net, curlsocktype, curl_sockaddr* address);
  static int on_close_socket(void* net, curl_socket_t socket);
  void share_version(const Transfer& t);
  void tell_progress();
  void resume_paused();

  // active: a second attempt beside the first
  void help_slow(TimePoint now);
  bool hedge(Transfer& t, TimePoint now);
  bool share(Transfer& t, TimePoint now);

  // active -> done, or delayed
  void retire_finished();
  std::unique_ptr<Attempt> take_off(Attempt* a);
  void end_attempts(Transfer& t);
  TransferRef take_active(Transfer* t);
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
  void bound_receive_windows(TimePoint now);
  void keep_warm(TimePoint now);
  int poll_timeout() const;
  double jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  const CurlOptions options_;
  Metrics& metrics_;
  const Clock& clock_;
  CURLM* multi_ = nullptr;
  Mailbox mailbox_{[this] { ::curl_multi_wakeup(multi_); }};

  // For other threads, renewed with each measurement.
  std::atomic<uint64_t> link_rate_{0}, link_round_trip_us_{0}, link_part_{0};
  std::atomic<int> link_connections_{0};
  mutable Mutex profiles_mutex_;
  std::map<std::string, HostProfile> profiles_ GUARDED_BY(profiles_mutex_);

  // The net thread's.
  bool stopping_ = false;
  Credentials credentials_;
  RequestSetup setup_;
  BodyTaker taker_;
  Hedging hedging_;
  RateLimit rate_limit_;
  std::optional<Url> origin_;
  std::vector<std::unique_ptr<Server>> servers_;         // the origin first
  std::array<std::deque<TransferRef>, kLanes> waiting_;  // by lane
  std::vector<TransferRef> active_, delayed_;
  int active_documents_ = 0;
  std::unordered_map<FetchId, Transfer*> by_id_;
  std::vector<CURL*> idle_handles_;
  TimePoint last_request_{};  // of the file system's
  TimePoint last_measured_{};
  TimePoint next_warming_{};
  bool windows_can_be_bound_ = true;
  std::map<curl_socket_t, bool> sockets_;  // TCP, open; whether the receive buffer is fixed, so not tuned any more
  std::minstd_rand random_{std::random_device{}()};
  std::thread thread_;
};

}  // namespace wormhole
