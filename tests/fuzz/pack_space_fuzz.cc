// Any bytes for the records of the pack's space: nothing, or what survives being written and read again, and works.
// The first byte chooses the kind.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/pack_space.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void slab(std::string_view bytes) {
  auto slab = PageRuns::decode(bytes);
  if (!slab) return;
  require(slab->encode() == bytes);
  // What is free can be used up, and adds up.
  while (const uint32_t longest = slab->longest_free_run()) {
    const uint32_t before = slab->free_pages();
    const auto page = slab->allocate(longest);
    require(page && slab->used(*page, longest));
    require(slab->free_pages() + longest == before);
  }
  require(slab->free_pages() == 0);
}

void summaries(std::string_view bytes) {
  if (const auto slabs = decode_summaries(bytes)) require(encode(*slabs) == bytes);
}

// Summaries, and behind them what is said to be the record of every slab.
void pack(std::string_view bytes) {
  if (bytes.empty()) return;
  const size_t length = std::min<size_t>(static_cast<uint8_t>(bytes[0]), bytes.size() - 1);
  const std::vector<std::string> summary{std::string(bytes.substr(1, length))};
  const std::string slab(bytes.substr(1 + length));
  auto pack = PackSpace::open(summary, [&](uint32_t) { return std::optional(slab); });
  if (!pack) return;
  const auto place = pack->allocate(20'000);
  require(place && pack->record(*place));
  pack->take_dirty();
  pack->written(true);
  require(pack->forget(*place) && pack->free(*place) && !pack->free(*place));
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0: wormhole::slab(bytes); break;
    case 1: wormhole::summaries(bytes); break;
    default: wormhole::pack(bytes); break;
  }
  return 0;
}
