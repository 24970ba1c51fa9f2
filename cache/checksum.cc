#include "cache/checksum.h"

#include <xxhash.h>

namespace wormhole {

uint64_t block_checksum(const std::byte* data, size_t length) { return ::XXH3_64bits(data, length); }

}  // namespace wormhole
