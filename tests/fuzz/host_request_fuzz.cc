// Any request path and header fields: nothing leads out of the directory that is served, what is read means the same
// when it is written again, and no answer has bytes that the file has not.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/bearer_token.h"
#include "net/http_conditions.h"
#include "net/range_header.h"
#include "net/served_directory.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_path(std::string_view text) {
  const Result<ServedPath> path = ServedPath::parse(text);
  if (!path) return;
  for (const std::string& segment : path->segments) {
    require(!segment.empty() && segment != "." && segment != ".." && segment.size() <= 255);
    require(segment.find('/') == segment.npos && segment.find('\0') == segment.npos);
  }
  const std::string relative = path->relative();
  require(!relative.empty() && !relative.starts_with('/') && relative.find("//") == relative.npos);
  // What a redirect says is the same path, and no other host.
  const std::string encoded = path->encoded();
  require(encoded.starts_with('/') && !encoded.starts_with("//"));
  const Result<ServedPath> again = ServedPath::parse(encoded);
  require(again && again->segments == path->segments && again->ends_with_slash);
}

void check_range(std::string_view text, uint64_t size) {
  const RequestedRange asked = parse_range_header(text, size);
  if (asked.kind != RequestedRange::Kind::kPart) return;
  require(!asked.range.empty() && asked.range.end <= size);
  const auto content = parse_content_range(content_range_header(asked.range, size));
  require(content && content->range == asked.range && content->total == size);
}

void check_conditions(const std::array<std::string_view, 6>& fields, uint64_t size) {
  const Validator validator = {"\"abc\"", "Sat, 21 Nov 2026 02:57:01 GMT"};
  const RequestConditions conditions = {fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]};
  const FileAnswer answer = answer_file_request(conditions, validator, size);
  switch (answer.status) {
    case 200: return require(answer.body == ByteRange{0, size});
    case 206: return require(!answer.body.empty() && answer.body.end <= size && !conditions.range.empty());
    case 304:
    case 412:
    case 416: return require(answer.body.empty());
    default: require(false);
  }
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  if (size == 0) return 0;
  const uint64_t file_size = data[0] < 4 ? data[0] : data[0] == 255 ? UINT64_MAX : uint64_t{1} << (data[0] % 63);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_path(text);
  check_range(text, file_size);
  check_range("bytes=" + std::string(text), file_size);
  require(!is_authorized(text, ""));
  require(!is_authorized(text, "t0ken") || text.ends_with("t0ken"));
  std::array<std::string_view, 6> fields;  // lines of the input
  std::string_view left = text;
  for (std::string_view& field : fields) {
    field = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(field.size() + 1, left.size()));
  }
  check_conditions(fields, file_size);
  return 0;
}
