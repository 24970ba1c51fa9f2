// One web server that holds the tree: the origin, or a mirror of it. What is measured of it, and what follows from that
// for the next request: how many connections, which transport, whether it is asked at all.
//
// Thread: net.
#pragma once

#include <algorithm>
#include <array>
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

// Which of the server's connections a range request counts against: those for a reader's own blocks, for a stream's
// parts, for what is fetched on an idle wire, for small files ahead of a reader.
enum class RequestKind : uint8_t { kSmall, kLarge, kIdle, kAhead };

// What a server is believed.
enum class ServerRole : uint8_t {
  kOrigin,         // everything
  kMirror,         // bytes of the version that the origin has; names while the origin is away
  kContentMirror,  // bytes that whoever asks checks himself (FetchRequest::by_content): a manifest names it
};

struct Server {
  // `most`: bound on the connections; `fixed`: use just as many.
  Server(Url at, ServerRole is, HttpVersion http, const HostProfile& known, int most, bool fixed);

  bool is_origin() const { return role == ServerRole::kOrigin; }

  // Where a file of the origin is on this server.
  std::string url_of(const std::string& origin_url, const Url& origin) const;
  // And the other way; what is not of this server is left as it is.
  std::string origin_url_of(const std::string& url, const std::optional<Url>& origin) const;
  int allowed() const { return fixed_connections > 0 ? fixed_connections : controller.allowed(); }
  // Connections of large requests that count against allowed(). A request that is about to end does not: the next one
  // can be on its way meanwhile, or the wire would carry nothing for a round trip between the two. Half as many more at
  // most.
  int busy() const { return active - idle_active - small_active - ahead_active - std::min(ending, allowed() / 2); }
  // What the wire holds, as far as is known, in bytes; 0: nothing is known. While the rate still rises steeply the
  // meter is behind; otherwise a tenth of a second is too short a time to believe.
  uint64_t pipe() const {
    return static_cast<uint64_t>(static_cast<double>(rate()) *
                                 std::chrono::duration<double>(meter.round_trip()).count());
  }
  // Likewise, bytes per second; 0 until the meter knows one.
  uint64_t rate() const {
    const uint64_t recent = *std::max_element(recent_rates.begin(), recent_rates.end());
    const bool rises = meter.rate() > 0 && recent > meter.rate() + meter.rate() / 5;
    return rises ? recent : meter.rate();
  }
  // A request of `bytes` begins (+1) or ends (-1).
  void count(RequestKind kind, int step, uint64_t bytes);
  int idle_busy() const { return idle_active - std::min(idle_ending, allowed() / 2); }
  HostProfile profile() const { return {meter.rate(), meter.round_trip(), allowed(), protocol.chosen()}; }
  // How long `bytes` more would take here, seconds; for the choice between servers.
  // What was not measured of it is taken from `like`.
  double expected_seconds(uint64_t bytes, const Server& like) const;

  const Url base;
  const ServerRole role;
  const int fixed_connections;  // 0: the controller decides
  ConnectionController controller;
  LinkMeter meter;
  ProtocolChoice protocol;
  Breaker breaker;
  int active = 0;                          // range requests under way
  int small_active = 0;                    // of them: those that wait for latency, not for the wire
  int ahead_active = 0;                    // of them: likewise, and nobody waits yet
  int idle_active = 0;                     // of them: those of the idle lane
  uint64_t idle_outstanding = 0;           // and their bytes
  int ending = 0;                          // of the large ones: those whose last bytes are on the wire already
  int idle_ending = 0;                     // of the idle lane's likewise
  uint64_t outstanding = 0;                // bytes that they are still to bring
  uint64_t received = 0;                   // since the last measurement
  uint64_t received_in_all = 0;            // bytes of bodies
  std::array<uint64_t, 4> recent_rates{};  // of the last measurements, bytes per second
  size_t measurements = 0;
  bool used = false;            // has answered at least once
  bool named = true;            // false: no manifest names it any more, and it gets no more requests
  std::set<std::string> lacks;  // URLs of the origin that it has in another version, or not at all
  std::set<std::string> wrong;  // URLs of the origin of which it has sent bytes that were wrong
};

// One of the servers as it is now.
struct ServerState {
  std::string url;  // for display
  ServerRole role = ServerRole::kOrigin;
  bool rests = false;       // it has failed, and is left alone for a while
  uint64_t received = 0;    // bytes of bodies
  size_t files_lacked = 0;  // that it has not, or in another version
  size_t files_wrong = 0;   // of which it has sent bytes that were wrong
};

// What is to be asked for.
struct Wish {
  const std::string& url;   // of the origin
  uint64_t bytes = 0;       // 0: not known
  bool by_content = false;  // as in FetchRequest
};

// The one that would bring it soonest, among those that may be asked; nullptr when none may. `avoid`, and who has sent
// wrong bytes of it, is taken only if there is no other. A mirror without measurements counts as fast as the origin: so
// it gets work, and is measured.
Server* choose_server(const std::vector<std::unique_ptr<Server>>& servers, const Wish& wish, const Server* avoid,
                      TimePoint now);

}  // namespace wormhole
