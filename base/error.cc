#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace wormhole {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return "not-found";
    case ErrorCode::kForbidden: return "forbidden";
    case ErrorCode::kUnauthorized: return "unauthorized";
    case ErrorCode::kStale: return "stale";
    case ErrorCode::kUnreachable: return "unreachable";
    case ErrorCode::kTimedOut: return "timed-out";
    case ErrorCode::kBadResponse: return "bad-response";
    case ErrorCode::kNoRanges: return "no-ranges";
    case ErrorCode::kTls: return "tls";
    case ErrorCode::kNotDirectory: return "not-a-directory";
    case ErrorCode::kInvalid: return "invalid";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kNoSpace: return "no-space";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kFormat: return "format";
    case ErrorCode::kBusy: return "busy";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "unknown";
}

Error error_from_errno(int error_number, const std::string& what) {
  ErrorCode code = ErrorCode::kIo;
  switch (error_number) {
    case ENOSPC:
    case EDQUOT: code = ErrorCode::kNoSpace; break;
    case EACCES:
    case EPERM:
    case EROFS: code = ErrorCode::kForbidden; break;
    case ENOENT: code = ErrorCode::kNotFound; break;
    default: break;
  }
  return Error{code, what + ": " + std::system_category().message(error_number)};
}

}  // namespace wormhole
