#include "net/server.h"

#include <algorithm>

namespace wormhole {
namespace {

// What is assumed of a server about which nothing is known: an ordinary line.
constexpr double kAssumedRate = 10e6;  // bytes per second
constexpr Duration kAssumedRoundTrip = std::chrono::milliseconds(50);

// Where the search for the number of connections begins: 16 fill 1 Gbit/s at 50 ms where one reaches half of it.
constexpr int kFirstConnections = 16;

// A tree's URL may be given with '/' at its end or without.
std::string_view without_slash(const Url& url) {
  std::string_view text = url.str();
  if (text.ends_with('/')) text.remove_suffix(1);
  return text;
}

// What is below `from`, below `to`.
std::string moved(const std::string& url, const Url& from, const Url& to) {
  const std::string_view prefix = without_slash(from);
  if (!url.starts_with(prefix)) return url;
  return std::string(without_slash(to)) + url.substr(prefix.size());
}

}  // namespace

Server::Server(Url at, ServerRole is, HttpVersion http, const HostProfile& known, int most, bool fixed)
    : base(std::move(at)),
      role(is),
      fixed_connections(fixed ? most : 0),
      controller(known.connections > 0 ? known.connections : kFirstConnections, most),
      meter(known.rate, known.round_trip),
      protocol(http, base.scheme() == "https", known.transport) {}

void Server::count(RequestKind kind, int step, uint64_t bytes) {
  const uint64_t change = step > 0 ? bytes : 0 - bytes;
  active += step;
  outstanding += change;
  if (kind == RequestKind::kSmall) small_active += step;
  if (kind == RequestKind::kAhead) ahead_active += step;
  if (kind != RequestKind::kIdle) return;
  idle_active += step;
  idle_outstanding += change;
}

std::string Server::url_of(const std::string& origin_url, const Url& origin_base) const {
  return is_origin() ? origin_url : moved(origin_url, origin_base, base);
}

std::string Server::origin_url_of(const std::string& url, const std::optional<Url>& origin_base) const {
  return is_origin() || !origin_base ? url : moved(url, base, *origin_base);
}

double Server::expected_seconds(uint64_t bytes, const Server& like) const {
  double rate = static_cast<double>(meter.rate() > 0 ? meter.rate() : like.meter.rate());
  if (rate == 0) rate = kAssumedRate;
  Duration trip = meter.round_trip() > Duration{} ? meter.round_trip() : like.meter.round_trip();
  if (trip == Duration{}) trip = kAssumedRoundTrip;
  return std::chrono::duration<double>(trip).count() + static_cast<double>(outstanding + bytes) / rate;
}

Server* choose_server(const std::vector<std::unique_ptr<Server>>& servers, const Wish& wish, const Server* avoid,
                      TimePoint now) {
  Server* best = nullptr;
  double best_seconds = 0;
  for (const auto& s : servers) {
    if (s->role == ServerRole::kContentMirror && (!wish.by_content || !s->named)) continue;
    if (s->lacks.contains(wish.url) || !s->breaker.allows(now)) continue;
    double seconds = s->expected_seconds(wish.bytes, *servers.front());
    if (s.get() == avoid) seconds += 1e6;
    if (s->wrong.contains(wish.url)) seconds += 1e6;
    if (best == nullptr || seconds < best_seconds) {
      best = s.get();
      best_seconds = seconds;
    }
  }
  return best;
}

}  // namespace wormhole
