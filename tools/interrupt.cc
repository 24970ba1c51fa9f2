#include "tools/interrupt.h"

#include <atomic>

namespace wormhole {
namespace {

std::atomic<int> signal_number = 0;

}  // namespace

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int number) { signal_number = number; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int number : kInterrupts) ::sigaction(number, &action, nullptr);
}

int interrupted_by() { return signal_number.load(); }

}  // namespace wormhole
