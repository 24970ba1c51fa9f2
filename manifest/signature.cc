#include "manifest/signature.h"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "manifest/bytes.h"

namespace wormhole {
namespace {

constexpr std::string_view kUntrusted = "untrusted comment: ";
constexpr std::string_view kTrusted = "trusted comment: ";
constexpr std::string_view kEd25519 = "Ed";    // of the message itself: keys, and signatures of old
constexpr std::string_view kPrehashed = "ED";  // of its BLAKE2b
constexpr std::string_view kScrypt = "Sc";
constexpr std::string_view kNotEncrypted = std::string_view("\0\0", 2);
constexpr std::string_view kBlake2b = "B2";

constexpr size_t kSignatureBytes = crypto_sign_BYTES;
constexpr size_t kSecretBytes = crypto_sign_SECRETKEYBYTES;
constexpr size_t kChecksumBytes = 32;
constexpr size_t kSaltBytes = crypto_pwhash_scryptsalsa208sha256_SALTBYTES;
// Key id, key and checksum: what the password's stream is laid over.
constexpr size_t kSealedBytes = sizeof(KeyId) + kSecretBytes + kChecksumBytes;

// More than any key asks for: the limit that minisign chooses is 1 GiB.
constexpr uint64_t kMostScryptBytes = uint64_t{4} << 30;

const unsigned char* raw(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }

bool sodium_is_ready() {
  static const bool ready = ::sodium_init() >= 0;
  return ready;
}

// The next line, without its end.
std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text = end == text.npos ? "" : text.substr(end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::optional<std::string> from_base64(std::string_view text) {
  std::string out(text.size(), '\0');
  size_t size = 0;
  const int failed = ::sodium_base642bin(reinterpret_cast<unsigned char*>(out.data()), out.size(), text.data(),
                                         text.size(), nullptr, &size, nullptr, sodium_base64_VARIANT_ORIGINAL);
  if (failed != 0) return std::nullopt;
  out.resize(size);
  return out;
}

std::string to_base64(std::string_view bytes) {
  std::string out(sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  ::sodium_bin2base64(out.data(), out.size(), raw(bytes), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  out.resize(std::strlen(out.c_str()));
  return out;
}

std::array<unsigned char, 64> blake2b_512(std::string_view message) {
  std::array<unsigned char, 64> hash;
  ::crypto_generichash(hash.data(), hash.size(), raw(message), message.size(), nullptr, 0);
  return hash;
}

struct WipeAtEnd {
  std::string& secret;
  ~WipeAtEnd() { ::sodium_memzero(secret.data(), secret.size()); }
};

KeyId read_key_id(ByteReader& in) { return in.fixed<KeyId>(); }

}  // namespace

std::string to_hex(const KeyId& id) {
  // The bytes are those of a little-endian number, and it is the number that minisign shows.
  uint64_t number = 0;
  std::memcpy(&number, id.data(), sizeof number);
  return fmt::format("{:016X}", number);
}

// --- public key ----------------------------------------------------------------------------------------------------

Result<PublicKey> PublicKey::parse(std::string_view text) {
  std::string_view line = take_line(text);
  if (line.starts_with("untrusted comment:")) line = take_line(text);
  const auto bytes = from_base64(line);
  if (!bytes || bytes->size() != kEd25519.size() + sizeof(KeyId) + sizeof key_ || !bytes->starts_with(kEd25519))
    return fail(ErrorCode::kInvalid, "it is no public key of minisign, which is a line of 56 characters: RW...");
  ByteReader in(*bytes);
  in.raw(kEd25519.size());
  PublicKey key;
  key.id_ = read_key_id(in);
  key.key_ = in.fixed<std::array<uint8_t, 32>>();
  return key;
}

// --- secret key ----------------------------------------------------------------------------------------------------

struct SecretKey::Secret {
  std::array<unsigned char, kSecretBytes> key{};
  ~Secret() { ::sodium_memzero(key.data(), key.size()); }
};

SecretKey::SecretKey() : secret_(std::make_unique<Secret>()) {}
SecretKey::~SecretKey() = default;
SecretKey::SecretKey(SecretKey&&) noexcept = default;
SecretKey& SecretKey::operator=(SecretKey&&) noexcept = default;

Result<SecretKey> SecretKey::parse(std::string_view text, const std::function<Result<std::string>()>& password) {
  if (!sodium_is_ready()) return fail(ErrorCode::kIo, "libsodium cannot be used: no source of randomness");
  if (take_line(text).substr(0, 18) != "untrusted comment:")
    return fail(ErrorCode::kInvalid, "it is no secret key of minisign: it does not begin with \"untrusted comment:\"");
  auto bytes = from_base64(take_line(text));
  constexpr size_t kKeyFileBytes = 3 * 2 + kSaltBytes + 2 * sizeof(uint64_t) + kSealedBytes;
  if (!bytes || bytes->size() != kKeyFileBytes) return fail(ErrorCode::kInvalid, "it is no secret key of minisign");
  const WipeAtEnd wipe{*bytes};
  ByteReader in(*bytes);
  const std::string_view algorithm = in.raw(2), kdf = in.raw(2), checksum_kind = in.raw(2);
  const std::string_view salt = in.raw(kSaltBytes);
  const auto operations = in.fixed<uint64_t>();
  const auto memory = in.fixed<uint64_t>();
  const size_t sealed_at = bytes->size() - kSealedBytes;
  std::span sealed(reinterpret_cast<unsigned char*>(bytes->data()) + sealed_at, kSealedBytes);
  if (algorithm != kEd25519 || checksum_kind != kBlake2b || (kdf != kScrypt && kdf != kNotEncrypted))
    return fail(ErrorCode::kInvalid, "it is a secret key of a kind that is not known here");

  const bool encrypted = kdf == kScrypt;
  if (encrypted) {
    if (memory > kMostScryptBytes)
      return fail(ErrorCode::kInvalid, "the secret key asks for {} GiB of memory to be decrypted", memory >> 30);
    auto word = password();
    if (!word) return fail(word.error());
    const WipeAtEnd wipe_word{*word};
    const std::string_view secret = *word;
    std::array<unsigned char, kSealedBytes> stream;
    const int failed = ::crypto_pwhash_scryptsalsa208sha256(stream.data(), stream.size(), secret.data(), secret.size(),
                                                            raw(salt), operations, memory);
    if (failed != 0)
      return fail(ErrorCode::kNoSpace, "not enough memory to decrypt the secret key: it needs {} MiB", memory >> 20);
    for (size_t i = 0; i < sealed.size(); ++i) sealed[i] ^= stream[i];
    ::sodium_memzero(stream.data(), stream.size());
  }

  SecretKey key;
  std::memcpy(key.id_.data(), sealed.data(), sizeof(KeyId));
  std::memcpy(key.secret_->key.data(), sealed.data() + sizeof(KeyId), kSecretBytes);
  std::array<unsigned char, kChecksumBytes> checksum;
  crypto_generichash_state state;
  ::crypto_generichash_init(&state, nullptr, 0, checksum.size());
  ::crypto_generichash_update(&state, raw(algorithm), algorithm.size());
  ::crypto_generichash_update(&state, sealed.data(), kSealedBytes - kChecksumBytes);
  ::crypto_generichash_final(&state, checksum.data(), checksum.size());
  const bool right =
      ::sodium_memcmp(checksum.data(), sealed.data() + kSealedBytes - kChecksumBytes, kChecksumBytes) == 0;
  if (!right && encrypted) return fail(ErrorCode::kForbidden, "the password is not that of the secret key");
  // A key without a password has no checksum but zeros. That its two halves belong together tells as much.
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> half;
  Secret whole;
  ::crypto_sign_seed_keypair(half.data(), whole.key.data(), key.secret_->key.data());
  if (whole.key != key.secret_->key) return fail(ErrorCode::kInvalid, "the secret key is damaged");
  return key;
}

std::string SecretKey::sign(std::string_view message, std::string_view trusted_comment) const {
  const auto hash = blake2b_512(message);
  std::string signature(kSignatureBytes, '\0'), global(kSignatureBytes, '\0');
  ::crypto_sign_detached(reinterpret_cast<unsigned char*>(signature.data()), nullptr, hash.data(), hash.size(),
                         secret_->key.data());
  const std::string signed_too = signature + std::string(trusted_comment);
  ::crypto_sign_detached(reinterpret_cast<unsigned char*>(global.data()), nullptr, raw(signed_too), signed_too.size(),
                         secret_->key.data());
  ByteWriter line;
  line.raw(kPrehashed);
  line.fixed(id_);
  line.raw(signature);
  return fmt::format("{}signature by wormhole, key {}\n{}\n{}{}\n{}\n", kUntrusted, to_hex(id_),
                     to_base64(line.bytes()), kTrusted, trusted_comment, to_base64(global));
}

// --- check ---------------------------------------------------------------------------------------------------------

Result<std::string> verify_signature(const PublicKey& key, std::string_view message, std::string_view signature) {
  if (!sodium_is_ready()) return fail(ErrorCode::kIo, "libsodium cannot be used: no source of randomness");
  if (signature.size() > kMostSignatureBytes)
    return fail(ErrorCode::kCorrupt, "it is no signature of minisign: {} bytes", signature.size());
  const bool begins_well = take_line(signature).starts_with("untrusted comment:");
  const auto line = from_base64(take_line(signature));
  const std::string_view comment_line = take_line(signature);
  const auto global = from_base64(take_line(signature));
  if (!begins_well || !line || line->size() != 2 + sizeof(KeyId) + kSignatureBytes ||
      !comment_line.starts_with(kTrusted) || !global || global->size() != kSignatureBytes)
    return fail(ErrorCode::kCorrupt, "it is no signature of minisign, or cut short");
  ByteReader in(*line);
  const std::string_view algorithm = in.raw(2);
  const KeyId id = read_key_id(in);
  const std::string_view one = in.raw(kSignatureBytes);
  if (algorithm != kPrehashed && algorithm != kEd25519)
    return fail(ErrorCode::kCorrupt, "it is a signature of a kind that is not known here");
  if (id != key.id())
    return fail(ErrorCode::kForbidden, "it is signed by another key: {}, not {}", to_hex(id), to_hex(key.id()));
  int wrong;
  if (algorithm == kPrehashed) {
    const auto hash = blake2b_512(message);
    wrong = ::crypto_sign_verify_detached(raw(one), hash.data(), hash.size(), key.bytes().data());
  } else {
    wrong = ::crypto_sign_verify_detached(raw(one), raw(message), message.size(), key.bytes().data());
  }
  if (wrong != 0) return fail(ErrorCode::kForbidden, "the signature of key {} does not fit", to_hex(id));
  const std::string_view comment = comment_line.substr(kTrusted.size());
  const std::string signed_too = std::string(one) + std::string(comment);
  if (::crypto_sign_verify_detached(raw(*global), raw(signed_too), signed_too.size(), key.bytes().data()) != 0)
    return fail(ErrorCode::kForbidden, "the comment of the signature of key {} was changed", to_hex(id));
  return std::string(comment);
}

}  // namespace wormhole
