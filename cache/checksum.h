// The checksum of a stored block: XXH3-64, which is fast enough (about 10 GB/s a core) to be taken of every block and
// guards against bit rot and torn writes; it is no protection against a malicious server.
//
// Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wormhole {

uint64_t block_checksum(const std::byte* data, size_t length);

}  // namespace wormhole
