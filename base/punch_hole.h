// Gives the place of some bytes of a file back to the file system; they are zeros from then on, and the file stays as
// long as it is.
//
// Thread: any.
#pragma once

#include <fcntl.h>

#include "base/byte_range.h"

namespace wormhole {

// False, with errno: the file system cannot, or the disk is broken.
inline bool punch_hole(int fd, ByteRange range) {
  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.begin),
                     static_cast<off_t>(range.size())) == 0;
}

}  // namespace wormhole
