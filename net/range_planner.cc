#include "net/range_planner.h"

#include <algorithm>
#include <bit>

namespace wormhole {
namespace {

constexpr uint64_t kPartsInWindow = 16;
constexpr uint64_t kMinPart = 256 * 1024;
constexpr uint64_t kMaxPart = 4 * 1024 * 1024;

}  // namespace

std::vector<ByteRange> split_range(ByteRange range, uint64_t part_size) {
  std::vector<ByteRange> parts;
  for (uint64_t begin = range.begin; begin < range.end;) {
    const uint64_t end = std::min(range.end, (begin / part_size + 1) * part_size);
    parts.push_back({begin, end});
    begin = end;
  }
  return parts;
}

uint64_t part_size_for(uint64_t window) {
  return std::clamp(std::bit_floor(std::max<uint64_t>(window / kPartsInWindow, 1)), kMinPart, kMaxPart);
}

}  // namespace wormhole
