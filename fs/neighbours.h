// Who goes through a directory comes to the next name soon: which one that is, and how many of the next are worth
// having fetched by then. Values in, values out: no clock, no IO.
//
// A *cursor* follows one reader through the files of one directory. Programs go by the order of the listing (readdir,
// and sorted by bytes), by inode number (cp, rm), or sorted as people do, without regard to case (a shell's `*`); each
// also backwards. Two names that follow each other in one of these orders are its begin, then he may skip some, and
// several readers may overtake each other.
//
// A *window* says how many are fetched ahead. It opens with the second step in order: one file read, or two at
// random, fetch nothing else. From then on it is a multiple of what he has come through, so that what is wasted when
// he stops is a multiple of what he wanted, and at most a full window. Where he leaves most of it unread it closes, and
// opens later each time.
//
// Thread: one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fs/directory.h"
#include "net/fetcher.h"

namespace wormhole {

// Files up to this size are fetched whole, on any wire. 256 KiB come in 2 ms at 1 Gbit/s: what costs time is the round
// trip before them.
inline constexpr uint64_t kSmallFile = 256 * 1024;

// How far ahead of a reader files may be fetched.
struct NeighbourBounds {
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t largest = kSmallFile;  // bytes of one file
};
// `memory`: of all buffers, bytes.
NeighbourBounds neighbour_bounds(const LinkEstimate& link, uint64_t memory);

class AheadWindow {
 public:
  // He has come to what follows.
  void came();
  // Likewise, and so surely that it opens a window that was not shut by what nobody used.
  void came_surely();
  // He goes on elsewhere.
  void left();
  // Of what was fetched ahead, one more was used, or passed by.
  void used();
  void passed();

  // How many may be ahead of him now.
  uint64_t size(uint64_t most) const;
  bool is_open() const { return in_order_ >= needed_; }

 private:
  static constexpr uint64_t kNeeded = 2;  // one may be chance

  void forget_slowly();

  uint64_t in_order_ = 0;      // steps since he began, or left
  uint64_t needed_ = kNeeded;  // of them, before the window opens
  uint64_t used_ = 0, passed_ = 0;
};

class DirectoryCursor {
 public:
  enum class Order : uint8_t { kName, kInode, kCollated };
  explicit DirectoryCursor(DirectoryRef snapshot);

  const DirectoryRef& snapshot() const { return snapshot_; }

  // The reader comes to this entry, a file, from where he was last.
  enum class Step : uint8_t {
    kOnward,     // that continues his way
    kHere,       // a place that he has passed: again, or another of several readers
    kElsewhere,  // no order is known, or not any more
  };
  Step visit(uint32_t index);
  // He comes here from another directory, and goes on in this order.
  void enter(uint32_t index, Order order, bool backwards);
  Order order() const { return order_; }
  bool backwards() const { return backwards_; }

  // The next that was not taken, in his order; nothing at the end, or while no order is known.
  std::optional<uint32_t> next() const;
  void take() { ++frontier_; }
  // Those before `index` in the listing were taken already.
  void skip_taken(uint32_t index);

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  void arrange(Order order, bool backwards);
  bool find_order(uint32_t from, uint32_t to);
  std::optional<uint32_t> beside(uint32_t index, Order order, bool backwards) const;

  DirectoryRef snapshot_;
  Order order_ = Order::kName;
  bool backwards_ = false;
  std::vector<uint32_t> files_;  // entries, in the order
  std::vector<uint32_t> rank_;   // of each entry in files_; kNone for a directory
  bool is_going_ = false;        // in this order
  uint32_t last_ = kNone;        // entry
  uint32_t position_ = 0;        // rank of the foremost that he came to
  uint32_t frontier_ = 0;        // rank up to which all are taken
};

}  // namespace wormhole
