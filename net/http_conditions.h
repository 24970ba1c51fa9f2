// Which answer a request for a file deserves: the whole file, a part, or none, by its Range and If-* headers
// (RFC 9110, sections 13 and 14).
//
// Thread: pure functions, any.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/byte_range.h"
#include "base/version.h"

namespace wormhole {

// The header fields of a request that matter here; "" when absent.
struct RequestConditions {
  std::string_view range;
  std::string_view if_range;
  std::string_view if_match;
  std::string_view if_none_match;
  std::string_view if_modified_since;
  std::string_view if_unmodified_since;
};

struct FileAnswer {
  int status = 200;  // 200, 206, 304, 412 or 416
  ByteRange body;    // for 200 and 206
};

// `validator` has a strong ETag and a Last-Modified.
FileAnswer answer_file_request(const RequestConditions& request, const Validator& validator, uint64_t size);

}  // namespace wormhole
