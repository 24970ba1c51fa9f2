// What every parser of listings is held to: an error, or names that a file system can have, each once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>

#include "net/listing.h"
#include "net/listing_names.h"

namespace wormhole::fuzz {

inline void require(bool condition) {
  if (!condition) std::abort();
}

inline void check(const Listing& listing, std::initializer_list<int32_t> granularities) {
  std::set<std::string> names;
  for (const ListedEntry& entry : listing.entries) {
    require(may_be_entry(entry.name));
    require(names.insert(entry.name).second);
    require(std::count(granularities.begin(), granularities.end(), entry.mtime_granularity) > 0);
    require(entry.type == EntryType::kFile || !entry.size);
  }
}

// Of formats that give sizes outright.
inline void check_sizes(const Listing& listing) {
  for (const ListedEntry& entry : listing.entries) require(entry.size.value_or(0) <= kLargestFile);
}

// The first byte chooses the length of the pieces in which the others come.
template <typename MakeParser>
Result<Listing> parse_in_pieces(MakeParser make_parser, const uint8_t* data, size_t size) {
  static const Url kPage = *Url::parse("http://example.org/a%20directory/");
  const std::string_view document(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = size_t{1} + data[0];
  const auto parser = make_parser(kPage);
  for (size_t at = 0; at < document.size(); at += piece) {
    if (Status fed = parser->feed(document.substr(at, piece)); !fed) return fail(fed.error());
  }
  return parser->finish();
}

}  // namespace wormhole::fuzz
