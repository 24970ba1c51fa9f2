// Transfers and attempts. A *transfer* is what the file system asked for: a range or a document, and what of it has
// arrived. An *attempt* is one HTTP request for (the rest of) it: they follow each other when one fails, and two run
// beside each other when the first is slow. Private to the net thread: net_thread.cc moves them, attempt.cc takes
// their bytes, request_setup.cc puts them to libcurl.
//
// Thread: net.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/fetcher.h"
#include "net/range_body.h"
#include "net/response.h"
#include "net/server.h"

namespace wormhole {

struct Attempt;

inline constexpr uint64_t kSmallRequest = 128 * 1024;
// What a new connection carries in the first round trip: ten segments (RFC 6928) without the header.
inline constexpr uint64_t kFirstFlight = 13 * 1024;

struct Transfer {
  // Exactly one of the two is set.
  std::optional<FetchRequest> range;
  std::optional<DocumentRequest> document;
  bool warming = false;  // a document that nobody waits for: it opens a connection, or keeps it open

  Validator validator;  // the request's, or the first response's when the request had none
  bool head_told = false;
  std::optional<RangeBody> body;  // of a range
  std::string text;               // of a document
  uint64_t told = 0;              // bytes that were seen to arrive; of a range: of which the sink knows
  std::vector<ByteRange> wanted;  // of the range: what is waited for and has not been told of

  // A whole body (a server without ranges).
  uint64_t passed = 0;    // bytes that were handed over or skipped
  uint64_t skip = 0;      // after a restart: bytes that the sink has already
  uint64_t furthest = 0;  // the largest `passed` of all attempts: it begins anew, and must get beyond it some time
  BufferRef chunk;
  uint64_t chunk_filled = 0;

  std::vector<std::unique_ptr<Attempt>> attempts;  // under way: none, one or two
  int failures = 0;                                // attempts since the last progress that have failed
  bool asked_again = false;                        // after a 401
  bool hedged = false;
  Server* avoid = nullptr;  // where the last attempt has failed
  TimePoint last_progress;
  TimePoint queued;  // when it began to wait for a connection
  TimePoint not_before;
  bool cancelled = false;
  TimePoint drains_until{};  // cancelled, but its last bytes may still come until then

  // A request that nobody will serve any more (the net thread has ended) is answered all the same.
  ~Transfer();

  Lane lane() const { return document ? Lane::kDemand : range->lane; }
  bool is_demand() const { return lane() == Lane::kDemand; }
  // Waits for latency, not for the wire: a reader's own blocks.
  bool is_small() const { return body && range->range.size() <= kSmallRequest; }
  bool is_whole_body() const { return range && range->whole_body; }
  const std::string& url() const { return range ? range->url : document->url; }
  Duration patience() const { return range ? range->patience : document->patience; }
  uint64_t arrived() const { return is_whole_body() ? passed : (body ? body->arrived() : text.size()); }
  bool complete() const { return body && body->complete(); }
  // What its next attempt asks for: where somebody waits, else from the front on.
  // `young`: connections are in slow start, so not more than what comes at once.
  ByteRange next_range(bool young) const;
  // What a request for these wanted bytes asks for; empty when they are there.
  ByteRange range_for(ByteRange wanted, bool young) const;
};

struct Attempt {
  void* net = nullptr;  // the NetThread, for libcurl's callbacks
  Transfer* transfer = nullptr;
  Server* server = nullptr;  // documents: the origin, or the mirror that stands in for it
  Transport transport = Transport::kTcp;
  std::string url;
  ByteRange range;        // asked for; empty for a document and a whole body
  uint64_t position = 0;  // of the next byte of the range
  uint64_t limit = 0;     // from here on the bytes are another attempt's
  bool second = false;    // beside another one
  RequestKind kind = RequestKind::kLarge;

  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  char error_detail[CURL_ERROR_SIZE] = "";
  ResponseHeader header;
  bool header_checked = false;
  std::optional<Error> refused;  // why the write callback stopped it
  bool enough = false;           // it was stopped because all that it was to bring is there
  bool paused = false;
  TimePoint started, first_byte, last_byte;
};

// Takes the bytes of an attempt's response to where they belong.
class BodyTaker {
 public:
  explicit BodyTaker(BufferPool& buffers) : buffers_(buffers) {}

  // As a libcurl write callback returns: how much was taken, or CURL_WRITEFUNC_PAUSE or _ERROR (then `refused` or
  // `enough` of the attempt says why).
  size_t take(Attempt& attempt, std::string_view bytes);
  // Room for what a paused whole body brings next.
  bool has_room_for_chunk(const Transfer& t) const;

 private:
  size_t take_document(Attempt& a, std::string_view bytes);
  size_t take_range(Attempt& a, std::string_view bytes);
  size_t take_chunks(Attempt& a, std::string_view bytes);
  size_t take_chunk_piece(Transfer& t, std::string_view bytes);

  BufferPool& buffers_;
};

// A whole body cannot be resumed: it comes again from its first byte, and what the sink has is skipped.
void restart_whole_body(Transfer& t);

// Whether what the attempt's response says may be taken. As check_range_response; a mirror must positively have the
// same version.
Status check_attempt(const Attempt& a);

// Tells the sink of the first head.
void tell_head(Transfer& t, const Attempt& a);

Document document_of(Transfer& t, const Attempt& a);

}  // namespace wormhole
