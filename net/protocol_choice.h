// HTTP over TCP, or HTTP/3 over QUIC: found by trying both, connection against connection, on real requests.
//
// A server offers HTTP/3 in its Alt-Svc header. From then on one request in eight goes that way, until enough bytes
// have come over it to compare, or until it is clear while they still run; then the way with the higher goodput for
// each connection takes all of them. The other one is tried again every half minute, and at once when the chosen one
// has become much slower than it was. Where QUIC does not come through (UDP is blocked often) it is left alone for an
// hour.
//
// The margin in favour of the way in use, and the length of the pause, follow the rule that a decision must not flutter
// (as in RFC 8305, happy eyeballs, for addresses).
//
// Thread: any one; values in, values out.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace wormhole {

enum class HttpVersion : uint8_t { kAuto, k1_1, k2, k3 };

// How a request travels.
enum class Transport : uint8_t { kTcp, kQuic };

class ProtocolChoice {
 public:
  // `known`: what an earlier run found best. kAuto over plain http is always TCP.
  ProtocolChoice(HttpVersion asked, bool tls, Transport known) : asked_(asked), tls_(tls), chosen_(known) {
    if (known == Transport::kQuic) offered_ = true;
  }

  // For the next request; the other way than the chosen one only if it `may_try`: nobody waits for it yet.
  Transport next(TimePoint now, bool may_try = true);

  // The server's Alt-Svc names HTTP/3 on the same host and port.
  void offered() { offered_ = true; }
  // A request's body of `bytes` has come within `time` of its first byte.
  void arrived(Transport transport, uint64_t bytes, Duration time, TimePoint now);
  // Of requests that still run, how fast they have come so far: `rate` of one connection, bytes per second. True when
  // that settles it: the other way is several times faster, and takes what is left of them as well.
  bool runs(Transport transport, double rate, double other_rate, TimePoint now);
  // No connection came about, or it fell silent.
  void failed(Transport transport, TimePoint now);

  Transport chosen() const { return chosen_; }
  bool quic_is_blocked(TimePoint now) const { return now < blocked_until_; }

 private:
  struct Way {
    double rate = 0;     // bytes per second of one connection, weighted towards the last
    uint64_t bytes = 0;  // on which it rests, since the last decision
    int samples = 0;
  };
  Way& way(Transport t) { return ways_[t == Transport::kQuic ? 1 : 0]; }
  static Transport other(Transport t) { return t == Transport::kQuic ? Transport::kTcp : Transport::kQuic; }
  bool may_use_quic(TimePoint now) const;
  bool on_trial(TimePoint now) const;
  void decide(TimePoint now);

  const HttpVersion asked_;
  const bool tls_;
  Transport chosen_;
  bool offered_ = false;
  Way ways_[2];
  double rate_when_chosen_ = 0;
  TimePoint decided_{};
  TimePoint blocked_until_{};
  Duration block_{};
  uint64_t requests_ = 0;
};

// Whether the value of an Alt-Svc header offers HTTP/3 on this port of the same host (RFC 7838).
bool offers_http3(std::string_view alt_svc, const std::string& port);

}  // namespace wormhole
