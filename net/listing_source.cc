#include "net/listing_source.h"

#include <atomic>
#include <vector>

#include "base/log.h"
#include "net/listing_s3.h"
#include "net/xml_events.h"

namespace wormhole {
namespace {

// Finds out how a server tells what is in a directory, with one request where that is HTML or JSON:
//
//   GET of the directory
//     -> a listing in HTML or JSON                       that is it
//     -> a bucket's XML, or an answer of an S3 server    S3
//     -> JSON of another kind                            GET again, for HTML alone
//     -> a refusal in XML (403, 404)                     S3, then as the next
//     -> anything else: another page, 403, 404, 405, ... PROPFIND: 207 is WebDAV
//
// If nothing works, the first answer counts.
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
    DocumentRequest document = page_request(kind, *request);
    document.take_refusals = true;
    ask_for_document(fetcher_, std::move(document), request->post, [this, &way, kind, request](Result<Document> d) {
      if (!d) return request->done(fail(d.error()));
      judge(way, request, *d, listing_of(*d, kind, request->etag));
    });
  }

  void judge(const Way& way, const RequestRef& request, const Document& document, Result<Listing> listing) {
    if (listing) {
      found(way);
      return request->done(std::move(listing));
    }
    const bool is_xml = document.content_type.ends_with("xml") && !document.content_type.ends_with("xhtml+xml");
    const bool is_refusal = document.status > 299;
    if (document.is_s3 || (is_xml && !is_refusal && xml_root(document.body) == kBucketElement))
      return try_others({&s3_}, request, listing.error());
    if (!is_refusal && document.content_type.ends_with("json") && &way == &pages_) return look(html_, request);
    // Of a refusal there is no body, and S3 servers send no other header that all of them have.
    if (is_xml && (document.status == 403 || document.status == 404))
      return try_others({&webdav_, &s3_}, request, listing.error());
    try_others({&webdav_}, request, listing.error());
  }

  // The last of `ways` first. `first`: what to say when none of them works.
  void try_others(std::vector<const Way*> ways, const RequestRef& request, Error first) {
    if (ways.empty()) return request->done(fail(std::move(first)));
    const Way& way = *ways.back();
    ways.pop_back();
    ListingRequest other = *request;
    // From the first entries on there is no other way: somebody has seen them.
    if (request->arrived) {
      other.arrived = [this, &way, request](const std::vector<ListedEntry>& entries) {
        found(way);
        request->arrived(entries);
      };
    }
    other.done = [this, &way, ways = std::move(ways), request, first = std::move(first)](Result<Listing> listing) {
      if (!listing && found_.load(std::memory_order_relaxed) == &way) return request->done(std::move(listing));
      if (!listing) return try_others(ways, request, first);
      found(way);
      request->done(std::move(listing));
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
