// What a server says about a directory: names, kinds, and as much of size and time as it gives. One parser per format,
// all behind one interface that takes the document in pieces as it arrives.
//
// A parser decides what may be an entry: a name that is empty, ".", "..", longer than 255 bytes, or has '/' or NUL is
// skipped, as is a link that leads out of the directory. Skipped things are counted, never an error.
//
// Thread: a parser belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "net/url.h"

namespace wormhole {

enum class EntryType : uint8_t { kFile = 1, kDirectory = 2 };

struct ListedEntry {
  std::string name;  // raw bytes, decoded
  EntryType type = EntryType::kFile;
  std::optional<uint64_t> size;  // bytes; nothing when the listing does not say, or says it inexactly ("12M")
  std::optional<int64_t> mtime;  // seconds since the epoch, UTC
  // How much `mtime` is rounded down: 60 for nginx' HTML ("21-Nov-2026 02:57"), 1 where seconds are given.
  int32_t mtime_granularity = 60;
};

struct Listing {
  std::vector<ListedEntry> entries;  // in the order of the document; no name twice
  uint64_t skipped = 0;              // links that are no entries of this directory: for the log
};

class ListingParser {
 public:
  virtual ~ListingParser() = default;
  // The next piece of the document. kBadResponse when it cannot be a listing; nothing more need be fed then.
  virtual Status feed(std::string_view bytes) = 0;
  // The document is complete. kBadResponse when it is no directory listing.
  virtual Result<Listing> finish() = 0;
};

// HTML indexes; `page` is the URL that the document came from (after redirects). net/listing_html.cc
std::unique_ptr<ListingParser> make_html_listing_parser(const Url& page);

}  // namespace wormhole
