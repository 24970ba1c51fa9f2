#include "base/log.h"

#include <pthread.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

namespace wormhole::log {
namespace {

// A log file is renamed (FILE.1) when it has this size: weeks of a mount that is well, and at most 20 MiB of one that
// is not.
constexpr size_t kLogFileBytes = 10 << 20;
constexpr size_t kOlderLogFiles = 1;

std::atomic<Level> g_level{Level::kInfo};

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarn: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
    case Level::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

// Only one logger exists; it is replaced in configure() before threads start.
std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = [] {
    auto l = std::make_shared<spdlog::logger>("wormhole", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_level(spdlog::level::trace);
    l->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    return l;
  }();
  return instance;
}

}  // namespace

bool configure(Level level, const std::string& path) {
  g_level.store(level, std::memory_order_relaxed);
  if (path.empty()) return true;
  try {
    auto sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(path, kLogFileBytes, kOlderLogFiles);
    auto file = std::make_shared<spdlog::logger>("wormhole", std::move(sink));
    file->set_level(spdlog::level::trace);
    file->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    file->flush_on(spdlog::level::trace);  // what is written can be read, and a crash loses no line
    logger() = file;
    return true;
  } catch (const spdlog::spdlog_ex&) {
    return false;
  }
}

bool parse_level(std::string_view word, Level* level) {
  if (word == "debug") return *level = Level::kDebug, true;
  if (word == "info") return *level = Level::kInfo, true;
  if (word == "warn") return *level = Level::kWarn, true;
  if (word == "error") return *level = Level::kError, true;
  if (word == "off") return *level = Level::kOff, true;
  return false;
}

bool enabled(Level level) { return level >= g_level.load(std::memory_order_relaxed); }

void write(Level level, std::string_view line) {
  char thread[16] = "";
  pthread_getname_np(pthread_self(), thread, sizeof(thread));
  logger()->log(to_spdlog(level), fmt::format("[{}] {}", thread, line));
}

void flush() { logger()->flush(); }

}  // namespace wormhole::log
