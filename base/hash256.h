// 32 bytes of BLAKE3: of a file, of a part of one, of a manifest.
//
// Thread: values, any.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace wormhole {

struct Hash256 {
  std::array<uint8_t, 32> bytes{};

  auto operator<=>(const Hash256&) const = default;

  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  // 64 lower-case hex digits.
  std::string hex() const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out;
    for (const uint8_t b : bytes) {
      out += kDigits[b >> 4];
      out += kDigits[b & 15];
    }
    return out;
  }
  // Nothing when it is not 64 hex digits.
  static std::optional<Hash256> from_hex(std::string_view text) {
    const auto digit = [](char c) { return c >= 'a' ? c - 'a' + 10 : c >= 'A' ? c - 'A' + 10 : c - '0'; };
    if (text.size() != 64 || text.find_first_not_of("0123456789abcdefABCDEF") != text.npos) return std::nullopt;
    Hash256 hash;
    for (size_t i = 0; i < hash.bytes.size(); ++i)
      hash.bytes[i] = static_cast<uint8_t>(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return hash;
  }
};

}  // namespace wormhole

template <>
struct std::hash<wormhole::Hash256> {
  size_t operator()(const wormhole::Hash256& value) const noexcept {
    size_t out;
    std::memcpy(&out, value.bytes.data(), sizeof out);  // it is a hash already
    return out;
  }
};
