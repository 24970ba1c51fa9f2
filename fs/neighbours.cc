#include "fs/neighbours.h"

#include <algorithm>
#include <numeric>

namespace wormhole {
namespace {

// Of each reader. 512 is more than twice what the net thread has under way at once (192): while some arrive and are
// read, the next wait in its queue already.
constexpr uint64_t kMostFiles = 512;

// Twice what the wire holds, and not less than a slow start shows of it; of the memory budget an eighth, for streams
// have their half and guesses their quarter.
constexpr uint64_t kPipes = 2;
constexpr uint64_t kLeastBytes = 4 << 20;
constexpr uint64_t kMemoryShare = 8;

// What a usual line brings in a round trip costs less than the round trip before it: that large a file is worth being
// asked for ahead. The measured rate says nothing here, for who reads small files fills no wire. Of a larger file its
// own read-ahead (fs/readahead.h) brings as much with the first read, and a wrong guess would cost too much.
constexpr double kUsualRate = 20e6;  // bytes per second
constexpr uint64_t kLargestAhead = 1 << 20;

// Files ahead for each that he has come through: from the second on 8, then 12, … Each round trip then brings five
// times as many as the last, so 512 are ahead after four; with half of the gain it would be three times as many, and
// six.
constexpr uint64_t kGain = 4;

// So many are passed by before anything is concluded: a reader of every file of one kind, or who looks at a few.
constexpr uint64_t kTolerated = 16;
// Used ones count for more: a file that was not needed costs its time on the wire, one that was not there a round trip.
constexpr uint64_t kWorth = 3;
constexpr uint64_t kRemembered = 256;
constexpr uint64_t kMostNeeded = 64;

// How far a step may skip, or readers at the same time may overtake each other.
constexpr uint32_t kSkip = 32;
// In a larger directory other orders are not looked for: each look goes over all entries.
constexpr size_t kMostToLookAt = 10'000;

char folded(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool collates_before(const std::string& a, const std::string& b) {
  const auto [x, y] =
      std::mismatch(a.begin(), a.end(), b.begin(), b.end(), [](char p, char q) { return folded(p) == folded(q); });
  if (x == a.end() && y == b.end()) return a < b;
  if (x == a.end() || y == b.end()) return x == a.end();
  return static_cast<unsigned char>(folded(*x)) < static_cast<unsigned char>(folded(*y));
}

// The entries of a snapshot are sorted by name.
bool comes_before(const Directory& d, DirectoryCursor::Order order, uint32_t a, uint32_t b) {
  switch (order) {
    case DirectoryCursor::Order::kName: return a < b;
    case DirectoryCursor::Order::kInode: return d.entries[a].ino < d.entries[b].ino;
    case DirectoryCursor::Order::kCollated: return collates_before(d.entries[a].name, d.entries[b].name);
  }
  return false;
}

}  // namespace

NeighbourBounds neighbour_bounds(const LinkEstimate& link, uint64_t memory) {
  const double pipe = static_cast<double>(link.rate) * std::chrono::duration<double>(link.round_trip).count();
  const uint64_t wanted = std::max(static_cast<uint64_t>(pipe) * kPipes, kLeastBytes);
  const double in_a_trip = kUsualRate * std::chrono::duration<double>(link.round_trip).count();
  const uint64_t largest = std::clamp(static_cast<uint64_t>(in_a_trip), kSmallFile, kLargestAhead);
  return {kMostFiles, std::min(wanted, memory / kMemoryShare), largest};
}

// --- the window ----------------------------------------------------------------------------------------------------

void AheadWindow::came() { ++in_order_; }

void AheadWindow::came_surely() {
  if (needed_ == kNeeded) needed_ = 1;
  came();
}

void AheadWindow::left() {
  in_order_ = 0;
  needed_ = std::max(needed_, kNeeded);
}

void AheadWindow::used() {
  ++used_;
  if (needed_ > kNeeded && used_ > kTolerated) needed_ = kNeeded;
  forget_slowly();
}

void AheadWindow::passed() {
  ++passed_;
  if (passed_ > kTolerated + used_ * kWorth) {
    needed_ = std::min(std::max(needed_, kNeeded) * 2, kMostNeeded);
    in_order_ = used_ = passed_ = 0;
  }
  forget_slowly();
}

void AheadWindow::forget_slowly() {
  if (used_ + passed_ < kRemembered) return;
  used_ /= 2;
  passed_ /= 2;
}

uint64_t AheadWindow::size(uint64_t most) const { return is_open() ? std::min(most, kGain * in_order_) : 0; }

// --- the cursor ----------------------------------------------------------------------------------------------------

DirectoryCursor::DirectoryCursor(DirectoryRef snapshot) : snapshot_(std::move(snapshot)) {
  arrange(Order::kName, false);
}

void DirectoryCursor::arrange(Order order, bool backwards) {
  if (!files_.empty() && order == order_ && backwards == backwards_) return;
  const auto& entries = snapshot_->entries;
  order_ = order;
  backwards_ = backwards;
  files_.clear();
  for (uint32_t i = 0; i < entries.size(); ++i) {
    if (entries[i].type == EntryType::kFile) files_.push_back(i);
  }
  if (order != Order::kName) {
    std::sort(files_.begin(), files_.end(),
              [&](uint32_t a, uint32_t b) { return comes_before(*snapshot_, order, a, b); });
  }
  if (backwards) std::reverse(files_.begin(), files_.end());
  rank_.assign(entries.size(), kNone);
  for (uint32_t rank = 0; rank < files_.size(); ++rank) rank_[files_[rank]] = rank;
}

DirectoryCursor::Step DirectoryCursor::visit(uint32_t index) {
  if (index >= rank_.size() || rank_[index] == kNone) return Step::kElsewhere;
  const uint32_t from = std::exchange(last_, index);
  if (is_going_) {
    const uint32_t rank = rank_[index];
    if (rank <= position_ + kSkip && rank + kSkip >= position_) {
      if (rank <= position_) return Step::kHere;
      position_ = rank;
      frontier_ = std::max(frontier_, position_ + 1);
      return Step::kOnward;
    }
    is_going_ = false;
  }
  if (from == index) return Step::kHere;
  if (from == kNone || !find_order(from, index)) return Step::kElsewhere;
  position_ = rank_[index];
  frontier_ = position_ + 1;
  is_going_ = true;
  return Step::kOnward;
}

void DirectoryCursor::enter(uint32_t index, Order order, bool backwards) {
  if (index >= rank_.size() || rank_[index] == kNone) return;
  if (files_.size() <= kMostToLookAt) arrange(order, backwards);
  last_ = index;
  position_ = rank_[index];
  frontier_ = position_ + 1;
  is_going_ = true;
}

// An order in which `to` follows `from`.
bool DirectoryCursor::find_order(uint32_t from, uint32_t to) {
  if (rank_[to] == rank_[from] + 1) return true;  // in the one that is arranged
  for (const Order order : {Order::kName, Order::kInode, Order::kCollated}) {
    if (order != Order::kName && files_.size() > kMostToLookAt) break;
    for (const bool backwards : {false, true}) {
      if (beside(from, order, backwards) != to) continue;
      arrange(order, backwards);
      return true;
    }
  }
  return false;
}

// The file that follows in the order.
std::optional<uint32_t> DirectoryCursor::beside(uint32_t index, Order order, bool backwards) const {
  std::optional<uint32_t> best;
  for (const uint32_t file : files_) {
    const auto before = [&](uint32_t a, uint32_t b) {
      return backwards ? comes_before(*snapshot_, order, b, a) : comes_before(*snapshot_, order, a, b);
    };
    if (before(index, file) && (!best || before(file, *best))) best = file;
  }
  return best;
}

std::optional<uint32_t> DirectoryCursor::next() const {
  if (!is_going_ || frontier_ >= files_.size()) return std::nullopt;
  return files_[frontier_];
}

void DirectoryCursor::skip_taken(uint32_t index) {
  while (frontier_ < files_.size() && files_[frontier_] < index) ++frontier_;
}

}  // namespace wormhole
