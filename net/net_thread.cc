#include "net/net_thread.h"

#include <algorithm>
#include <future>

#include "base/log.h"
#include "base/thread.h"

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The most connections that measuring may lead to: what one client may ask of a server without being taken for many.
constexpr int kMostConnections = 64;

// Small documents beside the range transfers: listings of several directories at once.
constexpr int kDocumentConnections = 8;

// A document, or a small file ahead of a reader, keeps a connection for a round trip and the wire for a ten thousandth
// of a second. So for each connection that a stream would have, so many of them are under way: at 50 ms 192 bring 3500
// in a second, which is what a reader of small files takes; with 128 he waited for a quarter of his time. The server's
// limit bounds both. Where connections= fixes the number it is kept to.
constexpr int kAheadForEach = 12;

// Gathering (see sleep()).
constexpr int kGatherShare = 50;
constexpr Duration kLongestGathering = milliseconds(1);

// A new connection costs a round trip or more, and begins slowly: at 10 MB/s and 30 ms that is this many bytes.
constexpr uint64_t kWorthDraining = 256 * 1024;
constexpr int kDrainingTrips = 3;
constexpr Duration kShortestDraining = milliseconds(50);

// Idle ones included. Beyond it every request takes what is open, and no more small files are asked for ahead. A server
// keeps at least 256 (Apache's processes; nginx has 512), and more than one client.
constexpr int kMostOpen = 3 * kMostConnections;

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
  const auto known = [this](const Url& base) {
    const auto it = options_.profiles.find(base.str());
    return it == options_.profiles.end() ? HostProfile{} : it->second;
  };
  if (auto url = Url::parse(options_.origin)) origin_ = std::move(*url);
  add_server(origin_.value_or(Url{}), ServerRole::kOrigin, known(origin_.value_or(Url{})));
  for (const std::string& mirror : options_.mirrors) {
    if (auto url = Url::parse(mirror)) add_server(*url, ServerRole::kMirror, known(*url));
  }
  if (auto s = credentials_.load(); !s) log::warn("credentials cannot be read: {}", s.error().message);
  // One stream for each connection, and idle connections are kept for all that may be active at once.
  ::curl_multi_setopt(loop_.multi(), CURLMOPT_MAX_CONCURRENT_STREAMS, 1L);
  ::curl_multi_setopt(loop_.multi(), CURLMOPT_MAXCONNECTS,
                      static_cast<long>(std::max(2 * options_.connections, kMostOpen) + kDocumentConnections));
  measure(clock_.now());
  thread_ = start_thread("wh-net", [this] { run(); });
}

void NetThread::add_server(const Url& base, ServerRole role, const HostProfile& known) {
  const bool fixed = options_.connections > 0;
  servers_.push_back(std::make_unique<Server>(base, role, options_.http, known,
                                              fixed ? options_.connections : kMostConnections, fixed));
}

NetThread::~NetThread() {
  mailbox_.post([this] { stopping_ = true; });
  thread_.join();
  for (CURL* easy : idle_handles_) ::curl_easy_cleanup(easy);
}

LinkEstimate NetThread::link() const {
  return {link_rate_.load(std::memory_order_relaxed),
          std::chrono::microseconds(link_round_trip_us_.load(std::memory_order_relaxed)),
          link_connections_.load(std::memory_order_relaxed), link_part_.load(std::memory_order_relaxed)};
}

std::map<std::string, HostProfile> NetThread::profiles() {
  std::promise<std::map<std::string, HostProfile>> profiles;
  const bool taken = post([&] {
    std::map<std::string, HostProfile> known;
    for (auto& s : servers_) {
      if (s->used) known[s->base.str()] = s->profile();
    }
    profiles.set_value(std::move(known));
  });
  return taken ? profiles.get_future().get() : std::map<std::string, HostProfile>{};
}

std::vector<ServerState> NetThread::servers() {
  std::promise<std::vector<ServerState>> states;
  const bool taken = post([&] {
    std::vector<ServerState> all;
    for (auto& s : servers_) {
      if (s->named)
        all.push_back({s->base.display(), s->role, !s->breaker.allows(clock_.now()), s->received_in_all,
                       s->lacks.size(), s->wrong.size()});
    }
    states.set_value(std::move(all));
  });
  return taken ? states.get_future().get() : std::vector<ServerState>{};
}

