// Integers and strings as the manifest has them: little-endian, or as LEB128 varints of at most 64 bits.
//
// Thread: values, any.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/hash256.h"

namespace wormhole {

static_assert(std::endian::native == std::endian::little);

class ByteWriter {
 public:
  template <typename Integer>
  void fixed(Integer value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
    out_ += static_cast<char>(value);
  }
  // Small for small absolute values: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
  void signed_varint(int64_t value) { varint(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63)); }
  void raw(std::string_view bytes) { out_ += bytes; }
  void hash(const Hash256& hash) { out_ += hash.view(); }
  void string(std::string_view text) {
    varint(text.size());
    out_ += text;
  }

  size_t size() const { return out_.size(); }
  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// Once it is asked for more than there is, it gives zeros and is not ok() any more.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : in_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

  template <typename Integer>
  Integer fixed() {
    Integer value{};
    const std::string_view bytes = raw(sizeof value);
    if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = fixed<uint8_t>();
      if (!ok_) return 0;
      if (shift == 63 && byte > 1) break;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  int64_t signed_varint() {
    const uint64_t value = varint();
    return static_cast<int64_t>(value >> 1 ^ (~(value & 1) + 1));
  }
  std::string_view raw(uint64_t size) {
    if (!ok_ || size > in_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view out = in_.substr(0, size);
    in_.remove_prefix(size);
    return out;
  }
  Hash256 hash() { return fixed<Hash256>(); }
  std::string_view string() { return raw(varint()); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace wormhole
