// What a server says about a directory: names, kinds, and as much of size and time as it gives. One parser per format,
// all behind one interface that takes the document in pieces as it arrives. Who asks for the documents is in
// listing_source.h.
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
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "net/url.h"

namespace wormhole {

enum class EntryType : uint8_t { kFile = 1, kDirectory = 2, kSymlink = 3 };  // the last in manifests only

struct Content;  // net/fetcher.h

struct ListedEntry {
  std::string name;  // raw bytes, decoded
  EntryType type = EntryType::kFile;
  std::optional<uint64_t> size;  // bytes; nothing when the listing does not say, or says it inexactly ("12M")
  std::optional<int64_t> mtime;  // seconds since the epoch, UTC
  // How much `mtime` is rounded down: 60 for nginx' HTML ("21-Nov-2026 02:57"), 1 where seconds are given.
  int32_t mtime_granularity = 60;
  std::string etag;  // as the server would send it with the file; empty when the listing does not say

  // Of manifests only.
  std::optional<uint16_t> mode;            // permission bits, 07777
  int32_t mtime_ns = 0;                    // below 10^9
  std::string target;                      // of a symlink
  std::shared_ptr<const Content> content;  // what the bytes of a file must be
};

struct Listing {
  std::vector<ListedEntry> entries;  // in the order of the document; no name twice
  uint64_t skipped = 0;              // what is no entry of this directory: for the log
  // The first of those that were meant as one, and cannot be: a bad name, one that is there already. A page may have
  // links to anywhere, so for HTML it stays empty.
  std::string first_refused;
  // How the server names what it has sent, if what it says can be believed (net/listing_pages.cc); else empty. Who asks
  // again with it may be told that nothing has changed, and then of no entries.
  std::string etag;
  bool unchanged = false;
};

// Files are not larger (off_t); a listing that says so says nothing.
inline constexpr uint64_t kLargestFile = INT64_MAX;
// "1234"; nothing for anything that is no number of bytes that a file can have.
std::optional<uint64_t> parse_listed_size(std::string_view text);

// Entries as they are found, by formats that name them outright.
class EntryList {
 public:
  // What to tell more of; nullptr when no such entry can be, or one is there already.
  ListedEntry* add(std::string name, EntryType type);
  void skip() { ++listing_.skipped; }
  void refuse(std::string_view name);
  const Listing& listing() const { return listing_; }
  Listing take() { return std::move(listing_); }

 private:
  Listing listing_;
  std::unordered_set<std::string> names_;
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
// An array of objects, as nginx (autoindex_format json) and Caddy send it. net/listing_json.cc
std::unique_ptr<ListingParser> make_json_listing_parser(const Url& page);
// The answer to PROPFIND with Depth: 1 (RFC 4918). kNotDirectory when it is about a file. net/listing_webdav.cc
std::unique_ptr<ListingParser> make_webdav_listing_parser(const Url& page);

}  // namespace wormhole
