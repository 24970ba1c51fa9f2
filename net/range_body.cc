#include "net/range_body.h"

#include <cstring>

namespace wormhole {

void RangeBody::add(uint64_t offset, std::string_view bytes) {
  const ByteRange piece{offset, offset + bytes.size()};
  const auto write = [&](ByteRange fresh) {
    std::memcpy(into_ + (fresh.begin - range_.begin), bytes.data() + (fresh.begin - offset), fresh.size());
  };
  const uint64_t front = range_.begin + arrived_;
  if (behind_.size() == 0 && piece.begin <= front) {  // the usual case: one response, in order
    if (piece.end <= front) return;
    write({front, piece.end});
    arrived_ = piece.end - range_.begin;
    return;
  }
  const ByteRange news{std::max(piece.begin, front), piece.end};
  if (news.empty()) return;
  for (const ByteRange& fresh : behind_.missing(news)) write(fresh);
  behind_.add(news);
  const std::vector<ByteRange> islands = behind_.ranges();
  if (islands.front().begin > front) return;
  arrived_ = islands.front().end - range_.begin;
  behind_ = {};
  for (size_t i = 1; i < islands.size(); ++i) behind_.add(islands[i]);
}

ByteRange RangeBody::gap_from(uint64_t offset) const {
  const ByteRange rest{std::max(offset, range_.begin + arrived_), range_.end};
  const auto gaps = behind_.missing(rest);
  return gaps.empty() ? ByteRange{range_.end, range_.end} : gaps.front();
}

}  // namespace wormhole
