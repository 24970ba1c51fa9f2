// Any header lines of a response: they are read without harm, and bytes are taken only for the range that was asked
// for.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/response.h"

namespace wormhole {
namespace {

constexpr ByteRange kAsked{100, 200};
constexpr uint64_t kSize = 1000;

void require(bool condition) {
  if (!condition) std::abort();
}

// Cut as libcurl does: a line is what ends with a newline.
ResponseHeader read_lines(std::string_view text) {
  ResponseHeader header;
  while (!text.empty()) {
    const size_t end = text.find('\n') == std::string_view::npos ? text.size() : text.find('\n') + 1;
    header.take_line(text.substr(0, end));
    text.remove_prefix(end);
  }
  return header;
}

void check_part(const ResponseHeader& header, const FetchRequest& request, const Validator& known) {
  if (!check_range_response(header, request, known, kAsked)) return;
  require(header.status == 206);
  require(header.content_range && header.content_range->range.begin == kAsked.begin);
  require(!header.content_range->range.empty() && kAsked.contains(header.content_range->range));
  require(!header.content_range->total || *header.content_range->total == kSize);
  require(!known.contradicts(header.validator));
}

void check_whole(const ResponseHeader& header, FetchRequest request) {
  request.whole_body = true;
  if (!check_range_response(header, request, {}, {0, kSize})) return;
  require(header.status == 200);
  require(!header.content_length || *header.content_length == kSize);
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const ResponseHeader header = read_lines(text);
  require(header.status >= 0 && header.status <= 999);
  FetchRequest request;
  request.url = "http://x/";
  request.object_size = kSize;
  check_part(header, request, {});
  check_part(header, request, {"\"v1\"", "Mon, 05 Jan 2026 10:00:00 GMT"});
  check_whole(header, request);
  // The serving side reads ranges, too.
  const RequestedRange asked = parse_range_header(text, kSize);
  if (asked.kind == RequestedRange::Kind::kPart) require(!asked.range.empty() && asked.range.end <= kSize);
  return 0;
}
