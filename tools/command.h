// The subcommands of `wormhole`. Each add_*_command() registers a name, options and help; when the command line
// chooses it, `run` becomes what is to be done. main.cc parses, then returns run().
//
// Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 128 + n ended by signal n.
//
// Thread: main.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace wormhole {

using Run = std::function<int()>;

CLI::App* add_cache_command(CLI::App& program, Run& run);   // cache.cc
CLI::App* add_evict_command(CLI::App& program, Run& run);   // evict.cc
CLI::App* add_get_command(CLI::App& program, Run& run);     // get.cc
CLI::App* add_host_command(CLI::App& program, Run& run);    // host.cc
CLI::App* add_index_command(CLI::App& program, Run& run);   // index.cc
CLI::App* add_mount_command(CLI::App& program, Run& run);   // mount.cc
CLI::App* add_pin_command(CLI::App& program, Run& run);     // pin.cc
CLI::App* add_status_command(CLI::App& program, Run& run);  // status.cc
CLI::App* add_umount_command(CLI::App& program, Run& run);  // umount.cc
CLI::App* add_unpin_command(CLI::App& program, Run& run);   // pin.cc
void add_verify_command(CLI::App& cache, Run& run);         // verify.cc, below `cache`
CLI::App* add_warm_command(CLI::App& program, Run& run);    // warm.cc

// The program under the name mount.wormhole, as mount(8) calls it. Returns the exit code.
int mount_helper_main(int argc, char** argv);  // mount.cc

}  // namespace wormhole
