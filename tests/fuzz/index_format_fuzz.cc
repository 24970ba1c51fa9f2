// Any bytes for a record of the index: nothing, or a record that survives being written and read again. The first byte
// chooses the kind.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "cache/index_format.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void object(std::string_view bytes) {
  if (const auto record = decode_object(bytes)) require(encode(*record) == bytes);
}

void root(std::string_view bytes) {
  if (const auto record = decode_root(bytes)) require(decode_root(encode(*record)) == record);
}

void region(std::string_view bytes) {
  if (const auto record = decode_region(bytes)) require(encode(*record) == bytes);
}

void region_key(std::string_view bytes) {
  if (const auto key = decode_region_key(bytes)) require(encode_key(*key) == bytes);
}

void content_use(std::string_view bytes) {
  if (const auto use = decode_content_use(bytes)) require(encode_key(*use) == bytes);
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: wormhole::object(bytes); break;
    case 1: wormhole::root(bytes); break;
    case 2: wormhole::region(bytes); break;
    case 3: wormhole::content_use(bytes); break;
    default: wormhole::region_key(bytes); break;
  }
  return 0;
}
