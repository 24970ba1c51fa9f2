#include "net/listing_names.h"

namespace wormhole {
namespace {

// Two spellings of one path ("%7e" and "~") become the same text. An escape that is malformed stays as it is.
std::string canonical(std::string_view path) {
  std::string result;
  while (!path.empty()) {
    const size_t end = path.find('/');
    const std::string_view segment = path.substr(0, end);
    const Result<std::string> decoded = decode_segment(segment);
    result += decoded ? encode_segment(*decoded) : std::string(segment);
    if (end == path.npos) break;
    result += '/';
    path.remove_prefix(end + 1);
  }
  return result;
}

// HTML allows spaces around a link; a space that belongs to the name is written as %20.
std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f";
  const size_t first = text.find_first_not_of(kSpace);
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

bool may_be_entry(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= kMaxNameLength && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

ChildLinks::ChildLinks(const Url& page)
    : page_(page), directory_(canonical(page.path().substr(0, page.path().rfind('/') + 1))) {}

std::optional<NamedChild> ChildLinks::child(std::string_view href) const {
  const Result<Url> target = page_.resolve(trim(href));
  if (!target || !target->same_origin(page_) || !target->query().empty()) return std::nullopt;

  std::string_view path = target->path();
  NamedChild child;
  if (path.ends_with('/')) {
    child.type = EntryType::kDirectory;
    path.remove_suffix(1);
  }
  const size_t slash = path.rfind('/');
  if (slash == path.npos || canonical(path.substr(0, slash + 1)) != directory_) return std::nullopt;
  Result<std::string> name = decode_segment(path.substr(slash + 1));
  if (!name || !may_be_entry(*name)) return std::nullopt;
  child.name = std::move(*name);
  return child;
}

}  // namespace wormhole
