// Any bytes for a directory record: kCorrupt, or a directory that is sorted, has each name once, and survives being
// written and read again.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fs/directory.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const Directory& directory) {
  for (size_t i = 0; i < directory.entries.size(); ++i) {
    const DirectoryEntry& e = directory.entries[i];
    require(!e.name.empty());
    require(i == 0 || directory.entries[i - 1].name < e.name);
    require(directory.find(e.name) == &e);
  }
  const auto again = decode_directory(directory.ino, encode(directory));
  require(again.has_value());
  require(again->fetched_at == directory.fetched_at);
  require(again->etag == directory.etag);
  require(again->entries == directory.entries);
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  const auto directory = decode_directory(1, {reinterpret_cast<const char*>(data), size});
  if (directory) {
    check(*directory);
  } else {
    require(directory.error().code == ErrorCode::kCorrupt);
  }
  return 0;
}
