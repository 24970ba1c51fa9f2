// The file system in front of the kernel: fuse_lowlevel_ops decode a request, call the Filesystem and reply. Nothing is
// decided here. ops.cc and session.cc are the only files that know libfuse.
//
// Thread: libfuse's workers call; replies come from any thread.
#pragma once

struct fuse_lowlevel_ops;

namespace wormhole {

class Filesystem;

// What the kernel reads ahead of a sequential reader (fs/session.cc says why).
inline constexpr unsigned kKernelReadahead = 4 << 20;

// The userdata of the session is the Filesystem.
const fuse_lowlevel_ops& fuse_ops();

}  // namespace wormhole
