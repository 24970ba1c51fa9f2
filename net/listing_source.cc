#include "net/listing_source.h"

#include <atomic>
#include <optional>

#include "base/log.h"
#include "net/listing_s3.h"
#include "net/xml_events.h"

namespace wormhole {
namespace {

// Finds out how a server tells what is in a directory, with one request where that is HTML or JSON:
//
//   GET of the directory
//     -> a listing in HTML or JSON                       that is it
//     -> a bucket's XML, or a refusal by an S3 server    S3
//     -> JSON of another kind                            GET again, for HTML alone
//     -> 404, 410                                        not there
//     -> anything else: another page, 403, 405, ...      PROPFIND: 207 is WebDAV, else the first answer counts
//
// What has worked once is what the whole mount is asked by.
class AutoSource final : public ListingSource {
 public:
  explicit AutoSource(Fetcher& fetcher)
      : fetcher_(fetcher),
        pages_{"html or json", make_page_source(ListingKind::kAuto, fetcher)},
        html_{"html", make_page_source(ListingKind::kHtml, fetcher)},
        webdav_{"webdav", make_page_source(ListingKind::kWebdav, fetcher)},
        s3_{"s3", make_s3_source(BucketStyle::kAuto, fetcher)} {}

  void list(ListingRequest request) override {
    if (const Way* way = found_.load(std::memory_order_relaxed)) return way->source->list(std::move(request));
    look(pages_, std::make_shared<ListingRequest>(std::move(request)));
  }

 private:
  struct Way {
    const char* name;
    std::unique_ptr<ListingSource> source;
  };
  using RequestRef = std::shared_ptr<ListingRequest>;

  void look(const Way& way, const RequestRef& request) {
    const ListingKind kind = &way == &html_ ? ListingKind::kHtml : ListingKind::kAuto;
    DocumentRequest document = page_request(kind, request->directory, request->patience);
    document.take_refusals = true;
    ask_for_document(fetcher_, std::move(document), request->post, [this, &way, kind, request](Result<Document> d) {
      if (!d) return request->done(fail(d.error()));
      judge(way, request, *d, listing_of(*d, kind));
    });
  }

  void judge(const Way& way, const RequestRef& request, const Document& document, Result<Listing> listing) {
    if (listing) {
      found(way);
      return request->done(std::move(listing));
    }
    const Error error = listing.error();
    const bool is_bucket = document.content_type.ends_with("xml") && xml_root(document.body) == kBucketElement;
    if (is_bucket || document.is_s3) return try_other(s3_, request, std::nullopt);
    if (document.status < 300 && document.content_type.ends_with("json") && &way == &pages_)
      return look(html_, request);
    if (error.code == ErrorCode::kNotFound) return request->done(fail(error));
    try_other(webdav_, request, error);
  }

  // `first`: what to say when that fails as well; without it, what that has said.
  void try_other(const Way& way, const RequestRef& request, std::optional<Error> first) {
    ListingRequest other = *request;
    other.done = [this, &way, request, first = std::move(first)](Result<Listing> listing) {
      if (listing) found(way);
      request->done(listing || !first ? std::move(listing) : fail(*first));
    };
    way.source->list(std::move(other));
  }

  void found(const Way& way) {
    if (found_.exchange(&way, std::memory_order_relaxed) != &way) log::info("listings are found: kind={}", way.name);
  }

  Fetcher& fetcher_;
  const Way pages_, html_, webdav_, s3_;
  std::atomic<const Way*> found_{nullptr};  // one of those
};

}  // namespace

std::unique_ptr<ListingSource> make_listing_source(const ListingOptions& options, Fetcher& fetcher) {
  switch (options.kind) {
    case ListingKind::kHtml:
    case ListingKind::kJson:
    case ListingKind::kWebdav: return make_page_source(options.kind, fetcher);
    case ListingKind::kS3: return make_s3_source(options.bucket, fetcher);
    default: return std::make_unique<AutoSource>(fetcher);
  }
}

}  // namespace wormhole
