// What one run learns about a server and the next begins with: how fast it is, how far away, how many connections paid,
// and whether QUIC did. Kept as a line of text "name=value ..." in the cache's index; unknown names are skipped, so
// that an older program reads a newer profile.
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "net/protocol_choice.h"

namespace wormhole {

struct HostProfile {
  uint64_t rate = 0;      // bytes per second over all connections; 0: not known
  Duration round_trip{};  // from a request to its first byte; zero: not known
  int connections = 0;    // that were worth having; 0: not known
  Transport transport = Transport::kTcp;

  bool operator==(const HostProfile&) const = default;
};

std::string encode(const HostProfile& profile);
// Nothing when a value is malformed.
std::optional<HostProfile> decode_host_profile(std::string_view text);

}  // namespace wormhole
