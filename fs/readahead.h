// What else is worth fetching, from the reads of one file so far. Values in, values out: no clock, no IO.
//
// A file has a few *cursors*, one for each place where somebody reads on; a read belongs to the cursor whose position
// it continues, give or take what the kernel's own read-ahead reorders and what a reader skips. Behind a cursor's
// position lies its *window*: bytes that are to be fetched already. The window starts small and grows when the reader
// had to wait although he read on (a stall): at least to what the wire holds, then twofold each time, up to a bound
// that follows from what the wire was measured to give. So it converges to what hides the latency and does not grow for
// a slow reader. A read that continues no cursor opens a new one without a window; only a second read in sequence gives
// it one, so a random reader fetches what he asks for and nothing else. The first read of a file at offset 0 is taken
// for the begin of a sequence. Cursors that are left with most of their window unread make the next ones begin smaller.
//
// Reads at constant distances (every n-th record, or backwards) are no cursor but a *stride*: after three equal steps
// the next places are fetched, and only they.
//
// Tolerances and growth on stalls: as in the prefetchers of Mountpoint for Amazon S3 and JuiceFS.
//
// Thread: the engine's.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/byte_range.h"

namespace wormhole {

struct ReadaheadOptions {
  uint64_t first_window = 1 << 20;  // 1 MiB: eight requests of the kernel's default read-ahead
};

// How far a window may reach now. In bytes.
struct WindowBounds {
  uint64_t pipe = 0;  // what the wire holds: rate x round trip; 0 when not known
  uint64_t most = 0;  // > 0
};

class Readahead {
 public:
  explicit Readahead(ReadaheadOptions options) : options_(options), first_window_(options.first_window) {}

  struct Proposal {
    std::vector<ByteRange> ranges;  // to be fetched now, in this order; what is returned counts as fetched
    bool sequential = false;        // the read belongs to a cursor with a window, or to a stride
  };

  // A reader asks for `read` (not empty) of a file of `size` bytes; `stalled`: some of it was not there yet.
  Proposal on_read(ByteRange read, uint64_t size, bool stalled, WindowBounds bounds);

  // A reader who has asked for `read` still waits although the wire has begun to bring it: the window grows once more,
  // without waiting for his next read.
  Proposal on_wait(ByteRange read, uint64_t size, WindowBounds bounds);

  // Of what was returned last, everything from `offset` on was not fetched after all (no memory): it is proposed
  // again. For cursors; of a stride nothing is.
  void give_back(uint64_t offset);

  // Nobody has read for a while: windows begin small again.
  void rest();

  // The window of the cursor that was used last; for logs and tests.
  uint64_t window() const { return cursors_[last_].window; }

 private:
  struct Cursor {
    uint64_t position = 0;  // where the next read in sequence begins
    uint64_t window = 0;
    uint64_t fetched = 0;  // everything from position to here is fetched or on its way
    uint64_t read = 0;     // bytes since it began
    uint64_t used = 0;     // for the choice of a victim; 0: free
  };
  struct Stride {
    uint64_t last = 0;  // where the last read began
    int64_t step = 0;
    int repeats = 0;
    uint64_t depth = 0;    // how many places ahead are wanted
    int64_t proposed = 0;  // how many places ahead of `last` are fetched
  };

  bool on_stride(ByteRange read, uint64_t size, bool stalled, WindowBounds bounds, Proposal& proposal);
  void grow(Cursor& c, WindowBounds bounds) const;
  static void refill(Cursor& c, uint64_t size, bool first, Proposal& proposal);
  uint64_t first_window_for(ByteRange read) const;
  Cursor* match(ByteRange read);
  Cursor& oldest();
  void abandon(const Cursor& c);

  const ReadaheadOptions options_;
  uint64_t first_window_;            // what a new cursor begins with
  std::array<Cursor, 8> cursors_{};  // more readers of one file at different places are rare, and random
  size_t last_ = 0;
  uint64_t clock_ = 0;
  Stride stride_;
};

}  // namespace wormhole
