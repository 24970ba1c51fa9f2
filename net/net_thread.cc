#include "net/net_thread.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/thread.h"
#include "net/range_planner.h"
#include "net/receive_window.h"

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The most connections that measuring may lead to: what one client may ask of a server without being taken for many.
constexpr int kMostConnections = 64;

// Small documents beside the range transfers: listings of several directories at once.
constexpr int kDocumentConnections = 8;

// A listing is asked for by somebody who waits at a prompt, and an older one may be at hand: a server that is gone
// is reported after 0.3 s of retries.
constexpr int kDocumentAttempts = 3;

// Speculation leaves this many of the connections to reads that wait.
constexpr int kKeptForDemand = 2;

// How often rates are taken and second attempts considered.
constexpr Duration kMeasureEvery = milliseconds(100);

// Sharing pays when the rest is worth a request of its own and would take this many round trips more.
constexpr uint64_t kSmallestShare = 512 * 1024;
constexpr int kRoundTripsWorthSharing = 4;
constexpr Duration kWorthSharing = milliseconds(200);

// A response that pauses for longer has lost a packet at its end, or more: another connection does not wait for the
// retransmission timeout.
constexpr int kSilentTrips = 3;
constexpr Duration kSilence = milliseconds(100);

// More than any window: what bounds the bytes under way is the window.
constexpr int kFixedBuffer = 64 << 20;

constexpr uint64_t kSmallRequest = 128 * 1024;

// Gathering (see sleep()).
constexpr Duration kLongTrip = milliseconds(5);
constexpr int kGatherShare = 50;
constexpr Duration kLongestGathering = milliseconds(1);

// A new connection costs a round trip or more, and begins slowly: at 10 MB/s and 30 ms that is this many bytes.
constexpr uint64_t kWorthDraining = 256 * 1024;
constexpr int kDrainingTrips = 3;
constexpr Duration kShortestDraining = milliseconds(50);

// A connection is kept open while the tree was used lately. A server closes idle ones after 60 s or more (nginx,
// Caddy); those that do it after 5 s (Apache) would have to be asked all the time, and are not.
constexpr Duration kWarmFor = std::chrono::minutes(5);
constexpr Duration kWarmingEvery = seconds(45);
constexpr Duration kWarmingPatience = seconds(10);

int milliseconds_of(Duration d) {
  return static_cast<int>(std::max<int64_t>(1, std::chrono::duration_cast<milliseconds>(d).count()));
}

void curl_global_init_once() { [[maybe_unused]] static const CURLcode done = ::curl_global_init(CURL_GLOBAL_DEFAULT); }

}  // namespace

NetThread::NetThread(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock)
    : options_(std::move(options)),
      metrics_(metrics),
      clock_(clock),
      credentials_(options_.credentials),
      setup_(options_, credentials_),
      taker_(buffers),
      rate_limit_(options_.limit_rate) {
  curl_global_init_once();
  const auto add_server = [this](const Url& base, bool origin) {
    const auto known = options_.profiles.find(base.str());
    const bool fixed = options_.connections > 0;
    servers_.push_back(std::make_unique<Server>(base, origin, options_.http,
                                                known == options_.profiles.end() ? HostProfile{} : known->second,
                                                fixed ? options_.connections : kMostConnections, fixed));
  };
  if (auto url = Url::parse(options_.origin)) origin_ = std::move(*url);
  add_server(origin_.value_or(Url{}), true);
  for (const std::string& mirror : options_.mirrors) {
    if (auto url = Url::parse(mirror)) add_server(*url, false);
  }
  if (auto s = credentials_.load(); !s) log::warn("credentials cannot be read: {}", s.error().message);
  multi_ = ::curl_multi_init();
  // One stream for each connection, and idle connections are kept for all that may be active at once.
  ::curl_multi_setopt(multi_, CURLMOPT_MAX_CONCURRENT_STREAMS, 1L);
  ::curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS,
                      static_cast<long>(2 * std::max(options_.connections, kMostConnections) + kDocumentConnections));
  measure(clock_.now());
  thread_ = start_thread("wh-net", [this] { run(); });
}

NetThread::~NetThread() {
  mailbox_.post([this] { stopping_ = true; });
  thread_.join();
  for (CURL* easy : idle_handles_) ::curl_easy_cleanup(easy);
  ::curl_multi_cleanup(multi_);
}

