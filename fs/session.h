// The mount itself: the kernel's connection, the threads that take its requests, and its end.
//
// Thread: mount(), start(), unmount() and the destructor by the main thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "fs/transport.h"

struct fuse_session;

namespace wormhole {

class Filesystem;
class UringTransport;
struct SessionData;

struct SessionOptions {
  std::string mountpoint;
  std::string source;                // what stands in the mount table: the URL, without secrets
  std::vector<std::string> options;  // for the kernel and fusermount3: "allow_other", "nosuid"…
  unsigned threads = 4;              // workers that decode requests; never wait for the network, a few for the disk
  FuseTransport transport = FuseTransport::kAuto;
};

class Session {
 public:
  // Mounts, as root directly, as another user through fusermount3. The errors say what the system refused.
  static Result<std::unique_ptr<Session>> mount(SessionOptions options, Filesystem& filesystem);
  // Unmounts if still mounted, and ends the session. Every request must have been answered.
  ~Session();

  // Serves requests on threads of its own; `ended` is called from one of them when the kernel has ended the connection
  // (somebody unmounted). An error when requests cannot come as the options say.
  Status start(std::function<void()> ended);
  // Ends the connection: readers in the kernel get an error. Returns when no worker runs any more.
  void stop();

  // After start().
  const FuseTransportState& transport() const { return transport_; }

 private:
  Session(SessionOptions options, FuseTransportState transport, Filesystem& filesystem);
  Status attach_rings();
  Status without_uring(const std::string& why_not);
  void raise_kernel_readahead() const;
  void end_loop();

  const SessionOptions options_;
  FuseTransportState transport_;
  const std::unique_ptr<SessionData> data_;
  fuse_session* session_ = nullptr;
  std::unique_ptr<UringTransport> rings_;  // null: only /dev/fuse
  bool mounted_ = false;
  std::thread thread_;
  std::atomic<bool> loop_ended_{true};
};

}  // namespace wormhole
