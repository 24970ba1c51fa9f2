// One web server that holds the tree: the origin, or a mirror of it. What is measured of it, and what follows from that
// for the next request: how many connections, which transport, whether it is asked at all.
//
// Thread: net.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/breaker.h"
#include "net/connection_controller.h"
#include "net/host_profile.h"
#include "net/link_meter.h"
#include "net/protocol_choice.h"
#include "net/url.h"

namespace wormhole {

struct Server {
  // `most`: bound on the connections; `fixed`: use just as many.
  Server(Url at, bool is_origin, HttpVersion http, const HostProfile& known, int most, bool fixed);

  // Where a file of the origin is on this server.
  std::string url_of(const std::string& origin_url, const Url& origin) const;
  // And the other way; what is not of this server is left as it is.
  std::string origin_url_of(const std::string& url, const std::optional<Url>& origin) const;
  int allowed() const { return fixed_connections > 0 ? fixed_connections : controller.allowed(); }
  // Connections that count against allowed(). A request that is about to end does not: the next one can be on its way
  // meanwhile, or the wire would carry nothing for a round trip between the two. Half as many more at most.
  int busy() const { return fixed_connections > 0 ? active : active - std::min(ending, allowed() / 2); }
  HostProfile profile() const { return {meter.rate(), meter.round_trip(), allowed(), protocol.chosen()}; }
  // How long `bytes` more would take here, seconds; for the choice between servers.
  // What was not measured of it is taken from `like`.
  double expected_seconds(uint64_t bytes, const Server& like) const;

  const Url base;
  const bool origin;
  const int fixed_connections;  // 0: the controller decides
  ConnectionController controller;
  LinkMeter meter;
  ProtocolChoice protocol;
  Breaker breaker;
  int active = 0;               // range requests under way
  int idle_active = 0;          // of them: those of the idle lane
  int ending = 0;               // of them: those whose last bytes are on the wire already
  uint64_t outstanding = 0;     // bytes that they are still to bring
  uint64_t received = 0;        // since the last measurement
  bool used = false;            // has answered at least once
  std::set<std::string> lacks;  // URLs of the origin that this mirror has in another version, or not at all
};

// The one that would bring `bytes` soonest, among those that may be asked; nullptr when none may. `avoid` is taken only
// if there is no other. A mirror without measurements counts as fast as the origin: so it gets work, and is measured.
Server* choose_server(const std::vector<std::unique_ptr<Server>>& servers, const std::string& url, uint64_t bytes,
                      const Server* avoid, TimePoint now);

}  // namespace wormhole
