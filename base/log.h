// The daemon's log: one line an event, the fixed words first and the facts as key=value behind them, so that a line
// can be read by a person and cut by a machine:
//   log::warn("fetch failed: url={} range={}-{} error={}", ...)
//
// Thread: any; a line is written whole.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace wormhole::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };

// What is written from now on, and where: stderr, or `path` (appended to; at 10 MiB it becomes path.1) when it is not
// empty. Call at start, before threads exist. Default: kInfo on stderr. False when the file cannot be opened (stderr is
// used then).
bool configure(Level level, const std::string& path);

// "debug", "info", "warn", "error", "off"; false when `word` is none of them.
bool parse_level(std::string_view word, Level* level);

bool enabled(Level level);
void write(Level level, std::string_view line);
// Everything written so far is on its way to the disk; before the process ends.
void flush();

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kDebug)) write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kInfo)) write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kWarn)) write(Level::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::kError)) write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace wormhole::log
