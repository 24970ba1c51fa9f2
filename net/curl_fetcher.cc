// The net thread. Its loop: take commands, start what may start, let libcurl work, tell the sinks what has arrived,
// retire what has ended, sleep until something happens.
//
// A transfer moves between: waiting (in a lane's queue) -> active (on a connection) -> done, or delayed (until
// its next attempt) -> waiting.
#include "net/curl_fetcher.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/block.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/thread.h"
#include "net/transfer.h"

namespace wormhole {
namespace {

// Small documents beside the range transfers: listings of several directories at once.
constexpr int kDocumentConnections = 8;

// A listing is asked for by somebody who waits at a prompt, and an older one may be at hand: a server that is gone
// is reported after 0.3 s of retries.
constexpr int kDocumentAttempts = 3;

// Speculation leaves this many of the connections to reads that wait.
constexpr int kKeptForDemand = 2;

// What libcurl receives with one call. Larger saves calls; 128 KiB still lies in the L2 cache when it is copied on.
constexpr long kReceiveBuffer = 128 * 1024;

// A transfer slower than this for that long is given up and resumed on another connection: less than 1 KiB/s is no
// speed of a path that works.
constexpr long kStallBytesPerSecond = 1024;
constexpr long kStallSeconds = 10;

constexpr long kMaxRedirects = 8;

// A chunk of a whole-body fetch: whole blocks, large enough to be written and handed on cheaply.
constexpr uint64_t kChunkSize = 16 * kBlockSize;

struct Transfer {
  // Exactly one of the two is set.
  std::optional<FetchRequest> range;
  std::optional<DocumentRequest> document;

  void* thread = nullptr;  // the NetThread, for libcurl's callbacks
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  char error_detail[CURL_ERROR_SIZE] = "";
  ResponseHeader header;
  bool header_checked = false;
  std::optional<Error> refused;  // why the write callback stopped the transfer

  Validator validator;  // the request's, or the first response's when the request had none
  bool head_told = false;
  uint64_t arrived = 0;  // bytes of the range that are in the buffer; of a whole body: that were handed over or skipped
  uint64_t told = 0;     // ... of which the sink knows
  uint64_t furthest =
      0;  // the largest `arrived` of all attempts: a whole body begins anew, and must get beyond it some time
  uint64_t skip = 0;  // whole body, after a restart: bytes that the sink has already
  bool paused = false;
  BufferRef chunk;
  uint64_t chunk_filled = 0;
  std::string body;  // of a document

  int attempt = 0;  // failed attempts since the last progress
  TimePoint last_progress;
  TimePoint not_before;
  bool cancelled = false;

  // A request that nobody will serve any more (the net thread has ended) is answered all the same.
  ~Transfer() {
    if (document && document->done) document->done(fail(ErrorCode::kCancelled, "the fetcher has ended"));
  }

  bool is_demand() const { return document.has_value() || range->lane == Lane::kDemand; }
  const std::string& url() const { return range ? range->url : document->url; }
  Duration patience() const { return range ? range->patience : document->patience; }
  // What is still missing.
  ByteRange rest() const { return {range->range.begin + arrived, range->range.end}; }
};

void curl_global_init_once() { [[maybe_unused]] static const CURLcode done = ::curl_global_init(CURL_GLOBAL_DEFAULT); }

}  // namespace

class CurlFetcher::NetThread {
 public:
  NetThread(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock)
      : options_(std::move(options)), buffers_(buffers), metrics_(metrics), clock_(clock) {
    curl_global_init_once();
    multi_ = ::curl_multi_init();
    // One stream for each connection, and idle connections are kept for all that may be active at once.
    ::curl_multi_setopt(multi_, CURLMOPT_MAX_CONCURRENT_STREAMS, 1L);
    ::curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(options_.connections + kDocumentConnections));
    thread_ = start_thread("wh-net", [this] { run(); });
  }
  ~NetThread() {
    mailbox_.post([this] { stopping_ = true; });
    thread_.join();
    for (CURL* easy : idle_handles_) ::curl_easy_cleanup(easy);
    ::curl_multi_cleanup(multi_);
  }