LinkEstimate NetThread::link() const {
  return {link_rate_.load(std::memory_order_relaxed),
          std::chrono::microseconds(link_round_trip_us_.load(std::memory_order_relaxed)),
          link_connections_.load(std::memory_order_relaxed), link_part_.load(std::memory_order_relaxed)};
}

std::map<std::string, HostProfile> NetThread::profiles() const {
  MutexLock lock(profiles_mutex_);
  return profiles_;
}

// --- commands ------------------------------------------------------------------------------------------------------

void NetThread::add(TransferRef t) {
  const TimePoint now = clock_.now();
  t->last_progress = last_request_ = now;
  if (t->range) {
    t->validator = t->range->validator;
    if (!t->range->whole_body) t->body.emplace(t->range->range, t->range->buffer->data());
    by_id_[t->range->id] = t.get();
    metrics_.fetches_in_flight.fetch_add(1, std::memory_order_relaxed);
  }
  enqueue(std::move(t));
}

void NetThread::cancel(FetchId id) {
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  // An HTTP/1.1 connection does not outlive a response that is broken off. What is nearly there may as well come: it
  // costs less than the next connection.
  Transfer& t = *it->second;
  if (t.body && t.attempts.size() == 1) {
    const Attempt& a = *t.attempts.front();
    if (a.limit - a.position <= kWorthDraining) {
      t.drains_until =
          clock_.now() + std::max<Duration>(a.server->meter.round_trip() * kDrainingTrips, kShortestDraining);
      return;
    }
  }
  t.cancelled = true;
}

void NetThread::promote(FetchId id) {
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  it->second->drains_until = {};
  if (it->second->is_demand()) return;
  it->second->range->lane = Lane::kDemand;
  for (auto& queue : waiting_) {
    auto queued = std::find_if(queue.begin(), queue.end(), [&](auto& t) { return t.get() == it->second; });
    if (queued == queue.end()) continue;
    lane(Lane::kDemand).push_back(std::move(*queued));
    queue.erase(queued);
    return;
  }
}

void NetThread::run() {
  std::vector<Task> messages;
  while (!stopping_) {
    mailbox_.drain(messages);
    for (Task& task : messages) task();
    messages.clear();
    const TimePoint now = clock_.now();
    wake_delayed(now);
    expire_active(now);
    end_cancelled(now);
    count_ending();
    start_waiting();
    help_slow(now);
    resume_paused();
    int running = 0;
    ::curl_multi_perform(multi_, &running);
    tell_progress();
    retire_finished();
    measure(clock_.now());
    if (!stopping_ && !may_start()) sleep();
  }
  mailbox_.close();
  mailbox_.drain(messages);
  for (Task& task : messages) task();
  end_all();
}

// Until something happens. On a long wire packets come one by one; letting them gather for a fiftieth of the round trip
// delays nobody noticeably and saves most of the wake-ups.
void NetThread::sleep() {
  int ready = 0;
  ::curl_multi_poll(multi_, nullptr, 0, poll_timeout(), &ready);
  const Duration trip = servers_.front()->meter.round_trip();
  if (ready == 0 || trip < kLongTrip || !mailbox_.empty()) return;
  std::this_thread::sleep_for(std::min<Duration>(trip / kGatherShare, kLongestGathering));
}

// --- waiting -> active ---------------------------------------------------------------------------------------------

void NetThread::enqueue(TransferRef t) { lane(t->lane()).push_back(std::move(t)); }

bool NetThread::nothing_waits() const {
  return std::all_of(waiting_.begin(), waiting_.end(), [](auto& queue) { return queue.empty(); });
}

// What a file's version is, and what is in the tree, is the origin's to say while it answers.
bool NetThread::mirrors_may_serve(const Transfer& t) const {
  const Server& origin = *servers_.front();
  return (t.range && !t.validator.empty()) || t.avoid == &origin || !origin.breaker.allows(clock_.now());
}

