#include "net/http_conditions.h"

#include "net/dates.h"
#include "net/range_header.h"

namespace wormhole {
namespace {

std::string_view trim(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

// Whether a list of ETags, or "*", has this one. A weak one in the list counts where `weak_too`.
bool lists_etag(std::string_view list, std::string_view etag, bool weak_too) {
  while (!list.empty()) {
    const size_t comma = list.find(',');  // our own ETags have none inside
    std::string_view item = trim(list.substr(0, comma));
    if (weak_too && item.starts_with("W/")) item.remove_prefix(2);
    if (item == "*" || item == etag) return true;
    list.remove_prefix(comma == list.npos ? list.size() : comma + 1);
  }
  return false;
}

// Whether the file is newer than the date in a header; a malformed date is as good as none.
enum class Age : uint8_t { kNewer, kNotNewer, kUnknown };
Age age(const Validator& validator, std::string_view date) {
  const auto modified = parse_http_date(validator.last_modified);
  const auto since = parse_http_date(date);
  if (!modified || !since) return Age::kUnknown;
  return *modified > *since ? Age::kNewer : Age::kNotNewer;
}

bool precondition_failed(const RequestConditions& request, const Validator& validator) {
  if (!request.if_match.empty()) return !lists_etag(request.if_match, validator.etag, /*weak_too=*/false);
  return age(validator, request.if_unmodified_since) == Age::kNewer;
}

bool not_modified(const RequestConditions& request, const Validator& validator) {
  if (!request.if_none_match.empty()) return lists_etag(request.if_none_match, validator.etag, /*weak_too=*/true);
  return age(validator, request.if_modified_since) == Age::kNotNewer;
}

// Both forms of If-Range, an ETag and a date, must be exactly ours.
bool range_applies(const RequestConditions& request, const Validator& validator) {
  return request.if_range.empty() || request.if_range == validator.etag || request.if_range == validator.last_modified;
}

}  // namespace

FileAnswer answer_file_request(const RequestConditions& request, const Validator& validator, uint64_t size) {
  if (precondition_failed(request, validator)) return {412, {}};
  if (not_modified(request, validator)) return {304, {}};
  if (range_applies(request, validator)) {
    const RequestedRange requested = parse_range_header(request.range, size);
    if (requested.kind == RequestedRange::Kind::kPart) return {206, requested.range};
    if (requested.kind == RequestedRange::Kind::kUnsatisfiable) return {416, {}};
  }
  return {200, {0, size}};
}

}  // namespace wormhole
