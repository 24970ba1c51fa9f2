// How requests of the kernel reach the daemon. "dev": each is read from /dev/fuse, and its answer is written there.
// "uring": both lie in memory that the kernel was given once, and io_uring says when (fs/transport_uring.h).
// docs/TRANSPORT.md has what either costs.
//
// Thread: any.
#pragma once

#include <string>

#include "base/error.h"

namespace wormhole {

enum class FuseTransport { kAuto, kDev, kUring };

// What a mount uses.
struct FuseTransportState {
  bool uring = false;
  std::string why_not;  // why it is not uring; empty when it is
};

inline constexpr const char* kUringSetting = "/sys/module/fuse/parameters/enable_uring";

// Where a mount begins that wishes `wish`, by what the kernel's setting says, which is only read. An error when it
// wishes uring and cannot have it: somebody who asks for it wants to know.
Result<FuseTransportState> choose_transport(FuseTransport wish, const std::string& setting = kUringSetting);

}  // namespace wormhole
