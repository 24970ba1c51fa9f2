#include "net/remote.h"

#include <future>

namespace wormhole {

Result<Listing> listing_of(const Document& document) {
  auto page = Url::parse(document.url);
  if (!page) return fail(page.error());
  if (document.content_type != "text/html" && document.content_type != "application/xhtml+xml") {
    return fail(ErrorCode::kBadResponse, "{}: no directory listing (the server sent {})", page->display(),
                document.content_type.empty() ? "no content type" : document.content_type);
  }
  auto parser = make_html_listing_parser(*page);
  if (auto fed = parser->feed(document.body); !fed) return fail(fed.error());
  return parser->finish();
}

Result<RemoteFile> file_of(const Document& document) {
  if (!document.head.size) {
    return fail(ErrorCode::kBadResponse, "{}: the server does not give the size (no Content-Length)", document.url);
  }
  return RemoteFile{*document.head.size, document.last_modified, document.head.validator};
}

namespace {

Result<Document> head(Fetcher& fetcher, const Url& url, Duration patience) {
  std::promise<Result<Document>> answered;
  auto answer = answered.get_future();
  DocumentRequest request;
  request.url = url.str();
  request.head_only = true;
  request.patience = patience;
  request.done = [&answered](Result<Document> d) { answered.set_value(std::move(d)); };
  fetcher.get(std::move(request));
  return answer.get();
}

}  // namespace

Result<RemoteRoot> probe(Fetcher& fetcher, const Url& url, Duration patience) {
  const Result<Document> document = head(fetcher, url, patience);
  if (!document) {
    // A server that has no HEAD for its listings (405) may still have the listings.
    if (url.is_directory() && document.error().code == ErrorCode::kBadResponse)
      return RemoteRoot{url.as_directory(), std::nullopt};
    return fail(document.error());
  }
  const auto arrived_at = Url::parse(document->url);
  if (!arrived_at) return fail(arrived_at.error());
  if (arrived_at->is_directory()) return RemoteRoot{arrived_at->as_directory(), std::nullopt};
  const auto file = file_of(*document);
  if (!file) return fail(file.error());
  return RemoteRoot{url, *file};
}

}  // namespace wormhole
