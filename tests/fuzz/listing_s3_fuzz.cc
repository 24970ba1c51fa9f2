// Any bytes as a page of a bucket's listing: an error that leaves nothing behind, or names that a file system can have,
// each once. The first byte chooses the directory.

#include "net/listing_s3.h"
#include "tests/fuzz/listing_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  if (size == 0) return 0;
  const Url directory = *Url::parse(data[0] % 2 == 0 ? "http://example.org/b/" : "http://example.org/b/a%20prefix/");
  const std::string_view document(reinterpret_cast<const char*>(data) + 1, size - 1);
  EntryList entries;
  const auto page = read_s3_page(document, *s3_question(directory, BucketStyle::kPath), entries);
  const Listing listing = entries.take();
  fuzz::require(page.has_value() || listing.entries.empty());
  fuzz::check(listing, {1});
  fuzz::check_sizes(listing);
  return 0;
}
