#include "net/remote.h"

#include <future>
#include <memory>

namespace wormhole {

Result<RemoteFile> file_of(const Document& document) {
  if (!document.head.size) {
    return fail(ErrorCode::kBadResponse, "{}: the server does not give the size (no Content-Length)", document.url);
  }
  return RemoteFile{*document.head.size, document.last_modified, document.head.validator};
}

void ask_about_file(Fetcher& fetcher, const std::string& url, Duration patience,
                    std::function<void(Result<Document>)> done) {
  DocumentRequest request;
  request.url = url;
  request.head_only = true;
  request.patience = patience;
  request.done = [&fetcher, url, patience, done = std::move(done)](Result<Document> head) {
    if (!head || head->head.size) return done(std::move(head));
    DocumentRequest whole;
    whole.url = url;
    whole.max_bytes = 0;
    whole.patience = patience;
    whole.done = [done, told = std::make_shared<Document>(std::move(*head))](Result<Document> empty) {
      if (empty && empty->head.size == 0 && !told->head.validator.contradicts(empty->head.validator))
        told->head.size = 0;
      done(std::move(*told));
    };
    fetcher.get(std::move(whole));
  };
  fetcher.get(std::move(request));
}

namespace {

Result<Document> head(Fetcher& fetcher, const Url& url, Duration patience) {
  std::promise<Result<Document>> answered;
  auto answer = answered.get_future();
  const auto done = [&answered](Result<Document> d) { answered.set_value(std::move(d)); };
  if (!url.is_directory()) {
    ask_about_file(fetcher, url.str(), patience, done);
    return answer.get();
  }
  DocumentRequest request;
  request.url = url.str();
  request.head_only = true;
  request.patience = patience;
  request.done = done;
  fetcher.get(std::move(request));
  return answer.get();
}

}  // namespace

Result<RemoteRoot> probe(Fetcher& fetcher, const Url& url, ListingKind kind, Duration patience) {
  const bool is_file = kind == ListingKind::kFile;
  if (is_file && url.is_directory())
    return fail(ErrorCode::kInvalid, "{}: listing=file, but the URL ends with '/' and names no file", url.display());
  const bool is_s3 = kind == ListingKind::kS3;
  if (is_s3 && url.is_directory()) return RemoteRoot{url.as_directory(), std::nullopt};
  const Result<Document> document = head(fetcher, url, patience);
  if (!document) {
    const ErrorCode code = document.error().code;
    const bool refused =
        code == ErrorCode::kBadResponse || code == ErrorCode::kNotFound || code == ErrorCode::kForbidden;
    if (refused && (url.is_directory() || is_s3)) return RemoteRoot{url.as_directory(), std::nullopt};
    return fail(document.error());
  }
  const auto arrived_at = Url::parse(document->url);
  if (!arrived_at) return fail(arrived_at.error());
  if (arrived_at->is_directory() && !is_file) return RemoteRoot{arrived_at->as_directory(), std::nullopt};
  const auto file = file_of(*document);
  if (!file) return fail(file.error());
  return RemoteRoot{url, *file};
}

}  // namespace wormhole
