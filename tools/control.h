// How the commands talk to running mounts: a Unix socket for each, in a directory that only its user can enter. A
// client sends one JSON object in one line, {"do": "status"}, and reads one JSON document in one line: the answer, or
// {"error": "why not"}. Before it there may be others, {"said": ...}: how far long work has come.
//
// Thread: the server has one of its own (wh-control) and one for each client (wh-client), on which it calls back: a
// request that takes its time keeps no other waiting.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace wormhole {

// /run/wormhole for root, $XDG_RUNTIME_DIR/wormhole or /tmp/wormhole-UID for others.
std::string control_directory();

class ControlServer {
 public:
  // Tells the client something before the answer. False: it has gone away, nobody waits for the answer.
  using Say = std::function<bool(const nlohmann::json&)>;
  // Called by several threads at once.
  using Handler = std::function<nlohmann::json(const nlohmann::json& request, const Say& say)>;

  // Listens on `directory`/<pid>.sock; the directory is made where it is missing.
  static Result<std::unique_ptr<ControlServer>> start(Handler handler,
                                                      const std::string& directory = control_directory());
  // Removes the socket, and waits for the clients that are being served.
  ~ControlServer();

 private:
  ControlServer(std::string path, FileDescriptor listener, Handler handler);
  void run();
  void serve(int client) const;
  void join_served(bool all);

  struct Client {
    std::atomic<bool> served{false};
    std::thread thread;
  };

  const std::string path_;
  FileDescriptor listener_;
  FileDescriptor end_;  // an eventfd
  const Handler handler_;
  std::list<Client> clients_;  // the server thread's
  std::thread thread_;
};

// The answers of all mounts of this user that run now. A daemon that does not answer within ten seconds is named on
// standard error; `silent`, if given, gets how many these are.
std::vector<nlohmann::json> ask_all_mounts(const nlohmann::json& request, size_t* silent = nullptr);

// The answer of the mount whose daemon is process `pid`, however long it takes. kUnreachable when nobody answers,
// kInvalid with what the daemon says when it refuses.
// `heard` gets what is said before it, and may end the conversation: kCancelled.
using Heard = std::function<bool(const nlohmann::json& said)>;
Result<nlohmann::json> ask_mount(pid_t pid, const nlohmann::json& request, const Heard& heard = nullptr,
                                 const std::string& directory = control_directory());

}  // namespace wormhole
