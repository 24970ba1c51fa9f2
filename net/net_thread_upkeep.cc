// The net thread: what is done several times a second, whatever is asked for.
#include "net/net_thread.h"

#include <algorithm>

#include "base/log.h"
#include "net/range_planner.h"
#include "net/receive_window.h"

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kWarmingPatience = seconds(10);

// From its first byte on a request has run so long that its rate says something.
constexpr Duration kWorthComparing = milliseconds(400);

// A reader of small pieces beside streams finds this many connections free. Not more often than once a second: a server
// may refuse them.
constexpr size_t kSpares = 2;
constexpr Duration kSparesFor = seconds(10);
constexpr Duration kSparesEvery = seconds(1);

}  // namespace

void NetThread::measure(TimePoint now) {
  if (last_measured_ != TimePoint{} && now - last_measured_ < kMeasureEvery) return;
  const Duration since = last_measured_ == TimePoint{} ? kMeasureEvery : now - std::exchange(last_measured_, now);
  last_measured_ = now;
  keep_warm(now);
  uint64_t rate = 0;
  int connections = 0;
  Duration round_trip{};
  for (auto& s : servers_) {
    const uint64_t bytes = std::exchange(s->received, 0);
    s->recent_rates[s->measurements++ % s->recent_rates.size()] =
        static_cast<uint64_t>(static_cast<double>(bytes) / std::chrono::duration<double>(since).count());
    const bool more_waits = !nothing_waits();
    const bool saturated = more_waits && s->busy() >= std::max(1, s->allowed() - kKeptForDemand);
    s->meter.observe(
        bytes,
        s->active == 0 ? LinkMeter::Load::kIdle : (saturated ? LinkMeter::Load::kSaturated : LinkMeter::Load::kSome),
        now);
    s->controller.observe(bytes, saturated, now);
    rate += s->meter.rate();
    if (s->named) connections += s->allowed();
    if (s->meter.round_trip() > round_trip) round_trip = s->meter.round_trip();
  }
  readers_ = std::max(waiting_readers(), readers_ * 9 / 10);
  bound_receive_windows();
  compare_transports(now);
  link_rate_.store(rate, std::memory_order_relaxed);
  link_connections_.store(connections, std::memory_order_relaxed);
  link_round_trip_us_.store(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(round_trip).count()),
      std::memory_order_relaxed);
  link_part_.store(part_size_of(rate / static_cast<uint64_t>(std::max(1, connections))), std::memory_order_relaxed);
}

// What all servers together hold is dealt out to the connections that receive now.
void NetThread::bound_receive_windows() {
  uint64_t rate = 0, pipe = 0;
  for (auto& s : servers_) {
    rate += s->rate();
    pipe += s->pipe();
  }
  // Small requests wait for latency, and take no part of the pipe that would be worth counting. Those that wait for
  // their first byte will take theirs when others have ended: they count half (of guesses, the gain knows it).
  int receiving = 0, waiting = 0;
  bool idle = true;
  for (auto& t : active_) {
    for (auto& a : t->attempts) {
      if (!t->body || a->limit - a->position <= kSmallRequest) continue;
      ++(a->first_byte == TimePoint{} ? waiting : receiving);
      idle &= a->kind == RequestKind::kIdle;
    }
  }
  receiving += idle ? waiting : (waiting + 1) / 2;
  if (receiving == 0 || servers_.front()->meter.round_trip() < kLongTrip) return;
  connections_.bound_windows(receive_window(rate, pipe, receiving, idle, connections_.out_of_order()));
}

// QUIC or TCP where requests run over both: when one is far slower, what is left of it goes over the other.
void NetThread::compare_transports(TimePoint now) {
  for (auto& s : servers_) {
    struct {
      double rates = 0;
      int attempts = 0;
      double mean() const { return rates / attempts; }
    } tcp, quic;
    std::vector<Attempt*> over_quic;
    for (auto& t : active_) {
      for (auto& a : t->attempts) {
        if (a->server != s.get() || a->kind == RequestKind::kSmall || a->kind == RequestKind::kAhead ||
            a->first_byte == TimePoint{})
          continue;
        if (a->transport == Transport::kQuic) over_quic.push_back(a.get());
        const double seconds = std::chrono::duration<double>(now - a->first_byte).count();
        if (now - a->first_byte < kWorthComparing) continue;
        auto& way = a->transport == Transport::kQuic ? quic : tcp;
        way.rates += static_cast<double>(a->position - a->range.begin) / seconds;
        ++way.attempts;
      }
    }
    if (tcp.attempts == 0 || quic.attempts == 0) continue;
    s->protocol.runs(Transport::kTcp, tcp.mean(), quic.mean(), now);
    if (!s->protocol.runs(Transport::kQuic, quic.mean(), tcp.mean(), now)) continue;
    log::info("HTTP/3 is far slower than TCP here: url={} quic_bytes_per_second={:.0f} tcp_bytes_per_second={:.0f}",
              s->base.str(), quic.mean(), tcp.mean());
    // They end with the next bytes that come.
    for (Attempt* a : over_quic) a->limit = std::min(a->limit, a->position);
  }
}

// Connections that are open when they are needed. A small request now and then, so that the next read does not pay for
// a new one; at the begin as many as may be used; and where small reads come, some more than are in use.
void NetThread::keep_warm(TimePoint now) {
  Server& s = *servers_.front();
  if (!options_.keep_warm || !origin_ || !s.used || now - last_request_ > kWarmFor) return;
  if (!has_spares_) {
    has_spares_ = true;
    next_warming_ = now + kWarmingEvery;
    next_spares_ = now + kSparesEvery;
    // Those that are open already are asked as well. A fixed number is what it is; otherwise small requests may exceed
    // it.
    return warm(s.fixed_connections > 0 ? s.fixed_connections : s.allowed() + s.allowed() / 2);
  }
  if (!active_.empty()) next_warming_ = now + kWarmingEvery;
  if (now >= next_warming_) {
    next_warming_ = now + kWarmingEvery;
    warm(1);
  }
  if (now < next_spares_) return;
  if (last_small_ == TimePoint{} || now - last_small_ > kSparesFor || s.fixed_connections > 0) return;
  if (connections_.open() == 0 || idle_connections() >= kSpares) return;
  next_spares_ = now + kSparesEvery;
  // The idle ones are asked as well.
  warm(static_cast<int>(kSpares));
}

// Those who wait for small pieces now.
size_t NetThread::waiting_readers() const {
  return static_cast<size_t>(std::count_if(active_.begin(), active_.end(), [](auto& t) {
    return t->body && ((t->is_small() && t->is_demand()) || !t->wanted.empty());
  }));
}

size_t NetThread::idle_connections() const {
  size_t requests = 0;
  for (auto& t : active_) requests += t->attempts.size();
  return connections_.open() - std::min(connections_.open(), requests);
}

void NetThread::warm(int connections) {
  for (int i = 0; i < connections; ++i) {
    auto t = std::make_unique<Transfer>();
    t->warming = true;
    t->document.emplace();
    t->document->url = options_.origin;
    t->document->head_only = true;
    t->document->patience = kWarmingPatience;
    t->document->done = [](Result<Document>) {};
    t->last_progress = clock_.now();
    active_.push_back(std::move(t));
    start_attempt(*active_.back(), *servers_.front(), {});
  }
}

}  // namespace wormhole
