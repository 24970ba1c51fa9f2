#include "net/curl_fetcher.h"

#include "net/net_thread.h"

namespace wormhole {

CurlFetcher::CurlFetcher(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock)
    : thread_(std::make_unique<NetThread>(std::move(options), buffers, metrics, clock)) {}

CurlFetcher::~CurlFetcher() = default;

void CurlFetcher::fetch(FetchRequest request) {
  auto t = std::make_unique<Transfer>();
  t->range = std::move(request);
  const FetchId id = t->range->id;
  const std::shared_ptr<FetchSink> sink = t->range->sink;
  if (!thread_->post([this, t = std::move(t)]() mutable { thread_->add(std::move(t)); })) {
    sink->fetch_done(id, fail(ErrorCode::kCancelled, "the fetcher has ended"));
  }
}

void CurlFetcher::cancel(FetchId id) {
  thread_->post([this, id] { thread_->cancel(id); });
}

void CurlFetcher::promote(FetchId id) {
  thread_->post([this, id] { thread_->promote(id); });
}

void CurlFetcher::want(FetchId id, ByteRange bytes) {
  thread_->post([this, id, bytes] { thread_->want(id, bytes); });
}

void CurlFetcher::get(DocumentRequest request) {
  auto t = std::make_unique<Transfer>();
  t->document = std::move(request);
  thread_->post([this, t = std::move(t)]() mutable { thread_->add(std::move(t)); });
}

LinkEstimate CurlFetcher::link() const { return thread_->link(); }

void CurlFetcher::use_content_mirrors(std::vector<KnownMirror> mirrors) {
  thread_->post([this, mirrors = std::move(mirrors)] { thread_->use_content_mirrors(mirrors); });
}

std::map<std::string, HostProfile> CurlFetcher::profiles() { return thread_->profiles(); }

std::vector<ServerState> CurlFetcher::servers() { return thread_->servers(); }

}  // namespace wormhole
