// Any bytes as a page of a bucket's listing: an error that leaves nothing behind, or names that a file system can have,
// each once. The first byte chooses the directory.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "net/listing_names.h"
#include "net/listing_s3.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
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
  using namespace wormhole;
  if (size == 0) return 0;
  const Url directory = *Url::parse(data[0] % 2 == 0 ? "http://example.org/b/" : "http://example.org/b/a%20prefix/");
  const std::string_view document(reinterpret_cast<const char*>(data) + 1, size - 1);
  EntryList entries;
  const auto page = read_s3_page(document, *s3_question(directory, BucketStyle::kPath), entries);
  const Listing listing = entries.take();
  require(page.has_value() || listing.entries.empty());
  check(listing);
  return 0;
}
