#include "fs/speculation.h"

#include <algorithm>

#include "base/block.h"

namespace wormhole {
namespace {

// Somebody who has read so many places will read more. One or two are a header and an index. Many threads that begin at
// once have their own blocks first.
constexpr uint64_t kEnoughReads = 16;

// A file that takes this long is worth having whole; longer, and the reader may be gone before it is there.
constexpr uint64_t kAffordableSeconds = 10;
// What the wire gives shows only when it is used: up to this size a file may take what can come in that time, and the
// rate is measured on the way.
constexpr uint64_t kAffordableSize = 1 << 30;
// Until then: half a second of 1 Gbit/s.
constexpr uint64_t kUnmeasured = 64 << 20;

// What may be guessed of a larger file, for each byte demanded and for each guessed byte that was read.
constexpr uint64_t kForEachDemanded = 2;
constexpr uint64_t kForEachHit = 8;

constexpr uint64_t kSmallestStep = 4 * kBlockSize;
constexpr uint64_t kLargestStep = 8 << 20;
constexpr uint64_t kLookEvery = 4 << 20;  // bytes guessed between two looks at the share

constexpr size_t kPlaces = 32;  // latest reads whose surroundings are still of interest

}  // namespace

bool Speculation::is_affordable(uint64_t rate) const {
  return size_ <= std::max(kAffordableSize, rate * kAffordableSeconds);
}

uint64_t Speculation::allowance(uint64_t rate) const {
  if (reads_ < kEnoughReads) return 0;
  const uint64_t earned = demanded_ * kForEachDemanded + hits_ * kForEachHit;
  if (!is_affordable(rate)) return earned;
  return std::max(earned, rate > 0 ? rate * kAffordableSeconds : kUnmeasured);
}

void Speculation::demanded(ByteRange blocks) {
  ++reads_;
  demanded_ += blocks.size();
  const uint64_t begin = blocks.begin / step_ * step_;
  around_.push_back({begin, std::min(size_, std::max(begin + step_, blocks.end))});
  if (around_.size() > kPlaces) around_.pop_front();
}

void Speculation::hit(uint64_t bytes) { hits_ += bytes; }

ByteRange Speculation::next(uint64_t most, uint64_t rate) {
  const uint64_t allowed = allowance(rate);
  if (allowed <= guessed_) return {};
  most = std::min(most, allowed - guessed_) / kBlockSize * kBlockSize;
  if (most == 0) return {};
  while (!around_.empty()) {
    ByteRange& latest = around_.back();
    if (latest.empty()) {
      around_.pop_back();
      continue;
    }
    const ByteRange piece{latest.begin, std::min(latest.end, latest.begin + most)};
    latest.begin = piece.end;
    return piece;
  }
  if (!is_affordable(rate) || sweep_ >= size_) return {};
  const ByteRange piece{sweep_, std::min(size_, sweep_ + most)};
  sweep_ = piece.end;
  return piece;
}

void Speculation::guessed(ByteRange range) {
  guessed_ += range.size();
  if (guessed_ - judged_guessed_ >= kLookEvery) adapt();
}

void Speculation::adapt() {
  const uint64_t guessed = guessed_ - judged_guessed_;
  const uint64_t hits = hits_ - judged_hits_;
  if (hits * 4 >= guessed) step_ = std::min(step_ * 2, kLargestStep);
  // A file that is fetched whole anyway is fetched in pieces that are worth a request.
  const uint64_t least = size_ <= kAffordableSize ? kFirstStep : kSmallestStep;
  if (hits * 16 < guessed) step_ = std::max(step_ / 2, least);
  judged_guessed_ = guessed_;
  judged_hits_ = hits_;
}

}  // namespace wormhole
