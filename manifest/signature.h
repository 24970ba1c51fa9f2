// Signatures as minisign makes and checks them (https://jedisct1.github.io/minisign/): Ed25519, with keys and
// signatures as small text files. The door to libsodium.
//
// Thread: values, any.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace wormhole {

// What tells one key from another; minisign shows it as 16 hex digits.
using KeyId = std::array<uint8_t, 8>;
std::string to_hex(const KeyId& id);

class PublicKey {
 public:
  // The text of a file of minisign (minisign.pub), or the one line of it that counts ("RWQ..."). kInvalid when it is
  // neither.
  static Result<PublicKey> parse(std::string_view text);

  const KeyId& id() const { return id_; }
  const std::array<uint8_t, 32>& bytes() const { return key_; }

 private:
  KeyId id_{};
  std::array<uint8_t, 32> key_{};
};

class SecretKey {
 public:
  // The text of a file of minisign (minisign.key). `password` is asked when the key is encrypted; deriving the key from
  // it takes about a second and a gigabyte, as whoever made the key has chosen.
  // kInvalid: it is no secret key. kForbidden: the password is wrong. And the errors of `password`.
  static Result<SecretKey> parse(std::string_view text, const std::function<Result<std::string>()>& password);
  ~SecretKey();
  SecretKey(SecretKey&&) noexcept;
  SecretKey& operator=(SecretKey&&) noexcept;

  const KeyId& id() const { return id_; }
  // The text of a .minisig file. REQUIRES: a comment without a line's end; it is signed, too.
  std::string sign(std::string_view message, std::string_view trusted_comment) const;

 private:
  struct Secret;  // wiped when it goes
  SecretKey();

  KeyId id_{};
  std::unique_ptr<Secret> secret_;
};

// The trusted comment of a signature that is the key's and the message's.
// Errors: kCorrupt when it is no signature, kForbidden when it is another key's or does not fit: then nothing of the
// message may be believed.
Result<std::string> verify_signature(const PublicKey& key, std::string_view message, std::string_view signature);

// No signature is longer.
inline constexpr size_t kMostSignatureBytes = 16 << 10;

}  // namespace wormhole
