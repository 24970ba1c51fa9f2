// `wormhole status`: what the mounts of this user are doing.
#include <CLI/CLI.hpp>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "tools/command.h"
#include "tools/control.h"
#include "tools/human.h"

namespace wormhole {
namespace {

void print(const nlohmann::json& m) {
  const auto number = [&m](const char* name) { return m.value(name, uint64_t{0}); };
  std::printf("%s on %s\n", m.value("url", "?").c_str(), m.value("mountpoint", "?").c_str());
  const std::string several = number("engines") > 1 ? std::to_string(number("engines")) + " engines, " : "";
  std::printf("  daemon    pid %llu, up %s, %s%s, server %s\n", static_cast<unsigned long long>(number("pid")),
              human_duration(std::chrono::seconds(number("uptime_seconds"))).c_str(), several.c_str(),
              m.value("io", "?").c_str(), m.value("reachable", true) ? "reachable" : "cannot be reached");
  std::printf("  read      %s from the network, %s from the cache\n", human_bytes(number("bytes_from_network")).c_str(),
              human_bytes(number("bytes_from_cache")).c_str());
  std::printf("  cache     %s of %s in %s\n", human_bytes(number("bytes_cached")).c_str(),
              human_bytes(number("cache_size")).c_str(), m.value("cache", "?").c_str());
  std::printf("  kernel    passthrough %s, %llu opens passed through\n", m.value("passthrough", "?").c_str(),
              static_cast<unsigned long long>(number("opens_passed_through")));
  const std::string why_not = m.value("not_uring_because", "");
  std::printf("  transport %s%s%s\n", m.value("transport", "?").c_str(), why_not.empty() ? "" : ": ", why_not.c_str());
  std::printf("  wire      %s in %llu requests, %llu in flight, %llu retried, %llu failed\n",
              human_bytes(number("body_bytes_received")).c_str(),
              static_cast<unsigned long long>(number("requests_sent")),
              static_cast<unsigned long long>(number("fetches_in_flight")),
              static_cast<unsigned long long>(number("fetches_retried")),
              static_cast<unsigned long long>(number("fetches_failed")));
  if (const auto servers = m.value("servers", nlohmann::json::array()); servers.size() > 1) {
    for (const auto& s : servers) {
      std::printf("  server    %s (%s): %s%s\n", s.value("url", "?").c_str(), s.value("role", "?").c_str(),
                  human_bytes(s.value("bytes_received", uint64_t{0})).c_str(),
                  s.value("rests", false) ? ", rests because it has failed" : "");
    }
  }
  std::printf("  memory    %s of %s in buffers\n", human_bytes(number("buffer_bytes")).c_str(),
              human_bytes(number("memory")).c_str());
}

int status(const std::string& place, bool as_json) {
  std::string wanted = place;
  if (char resolved[PATH_MAX]; !place.empty() && ::realpath(place.c_str(), resolved) != nullptr) wanted = resolved;
  nlohmann::json mounts = nlohmann::json::array();
  size_t silent = 0;
  for (auto& mount : ask_all_mounts({{"do", "status"}}, &silent)) {
    if (wanted.empty() || mount.value("mountpoint", "") == wanted) mounts.push_back(std::move(mount));
  }
  // Whose mount it is that does not answer, nobody knows.
  const int code = silent > 0 && (wanted.empty() || mounts.empty()) ? 1 : 0;
  if (!wanted.empty() && mounts.empty()) {
    if (silent == 0) std::fprintf(stderr, "wormhole: %s: no wormhole of this user is mounted there\n", wanted.c_str());
    return 1;
  }
  if (as_json) {
    std::printf("%s\n", nlohmann::json{{"mounts", mounts}}.dump(2).c_str());
    return code;
  }
  if (mounts.empty() && silent == 0) std::printf("no wormhole of this user is mounted\n");
  for (const auto& mount : mounts) print(mount);
  return code;
}

}  // namespace

CLI::App* add_status_command(CLI::App& program, Run& run) {
  struct Arguments {
    std::string place;
    bool json = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("status", "Show what the mounts are doing");
  command->add_option("DIR", a->place, "only this mount");
  command->add_flag("--json", a->json, "machine-readable");
  command->callback([a, &run] { run = [a] { return status(a->place, a->json); }; });
  return command;
}

}  // namespace wormhole
