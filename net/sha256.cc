#include "net/sha256.h"

#include <fmt/format.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <charconv>

namespace wormhole {

struct Sha256::State {
  gnutls_hash_hd_t handle = nullptr;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (gnutls_hash_init(&state_->handle, GNUTLS_DIG_SHA256) != 0) std::abort();  // out of memory
}

Sha256::~Sha256() { gnutls_hash_deinit(state_->handle, nullptr); }

void Sha256::update(std::span<const std::byte> bytes) { gnutls_hash(state_->handle, bytes.data(), bytes.size()); }

Sha256Digest Sha256::digest() {
  Sha256Digest digest;
  gnutls_hash_output(state_->handle, digest.data());
  return digest;
}

Sha256Digest hmac_sha256(std::string_view key, std::string_view text) {
  Sha256Digest digest;
  if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key.data(), key.size(), text.data(), text.size(), digest.data()) != 0)
    std::abort();  // out of memory
  return digest;
}

std::string to_hex(const Sha256Digest& digest) {
  std::string text;
  for (const std::byte byte : digest) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

std::optional<Sha256Digest> parse_sha256(std::string_view text) {
  Sha256Digest digest;
  if (text.size() != 2 * digest.size()) return std::nullopt;
  for (std::byte& byte : digest) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + 2, value, 16);
    if (error != std::errc() || end != text.data() + 2) return std::nullopt;
    byte = static_cast<std::byte>(value);
    text.remove_prefix(2);
  }
  return digest;
}

}  // namespace wormhole
