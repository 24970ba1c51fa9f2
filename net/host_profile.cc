#include "net/host_profile.h"

#include <fmt/format.h>

#include <charconv>

namespace wormhole {
namespace {

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string encode(const HostProfile& p) {
  return fmt::format("rate={} round_trip_us={} connections={} transport={}", p.rate,
                     std::chrono::duration_cast<std::chrono::microseconds>(p.round_trip).count(), p.connections,
                     p.transport == Transport::kQuic ? "quic" : "tcp");
}

std::optional<HostProfile> decode_host_profile(std::string_view text) {
  HostProfile p;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view pair = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = pair.substr(0, equals);
    const std::string_view value = pair.substr(equals + 1);
    if (name == "transport") {
      if (value != "tcp" && value != "quic") return std::nullopt;
      p.transport = value == "quic" ? Transport::kQuic : Transport::kTcp;
      continue;
    }
    if (name != "rate" && name != "round_trip_us" && name != "connections") continue;
    const auto n = number(value);
    if (!n) return std::nullopt;
    // No path is longer than a minute, no server wants more than 256 connections of one client.
    if (name == "rate") p.rate = *n;
    if (name == "round_trip_us") p.round_trip = std::chrono::microseconds(std::min<uint64_t>(*n, 60'000'000));
    if (name == "connections") p.connections = static_cast<int>(std::min<uint64_t>(*n, 256));
  }
  return p;
}

}  // namespace wormhole
