// Any bytes, in any pieces, as a listing in WebDAV: an error or names that a file system can have, each once. The first
// byte chooses the length of the pieces.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "net/listing.h"
#include "net/listing_names.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

Result<Listing> parse(std::string_view document, size_t piece) {
  static const Url kPage = *Url::parse("http://example.org/a%20directory/");
  const auto parser = make_webdav_listing_parser(kPage);
  for (size_t at = 0; at < document.size(); at += piece) {
    if (Status fed = parser->feed(document.substr(at, piece)); !fed) return fail(fed.error());
  }
  return parser->finish();
}

void check(const Listing& listing) {
  std::set<std::string> names;
  for (const ListedEntry& entry : listing.entries) {
    require(may_be_entry(entry.name));
    require(names.insert(entry.name).second);
    require(entry.mtime_granularity == 1);
    require(entry.size.value_or(0) <= kLargestFile);
    require(entry.type == EntryType::kFile || !entry.size);
  }
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view document(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto listing = wormhole::parse(document, 1 + data[0]);
  if (listing) wormhole::check(*listing);
  return 0;
}
