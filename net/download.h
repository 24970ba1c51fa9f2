// One remote file into one local file, as fast as the wire: many ranges at once, each written at its own offset as it
// arrives. An interrupted download goes on where it was, as long as the server still has that version.
//
// Asks first (size, version), then fetches what is missing. A server without ranges is read once, in order. A file that
// changes meanwhile is fetched again from the start; bytes of two versions never meet.
//
// Thread: its owner's; run() takes as long as it takes, and calls the observer on that thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "net/fetcher.h"
#include "net/part_file.h"
#include "net/sha256.h"
#include "net/url.h"

namespace wormhole {

struct DownloadOptions {
  std::string file;                              // what is to appear
  bool replace = false;                          // ... even if it exists
  int connections = 16;                          // ranges under way at once
  Duration patience = std::chrono::seconds(60);  // how long nothing may arrive
  std::optional<Sha256Digest> sha256;            // what the whole file must have
};

class DownloadObserver {
 public:
  virtual ~DownloadObserver() = default;
  // The size is known, and so many bytes of it are there from before. Comes again when the download starts over.
  virtual void begins(uint64_t size, uint64_t there) = 0;
  // About ten times a second.
  virtual void progress(uint64_t done) = 0;
  // Something that a person wants to know, as a sentence.
  virtual void note(const std::string& text) = 0;
  // Asked about ten times a second; true ends the download with kCancelled.
  virtual bool stop_requested() = 0;
};

struct DownloadResult {
  uint64_t size = 0;
  uint64_t fetched = 0;  // bytes that came over the wire this time
  Validator validator;
};

class Download {
 public:
  // The references outlive the download. The pool's budget should be memory_for().
  Download(Fetcher& fetcher, BufferPool& buffers, const Clock& clock, DownloadOptions options,
           DownloadObserver& observer);
  ~Download();
  Download(const Download&) = delete;
  Download& operator=(const Download&) = delete;

  static uint64_t memory_for(int connections);

  // Errors: kInvalid (the file exists; a wrong checksum is kCorrupt), those of Fetcher, of PartFile, kCancelled. The
  // message says whether the same call would go on where this one ended.
  Result<DownloadResult> run(const Url& url);

 private:
  class Inbox;
  struct Part {
    ByteRange range;
    BufferRef buffer;
    uint64_t written = 0;  // of the range, from its beginning
  };

  Result<DownloadResult> run_once(const Url& url);
  Result<Document> ask_head(const Url& url);
  Status open_part(const Url& url, const Document& head);
  Status transfer(const Url& url);
  void start_parts(const Url& url);
  void start_whole_body(const Url& url);
  FetchRequest request(const Url& url, ByteRange range);
  void tick();

  // What the fetches say, on the owner's thread.
  void on_head(const ObjectHead& head);
  void on_progress(FetchId id, uint64_t arrived);
  void on_chunk(ByteRange range, const BufferRef& bytes);
  void on_done(FetchId id, Status status);
  void write(uint64_t offset, const std::byte* bytes, size_t length);
  void give_up(Error error);

  void wait_for_messages();
  Status verify() const;
  Error keep_or_discard(Error error);

  Fetcher& fetcher_;
  BufferPool& buffers_;
  const Clock& clock_;
  const DownloadOptions options_;
  DownloadObserver& observer_;
  std::shared_ptr<Inbox> inbox_;
  FetchId next_id_ = 1;
  uint64_t fetched_ = 0;

  // Of one attempt.
  uint64_t size_ = 0;
  Validator validator_;
  std::unique_ptr<PartFile> part_;
  std::vector<ByteRange> waiting_;  // the next one last
  std::unordered_map<FetchId, Part> under_way_;
  enum class Mode : uint8_t { kRanges, kNoRanges, kWholeBody } mode_ = Mode::kRanges;
  uint64_t streamed_ = 0;  // of the whole body
  std::optional<Error> error_;
  TimePoint next_checkpoint_;
};

}  // namespace wormhole