// --- commands ------------------------------------------------------------------------------------------------------

// One that is not named any more stays, for what is under way there.
void NetThread::use_content_mirrors(const std::vector<KnownMirror>& mirrors) {
  for (auto& s : servers_) s->named = s->role != ServerRole::kContentMirror;
  for (const KnownMirror& mirror : mirrors) {
    const auto it = std::find_if(servers_.begin(), servers_.end(),
                                 [&](auto& s) { return s->base.as_directory().str() == mirror.base.str(); });
    if (it != servers_.end()) {
      (*it)->named = true;
    } else {
      log::info("the manifest names a mirror: url={}", mirror.base.display());
      add_server(mirror.base, ServerRole::kContentMirror, mirror.profile);
    }
  }
}

void NetThread::add(TransferRef t) {
  const TimePoint now = clock_.now();
  t->last_progress = last_request_ = now;
  if (t->range) {
    t->validator = t->range->validator;
    for (auto& server : servers_) {
      if (t->range->avoid.empty() || server->base.display() != t->range->avoid) continue;
      t->avoid = server.get();
      server->wrong.insert(t->url());
    }
    if (!t->range->whole_body) t->body.emplace(t->range->range, t->range->buffer->data());
    if (t->is_small() && t->is_demand()) last_small_ = now;
    if (!t->range->wanted.empty()) t->wanted.push_back(t->range->wanted);
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

void NetThread::want(FetchId id, ByteRange bytes) {
  auto it = by_id_.find(id);
  if (it == by_id_.end() || !it->second->body) return;
  it->second->drains_until = {};
  it->second->wanted.push_back(bytes);
}

void NetThread::run() {
  while (!stopping_) {
    take_messages();
    const TimePoint now = clock_.now();
    wake_delayed(now);
    expire_active(now);
    end_cancelled(now);
    start_next(now);
    help_slow(now);
    resume_paused();
    loop_.perform();
    tell_progress();
    retire_finished();
    measure(clock_.now());
    // What has ended makes room for what waits, in the order that is wanted by now.
    take_messages();
    if (!stopping_ && !start_next(clock_.now())) sleep();
  }
  mailbox_.close();
  take_messages();
  end_all();
}

void NetThread::take_messages() {
  mailbox_.drain(messages_);
  for (Task& task : messages_) task();
  messages_.clear();
}

// Until something happens. On a long wire packets come one by one; letting them gather for a fiftieth of the round trip
// delays nobody noticeably and saves most of the wake-ups.
void NetThread::sleep() {
  const bool ready = loop_.wait(poll_timeout());
  const Duration trip = servers_.front()->meter.round_trip();
  if (!ready || trip < kLongTrip || !mailbox_.empty()) return;
  std::this_thread::sleep_for(std::min<Duration>(trip / kGatherShare, kLongestGathering));
}

// Until the next measurement or attempt is due, or patience may have run out.
int NetThread::poll_timeout() const {
  const TimePoint now = clock_.now();
  const bool idle = active_.empty() && nothing_waits();
  Duration wait = idle ? Duration(seconds(60)) : kMeasureEvery;
  if (idle && options_.keep_warm && servers_.front()->used && now - last_request_ < kWarmFor)
    wait = std::max<Duration>(next_warming_ - now, milliseconds(1));
  for (const auto& t : delayed_) wait = std::min(wait, std::max(Duration{0}, t->not_before - now));
  for (const auto& t : active_) {
    const bool paused = std::any_of(t->attempts.begin(), t->attempts.end(), [](auto& a) { return a->paused; });
    if (paused) wait = std::min<Duration>(wait, milliseconds(10));
    if (t->drains_until != TimePoint{}) wait = std::min(wait, std::max(Duration{0}, t->drains_until - now));
  }
  return milliseconds_of(wait);
}

// --- waiting -> active ---------------------------------------------------------------------------------------------

void NetThread::enqueue(TransferRef t) {
  t->queued = clock_.now();
  lane(t->lane()).push_back(std::move(t));
}

// How long it has waited for its turn while the wire brought what others want. That is a slow wire, not a silent one,
// and is not held against its patience.
Duration NetThread::others_turn(const Transfer& t) const { return std::max(Duration{0}, last_arrival_ - t.queued); }

bool NetThread::nothing_waits() const {
  return std::all_of(waiting_.begin(), waiting_.end(), [](auto& queue) { return queue.empty(); });
}

// What a file's version is, and what is in the tree, is the origin's to say while it answers.
bool NetThread::mirrors_may_serve(const Transfer& t) const {
  const Server& origin = *servers_.front();
  return (t.range && (t.range->by_content || !t.validator.empty())) || t.avoid == &origin ||
         !origin.breaker.allows(clock_.now());
}

Server* NetThread::choose(const Transfer& t, uint64_t bytes, const Server* avoid) const {
  return choose_server(servers_, {t.url(), bytes, t.range && t.range->by_content}, avoid, clock_.now());
}

// Where it may start now; nullptr when it has to wait. Readers who wait for a round trip each leave the wire idle,
// however many connections they hold: so large requests do not wait for small ones, and small ones hardly for large
// ones; and what is fetched on an idle wire has connections of its own.
Server* NetThread::server_for(const Transfer& t, bool small) const {
  Server* s = servers_.front().get();
  if (servers_.size() > 1 && !t.is_whole_body() && mirrors_may_serve(t)) {
    const uint64_t bytes = t.range ? t.range->range.size() - t.arrived() : 0;
    // When all rest, the origin is asked: its answer is the one that is told.
    if (Server* best = choose(t, bytes, t.avoid)) s = best;
  }
  const int most_ahead = s->fixed_connections > 0 ? 0 : std::min(kAheadForEach * s->allowed(), kMostOpen);
  if (t.document) {
    const bool may = active_documents_ < kDocumentConnections || active_documents_ + s->ahead_active < most_ahead;
    return may ? s : nullptr;
  }
  const int kept = t.is_demand() || !t.wanted.empty() ? 0 : kKeptForDemand;
  const int large = std::max(1, s->allowed() - kept);
  if (s->fixed_connections > 0) return s->active < large ? s : nullptr;
  if (small && t.lane() == Lane::kSpeculative)
    return active_documents_ + s->ahead_active < most_ahead - kept ? s : nullptr;
  if (small) return s->small_active < 2 * s->allowed() - kept ? s : nullptr;
  if (t.lane() == Lane::kIdle) {
    // Between blocks that are there already lie small gaps: it takes more of them to fill the wire.
    const bool fills = s->idle_outstanding >= s->pipe() * 4 || s->idle_active >= 2 * large;
    return s->idle_busy() < large || !fills ? s : nullptr;
  }
  return s->busy() < large ? s : nullptr;
}

void NetThread::count_ending() {
  for (auto& s : servers_) {
    s->ending = s->idle_ending = 0;
    if (s->active == 0) continue;
    // What a connection brings within a round trip.
    const uint64_t share = s->pipe() / static_cast<uint64_t>(s->active);
    for (auto& t : active_) {
      for (auto& a : t->attempts) {
        if (a->server != s.get() || !t->body || a->position == a->range.begin || a->limit - a->position > share)
          continue;
        s->ending += a->kind == RequestKind::kLarge;
        s->idle_ending += a->kind == RequestKind::kIdle;
      }
    }
  }
}

// All that may start now; true when something was.
bool NetThread::start_next(TimePoint now) {
  const bool wanted = start_wanted(now);
  return start_waiting() || wanted;
}

bool NetThread::start_waiting() {
  if (nothing_waits()) return false;
  count_ending();
  bool started_any = false;
  // Documents, small ranges and large ones have connections of their own: one kind that must
  // wait does not hold up the others. What must wait holds up all of its kind behind it, also in the lanes behind.
  bool documents_wait = false, small_wait = false, large_wait = false, ahead_wait = false;
  for (auto& queue : waiting_) {
    for (auto it = queue.begin(); it != queue.end();) {
      const Transfer& next = **it;
      const bool small = next.lane() != Lane::kIdle && next.is_small();
      const bool ahead = small && next.lane() == Lane::kSpeculative;
      bool& must_wait = next.document ? documents_wait : ahead ? ahead_wait : small ? small_wait : large_wait;
      Server* server = must_wait ? nullptr : server_for(next, small);
      if (server == nullptr) {
        must_wait = true;
        ++it;
        continue;
      }
      TransferRef t = std::move(*it);
      it = queue.erase(it);
      Transfer& started = *t;
      started.last_progress += others_turn(started);
      active_.push_back(std::move(t));
      start_attempt(started, *server, started.next_range(connections_.are_young()));
      started_any = true;
    }
  }
  return started_any;
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
  a.transport = server.protocol.next(now, t.lane() == Lane::kSpeculative);
  if (t.range) {
    a.kind = t.is_whole_body() || range.size() > kSmallRequest ? RequestKind::kLarge : RequestKind::kSmall;
    if (t.lane() == Lane::kIdle && t.wanted.empty()) a.kind = RequestKind::kIdle;
    if (a.kind == RequestKind::kSmall && t.lane() == Lane::kSpeculative) a.kind = RequestKind::kAhead;
    server.count(a.kind, 1, range.size());
  } else {
    active_documents_ += !t.warming;
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
  connections_.watch(a.easy);
  const bool waited_for = (t.is_demand() || !t.wanted.empty()) && !t.warming;
  if (waited_for) readers_ = std::max(readers_, waiting_readers());
  if (!waited_for && opens_a_connection(t, server)) ::curl_easy_setopt(a.easy, CURLOPT_FRESH_CONNECT, 1L);
  a.net = this;
  metrics_.requests_sent.fetch_add(1, std::memory_order_relaxed);
  t.attempts.push_back(std::move(attempt));
  ::curl_multi_add_handle(loop_.multi(), a.easy);
  return a;
}

// What nobody waits for leaves the open connections to those who will read on, and pays for new ones itself. A reader
// comes again before the rest of his block is there: half as many again.
bool NetThread::opens_a_connection(const Transfer& t, const Server& server) const {
  if (connections_.open() == 0 || connections_.open() >= static_cast<size_t>(kMostOpen)) return false;
  if (t.warming) return idle_connections() == 0;
  return server.fixed_connections == 0 && idle_connections() <= readers_ + readers_ / 2;
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
  a.last_byte = last_arrival_ = now;
  const bool first_of_file = a.transfer->range && !a.transfer->head_told && a.transfer->range->validator.empty();
  const size_t taken = taker_.take(a, bytes);
  if (first_of_file && a.transfer->head_told) share_version(*a.transfer);
  if (taken == CURL_WRITEFUNC_PAUSE) return taken;
  rate_limit_.take(bytes.size());
  a.server->received += bytes.size();
  a.server->received_in_all += bytes.size();
  metrics_.body_bytes_received.fetch_add(bytes.size(), std::memory_order_relaxed);
  return taken;
}

// Requests that were made before anything was known of the file, and wait for a connection, ask for the version that is
// known now.
void NetThread::share_version(const Transfer& t) {
  for (auto& queue : waiting_) {
    for (auto& other : queue) {
      if (other->range && other->validator.empty() && other->range->object == t.range->object &&
          other->url() == t.url())
        other->validator = t.validator;
    }
  }
}

void NetThread::tell_progress() {
  for (auto& t : active_) {
    const uint64_t arrived = t->arrived();
    tell_wanted(*t);
    if (arrived == t->told) continue;
    t->told = arrived;
    t->last_progress = clock_.now();
    if (t->document) continue;  // it begins anew when it breaks, and has few attempts
    if (arrived > t->furthest) {
      t->furthest = arrived;
      t->failures = 0;
    }
    if (!t->is_whole_body()) t->range->sink->fetch_progress(t->range->id, arrived);
  }
}

// Of what is waited for and has come behind a gap. What has come in front is told of as progress.
void NetThread::tell_wanted(Transfer& t) {
  std::erase_if(t.wanted, [&](const ByteRange& w) {
    if (!t.body->has(w)) return false;
    if (w.end > t.range->range.begin + t.arrived()) t.range->sink->fetch_behind(t.range->id, w);
    t.last_progress = clock_.now();
    return true;
  });
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

}  // namespace wormhole