// Where it may start now; nullptr when it has to wait.
Server* NetThread::server_for(const Transfer& t) const {
  Server* s = servers_.front().get();
  if (servers_.size() > 1 && !t.is_whole_body() && mirrors_may_serve(t)) {
    const uint64_t bytes = t.range ? t.range->range.size() - t.arrived() : 0;
    // When all rest, the origin is asked: its answer is the one that is told.
    if (Server* best = choose_server(servers_, t.url(), bytes, t.avoid, clock_.now())) s = best;
  }
  if (t.document) return active_documents_ < kDocumentConnections ? s : nullptr;
  const int allowed = t.is_demand() ? s->allowed() : std::max(1, s->allowed() - kKeptForDemand);
  // Readers who wait for a round trip each leave the wire idle, however many connections they hold. So what is fetched
  // on an idle wire has connections of its own.
  const int used = t.lane() == Lane::kIdle ? s->idle_active : s->busy() - s->idle_active;
  return used < allowed ? s : nullptr;
}

bool NetThread::may_start() const {
  for (const auto& queue : waiting_) {
    if (!queue.empty()) return server_for(*queue.front()) != nullptr;
  }
  return false;
}

void NetThread::count_ending() {
  for (auto& s : servers_) {
    s->ending = 0;
    if (s->active == 0) continue;
    // What a connection brings within a round trip.
    const auto share = static_cast<uint64_t>(static_cast<double>(s->meter.rate()) / s->active *
                                             std::chrono::duration<double>(s->meter.round_trip()).count());
    for (auto& t : active_) {
      for (auto& a : t->attempts) {
        if (a->server == s.get() && t->body && a->position > a->range.begin && a->limit - a->position <= share)
          ++s->ending;
      }
    }
  }
}

void NetThread::start_waiting() {
  // Documents and ranges have connections of their own: one kind that must wait does not hold up the other. What must
  // wait holds up all of its kind behind it, also in the lanes behind.
  bool ranges_wait = false, documents_wait = false;
  for (auto& queue : waiting_) {
    for (auto it = queue.begin(); it != queue.end() && !(ranges_wait && documents_wait);) {
      bool& must_wait = (*it)->document ? documents_wait : ranges_wait;
      Server* server = must_wait ? nullptr : server_for(**it);
      if (server == nullptr) {
        must_wait = true;
        ++it;
        continue;
      }
      TransferRef t = std::move(*it);
      it = queue.erase(it);
      Transfer& started = *t;
      active_.push_back(std::move(t));
      const ByteRange rest = started.body ? started.body->first_gap() : ByteRange{};
      start_attempt(started, *server, rest);
    }
  }
}

Attempt& NetThread::start_attempt(Transfer& t, Server& server, ByteRange range) {
  const TimePoint now = clock_.now();
  auto attempt = std::make_unique<Attempt>();
  Attempt& a = *attempt;
  a.transfer = &t;
  a.server = &server;
  a.range = range;
  a.position = range.begin;
  a.limit = range.end;
  a.started = now;
  a.url = origin_ ? server.url_of(t.url(), *origin_) : t.url();
  a.transport = server.protocol.next(now);
  if (t.range) {
    ++server.active;
    a.idle = t.lane() == Lane::kIdle;
    server.idle_active += a.idle;
    server.outstanding += range.size();
  } else {
    ++active_documents_;
  }
  server.breaker.started(now);
  if (idle_handles_.empty()) {
    a.easy = ::curl_easy_init();
  } else {
    a.easy = idle_handles_.back();
    idle_handles_.pop_back();
  }
  setup_.apply(a);
  ::curl_easy_setopt(a.easy, CURLOPT_HEADERFUNCTION, &on_header);
  ::curl_easy_setopt(a.easy, CURLOPT_HEADERDATA, &a);
  ::curl_easy_setopt(a.easy, CURLOPT_WRITEFUNCTION, &on_body);
  ::curl_easy_setopt(a.easy, CURLOPT_WRITEDATA, &a);
  ::curl_easy_setopt(a.easy, CURLOPT_PRIVATE, &a);
  ::curl_easy_setopt(a.easy, CURLOPT_OPENSOCKETFUNCTION, &on_open_socket);
  ::curl_easy_setopt(a.easy, CURLOPT_OPENSOCKETDATA, this);
  ::curl_easy_setopt(a.easy, CURLOPT_CLOSESOCKETFUNCTION, &on_close_socket);
  ::curl_easy_setopt(a.easy, CURLOPT_CLOSESOCKETDATA, this);
  a.net = this;
  metrics_.requests_sent.fetch_add(1, std::memory_order_relaxed);
  t.attempts.push_back(std::move(attempt));
  ::curl_multi_add_handle(multi_, a.easy);
  return a;
}

// --- active --------------------------------------------------------------------------------------------------------

