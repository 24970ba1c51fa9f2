// The bytes of a range as they arrive in its buffer: from one response, or from two at once (a second one may bring the
// rear half, or the same bytes from elsewhere). Bytes that have been told of are never written again.
//
// Thread: net.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/byte_range.h"
#include "net/range_set.h"

namespace wormhole {

class RangeBody {
 public:
  // `into`: room for range.size() bytes; byte range.begin + i lands at into[i]. Outlives the body.
  RangeBody(ByteRange range, std::byte* into) : range_(range), into_(into) {}

  // REQUIRES: `offset` and the bytes lie inside the range.
  void add(uint64_t offset, std::string_view bytes);

  // Bytes from the front on, without a gap.
  uint64_t arrived() const { return arrived_; }
  bool complete() const { return arrived_ == range_.size(); }
  bool has(ByteRange bytes) const { return bytes.end <= range_.begin + arrived_ || behind_.contains(bytes); }
  // The first missing bytes at `offset` or behind it, up to what has arrived behind them; empty when there are none.
  ByteRange gap_from(uint64_t offset) const;
  // From the first missing byte up to what has arrived behind it; empty when complete.
  ByteRange first_gap() const { return gap_from(range_.begin + arrived_); }

 private:
  ByteRange range_;
  std::byte* into_;
  uint64_t arrived_ = 0;
  RangeSet behind_;  // what has arrived behind the first gap
};

}  // namespace wormhole
