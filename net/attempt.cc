#include "net/attempt.h"

#include <algorithm>
#include <cstring>

#include "base/block.h"

namespace wormhole {
namespace {

// A chunk of a whole-body fetch: whole blocks, large enough to be written and handed on cheaply.
constexpr uint64_t kChunkSize = 16 * kBlockSize;

size_t refuse(Attempt& a, Error error) {
  a.refused = std::move(error);
  return CURL_WRITEFUNC_ERROR;
}

// A mirror has ETags of its own; what copies of a file share is its date. Where the origin has none, the ETag has to be
// the same.
Validator seen_by_mirrors(const Validator& v) { return v.last_modified.empty() ? v : Validator{{}, v.last_modified}; }

}  // namespace

Transfer::~Transfer() {
  if (document && document->done) document->done(fail(ErrorCode::kCancelled, "the fetcher has ended"));
}

ByteRange Transfer::next_range(bool young) const {
  if (!body) return {};
  for (const ByteRange& w : wanted) {
    if (const ByteRange asked = range_for(w, young); !asked.empty()) return asked;
  }
  return body->first_gap();
}

ByteRange Transfer::range_for(ByteRange w, bool young) const {
  if (body->has(w)) return {};
  ByteRange gap = body->gap_from(w.begin);
  // A large one goes on where it was, and brings them once more.
  if (young || !is_small()) gap.end = std::min(gap.end, std::max(w.end, gap.begin + kFirstFlight));
  return gap;
}

void restart_whole_body(Transfer& t) {
  t.chunk = nullptr;
  t.chunk_filled = 0;
  t.passed = t.told = 0;
}

Status check_attempt(const Attempt& a) {
  const Transfer& t = *a.transfer;
  const ByteRange rest{a.position, a.range.end};
  if (a.server->is_origin()) return check_range_response(a.header, *t.range, t.validator, rest);
  const Validator wanted = seen_by_mirrors(t.validator);
  if (auto ok = check_range_response(a.header, *t.range, wanted, rest); !ok) return ok;
  const Validator& seen = a.header.validator;
  const bool same = wanted.last_modified.empty() ? wanted.etag_is_strong() && seen.etag == wanted.etag
                                                 : seen.last_modified == wanted.last_modified;
  if (wanted.empty() || same) return {};
  return fail(ErrorCode::kStale, "{}: the mirror does not say that it has the same version", a.url);
}

void tell_head(Transfer& t, const Attempt& a) {
  if (t.head_told) return;
  t.head_told = true;
  if (t.validator.empty() && !t.range->by_content)
    t.validator = a.server->is_origin() ? a.header.validator : seen_by_mirrors(a.header.validator);
  ObjectHead head{t.validator, a.header.content_range ? a.header.content_range->total : a.header.content_length,
                  a.server->base.display()};
  t.range->sink->fetch_head(t.range->id, std::move(head));
}

size_t BodyTaker::take(Attempt& a, std::string_view bytes) {
  if (a.transfer->document) return take_document(a, bytes);
  if (!a.header_checked) {
    a.header_checked = true;
    if (auto ok = check_attempt(a); !ok) return refuse(a, ok.error());
    tell_head(*a.transfer, a);
  }
  return a.transfer->is_whole_body() ? take_chunks(a, bytes) : take_range(a, bytes);
}

size_t BodyTaker::take_document(Attempt& a, std::string_view bytes) {
  Transfer& t = *a.transfer;
  if (a.header.status < 200 || a.header.status > 299) return bytes.size();  // an error page: not ours
  if (t.text.size() + bytes.size() > t.document->max_bytes) {
    return refuse(
        a, Error{ErrorCode::kBadResponse, fmt::format("{}: longer than {} bytes", t.url(), t.document->max_bytes)});
  }
  t.text.append(bytes);
  return bytes.size();
}

size_t BodyTaker::take_range(Attempt& a, std::string_view bytes) {
  const size_t wanted = std::min<uint64_t>(bytes.size(), a.limit - a.position);
  a.transfer->body->add(a.position, bytes.substr(0, wanted));
  a.position += wanted;
  if (wanted == bytes.size()) {
    // Bytes that another attempt has brought already need not come to their end.
    if (a.position == a.limit && a.limit < a.range.end) {
      a.enough = true;
      return CURL_WRITEFUNC_ERROR;
    }
    return wanted;
  }
  if (a.limit < a.range.end) {
    a.enough = true;
    return CURL_WRITEFUNC_ERROR;
  }
  return refuse(a, Error{ErrorCode::kBadResponse, a.url + ": the body is longer than its range"});
}

size_t BodyTaker::take_chunks(Attempt& a, std::string_view bytes) {
  Transfer& t = *a.transfer;
  if (t.passed + bytes.size() > t.range->object_size) {
    return refuse(
        a, Error{ErrorCode::kStale, fmt::format("{}: has more than {} bytes now", t.url(), t.range->object_size)});
  }
  // A pause comes before anything is taken: libcurl hands the same bytes in again.
  const bool needs_chunk = t.passed >= t.skip && (t.chunk == nullptr || t.chunk_filled + bytes.size() > kChunkSize);
  if (needs_chunk && !has_room_for_chunk(t)) {
    a.paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  const size_t taken = bytes.size();
  while (!bytes.empty()) bytes.remove_prefix(take_chunk_piece(t, bytes));
  return taken;
}

// Bytes that end one chunk begin the next, and libcurl's bytes are taken whole or not at all: so the budget is
// exceeded by one chunk at most.
bool BodyTaker::has_room_for_chunk(const Transfer& t) const {
  return buffers_.has_room(t.chunk == nullptr ? kChunkSize : 0);
}

size_t BodyTaker::take_chunk_piece(Transfer& t, std::string_view bytes) {
  if (t.passed < t.skip) {
    const size_t n = std::min<uint64_t>(bytes.size(), t.skip - t.passed);
    t.passed += n;
    return n;
  }
  if (t.chunk == nullptr) t.chunk = buffers_.allocate(kChunkSize);
  const size_t n = std::min<uint64_t>(bytes.size(), kChunkSize - t.chunk_filled);
  std::memcpy(t.chunk->data() + t.chunk_filled, bytes.data(), n);
  t.chunk_filled += n;
  t.passed += n;
  if (t.chunk_filled == kChunkSize || t.passed == t.range->object_size) {
    t.range->sink->fetch_chunk(t.range->id, {t.passed - t.chunk_filled, t.passed}, std::move(t.chunk));
    t.chunk = nullptr;
    t.chunk_filled = 0;
    t.skip = t.passed;
  }
  return n;
}

Document document_of(Transfer& t, const Attempt& a) {
  Document d;
  d.status = a.header.status;
  d.url = t.document->url;
  d.content_type = a.header.content_type;
  d.head = ObjectHead{a.header.validator, a.header.content_length, {}};
  const auto time_of = [](const std::string& date) -> std::optional<int64_t> {
    const time_t when = date.empty() ? -1 : ::curl_getdate(date.c_str(), nullptr);
    return when >= 0 ? std::optional<int64_t>(when) : std::nullopt;
  };
  d.last_modified = time_of(a.header.validator.last_modified);
  d.sent_at = time_of(a.header.date);
  d.software = a.header.software;
  d.accepts_ranges = a.header.accepts_ranges;
  d.is_s3 = a.header.is_s3;
  d.body = std::move(t.text);
  return d;
}

}  // namespace wormhole
