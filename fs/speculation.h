// What of a file is fetched while the wire is idle, when it is read here and there. Values in, values out.
//
// A random reader waits a round trip for each block, and meanwhile the wire carries nothing. So the surroundings of his
// reads are fetched at the lowest priority: *guesses*. How much is bounded by what they are good for:
//
//   of a file of up to 1 GiB, or that the wire carries in 10 s, as much as comes in 10 s (most are whole by then), once
//   it is clear that somebody works in it;
//   of a larger one at most twice the bytes that were asked for, plus a multiple of the guesses that were read later.
//
// So for a reader who jumps about in a file of any size at most three times his blocks come over the wire, and for
// one who works in places the guesses pay for more. Surroundings are taken in steps that double while at least a
// quarter of the guesses get read, and halve when less than a sixteenth does.
//
// What is measured elsewhere: httpdirfs takes 8 MiB around each read, whatever comes of it (docs/ARCHITECTURE.md).
//
// Thread: the engine's.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/byte_range.h"

namespace wormhole {

class Speculation {
 public:
  // `size` of the file in bytes, > 0.
  explicit Speculation(uint64_t size) : size_(size) {}

  // A read that belongs to no sequence had to fetch these blocks.
  void demanded(ByteRange blocks);
  // Bytes of a block that had been guessed were read for the first time (counted in whole blocks).
  void hit(uint64_t bytes);

  // Where to fetch next; not more than `most` bytes, at block boundaries. The caller skips what is there already, and
  // says with guessed() what he took. `rate` of the wire in bytes per second, 0 when not known. Empty: nothing now.
  ByteRange next(uint64_t most, uint64_t rate);
  void guessed(ByteRange range);

  uint64_t step() const { return step_; }

 private:
  static constexpr uint64_t kFirstStep = 2 << 20;

  bool is_affordable(uint64_t rate) const;
  uint64_t allowance(uint64_t rate) const;
  void adapt();

  const uint64_t size_;
  uint64_t reads_ = 0;
  uint64_t demanded_ = 0;
  uint64_t guessed_ = 0;
  uint64_t hits_ = 0;
  uint64_t judged_guessed_ = 0, judged_hits_ = 0;  // at the last look at the share
  uint64_t step_ = kFirstStep;
  std::deque<ByteRange> around_;  // surroundings of the latest reads, the latest last
  uint64_t sweep_ = 0;            // how far an affordable file has been proposed
};

}  // namespace wormhole
