// A set of bytes of one object, kept as disjoint ranges: what has arrived, and what is missing.
//
// Thread: as any value.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/byte_range.h"

namespace wormhole {

class RangeSet {
 public:
  // Neighbours are joined; adding what is there already changes nothing.
  void add(ByteRange range);

  uint64_t size() const { return size_; }  // bytes in the set
  bool contains(ByteRange range) const;
  std::vector<ByteRange> ranges() const;                  // in order; no two of them touch
  std::vector<ByteRange> missing(ByteRange whole) const;  // in order

 private:
  std::map<uint64_t, uint64_t> ranges_;  // begin -> end
  uint64_t size_ = 0;
};

}  // namespace wormhole
