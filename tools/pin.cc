// `wormhole pin` and `wormhole unpin`: files that are never evicted.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tools/command.h"
#include "tools/control.h"
#include "tools/mounted_path.h"
#include "tools/tree_walk.h"

namespace wormhole {
namespace {

struct PinOptions {
  std::vector<std::string> paths;
  bool json = false;
  std::string what;  // "pin" or "unpin"
};

int pin(const PinOptions& options) {
  bool all_went_well = true;
  const auto complain = [&](const std::string& message) {
    fmt::print(stderr, "wormhole {}: {}\n", options.what, message);
    all_went_well = false;
  };
  const auto places = find_mounted(options.paths);
  if (!places) return complain(places.error().message), 1;
  uint64_t files = 0, changed = 0;
  for (const MountedPath& place : *places) {
    const auto tell = [&](const std::vector<WalkedFile>& batch) {
      nlohmann::json numbers = nlohmann::json::array();
      for (const WalkedFile& file : batch) numbers.push_back(file.ino);
      const auto answer = ask_mount(place.daemon, {{"do", options.what}, {"files", numbers}});
      if (!answer) return complain(place.path + ": " + answer.error().message), false;
      files += batch.size();
      changed += answer->value("changed", uint64_t{0});
      return true;
    };
    walk_in_batches(Walk::Sizes::kUnknown, place.path, tell,
                    [&](const std::string& path, int error) { complain(path + ": " + std::strerror(error)); });
  }
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"files", files}, {"changed", changed}}.dump(2));
  } else {
    const bool pins = options.what == "pin";
    fmt::print("{} {} file{}", pins ? "pinned" : "unpinned", changed, changed == 1 ? "" : "s");
    if (changed < files) fmt::print(", {} {} before", files - changed, pins ? "were so" : "were not pinned");
    fmt::print("\n");
  }
  return all_went_well ? 0 : 1;
}

CLI::App* add(CLI::App& program, Run& run, const std::string& what, const std::string& help) {
  auto options = std::make_shared<PinOptions>();
  options->what = what;
  CLI::App* command = program.add_subcommand(what, help);
  command->add_option("PATH", options->paths, "inside a mount")->required();
  command->add_flag("--json", options->json, "machine-readable");
  command->callback([options, &run] { run = [options] { return pin(*options); }; });
  return command;
}

}  // namespace

CLI::App* add_pin_command(CLI::App& program, Run& run) {
  return add(program, run, "pin", "Keep files, or all below directories, in the cache");
}

CLI::App* add_unpin_command(CLI::App& program, Run& run) {
  return add(program, run, "unpin", "Let them be evicted again");
}

}  // namespace wormhole
