// A half-open range of bytes, [begin, end). The only range type inside the program: the inclusive form
// "bytes=first-last" of HTTP exists in net/range_header.cc alone.
//
// Thread: a value, any.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace wormhole {

struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;  // exclusive

  static ByteRange of(uint64_t offset, uint64_t length) { return {offset, offset + length}; }

  uint64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool contains(uint64_t offset) const { return offset >= begin && offset < end; }
  bool contains(ByteRange other) const { return other.begin >= begin && other.end <= end; }
  bool overlaps(ByteRange other) const { return begin < other.end && other.begin < end; }
  bool operator==(const ByteRange&) const = default;

  // The common part; empty when there is none.
  ByteRange intersect(ByteRange other) const {
    ByteRange r{std::max(begin, other.begin), std::min(end, other.end)};
    return r.empty() ? ByteRange{} : r;
  }
};

}  // namespace wormhole
