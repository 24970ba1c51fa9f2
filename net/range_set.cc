#include "net/range_set.h"

#include <algorithm>
#include <iterator>

namespace wormhole {

void RangeSet::add(ByteRange range) {
  if (range.empty()) return;
  auto it = ranges_.upper_bound(range.begin);
  if (it != ranges_.begin() && std::prev(it)->second >= range.begin) --it;
  // From here on, everything that touches the new range becomes part of it.
  while (it != ranges_.end() && it->first <= range.end) {
    range = {std::min(range.begin, it->first), std::max(range.end, it->second)};
    size_ -= it->second - it->first;
    it = ranges_.erase(it);
  }
  ranges_.emplace_hint(it, range.begin, range.end);
  size_ += range.size();
}

bool RangeSet::contains(ByteRange range) const {
  if (range.empty()) return true;
  const auto it = ranges_.upper_bound(range.begin);
  return it != ranges_.begin() && std::prev(it)->second >= range.end;
}

std::vector<ByteRange> RangeSet::ranges() const {
  std::vector<ByteRange> result;
  for (const auto& [begin, end] : ranges_) result.push_back({begin, end});
  return result;
}

std::vector<ByteRange> RangeSet::missing(ByteRange whole) const {
  std::vector<ByteRange> result;
  uint64_t at = whole.begin;
  for (const auto& [begin, end] : ranges_) {
    if (begin >= whole.end) break;
    if (begin > at) result.push_back({at, begin});
    at = std::max(at, end);
  }
  if (at < whole.end) result.push_back({at, whole.end});
  return result;
}

}  // namespace wormhole
