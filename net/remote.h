// What a remote looks like: the meaning of the documents that a server sends, format by format.
//
// Thread: any; pure, except probe().
#pragma once

#include <optional>

#include "base/error.h"
#include "net/fetcher.h"
#include "net/listing.h"
#include "net/url.h"

namespace wormhole {

// What a HEAD says about a file.
struct RemoteFile {
  uint64_t size = 0;
  std::optional<int64_t> mtime;  // seconds since the epoch
  Validator validator;
};

// kBadResponse when the document is no listing that is understood.
Result<Listing> listing_of(const Document& document);
// kBadResponse when the server does not give the size.
Result<RemoteFile> file_of(const Document& document);

// What stands behind the URL of a mount.
struct RemoteRoot {
  Url url;                         // of the directory (ends with '/'), or of the file
  std::optional<RemoteFile> file;  // set when it is a single file
};

// Asks the server, with one HEAD: what ends with '/' after all redirects is a directory, anything else is a file.
// Blocks up to `patience`. Errors: as DocumentRequest; kBadResponse for a file of which the server does not give the
// size.
Result<RemoteRoot> probe(Fetcher& fetcher, const Url& url, Duration patience);

}  // namespace wormhole
