// The inclusive ranges of HTTP and back: the only place where "first-last" exists (RFC 9110, section 14).
//
// Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/byte_range.h"

namespace wormhole {

// [begin, end) -> "begin-last", the form that CURLOPT_RANGE takes. REQUIRES: not empty.
std::string range_header(ByteRange range);

struct ContentRange {
  ByteRange range;
  std::optional<uint64_t> total;  // nothing for "/*"
};

// The value of a Content-Range header, "bytes 0-99/1234". Nothing when it is malformed or says "bytes */N".
std::optional<ContentRange> parse_content_range(std::string_view value);

// The serving side. "bytes 0-99/1234".
std::string content_range_header(ByteRange range, uint64_t total);

// What a Range header asks of an object of `size` bytes.
struct RequestedRange {
  enum class Kind : uint8_t { kWhole, kPart, kUnsatisfiable };
  Kind kind = Kind::kWhole;
  ByteRange range;  // for kPart: not empty, inside the object
};

// The value of a Range header: "bytes=0-99", "bytes=100-", "bytes=-100". A malformed one, one in another unit and one
// of several ranges mean the whole object: a server may ignore a range.
RequestedRange parse_range_header(std::string_view value, uint64_t size);

}  // namespace wormhole
