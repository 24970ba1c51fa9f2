// Ctrl-C for commands that take long: the first one ends them in good order, a second one at once.
//
// Thread: catch_interrupts() main; interrupted_by() any.
#pragma once

#include <signal.h>

namespace wormhole {

// For threads that should not be woken by them.
inline constexpr int kInterrupts[] = {SIGINT, SIGTERM, SIGHUP};

// System calls that wait end with EINTR.
void catch_interrupts();
// The signal; 0 when there was none.
int interrupted_by();

}  // namespace wormhole
