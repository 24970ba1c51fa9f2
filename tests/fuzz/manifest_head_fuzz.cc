// Any bytes for the head of a manifest: an error, or a head that is the same when it is written and read again. The
// hash at the end is put right, so that more than it is tried.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "manifest/blake3.h"
#include "manifest/head.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const bool hashed : {false, true}) {
    if (hashed) bytes += blake3(bytes).view();
    const auto head = decode_head(bytes);
    if (!head) continue;
    if (encode(*head) != bytes || !head->root.is_possible()) std::abort();
  }
  return 0;
}
