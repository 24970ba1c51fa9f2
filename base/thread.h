// A thread with a name that perf, top -H and gdb show. Joined by its owner, never detached.
//
// Thread: the owner's.
#pragma once

#include <pthread.h>

#include <string>
#include <thread>
#include <utility>

namespace wormhole {

// `name` has at most 15 characters (the kernel's limit); longer ones are cut.
inline void name_this_thread(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

template <typename F>
std::thread start_thread(const std::string& name, F&& body) {
  return std::thread([name, body = std::forward<F>(body)]() mutable {
    name_this_thread(name);
    body();
  });
}

}  // namespace wormhole
