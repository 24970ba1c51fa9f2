// The net thread: how requests end, and what is learned from it.
#include "net/net_thread.h"

#include <algorithm>

#include "base/log.h"

namespace wormhole {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A listing is asked for by somebody who waits at a prompt, and an older one may be at hand: a server that is gone
// is reported after 0.3 s of retries.
constexpr int kDocumentAttempts = 3;

}  // namespace

// --- active -> done, or delayed ------------------------------------------------------------------------------------

void NetThread::retire_finished() {
  int left = 0;
  while (CURLMsg* message = ::curl_multi_info_read(loop_.multi(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    Attempt* raw = nullptr;
    ::curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &raw);
    const CURLcode code = message->data.result;
    Transfer& t = *raw->transfer;
    attempt_ended(t, take_off(raw), code);
  }
}

// Off the multi handle; the easy handle is free for the next.
std::unique_ptr<Attempt> NetThread::take_off(Attempt* raw) {
  Transfer& t = *raw->transfer;
  auto it = std::find_if(t.attempts.begin(), t.attempts.end(), [&](auto& a) { return a.get() == raw; });
  std::unique_ptr<Attempt> a = std::move(*it);
  t.attempts.erase(it);
  if (t.document) {
    active_documents_ -= !t.warming;
    const char* effective = nullptr;
    ::curl_easy_getinfo(a->easy, CURLINFO_EFFECTIVE_URL, &effective);
    if (effective != nullptr) t.document->url = a->server->origin_url_of(effective, origin_);
  } else {
    a->server->count(a->kind, -1, a->range.size());
  }
  curl_off_t sent = 0, first = 0;
  ::curl_easy_getinfo(a->easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
  ::curl_easy_getinfo(a->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
  if (a->header.status != 0 && first > sent) a->server->meter.first_byte(std::chrono::microseconds(first - sent));
  connections_.carried(a->easy, a->position - a->range.begin);
  ::curl_multi_remove_handle(loop_.multi(), a->easy);
  ::curl_easy_reset(a->easy);
  idle_handles_.push_back(a->easy);
  a->easy = nullptr;
  ::curl_slist_free_all(a->headers);
  a->headers = nullptr;
  return a;
}

void NetThread::end_attempts(Transfer& t) {
  while (!t.attempts.empty()) take_off(t.attempts.back().get());
}

// Those that would bring only what another one has brought.
void NetThread::end_useless_attempts(Transfer& t) {
  for (size_t i = 0; t.body && i < t.attempts.size();) {
    Attempt& a = *t.attempts[i];
    if (a.position < a.limit && t.body->has({a.position, a.limit})) {
      take_off(&a);
    } else {
      ++i;
    }
  }
}

NetThread::TransferRef NetThread::take_active(Transfer* raw) {
  auto it = std::find_if(active_.begin(), active_.end(), [&](auto& t) { return t.get() == raw; });
  TransferRef t = std::move(*it);
  active_.erase(it);
  return t;
}

// What the server and the policies learn from an attempt.
void NetThread::learn(const Attempt& a, const Status& status) {
  const TimePoint now = clock_.now();
  Server& s = *a.server;
  if (!a.header.alt_svc.empty() && offers_http3(a.header.alt_svc, s.base.port())) s.protocol.offered();
  if (a.transfer->range && a.first_byte != TimePoint{})
    s.protocol.arrived(a.transport, a.position - a.range.begin, a.last_byte - a.first_byte, now);
  if (status) {
    s.breaker.succeeded();
    s.used = true;
    return;
  }
  switch (status.error().code) {
    case ErrorCode::kUnreachable:
    case ErrorCode::kTimedOut:
      s.breaker.failed(now);
      // An answer that broke off is no blocked path.
      if (a.header.status == 0 || status.error().code == ErrorCode::kTimedOut) s.protocol.failed(a.transport, now);
      if (a.header.status == 429 || a.header.status == 503) s.controller.back_off(now);
      break;
    case ErrorCode::kCancelled: break;
    default: s.breaker.succeeded();  // it has answered
  }
}

void NetThread::attempt_ended(Transfer& t, std::unique_ptr<Attempt> a, CURLcode code) {
  const TimePoint now = clock_.now();
  Status status = outcome(t, *a, code);
  if (t.warming) {
    if (!status) next_spares_ = now + kWarmingEvery;
    if (status) learn(*a, status);
    return finish(take_active(&t), std::move(status), a.get());
  }
  learn(*a, status);
  if (t.complete() || t.cancelled) {
    end_attempts(t);
    if (t.complete() && !a->second && !t.hedged) hedging_.completed(t.range->range.size(), now - a->started);
    return finish(take_active(&t), outcome(t, *a, code), a.get());
  }
  end_useless_attempts(t);
  if (!t.attempts.empty()) {
    // The other one goes on; what this one leaves is the other's again, or comes afterwards.
    if (!status)
      t.attempts.front()->limit =
          std::max(t.attempts.front()->limit, std::min(a->range.end, t.attempts.front()->range.end));
    return;
  }
  if (status && t.body) {  // a gap is left
    // What was waited for has come; the rest of the block may take its time.
    if (t.wanted.empty() && !t.range->wanted.empty() && t.is_demand()) t.range->lane = Lane::kSpeculative;
    return enqueue(take_active(&t));
  }
  if (status) return finish(take_active(&t), std::move(status), a.get());
  if (try_elsewhere(t, *a, status)) return enqueue(take_active(&t));
  ++t.failures;
  const TimePoint give_up = t.last_progress + t.patience();
  RetryPolicy policy = options_.retry;
  if (t.document) policy.attempts = std::min(policy.attempts, kDocumentAttempts);
  const auto wait = retry_delay(policy, status.error().code, t.failures, jitter(), a->header.retry_after);
  if (!wait || now + *wait >= give_up) {
    if (wait && status.error().code == ErrorCode::kUnreachable)
      status.error().message += " (no time is left to try again)";
    return finish(take_active(&t), std::move(status), a.get());
  }
  log::debug("fetch is tried again: url={} attempt={} wait_ms={} error=\"{}\"", a->url, t.failures,
             milliseconds_of(*wait), status.error().message);
  metrics_.fetches_retried.fetch_add(1, std::memory_order_relaxed);
  t.not_before = now + *wait;
  t.text.clear();
  if (t.is_whole_body()) restart_whole_body(t);
  delayed_.push_back(take_active(&t));
}

// Whether another attempt is worth making at once: with fresh credentials, over the other transport, of another server.
bool NetThread::try_elsewhere(Transfer& t, const Attempt& a, const Status& status) {
  const ErrorCode code = status.error().code;
  const bool again = [&] {
    const bool refused = code == ErrorCode::kUnauthorized || credentials_.may_be_refused(a.header.status);
    if (refused && a.server->is_origin() && !t.asked_again) {
      t.asked_again = true;
      return credentials_.reload();
    }
    if (!a.server->is_origin() && !server_did_not_speak(code)) {
      // A mirror that has something else is no judge of what the origin has.
      a.server->lacks.insert(t.url());
      return true;
    }
    if (t.range && t.range->by_content && !server_did_not_speak(code) && code != ErrorCode::kNoRanges) {
      // Nor is the origin of what a mirror has, where the bytes speak for themselves.
      a.server->lacks.insert(t.url());
      if (choose(t, 0, nullptr) != nullptr) return true;
      a.server->lacks.erase(t.url());
    }
    if (!server_did_not_speak(code)) return false;
    if (a.transport == Transport::kQuic && a.header.status == 0) return true;
    t.avoid = a.server;
    Server* other = choose(t, 0, a.server);
    return other != nullptr && other != a.server && t.failures < options_.retry.attempts;
  }();
  if (!again) return false;
  metrics_.fetches_retried.fetch_add(1, std::memory_order_relaxed);
  if (!a.server->is_origin() || servers_.size() > 1) ++t.failures;
  t.text.clear();
  if (t.is_whole_body()) restart_whole_body(t);
  return true;
}

// What this attempt has come to.
Status NetThread::outcome(const Transfer& t, const Attempt& a, CURLcode code) const {
  if (t.cancelled) return fail(ErrorCode::kCancelled, "{}: cancelled", t.url());
  // Bytes that are there are there, whatever came behind them and however the connection ended.
  if (t.complete() || a.enough || (t.body && a.position >= a.limit && !a.refused)) return {};
  if (a.refused) return fail(*a.refused);
  // Of a HEAD everything is there with its header; what some servers do to the stream afterwards is of no interest.
  const bool has_head = t.document && t.document->head_only && a.header.status >= 200 && a.header.status <= 299;
  if (code != CURLE_OK && !(has_head && code != CURLE_OPERATION_TIMEDOUT))
    return fail(error_of_curl(code, a.error_detail, a.url));
  if (t.document) {
    if (a.header.status >= 200 && a.header.status <= 299) return {};
    Error error = error_of_status(a.header.status, a.url);
    const bool last_word = !server_did_not_speak(error.code) && error.code != ErrorCode::kUnauthorized;
    if (t.document->take_refusals && last_word) return {};
    return fail(std::move(error));
  }
  if (!a.header_checked) {  // no body came at all
    if (auto ok = check_attempt(a); !ok) return ok;
  }
  const uint64_t missing = t.is_whole_body() ? t.range->object_size - t.passed : a.limit - a.position;
  if (missing > 0) return fail(ErrorCode::kUnreachable, "{}: the body ended {} bytes early", a.url, missing);
  return {};
}

void NetThread::finish(TransferRef t, Status status, const Attempt* last) {
  if (t->document) {
    auto done = std::exchange(t->document->done, {});
    if (status) {
      done(document_of(*t, *last));
    } else {
      done(fail(std::move(status.error())));
    }
    return;
  }
  by_id_.erase(t->range->id);
  metrics_.fetches_in_flight.fetch_sub(1, std::memory_order_relaxed);
  if (!status && status.error().code != ErrorCode::kCancelled)
    metrics_.fetches_failed.fetch_add(1, std::memory_order_relaxed);
  hedging_.fetched(t->arrived());
  if (t->arrived() != t->told && !t->is_whole_body()) t->range->sink->fetch_progress(t->range->id, t->arrived());
  t->range->sink->fetch_done(t->range->id, std::move(status));
}

// --- delayed, cancelled, out of patience -----------------------------------------------------------------------------

void NetThread::wake_delayed(TimePoint now) {
  std::erase_if(delayed_, [&](auto& t) {
    if (t->not_before > now && !t->cancelled) return false;
    enqueue(std::move(t));
    return true;
  });
  for (auto& queue : waiting_) expire(queue, now);
}

// Those that wait for an answer longer than their patience allows.
void NetThread::expire_active(TimePoint now) {
  for (size_t i = 0; i < active_.size();) {
    Transfer& t = *active_[i];
    const bool paused = std::any_of(t.attempts.begin(), t.attempts.end(), [](auto& a) { return a->paused; });
    if (paused || now - t.last_progress < t.patience()) {
      ++i;
      continue;
    }
    for (auto& a : t.attempts) a->server->breaker.failed(now);
    end_attempts(t);
    const double limit = std::chrono::duration<double>(t.patience()).count();
    Error error{ErrorCode::kTimedOut, fmt::format("{}: no answer within {:.3g} s", t.url(), limit)};
    finish(take_active(&t), fail(std::move(error)), nullptr);
  }
}

// Those that got no connection, where none brought anything either.
void NetThread::expire(std::deque<TransferRef>& queue, TimePoint now) {
  for (size_t i = 0; i < queue.size();) {
    if (now - queue[i]->last_progress - others_turn(*queue[i]) < queue[i]->patience()) {
      ++i;
      continue;
    }
    auto t = std::move(queue[i]);
    queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
    Error error{ErrorCode::kTimedOut, t->url() + ": no connection became free in time"};
    finish(std::move(t), fail(std::move(error)), nullptr);
  }
}

void NetThread::end_cancelled(TimePoint now) {
  for (auto& t : active_) {
    if (t->drains_until != TimePoint{} && now >= t->drains_until) t->cancelled = true;
  }
  const auto end = [this](TransferRef t) {
    Status status;
    if (!t->complete()) status = fail(ErrorCode::kCancelled, "{}: cancelled", t->url());
    finish(std::move(t), std::move(status), nullptr);
  };
  for (auto& queue : waiting_) {
    for (size_t i = 0; i < queue.size();) {
      if (!queue[i]->cancelled) {
        ++i;
        continue;
      }
      auto t = std::move(queue[i]);
      queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
      end(std::move(t));
    }
  }
  for (size_t i = 0; i < active_.size();) {
    if (!active_[i]->cancelled) {
      ++i;
      continue;
    }
    end_attempts(*active_[i]);
    end(take_active(active_[i].get()));
  }
}

void NetThread::end_all() {
  for (auto& t : delayed_) enqueue(std::move(t));
  delayed_.clear();
  for (auto& queue : waiting_) {
    for (auto& t : queue) t->cancelled = true;
  }
  for (auto& t : active_) t->cancelled = true;
  end_cancelled(clock_.now());
}

}  // namespace wormhole
