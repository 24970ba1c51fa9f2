#include "tools/cache_home.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>

namespace wormhole {

std::string cache_home() {
  std::string base = "/var/cache";
  if (::geteuid() != 0) {
    const char* xdg = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    base = xdg != nullptr && *xdg == '/' ? xdg : std::string(home != nullptr ? home : "/tmp") + "/.cache";
  }
  return base + "/wormhole";
}

std::string distinct_name(std::string readable, std::string_view identity) {
  // FNV-1a: two that look alike after the replacement get different names.
  uint64_t hash = 14695981039346656037ull;
  for (const char c : identity) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  std::replace_if(
      readable.begin(), readable.end(), [](unsigned char c) { return !std::isalnum(c) && c != '.' && c != '-'; }, '_');
  return fmt::format("{}-{:016x}", readable.substr(0, 80), hash);
}

}  // namespace wormhole
