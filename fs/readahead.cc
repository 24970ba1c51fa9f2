#include "fs/readahead.h"

#include <algorithm>

namespace wormhole {
namespace {

// How far a read may lie behind or before its cursor and still continue it: the kernel sends its read-ahead in
// several requests at once, which arrive out of order, up to about a megabyte apart.
constexpr uint64_t kBackward = 1 << 20;
constexpr uint64_t kForward = 1 << 20;

}  // namespace

ByteRange Readahead::on_read(ByteRange read, uint64_t size, bool stalled) {
  Cursor* c = match(read);
  if (c == nullptr) {
    c = &oldest();
    *c = Cursor{read.end, read.begin == 0 ? options_.first_window : 0, read.end, ++clock_};
    last_ = static_cast<size_t>(c - cursors_.data());
  } else {
    last_ = static_cast<size_t>(c - cursors_.data());
    c->used = ++clock_;
    if (c->window == 0) {
      c->window = options_.first_window;
    } else if (stalled) {
      c->window = std::min(c->window * 2, options_.max_window);
    }
    c->position = std::max(c->position, read.end);
    c->fetched = std::max(c->fetched, c->position);
  }
  // Refill when half of the window is used up: fewer and larger requests than one for every read.
  if (c->window == 0 || c->fetched - c->position > c->window / 2) return {};
  const ByteRange more{c->fetched, std::min(c->position + c->window, size)};
  if (more.empty()) return {};
  c->fetched = more.end;
  return more;
}

void Readahead::give_back(uint64_t offset) {
  Cursor& c = cursors_[last_];
  c.fetched = std::max(c.position, std::min(c.fetched, offset));
}

Readahead::Cursor* Readahead::match(ByteRange read) {
  Cursor* best = nullptr;
  uint64_t best_distance = 0;
  for (Cursor& c : cursors_) {
    if (c.used == 0) continue;
    if (read.end + kBackward < c.position || read.begin > c.position + kForward) continue;
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