size_t NetThread::on_header(char* line, size_t size, size_t count, void* attempt) {
  static_cast<Attempt*>(attempt)->header.take_line({line, size * count});
  return size * count;
}

size_t NetThread::on_body(char* bytes, size_t size, size_t count, void* attempt) {
  auto* a = static_cast<Attempt*>(attempt);
  return static_cast<NetThread*>(a->net)->take_body(*a, {bytes, size * count});
}

size_t NetThread::take_body(Attempt& a, std::string_view bytes) {
  const TimePoint now = clock_.now();
  if (!rate_limit_.open(now)) {
    a.paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (a.first_byte == TimePoint{}) a.first_byte = now;
  a.last_byte = now;
  const bool first_of_file = a.transfer->range && !a.transfer->head_told && a.transfer->range->validator.empty();
  const size_t taken = taker_.take(a, bytes);
  if (first_of_file && a.transfer->head_told) share_version(*a.transfer);
  if (taken == CURL_WRITEFUNC_PAUSE) return taken;
  rate_limit_.take(bytes.size());
  a.server->received += bytes.size();
  metrics_.body_bytes_received.fetch_add(bytes.size(), std::memory_order_relaxed);
  return taken;
}

// Requests that were made before anything was known of the file, and wait for a connection, ask for the version that is
// known now.
void NetThread::share_version(const Transfer& t) {
  for (auto& queue : waiting_) {
    for (auto& other : queue) {
      if (other->range && other->validator.empty() && other->url() == t.url()) other->validator = t.validator;
    }
  }
}

void NetThread::tell_progress() {
  for (auto& t : active_) {
    const uint64_t arrived = t->arrived();
    if (!t->range || arrived == t->told) continue;
    t->told = arrived;
    t->last_progress = clock_.now();
    if (arrived > t->furthest) {
      t->furthest = arrived;
      t->failures = 0;
    }
    if (!t->is_whole_body()) t->range->sink->fetch_progress(t->range->id, arrived);
  }
}

void NetThread::resume_paused() {
  const bool open = rate_limit_.open(clock_.now());
  for (auto& t : active_) {
    for (auto& a : t->attempts) {
      if (!a->paused || !open || (t->is_whole_body() && !taker_.has_room_for_chunk(*t))) continue;
      a->paused = false;
      t->last_progress = clock_.now();
      ::curl_easy_pause(a->easy, CURLPAUSE_CONT);
    }
  }
}

// --- active: a second attempt --------------------------------------------------------------------------------------

// Where nothing waits for a connection, idle ones help those that somebody waits for.
void NetThread::help_slow(TimePoint now) {
  if (!lane(Lane::kDemand).empty()) return;
  const bool idle = nothing_waits();
  for (auto& t : active_) {
    if (!t->body || !t->is_demand() || t->attempts.size() != 1 || t->complete()) continue;
    if (options_.hedge && hedge(*t, now)) continue;
    if (idle) share(*t, now);
  }
}

// The same bytes once more, when they take unusually long.
bool NetThread::hedge(Transfer& t, TimePoint now) {
  Attempt& first = *t.attempts.front();
  if (t.hedged || first.paused) return false;
  const auto patience = hedging_.patience(t.range->range.size());
  const bool late = patience && now - first.started >= *patience;
  const Duration trip = first.server->meter.round_trip();
  const bool silent = trip > Duration{} && now - std::max(first.started, first.last_byte) >=
                                               std::max<Duration>(trip * kSilentTrips, kSilence);
  if (!late && !silent) return false;
  const ByteRange rest = t.body->first_gap();
  Server* server = choose_server(servers_, t.url(), rest.size(), first.server, now);
  if (server == nullptr || (!server->origin && !mirrors_may_serve(t))) return false;
  // On a full wire everything is late at times, and asking twice makes it later.
  if (!silent && server == first.server && !nothing_waits()) return false;
  // Where measuring decides on the number, hedges may exceed it by as many as speculation leaves free: they are few.
  const int most = server->allowed() + (server->fixed_connections > 0 ? 0 : kKeptForDemand);
  if (server->active >= most || !hedging_.spend(rest.size())) return false;
  t.hedged = true;
  metrics_.fetches_hedged.fetch_add(1, std::memory_order_relaxed);
  log::debug("asked for again: url={} range={}-{} after_ms={}", t.url(), rest.begin, rest.end,
             milliseconds_of(now - first.started));
  start_attempt(t, *server, rest).second = true;
  return true;
}

// The rear half of the rest, from another connection: at the end of a file the slowest part is the last.
bool NetThread::share(Transfer& t, TimePoint now) {
  Attempt& first = *t.attempts.front();
  if (first.paused || first.first_byte == TimePoint{} || first.position >= first.limit) return false;
  const uint64_t rest = first.limit - first.position;
  const uint64_t come = first.position - first.range.begin;
  if (rest < 2 * kSmallestShare || come == 0) return false;
  const Duration so_far = now - first.first_byte;
  const Duration to_go =
      std::chrono::duration_cast<Duration>(so_far * (static_cast<double>(rest) / static_cast<double>(come)));
  if (to_go < std::max<Duration>(first.server->meter.round_trip() * kRoundTripsWorthSharing, kWorthSharing))
    return false;
  Server* server = choose_server(servers_, t.url(), rest / 2, nullptr, now);
  if (server == nullptr || server->active >= server->allowed()) return false;
  if (!server->origin && !mirrors_may_serve(t)) return false;
  const uint64_t middle = first.position + rest / 2;
  const ByteRange rear{middle, first.limit};
  first.limit = middle;
  start_attempt(t, *server, rear).second = true;
  return true;
}

// --- active -> done, or delayed ------------------------------------------------------------------------------------

void NetThread::retire_finished() {
  int left = 0;
  while (CURLMsg* message = ::curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    Attempt* raw = nullptr;
    ::curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &raw);
    const CURLcode code = message->data.result;
    Transfer& t = *raw->transfer;
    attempt_ended(t, take_off(raw), code);
  }
}

