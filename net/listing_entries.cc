#include <charconv>

#include "net/listing.h"
#include "net/listing_names.h"

namespace wormhole {

std::optional<uint64_t> parse_listed_size(std::string_view text) {
  uint64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || size > kLargestFile) return std::nullopt;
  return size;
}

ListedEntry* EntryList::add(std::string name, EntryType type) {
  if (!may_be_entry(name) || !names_.insert(name).second) {
    refuse(name);
    return nullptr;
  }
  ListedEntry& entry = listing_.entries.emplace_back();
  entry.name = std::move(name);
  entry.type = type;
  entry.mtime_granularity = 1;
  return &entry;
}

void EntryList::refuse(std::string_view name) {
  if (listing_.first_refused.empty()) listing_.first_refused = in_quotes(name);
  ++listing_.skipped;
}

}  // namespace wormhole
