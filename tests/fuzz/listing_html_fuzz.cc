// Any bytes, in any pieces: an error or a listing of names that a file system can have, each once.

#include "tests/fuzz/listing_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  if (size == 0) return 0;
  const auto listing = fuzz::parse_in_pieces(make_html_listing_parser, data, size);
  if (!listing) return 0;
  fuzz::check(*listing, {1, 60});
  return 0;
}
