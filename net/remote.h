// What stands behind a URL: a directory or a file, and what a HEAD says about a file. What is in a directory tells a
// ListingSource.
//
// Thread: any; pure, except probe().
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/error.h"
#include "net/fetcher.h"
#include "net/listing_source.h"
#include "net/url.h"

namespace wormhole {

// What a HEAD says about a file.
struct RemoteFile {
  uint64_t size = 0;
  std::optional<int64_t> mtime;  // seconds since the epoch
  Validator validator;
};

// kBadResponse when the server does not give the size.
Result<RemoteFile> file_of(const Document& document);

// One HEAD for a file. Apache leaves out "Content-Length: 0" there: where there is no length, a GET that takes no bytes
// shows whether it is that. `done` is called once, on the net thread; the document may still have no size.
void ask_about_file(Fetcher& fetcher, const std::string& url, Duration patience,
                    std::function<void(Result<Document>)> done);

// What stands behind the URL of a mount.
struct RemoteRoot {
  Url url;                         // of the directory (ends with '/'), or of the file
  std::optional<RemoteFile> file;  // set when it is a single file
};

// Asks the server, with one HEAD: what ends with '/' after all redirects is a directory, anything else is a file. A
// server that refuses it (S3 has no object there, others have no HEAD for directories) may have the listing all the
// same: what ends with '/' is a directory then. With ListingKind::kFile everything is a file, with kS3 everything but
// an object. Blocks up to `patience`. Errors: as DocumentRequest; kBadResponse for a file of which the server does not
// give the size; kInvalid for a file without a name.
Result<RemoteRoot> probe(Fetcher& fetcher, const Url& url, ListingKind kind, Duration patience);

}  // namespace wormhole