  bool post(Task task) { return mailbox_.post(std::move(task)); }

  // --- commands, on the net thread ---

  void add(std::unique_ptr<Transfer> t) {
    t->thread = this;
    t->last_progress = clock_.now();
    if (t->range) {
      t->validator = t->range->validator;
      by_id_[t->range->id] = t.get();
      metrics_.fetches_in_flight.fetch_add(1, std::memory_order_relaxed);
    }
    enqueue(std::move(t));
  }

  void cancel(FetchId id) {
    auto it = by_id_.find(id);
    if (it != by_id_.end()) it->second->cancelled = true;
  }

  void promote(FetchId id) {
    auto it = by_id_.find(id);
    if (it == by_id_.end() || it->second->is_demand()) return;
    it->second->range->lane = Lane::kDemand;
    auto queued =
        std::find_if(speculative_.begin(), speculative_.end(), [&](auto& t) { return t.get() == it->second; });
    if (queued == speculative_.end()) return;
    demand_.push_back(std::move(*queued));
    speculative_.erase(queued);
  }

 private:
  void run() {
    std::vector<Task> messages;
    while (!stopping_) {
      mailbox_.drain(messages);
      for (Task& task : messages) task();
      messages.clear();
      wake_delayed();
      end_cancelled();
      start_waiting();
      resume_paused();
      int running = 0;
      ::curl_multi_perform(multi_, &running);
      tell_progress();
      retire_finished();
      if (!stopping_ && !may_start()) ::curl_multi_poll(multi_, nullptr, 0, poll_timeout(), nullptr);
    }
    mailbox_.close();
    mailbox_.drain(messages);
    for (Task& task : messages) task();
    end_all();
  }

  // --- waiting -> active ---

  void enqueue(std::unique_ptr<Transfer> t) { (t->is_demand() ? demand_ : speculative_).push_back(std::move(t)); }

  bool may_start() const {
    return (!demand_.empty() && has_connection(*demand_.front())) ||
           (!speculative_.empty() && has_connection(*speculative_.front()));
  }

  bool has_connection(const Transfer& t) const {
    if (t.document) return active_documents_ < kDocumentConnections;
    if (t.is_demand()) return active_ranges_ < options_.connections;
    return active_ranges_ < std::max(1, options_.connections - kKeptForDemand);
  }

  void start_waiting() {
    for (auto* queue : {&demand_, &speculative_}) {
      // Documents and ranges have connections of their own: one kind that must wait does not hold up the other.
      for (auto it = queue->begin(); it != queue->end();) {
        if (!has_connection(**it)) {
          if (active_ranges_ >= options_.connections && active_documents_ >= kDocumentConnections) break;
          ++it;
          continue;
        }
        std::unique_ptr<Transfer> t = std::move(*it);
        it = queue->erase(it);
        start(std::move(t));
      }
    }
  }

  void start(std::unique_ptr<Transfer> t) {
    CURL* easy = nullptr;
    if (idle_handles_.empty()) {
      easy = ::curl_easy_init();
    } else {
      easy = idle_handles_.back();
      idle_handles_.pop_back();
    }
    t->easy = easy;
    t->header = {};
    t->header_checked = false;
    t->refused.reset();
    t->error_detail[0] = 0;
    set_options(*t);
    (t->range ? active_ranges_ : active_documents_) += 1;
    metrics_.requests_sent.fetch_add(1, std::memory_order_relaxed);
    ::curl_multi_add_handle(multi_, easy);
    active_.push_back(std::move(t));
  }

