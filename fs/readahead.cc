#include "fs/readahead.h"

#include <algorithm>
#include <bit>

#include "base/block.h"

namespace wormhole {
namespace {

// How far a read may lie behind or before its cursor and still continue it: the kernel sends its read-ahead in
// several requests at once, which arrive out of order, up to about a megabyte apart. Forward also whatever the window
// covers: those bytes are coming anyway.
constexpr uint64_t kBackward = 1 << 20;
constexpr uint64_t kForward = 1 << 20;

// first_window is for a read of this size, the kernel's default read-ahead; in proportion for others, up to fourfold.
constexpr uint64_t kUsualRead = 128 * 1024;
constexpr uint64_t kLargestFirst = 4;

// A new cursor's window never begins smaller than the kernel's own read-ahead.
constexpr uint64_t kSmallestWindow = 128 * 1024;

// Steps in which a window is refilled: a sixteenth, as many as there usually are connections.
constexpr uint64_t kStepsInWindow = 16;
constexpr uint64_t kSmallestStep = 256 * 1024;
constexpr uint64_t kLargestStep = 8 << 20;

// While it is not known what the wire holds, a window grows so many times with each stall.
constexpr uint64_t kBlindGrowth = 4;

// Three equal steps are no chance. A forward step of less than this many blocks is a sequence with gaps: fetching the
// gaps costs less than a request for each place.
constexpr int kSteps = 3;
constexpr uint64_t kGapsOfASequence = 4 * kBlockSize;
constexpr uint64_t kFirstDepth = 4;
constexpr uint64_t kMostDepth = 256;

}  // namespace

Readahead::Proposal Readahead::on_read(ByteRange read, uint64_t size, bool stalled, WindowBounds bounds) {
  Proposal proposal;
  if (on_stride(read, size, stalled, bounds, proposal)) return proposal;
  Cursor* c = match(read);
  if (c == nullptr) {
    c = &oldest();
    abandon(*c);
    const uint64_t window = read.begin == 0 ? std::min(first_window_for(read), bounds.most) : 0;
    *c = Cursor{read.end, window, read.end, read.size(), ++clock_};
    last_ = static_cast<size_t>(c - cursors_.data());
  } else {
    last_ = static_cast<size_t>(c - cursors_.data());
    c->used = ++clock_;
    if (c->window == 0) {
      c->window = first_window_for(read);
    } else if (stalled) {
      grow(*c, bounds);
    }
    c->window = std::min(c->window, bounds.most);
    c->read += read.size();
    if (c->read > c->window) first_window_ = options_.first_window;  // this one was worth it
    c->position = std::max(c->position, read.end);
    c->fetched = std::max(c->fetched, c->position);
  }
  proposal.sequential = c->window > 0;
  if (c->window > 0) refill(*c, size, c->read <= read.size(), proposal);
  return proposal;
}

Readahead::Proposal Readahead::on_wait(ByteRange read, uint64_t size, WindowBounds bounds) {
  Proposal proposal;
  Cursor* c = match(read);
  if (c == nullptr || c->window == 0) return proposal;
  last_ = static_cast<size_t>(c - cursors_.data());
  grow(*c, bounds);
  proposal.sequential = true;
  refill(*c, size, false, proposal);
  return proposal;
}

void Readahead::grow(Cursor& c, WindowBounds bounds) const {
  c.window = bounds.pipe == 0 ? c.window * kBlindGrowth : std::max(c.window * 2, bounds.pipe);
  c.window = std::min(c.window, bounds.most);
}

// In steps: small enough that requests never run out while the window is used up, large enough that each is worth a
// request; at multiples, so that steps and parts meet.
void Readahead::refill(Cursor& c, uint64_t size, bool first, Proposal& proposal) {
  const uint64_t step =
      std::clamp(std::bit_floor(c.window / kStepsInWindow), std::min(kSmallestStep, c.window), kLargestStep);
  const uint64_t end = c.position + c.window;
  const ByteRange more{c.fetched, end >= size ? size : end / step * step};
  if (more.end < more.begin + (first ? 1 : step) && more.end < size) return;
  if (more.empty()) return;
  c.fetched = more.end;
  proposal.ranges.push_back(more);
}

// Somebody who asks for much at once gets more: a program that copies asks for 128 KiB and more, one that looks at a
// header for a page, of which the kernel makes 16 KiB.
uint64_t Readahead::first_window_for(ByteRange read) const {
  const uint64_t wanted = first_window_ * read.size() / kUsualRead;
  return std::clamp(wanted, std::min(kSmallestWindow, first_window_), first_window_ * kLargestFirst);
}

// True when the read belongs to a stride.
bool Readahead::on_stride(ByteRange read, uint64_t size, bool stalled, WindowBounds bounds, Proposal& proposal) {
  Stride& s = stride_;
  const auto step = static_cast<int64_t>(read.begin - s.last);
  s.last = read.begin;
  if (step != s.step || step == 0) {
    s = Stride{read.begin, step, 1, kFirstDepth, 0};
    return false;
  }
  ++s.repeats;
  s.proposed = std::max<int64_t>(0, s.proposed - 1);
  const bool is_sequence = step > 0 && static_cast<uint64_t>(step) < read.size() + kGapsOfASequence;
  if (s.repeats < kSteps || is_sequence) return false;
  if (stalled && s.repeats > kSteps) s.depth *= 2;
  const uint64_t place = align_to_blocks(read, size).size();
  s.depth = std::clamp<uint64_t>(s.depth, 1, std::min(kMostDepth, std::max<uint64_t>(1, bounds.most / place)));
  proposal.sequential = true;
  while (s.proposed < static_cast<int64_t>(s.depth)) {
    const int64_t ahead = (s.proposed + 1) * step;
    if (ahead < 0 ? static_cast<uint64_t>(-ahead) > read.begin : read.begin + static_cast<uint64_t>(ahead) >= size)
      break;
    const uint64_t begin = read.begin + static_cast<uint64_t>(ahead);
    const ByteRange next{begin, std::min(begin + read.size(), size)};
    // Places that touch become one range: a reader who goes backwards through neighbouring blocks.
    if (!proposal.ranges.empty() && proposal.ranges.back().begin == next.end) {
      proposal.ranges.back().begin = next.begin;
    } else {
      proposal.ranges.push_back(next);
    }
    ++s.proposed;
  }
  return true;
}

void Readahead::give_back(uint64_t offset) {
  Cursor& c = cursors_[last_];
  c.fetched = std::max(c.position, std::min(c.fetched, offset));
}

void Readahead::rest() {
  for (Cursor& c : cursors_) {
    c.fetched = c.position;
    c.window = std::min(c.window, first_window_);
  }
}

// A cursor that nobody follows any more; most of its window was in vain when little of it was read.
void Readahead::abandon(const Cursor& c) {
  if (c.used == 0 || c.window == 0) return;
  const uint64_t unread = c.fetched - c.position;
  if (unread > c.read) first_window_ = std::max(first_window_ / 2, std::min(kSmallestWindow, options_.first_window));
}

Readahead::Cursor* Readahead::match(ByteRange read) {
  Cursor* best = nullptr;
  uint64_t best_distance = 0;
  for (Cursor& c : cursors_) {
    if (c.used == 0) continue;
    const uint64_t reach = std::max(c.position + kForward, c.fetched);
    if (read.end + kBackward < c.position || read.begin > reach) continue;
    const uint64_t distance = read.begin > c.position ? read.begin - c.position : c.position - read.begin;
    if (best == nullptr || distance < best_distance) {
      best = &c;
      best_distance = distance;
    }
  }
  return best;
}

Readahead::Cursor& Readahead::oldest() {
  return *std::min_element(cursors_.begin(), cursors_.end(), [](auto& a, auto& b) { return a.used < b.used; });
}

}  // namespace wormhole
