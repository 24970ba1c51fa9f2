#include "net/range_header.h"

#include <charconv>

namespace wormhole {
namespace {

// A number at the front of `text`, followed by `end` (or by nothing when `end` is 0); both are taken off.
std::optional<uint64_t> take_number(std::string_view& text, char end) {
  uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(rest - text.data()));
  if (end == 0) return text.empty() ? std::optional(value) : std::nullopt;
  if (text.empty() || text.front() != end) return std::nullopt;
  text.remove_prefix(1);
  return value;
}

}  // namespace

std::string range_header(ByteRange range) { return std::to_string(range.begin) + "-" + std::to_string(range.end - 1); }

std::optional<ContentRange> parse_content_range(std::string_view value) {
  constexpr std::string_view kUnit = "bytes ";
  if (!value.starts_with(kUnit)) return std::nullopt;
  value.remove_prefix(kUnit.size());
  const auto first = take_number(value, '-');
  if (!first) return std::nullopt;
  const auto last = take_number(value, '/');
  if (!last || *last < *first || *last == UINT64_MAX) return std::nullopt;
  ContentRange out{{*first, *last + 1}, std::nullopt};
  if (value == "*") return out;
  out.total = take_number(value, 0);
  if (!out.total || *out.total < out.range.end) return std::nullopt;
  return out;
}

std::string content_range_header(ByteRange range, uint64_t total) {
  return "bytes " + range_header(range) + "/" + std::to_string(total);
}

RequestedRange parse_range_header(std::string_view value, uint64_t size) {
  using Kind = RequestedRange::Kind;
  constexpr std::string_view kUnit = "bytes=";
  if (!value.starts_with(kUnit)) return {};
  value.remove_prefix(kUnit.size());

  if (value.starts_with('-')) {
    value.remove_prefix(1);
    const auto length = take_number(value, 0);
    if (!length) return {};
    if (*length == 0 || size == 0) return {Kind::kUnsatisfiable, {}};
    return {Kind::kPart, {size - std::min(size, *length), size}};
  }
  const auto first = take_number(value, '-');
  if (!first) return {};
  const auto last = value.empty() ? UINT64_MAX : take_number(value, 0);
  if (!last || *last < *first) return {};
  if (*first >= size) return {Kind::kUnsatisfiable, {}};
  return {Kind::kPart, {*first, *last >= size ? size : *last + 1}};
}

}  // namespace wormhole
