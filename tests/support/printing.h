// How GoogleTest shows our values when a test fails, and matchers for results.
//
// Thread: any.
#pragma once

#include <gmock/gmock.h>

#include <ostream>

#include "base/byte_range.h"
#include "base/error.h"
#include "base/version.h"

namespace wormhole {

inline void PrintTo(const ByteRange& r, std::ostream* out) { *out << '[' << r.begin << ", " << r.end << ')'; }
inline void PrintTo(ErrorCode code, std::ostream* out) { *out << to_string(code); }
inline void PrintTo(const Error& e, std::ostream* out) { *out << to_string(e.code) << " \"" << e.message << '"'; }
inline void PrintTo(const Validator& v, std::ostream* out) { *out << '(' << v.etag << ", " << v.last_modified << ')'; }

namespace test {

// A result that holds a value.
MATCHER(Succeeds, negation ? "is an error" : "is no error") {
  if (arg.has_value()) return true;
  if (result_listener->IsInterested()) PrintTo(arg.error(), result_listener->stream());
  return false;
}

// A result that holds an error with this code.
MATCHER_P(FailsWith, code, std::string(negation ? "is not " : "is ") + to_string(code)) {
  if (arg.has_value()) {
    *result_listener << "which is no error";
    return false;
  }
  if (result_listener->IsInterested()) PrintTo(arg.error(), result_listener->stream());
  return arg.error().code == code;
}

}  // namespace test
}  // namespace wormhole
