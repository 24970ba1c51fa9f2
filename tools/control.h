// How `wormhole status` talks to running mounts: a Unix socket for each, in a directory that only its user can enter. A
// client sends one word and a newline, and reads one JSON document until the end.
//
// Thread: the server has one of its own (wh-control), on which it calls back.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace wormhole {

class ControlServer {
 public:
  using Handler = std::function<nlohmann::json(const std::string& command)>;

  // Listens on control_directory()/<pid>.sock.
  static Result<std::unique_ptr<ControlServer>> start(Handler handler);
  // Removes the socket.
  ~ControlServer();

 private:
  ControlServer(std::string path, FileDescriptor listener, Handler handler);
  void run();
  void serve(int client) const;

  const std::string path_;
  FileDescriptor listener_;
  FileDescriptor end_;  // an eventfd
  const Handler handler_;
  std::thread thread_;
};

// /run/wormhole for root, $XDG_RUNTIME_DIR/wormhole or /tmp/wormhole-UID for others.
std::string control_directory();

// The answers of all mounts of this user that run now.
std::vector<nlohmann::json> ask_all_mounts(const std::string& command);

}  // namespace wormhole