  void set_options(Transfer& t) {
    CURL* e = t.easy;
    ::curl_easy_setopt(e, CURLOPT_URL, t.url().c_str());
    ::curl_easy_setopt(e, CURLOPT_PRIVATE, &t);
    ::curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t.error_detail);
    ::curl_easy_setopt(e, CURLOPT_USERAGENT, "wormhole/" WORMHOLE_VERSION);
    ::curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
    ::curl_easy_setopt(e, CURLOPT_MAXREDIRS, kMaxRedirects);
    ::curl_easy_setopt(e, CURLOPT_HTTP_VERSION, http_version());
    ::curl_easy_setopt(e, CURLOPT_BUFFERSIZE, kReceiveBuffer);
    ::curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(std::min(options_.connect_timeout, t.patience())));
    ::curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
    ::curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
    ::curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, &on_header);
    ::curl_easy_setopt(e, CURLOPT_HEADERDATA, &t);
    ::curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, &on_body);
    ::curl_easy_setopt(e, CURLOPT_WRITEDATA, &t);
    if (!options_.user.empty()) {
      ::curl_easy_setopt(e, CURLOPT_USERNAME, options_.user.c_str());
      ::curl_easy_setopt(e, CURLOPT_PASSWORD, options_.password.c_str());
    }
    if (!options_.ca_file.empty()) ::curl_easy_setopt(e, CURLOPT_CAINFO, options_.ca_file.c_str());
    if (t.document) {
      ::curl_easy_setopt(e, CURLOPT_NOBODY, t.document->head_only ? 1L : 0L);
      return;
    }
    if (t.range->whole_body) return;
    ::curl_easy_setopt(e, CURLOPT_RANGE, range_header(t.rest()).c_str());
    if (const std::string& v = t.validator.if_range(); !v.empty()) {
      t.headers = ::curl_slist_append(nullptr, ("If-Range: " + v).c_str());
      ::curl_easy_setopt(e, CURLOPT_HTTPHEADER, t.headers);
    }
  }

  long http_version() const {
    switch (options_.http) {
      case HttpVersion::k1_1: return CURL_HTTP_VERSION_1_1;
      case HttpVersion::k2: return CURL_HTTP_VERSION_2_0;
      case HttpVersion::kAuto: break;
    }
    return CURL_HTTP_VERSION_2TLS;
  }

  static long milliseconds(Duration d) {
    return std::max<long>(1, std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
  }

  // --- active: libcurl's callbacks ---

  static size_t on_header(char* line, size_t size, size_t count, void* transfer) {
    static_cast<Transfer*>(transfer)->header.take_line({line, size * count});
    return size * count;
  }

  static size_t on_body(char* bytes, size_t size, size_t count, void* transfer) {
    auto* t = static_cast<Transfer*>(transfer);
    return static_cast<NetThread*>(t->thread)->take_body(*t, {bytes, size * count});
  }

  size_t take_body(Transfer& t, std::string_view bytes) {
    metrics_.body_bytes_received.fetch_add(bytes.size(), std::memory_order_relaxed);
    if (t.document) return take_document_body(t, bytes);
    if (!t.header_checked) {
      t.header_checked = true;
      if (auto ok = check_range_response(t.header, *t.range, t.validator, t.rest()); !ok) return refuse(t, ok.error());
      tell_head(t);
    }
    if (t.range->whole_body) return take_chunks(t, bytes);
    const size_t wanted = std::min<uint64_t>(bytes.size(), t.rest().size());
    std::memcpy(t.range->buffer->data() + t.arrived, bytes.data(), wanted);
    t.arrived += wanted;
    if (wanted == bytes.size()) return wanted;
    return refuse(t, Error{ErrorCode::kBadResponse, t.url() + ": the body is longer than its range"});
  }

  size_t take_document_body(Transfer& t, std::string_view bytes) {
    if (t.header.status < 200 || t.header.status > 299) return bytes.size();  // an error page: not ours
    if (t.body.size() + bytes.size() > t.document->max_bytes) {
      return refuse(
          t, Error{ErrorCode::kBadResponse, fmt::format("{}: longer than {} bytes", t.url(), t.document->max_bytes)});
    }
    t.body.append(bytes);
    return bytes.size();
  }

  size_t take_chunks(Transfer& t, std::string_view bytes) {
    if (t.arrived + bytes.size() > t.range->object_size) {
      return refuse(
          t, Error{ErrorCode::kStale, fmt::format("{}: has more than {} bytes now", t.url(), t.range->object_size)});
    }
    // A pause comes before anything is taken: libcurl hands the same bytes in again.
    const bool needs_chunk = t.arrived >= t.skip && (t.chunk == nullptr || t.chunk_filled + bytes.size() > kChunkSize);
    if (needs_chunk && !has_room_for_chunk(t)) {
      t.paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    const size_t taken = bytes.size();
    while (!bytes.empty()) bytes.remove_prefix(take_chunk_piece(t, bytes));
    return taken;
  }

  // Bytes that end one chunk begin the next, and libcurl's bytes are taken whole or not at all: so the budget is
  // exceeded by one chunk at most.
  bool has_room_for_chunk(const Transfer& t) const { return buffers_.has_room(t.chunk == nullptr ? kChunkSize : 0); }

  size_t take_chunk_piece(Transfer& t, std::string_view bytes) {
    if (t.arrived < t.skip) {
      const size_t n = std::min<uint64_t>(bytes.size(), t.skip - t.arrived);
      t.arrived += n;
      return n;
    }
    if (t.chunk == nullptr) t.chunk = buffers_.allocate(kChunkSize);
    const size_t n = std::min<uint64_t>(bytes.size(), kChunkSize - t.chunk_filled);
    std::memcpy(t.chunk->data() + t.chunk_filled, bytes.data(), n);
    t.chunk_filled += n;
    t.arrived += n;
    if (t.chunk_filled == kChunkSize || t.arrived == t.range->object_size) {
      t.range->sink->fetch_chunk(t.range->id, {t.arrived - t.chunk_filled, t.arrived}, std::move(t.chunk));
      t.chunk = nullptr;
      t.chunk_filled = 0;
      t.skip = t.arrived;
    }
    return n;
  }

  static size_t refuse(Transfer& t, Error error) {
    t.refused = std::move(error);
    return CURL_WRITEFUNC_ERROR;
  }

  void tell_head(Transfer& t) {
    if (t.head_told) return;
    t.head_told = true;
    if (t.validator.empty()) t.validator = t.header.validator;
    ObjectHead head{t.validator, t.header.content_range ? t.header.content_range->total : t.header.content_length};
    t.range->sink->fetch_head(t.range->id, std::move(head));
  }

  void tell_progress() {
    for (auto& t : active_) {
      if (!t->range || t->arrived == t->told) continue;
      t->told = t->arrived;
      t->last_progress = clock_.now();
      if (t->arrived > t->furthest) {
        t->furthest = t->arrived;
        t->attempt = 0;
      }
      if (!t->range->whole_body) t->range->sink->fetch_progress(t->range->id, t->arrived);
    }
  }

  void resume_paused() {
    for (auto& t : active_) {
      if (!t->paused || !has_room_for_chunk(*t)) continue;
      t->paused = false;
      t->last_progress = clock_.now();
      ::curl_easy_pause(t->easy, CURLPAUSE_CONT);
    }
  }

  // --- active -> done, or delayed ---

  void retire_finished() {
    int left = 0;
    while (CURLMsg* message = ::curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      Transfer* raw = nullptr;
      ::curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &raw);
      const CURLcode code = message->data.result;
      finish_attempt(take_off(raw), code);
    }
  }

  // Off the multi handle; the easy handle is free for the next.
  std::unique_ptr<Transfer> take_off(Transfer* raw) {
    auto it = std::find_if(active_.begin(), active_.end(), [&](auto& t) { return t.get() == raw; });
    std::unique_ptr<Transfer> t = std::move(*it);
    active_.erase(it);
    (t->range ? active_ranges_ : active_documents_) -= 1;
    if (t->document) remember_url(*t);
    ::curl_multi_remove_handle(multi_, t->easy);
    ::curl_easy_reset(t->easy);
    idle_handles_.push_back(t->easy);
    t->easy = nullptr;
    ::curl_slist_free_all(t->headers);
    t->headers = nullptr;
    t->paused = false;
    return t;
  }

  static void remember_url(Transfer& t) {
    const char* effective = nullptr;
    ::curl_easy_getinfo(t.easy, CURLINFO_EFFECTIVE_URL, &effective);
    if (effective != nullptr) t.document->url = effective;
  }

  void finish_attempt(std::unique_ptr<Transfer> t, CURLcode code) {
    Status status = outcome(*t, code);
    if (status || t->cancelled) return finish(std::move(t), std::move(status));
    ++t->attempt;
    const TimePoint now = clock_.now();
    const TimePoint give_up = t->last_progress + t->patience();
    RetryPolicy policy = options_.retry;
    if (t->document) policy.attempts = std::min(policy.attempts, kDocumentAttempts);
    const auto wait = retry_delay(policy, status.error().code, t->attempt, jitter(), t->header.retry_after);
    if (!wait || now + *wait >= give_up) {
      if (wait && status.error().code == ErrorCode::kUnreachable)
        status.error().message += " (no time is left to try again)";
      return finish(std::move(t), std::move(status));
    }
    log::debug("fetch is tried again: url={} attempt={} wait_ms={} error=\"{}\"", t->url(), t->attempt,
               milliseconds(*wait), status.error().message);
    metrics_.fetches_retried.fetch_add(1, std::memory_order_relaxed);
    t->not_before = now + *wait;
    if (t->document) t->body.clear();
    if (t->range && t->range->whole_body) restart_whole_body(*t);
    delayed_.push_back(std::move(t));
  }

  // A whole body cannot be resumed: it comes again from its first byte, and what the sink has is skipped.
  static void restart_whole_body(Transfer& t) {
    t.chunk = nullptr;
    t.chunk_filled = 0;
    t.arrived = t.told = 0;
  }

  // What this attempt has come to.
  Status outcome(Transfer& t, CURLcode code) const {
    if (t.cancelled) return fail(ErrorCode::kCancelled, "{}: cancelled", t.url());
    // A range that is complete is complete, whatever came behind it and however the connection ended.
    if (t.range && !t.range->whole_body && t.rest().empty()) return {};
    if (t.refused) return fail(*t.refused);
    if (code != CURLE_OK) return fail(error_of_curl(code, t.error_detail, t.url()));
    if (t.document) {
      if (t.header.status < 200 || t.header.status > 299) return fail(error_of_status(t.header.status, t.url()));
      return {};
    }
    if (!t.header_checked) {  // no body came at all
      if (auto ok = check_range_response(t.header, *t.range, t.validator, t.rest()); !ok) return ok;
    }
    const uint64_t wanted = t.range->whole_body ? t.range->object_size : t.range->range.size();
    if (t.arrived < wanted)
      return fail(ErrorCode::kUnreachable, "{}: the body ended {} bytes early", t.url(), wanted - t.arrived);
    return {};
  }

  void finish(std::unique_ptr<Transfer> t, Status status) {
    if (t->document) {
      auto done = std::exchange(t->document->done, {});
      if (status) {
        done(document_of(*t));
      } else {
        done(fail(std::move(status.error())));
      }
      return;
    }
    by_id_.erase(t->range->id);
    metrics_.fetches_in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (!status && status.error().code != ErrorCode::kCancelled)
      metrics_.fetches_failed.fetch_add(1, std::memory_order_relaxed);
    if (t->arrived != t->told && !t->range->whole_body) t->range->sink->fetch_progress(t->range->id, t->arrived);
    t->range->sink->fetch_done(t->range->id, std::move(status));
  }

  static Document document_of(Transfer& t) {
    Document d;
    d.status = t.header.status;
    d.url = t.document->url;
    d.content_type = t.header.content_type;
    d.head = ObjectHead{t.header.validator, t.header.content_length};
    if (!t.header.validator.last_modified.empty()) {
      const time_t when = ::curl_getdate(t.header.validator.last_modified.c_str(), nullptr);
      if (when >= 0) d.last_modified = when;
    }
    d.accepts_ranges = t.header.accepts_ranges;
    d.body = std::move(t.body);
    return d;
  }

  // --- delayed, cancelled, out of patience ---

  void wake_delayed() {
    const TimePoint now = clock_.now();
    std::erase_if(delayed_, [&](auto& t) {
      if (t->not_before > now && !t->cancelled) return false;
      enqueue(std::move(t));
      return true;
    });
    // A transfer that waits for an answer longer than its patience allows.
    for (size_t i = 0; i < active_.size();) {
      Transfer& t = *active_[i];
      if (t.paused || now - t.last_progress < t.patience()) {
        ++i;
        continue;
      }
      auto off = take_off(&t);
      const double seconds = std::chrono::duration<double>(off->patience()).count();
      Error error{ErrorCode::kTimedOut, fmt::format("{}: no answer within {:.3g} s", off->url(), seconds)};
      finish(std::move(off), fail(std::move(error)));
    }
    expire(demand_, now);
    expire(speculative_, now);
  }

  // Those that never got a connection.
  void expire(std::deque<std::unique_ptr<Transfer>>& queue, TimePoint now) {
    for (size_t i = 0; i < queue.size();) {
      if (now - queue[i]->last_progress < queue[i]->patience()) {
        ++i;
        continue;
      }
      auto t = std::move(queue[i]);
      queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
      Error error{ErrorCode::kTimedOut, t->url() + ": no connection became free in time"};
      finish(std::move(t), fail(std::move(error)));
    }
  }

  void end_cancelled() {
    for (auto* queue : {&demand_, &speculative_}) {
      for (size_t i = 0; i < queue->size();) {
        if (!(*queue)[i]->cancelled) {
          ++i;
          continue;
        }
        auto t = std::move((*queue)[i]);
        queue->erase(queue->begin() + static_cast<std::ptrdiff_t>(i));
        Status status = outcome(*t, CURLE_OK);
        finish(std::move(t), std::move(status));
      }
    }
    for (size_t i = 0; i < active_.size();) {
      if (!active_[i]->cancelled) {
        ++i;
        continue;
      }
      auto t = take_off(active_[i].get());
      Status status = outcome(*t, CURLE_OK);
      finish(std::move(t), std::move(status));
    }
  }

  void end_all() {
    for (auto& t : delayed_) enqueue(std::move(t));
    delayed_.clear();
    for (auto* queue : {&demand_, &speculative_}) {
      for (auto& t : *queue) t->cancelled = true;
    }
    for (auto& t : active_) t->cancelled = true;
    end_cancelled();
  }

  // Until the next attempt is due, or patience may have run out; half a second is fine for the latter.
  int poll_timeout() const {
    const TimePoint now = clock_.now();
    Duration wait = active_.empty() && demand_.empty() && speculative_.empty() ? Duration(std::chrono::seconds(60))
                                                                               : std::chrono::milliseconds(500);
    for (const auto& t : delayed_) wait = std::min(wait, std::max(Duration{0}, t->not_before - now));
    for (const auto& t : active_) {
      if (t->paused) wait = std::min<Duration>(wait, std::chrono::milliseconds(10));
    }
    return static_cast<int>(milliseconds(wait));
  }

  double jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  const CurlOptions options_;
  BufferPool& buffers_;
  Metrics& metrics_;
  const Clock& clock_;
  CURLM* multi_ = nullptr;
  Mailbox mailbox_{[this] { ::curl_multi_wakeup(multi_); }};
  std::thread thread_;

  // The net thread's.
  bool stopping_ = false;
  std::deque<std::unique_ptr<Transfer>> demand_, speculative_;
  std::vector<std::unique_ptr<Transfer>> active_, delayed_;
  int active_ranges_ = 0;
  int active_documents_ = 0;
  std::unordered_map<FetchId, Transfer*> by_id_;
  std::vector<CURL*> idle_handles_;
  std::minstd_rand random_{std::random_device{}()};
};

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

void CurlFetcher::get(DocumentRequest request) {
  auto t = std::make_unique<Transfer>();
  t->document = std::move(request);
  thread_->post([this, t = std::move(t)]() mutable { thread_->add(std::move(t)); });
}

}  // namespace wormhole
