// What else is worth fetching, from the reads of one file so far. Values in, values out: no clock, no IO.
//
// A file has a few *cursors*, one for each place where somebody reads on; a read belongs to the cursor whose position
// it continues, give or take what the kernel's own read-ahead reorders. Behind a cursor's position lies its *window*:
// bytes that are to be fetched already. The window starts small and doubles when the reader had to wait although he
// read on (a stall): it converges to what hides the latency and does not grow for a slow reader. A read that continues
// no cursor opens a new one without a window; only a second read in sequence gives it one, so a random reader fetches
// what he asks for and nothing else. The first read of a file at offset 0 is taken for the begin of a sequence.
//
// Tolerances and growth on stalls: as in the prefetchers of Mountpoint for Amazon S3 and JuiceFS.
//
// Thread: the engine's.
#pragma once

#include <array>
#include <cstdint>

#include "base/byte_range.h"

namespace wormhole {

struct ReadaheadOptions {
  uint64_t first_window = 1 << 20;  // 1 MiB: eight requests of the kernel's default read-ahead
  uint64_t max_window = 64 << 20;   // 64 MiB: 1 Gbit/s x 0.5 s; the process-wide budget bounds it as well
};

class Readahead {
 public:
  explicit Readahead(ReadaheadOptions options) : options_(options) {}

  // A reader asks for `read` (not empty) of a file of `size` bytes; `stalled`: some of it was not there yet. Returns
  // what should be fetched now behind it; empty when nothing. What is returned counts as fetched.
  ByteRange on_read(ByteRange read, uint64_t size, bool stalled);

  // Of what on_read returned, everything from `offset` on was not fetched after all (no memory): it is proposed again.
  void give_back(uint64_t offset);

  // The window of the cursor that was used last; for logs and tests.
  uint64_t window() const { return cursors_[last_].window; }

 private:
  struct Cursor {
    uint64_t position = 0;  // where the next read in sequence begins
    uint64_t window = 0;
    uint64_t fetched = 0;  // everything from position to here is fetched or on its way
    uint64_t used = 0;     // for the choice of a victim; 0: free
  };

  Cursor* match(ByteRange read);
  Cursor& oldest();

  const ReadaheadOptions options_;
  std::array<Cursor, 4> cursors_{};  // four readers of one file at different places are rare, more are random
  size_t last_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace wormhole
