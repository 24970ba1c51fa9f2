// Bytes from afar: the seam between the file system and the network. Behind it stands libcurl on its own thread
// (curl_fetcher.h); tests put a fake in front of it.
//
// A *fetch* is one range of one object version into one buffer. It is retried inside (net/retry.h) and resumes behind
// the bytes that have already arrived; the sink hears of progress and of the end, once.
//
// Thread: every call from any thread; never blocks. Sinks and callbacks are called on the net thread and may only
// post to a mailbox.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/unique_function.h"
#include "base/version.h"

namespace wormhole {

using FetchId = uint64_t;  // chosen by the caller, unique among fetches in flight

// What goes first, in every queue: somebody waits for it; a reader who reads on will want it; the wire is idle, and it
// may be of use.
enum class Lane : uint8_t { kDemand, kSpeculative, kIdle };
inline constexpr size_t kLanes = 3;

// What a response says about the object.
struct ObjectHead {
  Validator validator;
  std::optional<uint64_t> size;  // of the whole object
  std::string server;            // that said so: the URL of its root, without credentials
};

class FetchSink {
 public:
  virtual ~FetchSink() = default;
  // The header of the first response that brings bytes. Before any progress.
  virtual void fetch_head(FetchId id, ObjectHead head) = 0;
  // The first `arrived` bytes of the range are in the buffer and will not change.
  virtual void fetch_progress(FetchId id, uint64_t arrived) = 0;
  // The bytes `there`, which request.wanted or want() had named, are in the buffer as well, behind a gap.
  virtual void fetch_behind([[maybe_unused]] FetchId id, [[maybe_unused]] ByteRange there) {}
  // The bytes `there` did not come from afar: they are those of `file` at the same place. fetch_progress or
  // fetch_behind follows.
  virtual void fetch_copied([[maybe_unused]] FetchId id, [[maybe_unused]] ByteRange there,
                            [[maybe_unused]] const std::shared_ptr<FileDescriptor>& file) {}
  // A whole-body fetch only: the next bytes of the object, in order, each chunk's begin on a block boundary.
  virtual void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) = 0;
  // The end; nothing follows. Errors:
  //   kStale          the server has another version now (If-Range failed, a validator or the size differs)
  //   kNoRanges       the server sent the whole body instead of the range; ask again with whole_body
  //   kNotFound kForbidden kUnauthorized kTls   the server's last word
  //   kUnreachable kTimedOut kBadResponse       retries are spent, or the deadline is over
  //   kCancelled      cancel() was called, or the fetcher is stopping
  virtual void fetch_done(FetchId id, Status status) = 0;
};

struct Content;  // what the bytes of a file must be: for whoever checks them, in front of the network

struct FetchRequest {
  FetchId id = 0;
  std::string url;
  uint64_t object = 0;       // the same for all requests that want the same version of the file
  ByteRange range;           // not empty, inside the object
  uint64_t object_size = 0;  // as the listing or an earlier response said; a response that says otherwise is kStale
  Validator validator;       // empty when nothing is known yet; then the first response fixes it (for this fetch)
  Lane lane = Lane::kDemand;
  // Whoever asks checks the bytes himself: which version a server says it has is of no matter, and any mirror will do.
  bool by_content = false;
  std::string avoid;   // as ObjectHead::server: its bytes were wrong; another is asked where there is one
  ByteRange wanted{};  // somebody waits for these bytes of it, which come first; empty: all of them, in order
  BufferRef buffer;    // capacity >= range.size(); byte range.begin + i lands at data()[i]. Unused for a whole body
  bool whole_body = false;  // for a server without ranges: one plain GET from the first byte, delivered as chunks
  // How long nothing may arrive, retries included, before it ends with kTimedOut. Waiting for a connection does not
  // count while the others bring something.
  Duration patience{};
  std::shared_ptr<FetchSink> sink;
  std::shared_ptr<const Content> content;  // null: it cannot be checked. The network knows nothing of it
};

// A small document, held in memory: a listing, or the header of a file alone.
struct Document {
  int status = 0;                        // 200, or 207 for a PROPFIND; more only if take_refusals was set
  std::string url;                       // where it finally came from, after redirects
  std::string content_type;              // lower case, without parameters
  ObjectHead head;                       // size: Content-Length when the server gave it
  std::optional<int64_t> last_modified;  // the header's time, seconds since the epoch
  std::optional<int64_t> sent_at;        // by the server's clock: the header Date
  std::string software;                  // the header Server
  bool accepts_ranges = false;
  bool is_s3 = false;  // the header has x-amz-request-id
  std::string body;
};

struct DocumentRequest {
  std::string url;
  bool head_only = false;            // HEAD
  std::string method;                // empty: GET, or HEAD; must be safe to repeat
  std::vector<std::string> headers;  // more of them, "Name: value"
  std::string body;                  // of a method that has one; at most some KiB
  // A status that is the server's last word (403, 404, 405, 501 among others; not 401) arrives as a Document, without
  // its body.
  bool take_refusals = false;
  uint64_t max_bytes = 64ull << 20;  // a longer body is kBadResponse: 64 MiB hold a listing of 500 000 entries
  Duration patience{};               // as FetchRequest's
  // Called once, on the net thread (or on the caller's, with kCancelled, when the fetcher has ended).
  // Errors: those of fetch_done without kStale and kNoRanges. Only 2xx arrives as a Document.
  UniqueFunction<void(Result<Document>)> done;
};

// What the wire gives, as far as it has been measured. Window and part sizes follow from it.
struct LinkEstimate {
  uint64_t rate = 0;       // bytes per second of all connections together; 0: not known
  Duration round_trip{};   // from a request to its first byte; zero: not known
  int connections = 0;     // range requests that run at a time; 0: not known
  uint64_t part_size = 0;  // bytes; what one connection carries in a good while (range_planner.h); 0: not known
};

class Fetcher {
 public:
  virtual ~Fetcher() = default;
  virtual void fetch(FetchRequest request) = 0;
  // fetch_done(kCancelled) follows if the fetch was still under way, or fetch_done(ok) when the rest was not worth
  // breaking off. After it nobody writes into the buffer.
  virtual void cancel(FetchId id) = 0;
  // A fetch that somebody waits for now.
  virtual void promote(FetchId id) = 0;
  // Somebody waits for these bytes of a fetch, and not for the others: they come first, beside it where it is under way
  // and would not bring them soon, and fetch_progress or fetch_behind tells of them. Its lane stays what it is.
  virtual void want(FetchId id, ByteRange bytes) = 0;
  virtual void get(DocumentRequest request) = 0;
  virtual LinkEstimate link() const = 0;
};

}  // namespace wormhole
