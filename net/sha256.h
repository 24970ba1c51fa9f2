// SHA-256, for a checksum that a publisher gives beside a file, and for signatures of requests to S3. (What the cache
// checks for itself is XXH3.) The one door to the hash library.
//
// Thread: an object belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace wormhole {

using Sha256Digest = std::array<std::byte, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  Sha256Digest digest();  // of all that came so far; afterwards the object is as new

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// RFC 2104.
Sha256Digest hmac_sha256(std::string_view key, std::string_view text);

// 64 hexadecimal digits, lower case.
std::string to_hex(const Sha256Digest& digest);
// Nothing unless `text` is 64 hexadecimal digits of either case.
std::optional<Sha256Digest> parse_sha256(std::string_view text);

}  // namespace wormhole
