// How many connections to one server are worth having, found by trying: a hill climb on goodput. While transfers wait
// for a connection, the controller now and then allows half as many again (or a third fewer), looks what the goodput
// becomes, and keeps what paid: more connections only for at least 5 % more, fewer if that costs less than 2 %. A
// server that says "too many" (429, 503, a refused connection) is believed: half of them, and no trial for a minute.
//
// The model: xet-core's concurrency controller and every TCP since Tahoe (additive trials, multiplicative decrease);
// counted are connections, because a single one is bound by its congestion window (docs/ARCHITECTURE.md).
//
// Thread: any one; values in, values out.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace wormhole {

class ConnectionController {
 public:
  // `start` from the host's profile or the default; 1 <= start <= most.
  ConnectionController(int start, int most);

  // How many connections may be used now; at least 1.
  int allowed() const { return allowed_; }

  // What came over all of them since the last call; `saturated`: all were in use and more work waited, all the time.
  // To be called several times a second.
  void observe(uint64_t bytes, bool saturated, TimePoint now);

  // The server wants fewer.
  void back_off(TimePoint now);

 private:
  enum class State : uint8_t { kSteady, kTrial };

  void begin_trial(TimePoint now);
  void judge_trial(double rate, TimePoint now);
  void restart_window(TimePoint now);

  const int most_;
  int allowed_;
  State state_ = State::kSteady;
  int before_ = 0;          // connections before the trial
  double rate_before_ = 0;  // and their goodput, bytes per second
  bool upwards_ = true;     // the direction of the next trial
  Duration pause_;          // before the next trial
  TimePoint last_trial_{};
  TimePoint window_begin_{};  // of the measurement that is under way; {} when none is
  uint64_t window_bytes_ = 0;
};

}  // namespace wormhole
