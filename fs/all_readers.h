// What the block readers of all engines count together, because there is one memory, one wire and one server for them:
// with it any number of engines keeps within the limits of one.
//
// Thread: any; each value is right by itself, two of them may be a moment apart.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "net/fetcher.h"

namespace wormhole {

struct AllReaders {
  explicit AllReaders(unsigned how_many) : count(how_many) {}

  const unsigned count;
  std::atomic<FetchId> next_fetch{1};          // unique, whoever asks
  std::atomic<uint64_t> resident_bytes{0};     // of stored parts that are kept for the next reader
  std::atomic<int> guesses{0};                 // idle parts that are being fetched
  std::atomic<uint64_t> guess_bytes{0};        // and how large they are
  std::atomic<uint64_t> files_in_sequence{0};  // that were read so lately
  std::atomic<TimePoint> last_timeout{{}};   // when a fetch has last found the server silent; {} since bytes have come
  std::atomic<TimePoint> told_of_ahead{{}};  // when the log has last said that fetching ahead fails; {}: never
};

}  // namespace wormhole
