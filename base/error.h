// What can go wrong, as values. Expected failures travel in Result<T>; nothing on the path of a read throws.
// fs/errno.cc alone turns a code into an errno; the message is for people and says what was tried and what came back.
//
// Thread: values, any.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace wormhole {

enum class ErrorCode {
  kNotFound,      // the server says that it does not exist (404, 410), or the name is not in the listing
  kForbidden,     // the server refuses (403), or the local file system does
  kUnauthorized,  // credentials are missing or wrong (401, 407)
  kStale,         // the remote object is no longer the version that was opened
  kUnreachable,   // no answer from the server: DNS, connect, TLS, reset; or the server is overloaded (429, 5xx)
  kTimedOut,      // the deadline of the operation has passed
  kBadResponse,   // the server answered something that cannot be used: wrong range, short body, no listing
  kNoRanges,      // the server answers a range request with the whole body
  kTls,           // the certificate or the handshake is refused; retrying does not help
  kNotDirectory,  // a listing was asked of something that is a file
  kInvalid,       // a wrong argument, URL or option
  kIo,            // the local disk failed
  kNoSpace,       // the local disk is full
  kCorrupt,       // cached bytes do not match their checksum, or an index record is malformed
  kFormat,        // the cache directory belongs to another format version or to another program
  kBusy,          // held by another process
  kCancelled,     // the operation was given up, normally because the mount is ending
};

// The word for logs and --json, e.g. "not-found".
const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// The server has not been heard, as opposed to: it has refused. What was known of it stays as good as it was.
inline bool server_did_not_speak(ErrorCode code) {
  return code == ErrorCode::kUnreachable || code == ErrorCode::kTimedOut || code == ErrorCode::kTls;
}

// An error value that converts to any Result<T>.
template <typename... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

// An errno of a system call as an Error: ENOSPC, EDQUOT -> kNoSpace; EACCES, EPERM, EROFS -> kForbidden;
// ENOENT -> kNotFound; else kIo. `what` says what was tried: "open /var/cache/x".
Error error_from_errno(int error_number, const std::string& what);

}  // namespace wormhole
