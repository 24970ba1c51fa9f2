// wormhole: the program as a table of contents. A subcommand is a file of its own; command.h lists them.

#include <CLI/CLI.hpp>
#include <string_view>

#include "tools/command.h"

namespace wormhole {
namespace {

constexpr int kUsageError = 2;

int main(int argc, char** argv) {
  if (std::string_view(argv[0]).ends_with("mount.wormhole")) return mount_helper_main(argc, argv);

  CLI::App program{"Mounts remote HTTP trees as files, with an on-disk block cache.", "wormhole"};
  program.set_version_flag("--version", "wormhole " WORMHOLE_VERSION);
  program.require_subcommand(1);

  Run run;
  add_mount_command(program, run);
  add_umount_command(program, run);
  add_status_command(program, run);
  add_warm_command(program, run);
  add_evict_command(program, run);
  add_pin_command(program, run);
  add_unpin_command(program, run);
  add_cache_command(program, run);
  add_get_command(program, run);
  add_host_command(program, run);
  add_index_command(program, run);
  for (CLI::App* command : program.get_subcommands({})) {
    command->set_version_flag("--version", "wormhole " WORMHOLE_VERSION);
  }

  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : kUsageError;  // --help and --version arrive here too
  }
  return run();
}

}  // namespace
}  // namespace wormhole

int main(int argc, char** argv) { return wormhole::main(argc, argv); }
