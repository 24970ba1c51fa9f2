// What the header of an HTTP response says, and what it means for the bytes that were asked for. Private to the net
// thread.
//
// Thread: values, any.
#pragma once

#include <curl/curl.h>

#include <optional>
#include <string>
#include <string_view>

#include "net/fetcher.h"
#include "net/range_header.h"

namespace wormhole {

// The fields of a response's header that matter here. Reset when a redirect's or a 1xx's header ends and the next
// begins.
struct ResponseHeader {
  int status = 0;
  Validator validator;
  std::optional<uint64_t> content_length;
  std::optional<ContentRange> content_range;
  bool has_content_range = false;  // present, also when malformed
  std::string content_type;
  std::string content_encoding;
  bool accepts_ranges = false;
  bool is_s3 = false;
  std::string date, software;  // Date and Server, as sent
  std::optional<Duration> retry_after;
  std::string alt_svc;

  // One header line, without the line end.
  void take_line(std::string_view line);
};

// The meaning of a status that is not 2xx; transient ones are kUnreachable.
Error error_of_status(int status, const std::string& url);
// The meaning of a failed libcurl call.
Error error_of_curl(CURLcode code, const char* detail, const std::string& url);

// Whether the body that follows `header` may be taken as the bytes of `range` (the part of the request that is still
// missing). Errors as in FetchSink::fetch_done.
Status check_range_response(const ResponseHeader& header, const FetchRequest& request, const Validator& validator,
                            ByteRange range);

}  // namespace wormhole
