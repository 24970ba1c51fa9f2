#include "fs/errno.h"

#include <cerrno>

namespace wormhole {

int errno_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return ENOENT;
    // Not EPERM: programs take that for a property of the file. EACCES is what a server's 401 means to a reader.
    case ErrorCode::kForbidden:
    case ErrorCode::kUnauthorized: return EACCES;
    // As NFS: the handle names something that is no longer there. The kernel answers an ESTALE from open with a
    // fresh lookup, so that the caller of open(2) gets the new version.
    case ErrorCode::kStale: return ESTALE;
    case ErrorCode::kTimedOut: return ETIMEDOUT;
    case ErrorCode::kNotDirectory: return ENOTDIR;
    case ErrorCode::kInvalid: return EINVAL;
    case ErrorCode::kBusy: return EBUSY;
    case ErrorCode::kCancelled:  // the mount is ending: what a reader of a disk that was pulled out sees
    case ErrorCode::kUnreachable:
    case ErrorCode::kBadResponse:
    case ErrorCode::kNoRanges:
    case ErrorCode::kTls:
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace:
    case ErrorCode::kCorrupt:
    case ErrorCode::kFormat: return EIO;
  }
  return EIO;
}

}  // namespace wormhole
