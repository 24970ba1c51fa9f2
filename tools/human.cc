#include "tools/human.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace wormhole {
namespace {

using Units = std::array<std::string_view, 7>;
constexpr Units kBinary = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
constexpr Units kDecimal = {"B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"};

// One decimal below `fine`, none from there on, and none for single bytes.
std::string scaled(double value, double step, const Units& units, double fine) {
  size_t unit = 0;
  // What would be rounded to a full step is shown in the next unit: not "1024 KiB".
  while (value >= step - 0.5 && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  const bool decimal = unit > 0 && value < fine - 0.05;
  return fmt::format("{:.{}f} {}", value, decimal ? 1 : 0, units[unit]);
}

}  // namespace

std::string human_bytes(uint64_t bytes) { return scaled(static_cast<double>(bytes), 1024, kBinary, 10); }

std::string human_rate(double bytes_per_second) { return scaled(bytes_per_second, 1000, kDecimal, 100); }

std::string human_duration(std::chrono::seconds duration) {
  const auto seconds = duration.count();
  if (seconds >= 24 * 3600) return fmt::format("{}d {:02}h", seconds / 86400, seconds / 3600 % 24);
  if (seconds >= 3600) return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
  return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
}

}  // namespace wormhole
