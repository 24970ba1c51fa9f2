#include "cache/index_format.h"

#include <cstring>

#include "cache/checksum.h"

namespace wormhole {
namespace {

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_big_endian(std::string& out, uint64_t value) { append(out, __builtin_bswap64(value)); }

// Reads values from the front of a record; nothing when it is too short.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  bool take(T* value) {
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return true;
  }
  bool take(std::string* value, size_t length) {
    if (rest_.size() < length) return false;
    value->assign(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return true;
  }
  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

constexpr uint64_t kMainBit = uint64_t{1} << 63;
uint64_t packed(QueuePosition p) { return p.sequence | (p.main ? kMainBit : 0); }
QueuePosition unpacked(uint64_t value) { return {(value & kMainBit) != 0, value & ~kMainBit}; }

// The key counts: a good value that is found under another key is a wrong one.
uint64_t checksum_of(std::string_view key, std::string_view value) {
  const auto sum = [](std::string_view s) {
    return block_checksum(reinterpret_cast<const std::byte*>(s.data()), s.size());
  };
  std::string both;
  append<uint64_t>(both, sum(value));
  both += key;
  return sum(both);
}

}  // namespace

std::string seal(std::string_view key, std::string_view value) {
  std::string out(value);
  append<uint64_t>(out, checksum_of(key, value));
  return out;
}

std::optional<std::string_view> unseal(std::string_view key, std::string_view sealed) {
  uint64_t sum = 0;
  if (sealed.size() < sizeof(sum)) return std::nullopt;
  const std::string_view value = sealed.substr(0, sealed.size() - sizeof(sum));
  std::memcpy(&sum, sealed.data() + value.size(), sizeof(sum));
  return sum == checksum_of(key, value) ? std::optional(value) : std::nullopt;
}

std::string encode_key(Ino ino) {
  std::string out;
  append_big_endian(out, ino);
  return out;
}

std::optional<Ino> decode_ino(std::string_view bytes) {
  Reader in(bytes);
  Ino ino = 0;
  if (!in.take(&ino) || !in.at_end()) return std::nullopt;
  return __builtin_bswap64(ino);
}

std::string encode_key(RegionKey key) {
  std::string out;
  append_big_endian(out, key.ino);
  append_big_endian(out, key.region);
  return out;
}

std::optional<RegionKey> decode_region_key(std::string_view bytes) {
  Reader in(bytes);
  uint64_t ino = 0;
  uint64_t region = 0;
  if (!in.take(&ino) || !in.take(&region) || !in.at_end()) return std::nullopt;
  return RegionKey{__builtin_bswap64(ino), __builtin_bswap64(region)};
}

std::string encode_key(QueuePosition position) {
  std::string out;
  append_big_endian(out, packed(position));
  return out;
}

std::optional<QueuePosition> decode_queue_position(std::string_view bytes) {
  Reader in(bytes);
  uint64_t value = 0;
  if (!in.take(&value) || !in.at_end()) return std::nullopt;
  return unpacked(__builtin_bswap64(value));
}

std::string encode_key(const ContentUse& use) {
  std::string out(use.content.hash.view());
  append_big_endian(out, use.content.size);
  append_big_endian(out, use.file);
  return out;
}

std::optional<ContentUse> decode_content_use(std::string_view bytes) {
  Reader in(bytes);
  ContentUse use;
  if (!in.take(&use.content.hash) || !in.take(&use.content.size) || !in.take(&use.file) || !in.at_end())
    return std::nullopt;
  use.content.size = __builtin_bswap64(use.content.size);
  use.file = __builtin_bswap64(use.file);
  return use;
}

std::string encode(const ObjectRecord& record) {
  std::string out;
  append<uint64_t>(out, record.size);
  append<uint16_t>(out, static_cast<uint16_t>(record.validator.etag.size()));
  append<uint16_t>(out, static_cast<uint16_t>(record.validator.last_modified.size()));
  out += record.validator.etag;
  out += record.validator.last_modified;
  return out;
}

std::optional<ObjectRecord> decode_object(std::string_view bytes) {
  Reader in(bytes);
  ObjectRecord record;
  uint16_t etag = 0;
  uint16_t last_modified = 0;
  if (!in.take(&record.size) || !in.take(&etag) || !in.take(&last_modified)) return std::nullopt;
  if (!in.take(&record.validator.etag, etag)) return std::nullopt;
  if (!in.take(&record.validator.last_modified, last_modified) || !in.at_end()) return std::nullopt;
  return record;
}

std::string encode(const RootRecord& record) {
  std::string out;
  append<uint64_t>(out, record.ino);
  append<uint8_t>(out, record.single_file ? 1 : 0);
  return out + record.url;
}

std::optional<RootRecord> decode_root(std::string_view bytes) {
  Reader in(bytes);
  RootRecord record;
  uint8_t single_file = 0;
  if (!in.take(&record.ino) || !in.take(&single_file)) return std::nullopt;
  record.single_file = single_file != 0;
  in.take(&record.url, bytes.size() - sizeof(record.ino) - sizeof(single_file));
  return record;
}

std::string encode(const ScrubRecord& record) {
  std::string out;
  append<uint64_t>(out, record.next.ino);
  append<uint64_t>(out, record.next.region);
  append<int64_t>(out, record.ended_at);
  return out;
}

std::optional<ScrubRecord> decode_scrub(std::string_view bytes) {
  Reader in(bytes);
  ScrubRecord record;
  if (!in.take(&record.next.ino) || !in.take(&record.next.region) || !in.take(&record.ended_at) || !in.at_end())
    return std::nullopt;
  return record;
}

std::string encode(const RegionRecord& record) {
  std::string out;
  append<uint64_t>(out, record.present);
  append<uint64_t>(out, packed(record.position));
  append<uint64_t>(out, record.place);
  const int count = std::bit_width(record.present);
  for (int i = 0; i < count; ++i) append<uint64_t>(out, record.checksum[static_cast<size_t>(i)]);
  return out;
}

std::optional<RegionRecord> decode_region(std::string_view bytes) {
  Reader in(bytes);
  RegionRecord record;
  uint64_t position = 0;
  if (!in.take(&record.present) || !in.take(&position) || !in.take(&record.place)) return std::nullopt;
  record.position = unpacked(position);
  const int count = std::bit_width(record.present);
  for (int i = 0; i < count; ++i) {
    if (!in.take(&record.checksum[static_cast<size_t>(i)])) return std::nullopt;
  }
  if (!in.at_end()) return std::nullopt;
  return record;
}

}  // namespace wormhole
