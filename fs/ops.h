// The file system in front of the kernel: fuse_lowlevel_ops decode a request, call the Filesystem and reply. Nothing is
// decided here. ops.cc, session.cc and transport_uring.cc are the only files that know libfuse.
//
// Thread: libfuse's workers call; replies come from any thread.
#pragma once

struct fuse_lowlevel_ops;

namespace wormhole {

class Filesystem;
class UringTransport;

// The userdata of the session.
struct SessionData {
  Filesystem& filesystem;
  UringTransport* rings = nullptr;  // null when requests come by /dev/fuse alone
};

// What the kernel reads ahead of a sequential reader (fs/session.cc says why).
inline constexpr unsigned kKernelReadahead = 4 << 20;

const fuse_lowlevel_ops& fuse_ops();

}  // namespace wormhole
