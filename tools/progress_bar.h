// How far long work has come, for the person who waits:
//
//   model.bin   45 % [========>          ] 460 MiB / 1.0 GiB  93.2 MB/s  ETA 0:06
//
// On a terminal one line is drawn over and over; anywhere else (a log, a pipe) a line is written now and then.
//
// Thread: its owner's.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"

namespace wormhole {

// The last few seconds of a counter that grows.
class RateMeter {
 public:
  // Long enough to be calm, short enough to show a change of the wire.
  static constexpr Duration kWindow = std::chrono::seconds(5);

  void add(TimePoint now, uint64_t done);
  double bytes_per_second() const;

 private:
  struct Sample {
    TimePoint time;
    uint64_t done;
  };
  std::deque<Sample> samples_;
};

// What a line says.
struct Progress {
  std::string label;
  uint64_t done = 0;
  std::optional<uint64_t> total;  // nothing when nobody knows
  double bytes_per_second = 0;
};

// One line of at most `columns` characters. When it gets narrow the bar goes first, then ETA and rate, then the label
// is cut. Without `columns` there is no bar, and no limit.
std::string format_progress(const Progress& progress, std::optional<size_t> columns);

class ProgressBar {
 public:
  enum class Output : uint8_t {
    kAuto,      // as `out` is a terminal or not
    kTerminal,  // the line is redrawn
    kLines,     // a new line each time
    kNone,
  };

  // The clock and `out` outlive the bar. The first update() tells where the work starts: what was done before
  // (a resumed download) does not count for the rate.
  ProgressBar(std::string label, std::optional<uint64_t> total, const Clock& clock, Output output = Output::kAuto,
              std::FILE* out = stderr);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // What stands in front of the line from now on.
  void relabel(std::string label) { progress_.label = std::move(label); }
  // All of it, once somebody knows, or knows better.
  void set_total(uint64_t total) { progress_.total = total; }
  // Call often, also when nothing has moved: the bar decides when to draw.
  void update(uint64_t done);
  // The work is done: how much, how long, how fast. Without this the line stays as it is.
  void finish();

 private:
  void draw(TimePoint now);
  Duration interval() const;

  const Clock& clock_;
  std::FILE* const out_;
  const Output output_;
  Progress progress_;
  RateMeter rate_;
  std::optional<TimePoint> started_;
  uint64_t done_at_start_ = 0;
  std::optional<TimePoint> drawn_;
  bool line_is_open_ = false;  // the cursor stands behind a drawn line
};

}  // namespace wormhole
