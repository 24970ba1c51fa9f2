#include "net/response.h"

#include <algorithm>
#include <charconv>

namespace wormhole {
namespace {

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](unsigned char x, unsigned char y) {
           return std::tolower(x) == std::tolower(y);
         });
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r' || s.back() == '\n'))
    s.remove_suffix(1);
  return s;
}

std::optional<uint64_t> parse_number(std::string_view s) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
  if (error != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return value;
}

// Retry-After is a number of seconds or a date.
std::optional<Duration> parse_retry_after(std::string_view s) {
  if (auto seconds = parse_number(s)) return std::chrono::seconds(std::min<uint64_t>(*seconds, 3600));
  const time_t when = ::curl_getdate(std::string(s).c_str(), nullptr);
  if (when < 0) return std::nullopt;
  return std::chrono::seconds(std::clamp<int64_t>(when - ::time(nullptr), 0, 3600));
}

std::string lower(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

void ResponseHeader::take_line(std::string_view line) {
  line = trim(line);
  if (line.starts_with("HTTP/")) {
    *this = ResponseHeader{};
    const size_t space = line.find(' ');
    if (space != std::string_view::npos) status = static_cast<int>(parse_number(line.substr(space + 1, 3)).value_or(0));
    return;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trim(line.substr(colon + 1));
  if (equals_ignoring_case(name, "etag")) {
    validator.etag = value;
  } else if (equals_ignoring_case(name, "last-modified")) {
    validator.last_modified = value;
  } else if (equals_ignoring_case(name, "content-length")) {
    content_length = parse_number(value);
  } else if (equals_ignoring_case(name, "content-range")) {
    has_content_range = true;
    content_range = parse_content_range(value);
  } else if (equals_ignoring_case(name, "content-type")) {
    content_type = lower(trim(value.substr(0, value.find(';'))));
  } else if (equals_ignoring_case(name, "content-encoding")) {
    content_encoding = lower(value);
  } else if (equals_ignoring_case(name, "accept-ranges")) {
    accepts_ranges = lower(value) == "bytes";
  } else if (equals_ignoring_case(name, "x-amz-request-id")) {
    is_s3 = true;
  } else if (equals_ignoring_case(name, "date")) {
    date = value;
  } else if (equals_ignoring_case(name, "server")) {
    software = value;
  } else if (equals_ignoring_case(name, "alt-svc")) {
    alt_svc = value;
  } else if (equals_ignoring_case(name, "retry-after")) {
    retry_after = parse_retry_after(value);
  }
}

Error error_of_status(int status, const std::string& url) {
  ErrorCode code = ErrorCode::kBadResponse;
  switch (status) {
    case 401:
    case 407: code = ErrorCode::kUnauthorized; break;
    case 403: code = ErrorCode::kForbidden; break;
    case 404:
    case 410: code = ErrorCode::kNotFound; break;
    case 408:
    case 425:
    case 429: code = ErrorCode::kUnreachable; break;
    case 501:  // the server has no such method: it says so again
    case 505: break;
    default:
      if (status >= 500) code = ErrorCode::kUnreachable;
  }
  return Error{code, fmt::format("{}: the server answered {}", url, status)};
}

Error error_of_curl(CURLcode code, const char* detail, const std::string& url) {
  ErrorCode e = ErrorCode::kUnreachable;
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT: e = ErrorCode::kTimedOut; break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CIPHER: e = ErrorCode::kTls; break;
    case CURLE_TOO_MANY_REDIRECTS: e = ErrorCode::kBadResponse; break;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT: e = ErrorCode::kInvalid; break;
    default: break;
  }
  const char* what = detail != nullptr && *detail != 0 ? detail : ::curl_easy_strerror(code);
  const char* advice = e == ErrorCode::kTls
                           ? "; if the server's certificate is from an authority of your own, name it with ca=FILE"
                           : "";
  return Error{e, fmt::format("{}: {}{}", url, what, advice)};
}

Status check_range_response(const ResponseHeader& h, const FetchRequest& request, const Validator& validator,
                            ByteRange range) {
  if (h.status == 416 || h.status == 412) {
    return fail(ErrorCode::kStale, "{}: the server answered {}: the file is another one now", request.url, h.status);
  }
  if (h.status != 200 && h.status != 206) return fail(error_of_status(h.status, request.url));
  if (validator.contradicts(h.validator)) {
    return fail(ErrorCode::kStale, "{}: validator {} {} became {} {}", request.url, validator.etag,
                validator.last_modified, h.validator.etag, h.validator.last_modified);
  }
  if (!h.content_encoding.empty() && h.content_encoding != "identity") {
    return fail(ErrorCode::kBadResponse, "{}: the server encodes the bytes as {}, which was not asked for", request.url,
                h.content_encoding);
  }
  if (h.status == 206) {
    if (request.whole_body || !h.content_range) {
      return fail(ErrorCode::kBadResponse, "{}: 206 with {} Content-Range", request.url,
                  h.has_content_range ? "a malformed" : "no");
    }
    if (h.content_range->total && *h.content_range->total != request.object_size) {
      return fail(ErrorCode::kStale, "{}: has {} bytes now, had {}", request.url, *h.content_range->total,
                  request.object_size);
    }
    // A server may send less than was asked for; the rest is asked for again.
    if (h.content_range->range.begin != range.begin || h.content_range->range.end > range.end) {
      return fail(ErrorCode::kBadResponse, "{}: asked for bytes {}, got {}", request.url, range_header(range),
                  range_header(h.content_range->range));
    }
    return {};
  }
  // 200: the whole object, from its first byte.
  if (h.content_length && *h.content_length != request.object_size) {
    return fail(ErrorCode::kStale, "{}: has {} bytes now, had {}", request.url, *h.content_length, request.object_size);
  }
  if (!request.whole_body && range != ByteRange{0, request.object_size}) {
    return fail(ErrorCode::kNoRanges, "{}: the server does not answer range requests", request.url);
  }
  return {};
}

}  // namespace wormhole
