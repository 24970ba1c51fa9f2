#include "net/range_planner.h"

#include <algorithm>
#include <bit>

namespace wormhole {
namespace {

constexpr uint64_t kPartsInWindow = 16;
constexpr uint64_t kMinPart = 256 * 1024;
constexpr uint64_t kUsualPart = 1024 * 1024;
constexpr uint64_t kFirstWindows = 4 * 1024 * 1024;
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

std::vector<ByteRange> split_to_end(ByteRange range, uint64_t part_size, uint64_t size, int connections) {
  std::vector<ByteRange> parts;
  const auto shares = static_cast<uint64_t>(std::max(1, connections));
  for (uint64_t begin = range.begin; begin < range.end;) {
    const uint64_t fine =
        std::max(std::max(kMinPart, part_size / 2), std::bit_floor(std::max<uint64_t>((size - begin) / shares, 1)));
    const uint64_t length = std::min(part_size, fine);
    const uint64_t end = std::min(range.end, (begin / length + 1) * length);
    parts.push_back({begin, end});
    begin = end;
  }
  return parts;
}

uint64_t part_size_of(uint64_t rate) {
  if (rate == 0) return 0;
  return std::clamp(std::bit_floor(rate / 10 * 8), kMinPart, 2 * kMaxPart);
}

uint64_t part_size_for(uint64_t window) {
  const uint64_t least = window > kFirstWindows ? kUsualPart : kMinPart;
  return std::clamp(std::bit_floor(std::max<uint64_t>(window / kPartsInWindow, 1)), least, kMaxPart);
}

}  // namespace wormhole