// Off the multi handle; the easy handle is free for the next.
std::unique_ptr<Attempt> NetThread::take_off(Attempt* raw) {
  Transfer& t = *raw->transfer;
  auto it = std::find_if(t.attempts.begin(), t.attempts.end(), [&](auto& a) { return a.get() == raw; });
  std::unique_ptr<Attempt> a = std::move(*it);
  t.attempts.erase(it);
  if (t.document) {
    --active_documents_;
    const char* effective = nullptr;
    ::curl_easy_getinfo(a->easy, CURLINFO_EFFECTIVE_URL, &effective);
    if (effective != nullptr) t.document->url = a->server->origin_url_of(effective, origin_);
  } else {
    --a->server->active;
    a->server->idle_active -= a->idle;
    a->server->outstanding -= a->range.size();
  }
  curl_off_t sent = 0, first = 0;
  ::curl_easy_getinfo(a->easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
  ::curl_easy_getinfo(a->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
  if (a->header.status != 0 && first > sent) a->server->meter.first_byte(std::chrono::microseconds(first - sent));
  ::curl_multi_remove_handle(multi_, a->easy);
  ::curl_easy_reset(a->easy);
  idle_handles_.push_back(a->easy);
  a->easy = nullptr;
  ::curl_slist_free_all(a->headers);
  a->headers = nullptr;
  return a;
}

void NetThread::end_attempts(Transfer& t) {
  while (!t.attempts.empty()) take_off(t.attempts.back().get());
}

NetThread::TransferRef NetThread::take_active(Transfer* raw) {
  auto it = std::find_if(active_.begin(), active_.end(), [&](auto& t) { return t.get() == raw; });
  TransferRef t = std::move(*it);
  active_.erase(it);
  return t;
}

// What the server and the policies learn from an attempt.
void NetThread::learn(const Attempt& a, const Status& status) {
  const TimePoint now = clock_.now();
  Server& s = *a.server;
  if (!a.header.alt_svc.empty() && offers_http3(a.header.alt_svc, s.base.port())) s.protocol.offered();
  if (a.transfer->range && a.first_byte != TimePoint{})
    s.protocol.arrived(a.transport, a.position - a.range.begin, a.last_byte - a.first_byte, now);
  if (status) {
    s.breaker.succeeded();
    s.used = true;
    return;
  }
  switch (status.error().code) {
    case ErrorCode::kUnreachable:
    case ErrorCode::kTimedOut:
      s.breaker.failed(now);
      // An answer that broke off is no blocked path.
      if (a.header.status == 0 || status.error().code == ErrorCode::kTimedOut) s.protocol.failed(a.transport, now);
      if (a.header.status == 429 || a.header.status == 503) s.controller.back_off(now);
      break;
    case ErrorCode::kCancelled: break;
    default: s.breaker.succeeded();  // it has answered
  }
}

void NetThread::attempt_ended(Transfer& t, std::unique_ptr<Attempt> a, CURLcode code) {
  const TimePoint now = clock_.now();
  Status status = outcome(t, *a, code);
  learn(*a, status);
  if (t.complete() || t.cancelled) {
    end_attempts(t);
    if (t.complete() && !a->second && !t.hedged) hedging_.completed(t.range->range.size(), now - a->started);
    return finish(take_active(&t), outcome(t, *a, code), a.get());
  }
  if (!t.attempts.empty()) {
    // The other one goes on; what this one leaves is the other's again, or comes afterwards.
    if (!status)
      t.attempts.front()->limit =
          std::max(t.attempts.front()->limit, std::min(a->range.end, t.attempts.front()->range.end));
    return;
  }
  if (status && t.body) return enqueue(take_active(&t));  // a gap is left
  if (status) return finish(take_active(&t), std::move(status), a.get());
  if (try_elsewhere(t, *a, status)) return enqueue(take_active(&t));
  ++t.failures;
  const TimePoint give_up = t.last_progress + t.patience();
  RetryPolicy policy = options_.retry;
  if (t.document) policy.attempts = std::min(policy.attempts, kDocumentAttempts);
  const auto wait = retry_delay(policy, status.error().code, t.failures, jitter(), a->header.retry_after);
  if (!wait || now + *wait >= give_up) {
    if (wait && status.error().code == ErrorCode::kUnreachable)
      status.error().message += " (no time is left to try again)";
    return finish(take_active(&t), std::move(status), a.get());
  }
  log::debug("fetch is tried again: url={} attempt={} wait_ms={} error=\"{}\"", a->url, t.failures,
             milliseconds_of(*wait), status.error().message);
  metrics_.fetches_retried.fetch_add(1, std::memory_order_relaxed);
  t.not_before = now + *wait;
  t.text.clear();
  if (t.is_whole_body()) restart_whole_body(t);
  delayed_.push_back(take_active(&t));
}

// Whether another attempt is worth making at once: with fresh credentials, over the other transport, of another server.
bool NetThread::try_elsewhere(Transfer& t, const Attempt& a, const Status& status) {
  const ErrorCode code = status.error().code;
  const bool again = [&] {
    if (code == ErrorCode::kUnauthorized && !t.asked_again) {
      t.asked_again = true;
      return credentials_.reload();
    }
    if (!a.server->origin && !server_did_not_speak(code)) {
      // A mirror that has something else is no judge of what the origin has.
      a.server->lacks.insert(t.url());
      return true;
    }
    if (!server_did_not_speak(code)) return false;
    if (a.transport == Transport::kQuic && a.header.status == 0) return true;
    t.avoid = a.server;
    Server* other = choose_server(servers_, t.url(), 0, a.server, clock_.now());
    return other != nullptr && other != a.server && t.failures < options_.retry.attempts;
  }();
  if (!again) return false;
  metrics_.fetches_retried.fetch_add(1, std::memory_order_relaxed);
  if (!a.server->origin || servers_.size() > 1) ++t.failures;
  t.text.clear();
  if (t.is_whole_body()) restart_whole_body(t);
  return true;
}

// What this attempt has come to.
Status NetThread::outcome(const Transfer& t, const Attempt& a, CURLcode code) const {
  if (t.cancelled) return fail(ErrorCode::kCancelled, "{}: cancelled", t.url());
  // Bytes that are there are there, whatever came behind them and however the connection ended.
  if (t.complete() || a.enough || (t.body && a.position >= a.limit && !a.refused)) return {};
  if (a.refused) return fail(*a.refused);
  // Of a HEAD everything is there with its header; what some servers do to the stream afterwards is of no interest.
  const bool has_head = t.document && t.document->head_only && a.header.status >= 200 && a.header.status <= 299;
  if (code != CURLE_OK && !(has_head && code != CURLE_OPERATION_TIMEDOUT))
    return fail(error_of_curl(code, a.error_detail, a.url));
  if (t.document) {
    if (a.header.status < 200 || a.header.status > 299) return fail(error_of_status(a.header.status, a.url));
    return {};
  }
  if (!a.header_checked) {  // no body came at all
    if (auto ok = check_attempt(a); !ok) return ok;
  }
  const uint64_t missing = t.is_whole_body() ? t.range->object_size - t.passed : a.limit - a.position;
  if (missing > 0) return fail(ErrorCode::kUnreachable, "{}: the body ended {} bytes early", a.url, missing);
  return {};
}

void NetThread::finish(TransferRef t, Status status, const Attempt* last) {
  if (t->document) {
    auto done = std::exchange(t->document->done, {});
    if (status) {
      done(document_of(*t, *last));
    } else {
      done(fail(std::move(status.error())));
    }
    return;
  }
  by_id_.erase(t->range->id);
  metrics_.fetches_in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (!status && status.error().code != ErrorCode::kCancelled)
    metrics_.fetches_failed.fetch_add(1, std::memory_order_relaxed);
  hedging_.fetched(t->arrived());
  if (t->arrived() != t->told && !t->is_whole_body()) t->range->sink->fetch_progress(t->range->id, t->arrived());
  t->range->sink->fetch_done(t->range->id, std::move(status));
}

// --- delayed, cancelled, out of patience -----------------------------------------------------------------------------

void NetThread::wake_delayed(TimePoint now) {
  std::erase_if(delayed_, [&](auto& t) {
    if (t->not_before > now && !t->cancelled) return false;
    enqueue(std::move(t));
    return true;
  });
  for (auto& queue : waiting_) expire(queue, now);
}

// Those that wait for an answer longer than their patience allows.
void NetThread::expire_active(TimePoint now) {
  for (size_t i = 0; i < active_.size();) {
    Transfer& t = *active_[i];
    const bool paused = std::any_of(t.attempts.begin(), t.attempts.end(), [](auto& a) { return a->paused; });
    if (paused || now - t.last_progress < t.patience()) {
      ++i;
      continue;
    }
    for (auto& a : t.attempts) a->server->breaker.failed(now);
    end_attempts(t);
    const double limit = std::chrono::duration<double>(t.patience()).count();
    Error error{ErrorCode::kTimedOut, fmt::format("{}: no answer within {:.3g} s", t.url(), limit)};
    finish(take_active(&t), fail(std::move(error)), nullptr);
  }
}

// Those that never got a connection.
void NetThread::expire(std::deque<TransferRef>& queue, TimePoint now) {
  for (size_t i = 0; i < queue.size();) {
    if (now - queue[i]->last_progress < queue[i]->patience()) {
      ++i;
      continue;
    }
    auto t = std::move(queue[i]);
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
    Error error{ErrorCode::kTimedOut, t->url() + ": no connection became free in time"};
    finish(std::move(t), fail(std::move(error)), nullptr);
  }
}

void NetThread::end_cancelled(TimePoint now) {
  for (auto& t : active_) {
    if (t->drains_until != TimePoint{} && now >= t->drains_until) t->cancelled = true;
  }
  const auto end = [this](TransferRef t) {
    Status status;
    if (!t->complete()) status = fail(ErrorCode::kCancelled, "{}: cancelled", t->url());
    finish(std::move(t), std::move(status), nullptr);
  };
  for (auto& queue : waiting_) {
    for (size_t i = 0; i < queue.size();) {
      if (!queue[i]->cancelled) {
        ++i;
        continue;
      }
      auto t = std::move(queue[i]);
      queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
      end(std::move(t));
    }
  }
  for (size_t i = 0; i < active_.size();) {
    if (!active_[i]->cancelled) {
      ++i;
      continue;
    }
    end_attempts(*active_[i]);
    end(take_active(active_[i].get()));
  }
}

void NetThread::end_all() {
  for (auto& t : delayed_) enqueue(std::move(t));
  delayed_.clear();
  for (auto& queue : waiting_) {
    for (auto& t : queue) t->cancelled = true;
  }
  for (auto& t : active_) t->cancelled = true;
  end_cancelled(clock_.now());
}

// --- measuring -----------------------------------------------------------------------------------------------------

void NetThread::measure(TimePoint now) {
  if (last_measured_ != TimePoint{} && now - last_measured_ < kMeasureEvery) return;
  last_measured_ = now;
  keep_warm(now);
  bound_receive_windows(now);
  uint64_t rate = 0;
  int connections = 0;
  Duration round_trip{};
  std::map<std::string, HostProfile> profiles;
  for (auto& s : servers_) {
    const uint64_t bytes = std::exchange(s->received, 0);
    const bool more_waits = !nothing_waits();
    const bool saturated = more_waits && s->busy() >= std::max(1, s->allowed() - kKeptForDemand);
    s->meter.observe(
        bytes,
        s->active == 0 ? LinkMeter::Load::kIdle : (saturated ? LinkMeter::Load::kSaturated : LinkMeter::Load::kSome),
        now);
    s->controller.observe(bytes, saturated, now);
    rate += s->meter.rate();
    connections += s->allowed();
    if (s->meter.round_trip() > round_trip) round_trip = s->meter.round_trip();
    if (s->used) profiles[s->base.str()] = s->profile();
  }
  link_rate_.store(rate, std::memory_order_relaxed);
  link_connections_.store(connections, std::memory_order_relaxed);
  link_round_trip_us_.store(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(round_trip).count()),
      std::memory_order_relaxed);
  link_part_.store(part_size_of(rate / static_cast<uint64_t>(std::max(1, connections))), std::memory_order_relaxed);
  MutexLock lock(profiles_mutex_);
  profiles_ = std::move(profiles);
}

// Needs CAP_NET_ADMIN; without it TCP does what it does.
void NetThread::bound_receive_windows(TimePoint now) {
  uint64_t pipe = 0;
  for (auto& s : servers_) pipe += s->meter.pipe();
  // Small requests wait for latency, and take no part of the pipe that would be worth counting.
  int active = 0;
  for (auto& t : active_) {
    for (auto& a : t->attempts) active += t->body && a->limit - a->position > kSmallRequest;
  }
  if (!windows_can_be_bound_ || active == 0 || pipe == 0) return;
  const auto window = static_cast<int>(receive_window(pipe, active, now));
  for (auto& [socket, is_fixed] : sockets_) {
    // The kernel raises the clamp with the buffer that it tunes; a buffer of a given size is not tuned.
    if (!std::exchange(is_fixed, true) &&
        ::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &kFixedBuffer, sizeof kFixedBuffer) != 0) {
      windows_can_be_bound_ = false;
      return;
    }
    ::setsockopt(socket, IPPROTO_TCP, TCP_WINDOW_CLAMP, &window, sizeof window);
  }
}

