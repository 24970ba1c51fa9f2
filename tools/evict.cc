// `wormhole evict`: what is cached of some files goes now.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "tools/command.h"
#include "tools/control.h"
#include "tools/human.h"
#include "tools/mounted_path.h"
#include "tools/tree_walk.h"

namespace wormhole {
namespace {

// With --json all is told at the end; of more files than this only the number.
constexpr size_t kMostNamed = 1000;

const char* sentence(const std::string& why) {
  if (why == "pinned") return "it is pinned (wormhole unpin)";
  if (why == "open") return "it is open, and the kernel reads it";
  return "it is being read or stored";
}

class Eviction {
 public:
  explicit Eviction(bool json) : json_(json) {}

  void run(const MountedPath& place) {
    walk_in_batches(
        Walk::Sizes::kUnknown, place.path,
        [&](const std::vector<WalkedFile>& files) { return evict(place.daemon, files); },
        [&](const std::string& path, int error) { failed(path + ": " + std::strerror(error)); });
  }

  int finish() {
    if (json_) {
      const nlohmann::json out = {
          {"freed_bytes", freed_bytes_},   {"freed_files", freed_files_}, {"stayed_files", stayed_files_},
          {"stayed_bytes", stayed_bytes_}, {"stayed", stayed_},           {"errors", errors_}};
      fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    } else {
      fmt::print("evicted {} of {} file{}\n", human_bytes(freed_bytes_), freed_files_, freed_files_ == 1 ? "" : "s");
    }
    return stayed_files_ == 0 && errors_.empty() ? 0 : 1;
  }

 private:
  bool evict(pid_t daemon, const std::vector<WalkedFile>& files) {
    nlohmann::json numbers = nlohmann::json::array();
    std::unordered_map<uint64_t, const WalkedFile*> by_number;
    for (const WalkedFile& file : files) {
      numbers.push_back(file.ino);
      by_number[file.ino] = &file;
    }
    const auto answer = ask_mount(daemon, {{"do", "evict"}, {"files", numbers}});
    if (!answer) return failed(answer.error().message), false;
    freed_bytes_ += answer->value("freed_bytes", uint64_t{0});
    freed_files_ += answer->value("freed_files", uint64_t{0});
    for (const auto& s : answer->value("stayed", nlohmann::json::array())) {
      const auto file = by_number.find(s.value("file", uint64_t{0}));
      if (file != by_number.end()) stayed(file->second->path, s.value("why", ""), s.value("bytes", uint64_t{0}));
    }
    return true;
  }

  void stayed(const std::string& path, const std::string& why, uint64_t bytes) {
    ++stayed_files_;
    stayed_bytes_ += bytes;
    if (!json_) {
      fmt::print(stderr, "wormhole evict: {}: {} stay: {}\n", path, human_bytes(bytes), sentence(why));
    } else if (stayed_.size() < kMostNamed) {
      stayed_.push_back({{"path", path}, {"why", why}, {"bytes", bytes}});
    }
  }

  void failed(const std::string& message) {
    fmt::print(stderr, "wormhole evict: {}\n", message);
    if (errors_.size() < kMostNamed) errors_.push_back(message);
  }

  const bool json_;
  uint64_t freed_bytes_ = 0, freed_files_ = 0;
  uint64_t stayed_bytes_ = 0, stayed_files_ = 0;
  nlohmann::json stayed_ = nlohmann::json::array(), errors_ = nlohmann::json::array();
};

int evict(const std::vector<std::string>& paths, bool json) {
  const auto places = find_mounted(paths);
  if (!places) {
    fmt::print(stderr, "wormhole evict: {}\n", places.error().message);
    return 1;
  }
  Eviction eviction(json);
  for (const MountedPath& place : *places) eviction.run(place);
  return eviction.finish();
}

}  // namespace

CLI::App* add_evict_command(CLI::App& program, Run& run) {
  struct Arguments {
    std::vector<std::string> paths;
    bool json = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand("evict", "Take files, or all below directories, out of the cache");
  command->add_option("PATH", a->paths, "inside a mount")->required();
  command->add_flag("--json", a->json, "machine-readable");
  command->callback([a, &run] { run = [a] { return evict(a->paths, a->json); }; });
  return command;
}

}  // namespace wormhole
