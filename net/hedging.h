// When a request that somebody waits for is asked a second time, on another connection or of a mirror; the first answer
// wins. It is, when it takes longer than 95 of 100 requests of its size did lately, and as long as such second requests
// stay below 5 % of all bytes (Dean and Barroso, "The Tail at Scale", 2013: a request hedged at the 95th percentile
// cuts the tail for a few percent of load).
//
// Thread: any one; values in, values out.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace wormhole {

class Hedging {
 public:
  // A request of `size` bytes has taken so long, from its start to its last byte, without being asked twice.
  void completed(uint64_t size, Duration took);
  // 25 ms or more. Nothing as long as too little is known of this size.
  std::optional<Duration> patience(uint64_t size) const;

  void fetched(uint64_t bytes) { fetched_ += bytes; }
  // Whether `bytes` may be asked for again now; if so, they count.
  bool spend(uint64_t bytes);

 private:
  // Sizes of a power of two share a class, from 64 KiB (a block) to 16 MiB.
  struct Class {
    std::array<Duration, 64> took{};  // the last 64: three of them are the upper 5 %
    size_t count = 0;
  };
  static size_t class_of(uint64_t size);

  std::array<Class, 9> classes_{};
  uint64_t fetched_ = 0;
  uint64_t hedged_ = 0;
};

}  // namespace wormhole