curl_socket_t NetThread::on_open_socket(void* net, curlsocktype, curl_sockaddr* address) {
  const int socket = ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (socket < 0) return CURL_SOCKET_BAD;
  if (address->socktype == SOCK_STREAM) static_cast<NetThread*>(net)->sockets_.emplace(socket, false);
  return socket;
}

int NetThread::on_close_socket(void* net, curl_socket_t socket) {
  static_cast<NetThread*>(net)->sockets_.erase(socket);
  return ::close(socket);
}

// A small request now and then, so that the next read does not pay for a new connection.
void NetThread::keep_warm(TimePoint now) {
  if (!options_.keep_warm || !origin_ || last_request_ == TimePoint{} || now - last_request_ > kWarmFor) return;
  if (!active_.empty()) next_warming_ = now + kWarmingEvery;
  if (now < next_warming_) return;
  next_warming_ = now + kWarmingEvery;
  auto t = std::make_unique<Transfer>();
  t->document.emplace();
  t->document->url = options_.origin;
  t->document->head_only = true;
  t->document->patience = kWarmingPatience;
  t->document->done = [](Result<Document>) {};
  t->last_progress = now;
  enqueue(std::move(t));
}

// Until the next measurement or attempt is due, or patience may have run out.
int NetThread::poll_timeout() const {
  const TimePoint now = clock_.now();
  const bool idle = active_.empty() && nothing_waits();
  Duration wait = idle ? Duration(seconds(60)) : kMeasureEvery;
  if (idle && options_.keep_warm && last_request_ != TimePoint{} && now - last_request_ < kWarmFor)
    wait = std::max<Duration>(next_warming_ - now, milliseconds(1));
  for (const auto& t : delayed_) wait = std::min(wait, std::max(Duration{0}, t->not_before - now));
  for (const auto& t : active_) {
    const bool paused = std::any_of(t->attempts.begin(), t->attempts.end(), [](auto& a) { return a->paused; });
    if (paused) wait = std::min<Duration>(wait, milliseconds(10));
    if (t->drains_until != TimePoint{}) wait = std::min(wait, std::max(Duration{0}, t->drains_until - now));
  }
  return milliseconds_of(wait);
}

}  // namespace wormhole
