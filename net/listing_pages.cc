// Formats in which one document tells all of a directory.

#include <algorithm>
#include <array>
#include <memory>

#include "net/listing_source.h"
#include "net/response.h"

namespace wormhole {
namespace {

// A multistatus has 400 to 1000 bytes for an entry: 100 000 entries.
constexpr uint64_t kMultistatusLimit = 128ull << 20;

constexpr std::string_view kPropfind =
    R"(<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/>)"
    R"(<D:getcontentlength/><D:getlastmodified/><D:getetag/></D:prop></D:propfind>)";

bool is_html(const Document& d) { return d.content_type == "text/html" || d.content_type == "application/xhtml+xml"; }

bool is_json(const Document& d) { return d.content_type == "application/json" || d.content_type == "text/json"; }

std::unique_ptr<ListingParser> parser_for(const Document& document, ListingKind kind, const Url& page) {
  if (kind == ListingKind::kWebdav) return document.status == 207 ? make_webdav_listing_parser(page) : nullptr;
  if (is_html(document) && kind != ListingKind::kJson) return make_html_listing_parser(page);
  if (is_json(document) && kind != ListingKind::kHtml) return make_json_listing_parser(page);
  return nullptr;
}

const char* name_of(ListingKind kind) {
  switch (kind) {
    case ListingKind::kHtml: return "HTML";
    case ListingKind::kJson: return "JSON";
    case ListingKind::kWebdav: return "a WebDAV multistatus";
    default: return "HTML or JSON";
  }
}

// Whether another listing of the directory would have another ETag. That of a file that a program writes does not, if
// it was written a second time in the same second (RFC 9110, 8.8.2.2); two seconds, for the server's clock may step.
// Apache (IndexOptions TrackModified) takes the directory's own time, which stays when a file in it is written.
bool names_what_it_sends(const Document& d) {
  constexpr int64_t kSettled = 2;
  if (d.status != 200 || d.software.starts_with("Apache")) return false;
  return d.head.validator.last_modified.empty() ||
         (d.last_modified && d.sent_at && *d.sent_at - *d.last_modified >= kSettled);
}

class PageSource final : public ListingSource {
 public:
  PageSource(ListingKind kind, Fetcher& fetcher) : kind_(kind), fetcher_(fetcher) {}

  void list(ListingRequest request) override {
    ask_for_document(fetcher_, page_request(kind_, request), request.post,
                     [kind = kind_, etag = request.etag, done = std::move(request.done)](Result<Document> d) {
                       done(d ? listing_of(*d, kind, etag) : fail(d.error()));
                     });
  }

 private:
  const ListingKind kind_;
  Fetcher& fetcher_;
};

}  // namespace

std::unique_ptr<ListingSource> make_page_source(ListingKind kind, Fetcher& fetcher) {
  return std::make_unique<PageSource>(kind, fetcher);
}

DocumentRequest page_request(ListingKind kind, const ListingRequest& listing) {
  DocumentRequest request;
  request.url = listing.directory;
  request.patience = listing.patience;
  switch (kind) {
    case ListingKind::kWebdav:
      request.method = "PROPFIND";
      request.headers = {"Depth: 1", "Content-Type: application/xml; charset=utf-8"};
      request.body = kPropfind;
      request.max_bytes = kMultistatusLimit;
      break;
    case ListingKind::kHtml: request.headers = {"Accept: text/html, application/xhtml+xml;q=0.9, */*;q=0.1"}; break;
    case ListingKind::kJson: request.headers = {"Accept: application/json"}; break;
    // Caddy gives JSON to whoever names it; it is shorter, and exact.
    default: request.headers = {"Accept: application/json, text/html, application/xhtml+xml;q=0.9, */*;q=0.1"};
  }
  if (kind != ListingKind::kWebdav && !listing.etag.empty()) {
    request.headers.push_back("If-None-Match: " + listing.etag);
    request.take_refusals = true;  // 304
  }
  return request;
}

void ask_for_document(Fetcher& fetcher, DocumentRequest document, const std::function<bool(Task)>& post,
                      std::function<void(Result<Document>)> done) {
  document.done = [post, done = std::move(done)](Result<Document> d) {
    post([done, d = std::make_shared<Result<Document>>(std::move(d))] { done(std::move(*d)); });
  };
  fetcher.get(std::move(document));
}

Result<Listing> listing_of(const Document& document, ListingKind kind, const std::string& etag) {
  auto page = Url::parse(document.url);
  if (!page) return fail(page.error());
  if (document.status == 304 && !etag.empty()) {
    Listing same;
    same.etag = etag;
    same.unchanged = true;
    return same;
  }
  if (document.status > 299) return fail(error_of_status(document.status, document.url));
  const auto parser = parser_for(document, kind, *page);
  if (!parser) {
    return fail(ErrorCode::kBadResponse, "{}: no directory listing (expected {}, the server sent {})", page->display(),
                name_of(kind), document.content_type.empty() ? "no content type" : document.content_type);
  }
  if (auto fed = parser->feed(document.body); !fed) return fail(fed.error());
  auto listing = parser->finish();
  if (listing && names_what_it_sends(document)) listing->etag = document.head.validator.etag;
  return listing;
}

}  // namespace wormhole
