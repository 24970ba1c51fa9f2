// Directories of an S3 bucket: where its listing is asked for, and what a page of it says. S3 has keys and no
// directories; with delimiter=/ it tells the keys below a prefix up to the next '/', which is what a directory is.
//
// Thread: pure functions, any.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "net/listing.h"
#include "net/listing_source.h"
#include "net/url.h"

namespace wormhole {

// The element that a listing is.
inline constexpr std::string_view kBucketElement = "ListBucketResult";

// The bucket of a "s3://bucket/prefix" as a directory's URL (a file's when it does not end with '/' and has a prefix),
// and the style of it.
struct S3Place {
  Url url;
  BucketStyle style = BucketStyle::kHost;
};
// `endpoint`: "" for Amazon's; "https://host:port" for buckets in its path; "https://{bucket}.host" for buckets in the
// host name. kInvalid says what is wrong.
Result<S3Place> s3_place(std::string_view text, const std::string& endpoint, const std::string& region);

// How to list a directory of a bucket, given its URL.
struct S3Question {
  std::string bucket;  // "" in the host style: the URL does not say
  std::string prefix;  // raw bytes; "" or ends with '/'
  std::string base;    // URL to which a query is added
};
// kInvalid when the URL names no bucket (path style), or has malformed escapes.
Result<S3Question> s3_question(const Url& directory, BucketStyle style);
// `token`: "" for the first page.
std::string s3_listing_url(const S3Question& question, const std::string& token);

// The style of Amazon's hosts; kAuto for all others.
BucketStyle bucket_style_of(const Url& url);

struct S3Page {
  std::string next_token;  // "" on the last page
  size_t listed = 0;       // keys and prefixes on it, whatever became of them
};
// Adds what the page names to `entries`. kBadResponse when it is no such page, or one of another bucket or prefix, or
// says that there is more without saying how to get it; then nothing is added.
Result<S3Page> read_s3_page(std::string_view document, const S3Question& question, EntryList& entries);

}  // namespace wormhole
