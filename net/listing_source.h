// Where the names of a tree come from: the one seam between the file system and the ways in which servers tell what is
// in a directory. A source is asked for one directory at a time and knows how: which requests, how many, and what the
// answers mean. Behind it stands one file per format.
//
//   listing_source.cc   auto: asks as a browser would, looks at what comes, and remembers for the mount what it found
//   listing_pages.cc    one document for a directory: HTML and JSON by GET, WebDAV by PROPFIND
//   listing_s3.cc       ListObjectsV2: pages of 1000
//
// Thread: list() from any, and several at a time. What is called back is called where `post` runs its tasks: reading a
// large page takes tenths of a second, which the net thread does not have.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mailbox.h"
#include "net/fetcher.h"
#include "net/listing.h"
#include "net/url.h"

namespace wormhole {

enum class ListingKind : uint8_t {
  kAuto,      // found out
  kHtml,      // the page that a browser gets
  kJson,      // nginx' autoindex_format json, Caddy
  kWebdav,    // PROPFIND
  kS3,        // ListObjectsV2
  kFile,      // no directory at all: the URL is a file
  kManifest,  // none of these: a manifest tells everything (fs/manifest_source.h)
};

struct ListingRequest {
  std::string directory;  // its URL: ends with '/'
  std::string etag;       // Listing::etag of what is known of it already; empty: nothing is
  Duration patience{};    // as DocumentRequest's, of each answer
  // Runs a task later, on one thread; false, and the task is dropped, when that has ended. Then nothing is called any
  // more.
  std::function<bool(Task)> post;
  // May be empty. Entries as they arrive, where the server sends them in several pages and more are to come: whoever
  // wants to show something early. `done` has them all again, or is an error.
  std::function<void(const std::vector<ListedEntry>&)> arrived;
  // The end, once. Errors: as DocumentRequest; kBadResponse when what comes is no listing, or not all of it;
  // kNotDirectory.
  std::function<void(Result<Listing>)> done;
};

class ListingSource {
 public:
  virtual ~ListingSource() = default;
  virtual void list(ListingRequest request) = 0;
  // What was listed seems not to be what the servers have any more: whatever it knows itself is asked for again with
  // the next list(). From any thread.
  virtual void doubt() {}
};

// Where the bucket's name stands in URLs.
enum class BucketStyle : uint8_t {
  kAuto,  // by the host for Amazon's, else tried: first in the path
  kPath,  // http://endpoint/bucket/key
  kHost,  // http://bucket.endpoint/key
};

struct ListingOptions {
  ListingKind kind = ListingKind::kAuto;
  BucketStyle bucket = BucketStyle::kAuto;  // for S3
};

// The fetcher outlives it; it outlives what was asked of it and was not answered yet.
std::unique_ptr<ListingSource> make_listing_source(const ListingOptions& options, Fetcher& fetcher);

// The sources of the formats, by themselves; `kind` is kHtml, kJson or kWebdav, or kAuto: HTML or JSON, as it comes.
std::unique_ptr<ListingSource> make_page_source(ListingKind kind, Fetcher& fetcher);
std::unique_ptr<ListingSource> make_s3_source(BucketStyle style, Fetcher& fetcher);

// What a document is, by its content type: HTML or JSON. kBadResponse when it is neither, or no listing. `etag`: with
// which it was asked for.
Result<Listing> listing_of(const Document& document, ListingKind kind = ListingKind::kAuto,
                           const std::string& etag = {});

// Asks for a document; `done` is called by `request.post`.
void ask_for_document(Fetcher& fetcher, DocumentRequest document, const std::function<bool(Task)>& post,
                      std::function<void(Result<Document>)> done);

// The request of a listing by GET, or by PROPFIND. For kAuto it takes what the server likes best to give of HTML and
// JSON. Its ETag goes out with a GET only: an answer to PROPFIND has none (RFC 4918, 8.6).
DocumentRequest page_request(ListingKind kind, const ListingRequest& listing);

}  // namespace wormhole
