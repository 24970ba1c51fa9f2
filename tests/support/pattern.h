// Bytes by formula: what stands at any offset of an object follows from its seed, so that a test knows every byte of a
// large object without keeping it. Two seeds differ in nearly every byte, which shows a mixture of two versions.
//
// Thread: pure functions, any.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace wormhole::test {

// The eight bytes of the aligned word number `word`, least significant first (splitmix64's finaliser).
inline uint64_t expected_word(uint64_t seed, uint64_t word) {
  uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ull + word * 0xd1342543de82ef95ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline std::byte expected_byte(uint64_t seed, uint64_t offset) {
  return static_cast<std::byte>(expected_word(seed, offset / 8) >> (offset % 8 * 8));
}

// Fills `out` with the bytes from `offset` on.
inline void fill_pattern(uint64_t seed, uint64_t offset, std::span<std::byte> out) {
  size_t at = 0;
  while (at < out.size() && (offset + at) % 8 != 0) {
    out[at] = expected_byte(seed, offset + at);
    ++at;
  }
  for (; at + 8 <= out.size(); at += 8) {
    const uint64_t word = expected_word(seed, (offset + at) / 8);
    std::memcpy(out.data() + at, &word, 8);  // little-endian, as all machines that run this
  }
  for (; at < out.size(); ++at) out[at] = expected_byte(seed, offset + at);
}

inline std::vector<std::byte> expected_bytes(uint64_t seed, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length);
  fill_pattern(seed, offset, bytes);
  return bytes;
}

// The offset of the first byte that is wrong; nothing when all are right.
inline std::optional<uint64_t> first_mismatch(uint64_t seed, uint64_t offset, std::span<const std::byte> seen) {
  std::byte expected[4096];
  for (size_t at = 0; at < seen.size(); at += sizeof expected) {
    const size_t length = std::min(sizeof expected, seen.size() - at);
    fill_pattern(seed, offset + at, std::span(expected, length));
    if (std::memcmp(expected, seen.data() + at, length) == 0) continue;
    for (size_t i = 0; i < length; ++i) {
      if (expected[i] != seen[at + i]) return offset + at + i;
    }
  }
  return std::nullopt;
}

}  // namespace wormhole::test
