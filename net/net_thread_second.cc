// The net thread: another request beside the one that is under way.
#include "net/net_thread.h"

#include <algorithm>

#include "base/log.h"

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Sharing pays when the rest is worth a request of its own and would take this many round trips more.
constexpr uint64_t kSmallestShare = 64 * 1024;
constexpr int kRoundTripsWorthSharing = 4;
constexpr Duration kWorthSharing = milliseconds(200);
// Less says nothing of how fast a response comes: its first 64 KiB took a millisecond too long, and the other 8 MiB
// seemed to need 200.
constexpr Duration kEnoughSeen = kWorthSharing / 4;

// A response that pauses for longer has lost a packet at its end, or more: another connection does not wait for the
// retransmission timeout.
constexpr int kSilentTrips = 3;
constexpr Duration kSilence = milliseconds(100);

}  // namespace

// What is waited for inside of a fetch that does not bring it soon gets a request of its own.
bool NetThread::start_wanted(TimePoint now) {
  bool started_any = false;
  for (auto& t : active_) {
    if (!t->body) continue;
    for (const ByteRange& w : t->wanted) {
      const ByteRange range = t->range_for(w, connections_.are_young());
      Server* server = range.empty() || will_bring_soon(*t, range.begin, now) ? nullptr : server_for(*t, true);
      if (server == nullptr) continue;
      log::debug("wanted before its turn: url={} range={}-{}", t->url(), range.begin, range.end);
      start_attempt(*t, *server, range).second = true;
      started_any = true;
    }
  }
  // Those that wait in a lane behind: these bytes alone are asked for, and the rest waits on.
  for (Lane behind : {Lane::kSpeculative, Lane::kIdle}) {
    auto& queue = lane(behind);
    for (size_t i = 0; i < queue.size();) {
      Server* server = queue[i]->wanted.empty() ? nullptr : server_for(*queue[i], true);
      if (server == nullptr) {
        ++i;
        continue;
      }
      active_.push_back(std::move(queue[i]));
      queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
      start_attempt(*active_.back(), *server, active_.back()->next_range(connections_.are_young()));
      started_any = true;
    }
  }
  return started_any;
}

// Whether an attempt under way brings the byte at `offset` within a round trip.
bool NetThread::will_bring_soon(const Transfer& t, uint64_t offset, TimePoint now) {
  return std::any_of(t.attempts.begin(), t.attempts.end(), [&](auto& a) {
    if (a->position > offset || a->limit <= offset) return false;
    // One that began near here was made for it.
    if (offset - a->range.begin <= kFirstFlight) return true;
    if (a->first_byte == TimePoint{}) return false;
    const Duration so_far = now - a->first_byte;
    const double come = static_cast<double>(a->position - a->range.begin);
    const double to_go = static_cast<double>(offset - a->position);
    return std::chrono::duration<double>(so_far) * to_go <=
           std::chrono::duration<double>(a->server->meter.round_trip()) * come;
  });
}

// Where nobody waits for a connection, what somebody waits for may have another one.
void NetThread::help_slow(TimePoint now) {
  if (!lane(Lane::kDemand).empty()) return;
  for (auto& t : active_) {
    if (!t->body || !t->is_demand() || t->attempts.size() != 1 || t->complete()) continue;
    // On a busy machine what is late has often come: asked for again, all of it would come twice.
    if (connections_.has_unread(t->attempts.front()->easy)) continue;
    if (options_.hedge && hedge(*t, now)) continue;
    share(*t, now);
  }
}

// Where measuring decides on the number of connections, help may exceed it by as many as speculation leaves free: it is
// for few.
bool NetThread::may_help(const Server& server) {
  if (server.fixed_connections > 0) return server.active < server.fixed_connections;
  return server.busy() < server.allowed() + kKeptForDemand;
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
  const ByteRange rest = t.next_range(connections_.are_young());
  Server* server = choose(t, rest.size(), first.server);
  if (server == nullptr || (!server->is_origin() && !mirrors_may_serve(t))) return false;
  // On a full wire everything is late at times, and asking twice makes it later.
  if (!silent && server == first.server && !nothing_waits()) return false;
  if (!may_help(*server) || !hedging_.spend(rest.size())) return false;
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
  if (so_far < kEnoughSeen) return false;
  // While others wait for a connection, only what is left behind: slower than half of its share of the wire.
  const double fair = static_cast<double>(first.server->meter.rate()) / std::max(1, first.server->active);
  if (!nothing_waits() && static_cast<double>(come) > fair / 2 * std::chrono::duration<double>(so_far).count())
    return false;
  const Duration to_go =
      std::chrono::duration_cast<Duration>(so_far * (static_cast<double>(rest) / static_cast<double>(come)));
  if (to_go < std::max<Duration>(first.server->meter.round_trip() * kRoundTripsWorthSharing, kWorthSharing))
    return false;
  Server* server = choose(t, rest / 2, nullptr);
  if (server == nullptr) return false;
  if (!may_help(*server)) return false;
  if (!server->is_origin() && !mirrors_may_serve(t)) return false;
  const uint64_t middle = first.position + rest / 2;
  const ByteRange rear{middle, first.limit};
  first.limit = middle;
  log::debug("shared with another connection: url={} range={}-{} after_ms={}", t.url(), rear.begin, rear.end,
             milliseconds_of(now - first.started));
  start_attempt(t, *server, rear).second = true;
  return true;
}

}  // namespace wormhole
