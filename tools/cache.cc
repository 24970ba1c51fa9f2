// `wormhole cache`, and its `stats`: what the caches of this user's mounts hold. `verify` is in verify.cc.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tools/command.h"
#include "tools/control.h"
#include "tools/human.h"
#include "tools/mounted_path.h"
#include "tools/survey.h"

namespace wormhole {
namespace {

struct StatsOptions {
  std::string path;
  bool files = false;
  bool json = false;
};

void print(const nlohmann::json& m) {
  const auto number = [&m](const char* name) { return m.value(name, uint64_t{0}); };
  const auto bytes = [&](const char* name) { return human_bytes(number(name)); };
  fmt::print("{} on {}\n", m.value("url", "?"), m.value("mountpoint", "?"));
  fmt::print("  cache     {} of {} in {}\n", bytes("bytes_cached"), bytes("cache_size"), m.value("cache", "?"));
  const bool short_of_room = number("disk_free") < number("min_free");
  fmt::print("  disk      {} free, {} stay free{}\n", bytes("disk_free"), bytes("min_free"),
             short_of_room ? ": nothing more is stored, and files are evicted" : "");
  fmt::print("  queues    {} small, {} main, in {} regions\n", bytes("small_queue_bytes"), bytes("main_queue_bytes"),
             number("regions"));
  fmt::print("  evicted   {} since the start, {} stores found no room\n", bytes("bytes_evicted"),
             number("stores_without_room"));
  if (m.contains("files_complete"))
    fmt::print("  files     {} complete, {} partial\n", number("files_complete"), number("files_partial"));
  fmt::print("  pinned    {} files\n", number("files_pinned"));
  if (const auto below = m.find("below"); below != m.end()) {
    const auto of = [&](const char* name) { return below->value(name, uint64_t{0}); };
    fmt::print("{}\n", below->value("path", "?"));
    fmt::print("  cached    {} of {}\n", human_bytes(of("bytes_cached")), human_bytes(of("bytes")));
    fmt::print("  files     {}: {} complete, {} partial, {} pinned\n", of("files"), of("files_complete"),
               of("files_partial"), of("files_pinned"));
  }
}

int complain(const std::string& message) {
  fmt::print(stderr, "wormhole cache stats: {}\n", message);
  return 1;
}

int stats(const StatsOptions& options) {
  std::optional<MountedPath> place;
  if (!options.path.empty()) {
    auto found = find_mounted(options.path);
    if (!found) return complain(found.error().message);
    place = std::move(*found);
  }
  int code = 0;
  nlohmann::json mounts = nlohmann::json::array();
  size_t silent = 0;
  for (const auto& mount : ask_all_mounts({{"do", "status"}}, &silent)) {
    const pid_t pid = mount.value("pid", 0);
    if (place && place->daemon != pid) continue;
    auto answer = ask_mount(pid, {{"do", "cache"}, {"files", options.files}});
    if (!answer) {
      code = complain(answer.error().message);
      continue;
    }
    for (const char* name : {"url", "mountpoint", "cache", "pid"})
      (*answer)[name] = mount.value(name, nlohmann::json());
    mounts.push_back(std::move(*answer));
  }
  if (silent > 0 && !place) code = 1;
  if (place && options.files && !mounts.empty()) {
    Survey survey;
    SurveyObserver observer;
    observer.failed = [&](const std::string& message) { code = complain(message); };
    take_survey(*place, observer, &survey);
    mounts[0]["below"] = {{"path", place->path},
                          {"files", survey.files},
                          {"files_complete", survey.complete},
                          {"files_partial", survey.partial},
                          {"files_pinned", survey.pinned_files},
                          {"bytes", survey.bytes},
                          {"bytes_cached", survey.cached_bytes}};
  }
  if (options.json) {
    const nlohmann::json out = {{"mounts", mounts}};
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    if (mounts.empty() && code == 0) fmt::print("no wormhole of this user is mounted\n");
    for (const auto& mount : mounts) print(mount);
  }
  return code;
}

}  // namespace

CLI::App* add_cache_command(CLI::App& program, Run& run) {
  auto options = std::make_shared<StatsOptions>();
  CLI::App* cache = program.add_subcommand("cache", "Look into caches, and check them");
  cache->require_subcommand(1);
  CLI::App* command = cache->add_subcommand("stats", "Show what they hold");
  command->add_option("PATH", options->path, "only the mount that this is in");
  command->add_flag("--files", options->files, "count files too, and what is cached below PATH; takes its time");
  command->add_flag("--json", options->json, "machine-readable");
  command->callback([options, &run] { run = [options] { return stats(*options); }; });
  add_verify_command(*cache, run);
  return cache;
}

}  // namespace wormhole
