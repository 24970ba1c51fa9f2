// The two ends of the wire: network namespaces "wormhole-near" (the client's) and "wormhole-far" (the server's), each
// with a loopback and one TUN device. Nothing outside them is changed.
//
// Thread: main, before others exist: it moves the thread between namespaces.
#pragma once

#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace wormhole::wire {

struct End {
  const char* name;
  const char* address;
  std::string path() const { return std::string("/run/netns/") + name; }
};

inline constexpr End kNear{"wormhole-near", "10.99.0.1"};
inline constexpr End kFar{"wormhole-far", "10.99.0.2"};
inline constexpr int kMtu = 1500;

bool exists(const End& end);
// Creates the namespace and its device; the wire is what reads and writes the descriptor. With `large_buffers`, TCP's
// windows may grow to what 1 Gbit/s at 100 ms needs; the kernel's own limit for senders, 4 MiB, holds a stream to 55
// MB/s at 50 ms.
Result<FileDescriptor> create(const End& end, bool large_buffers);
// What is left of it, too. Not an error when there is nothing.
void remove(const End& end);
// This thread, and what it starts, is at that end from now on. The file system stays the same.
Status enter(const End& end);

}  // namespace wormhole::wire
