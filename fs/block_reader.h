// One read, from a byte range to its bytes: the only place where blocks and fetches meet. block_reader.cc tells it in
// this order:
//
//   read            cut the range into pieces; each piece is one of
//                     in a part   being fetched, or arrived and still in memory: wait for it, or take it
//   read_cached       on disk     -> read_cached_done   (checksum bad: cut again, now it is missing)
//   read_missing      nowhere     -> a new part, fetched on demand
//   read_ahead      what readahead.h proposes becomes speculative parts, if there is memory for them
//   guess           what speculation.h proposes becomes idle parts, while nobody else needs the wire
//   fetch_*         bytes arrive: whoever waits for them is answered; a complete part is stored, behind the readers
//   read_finish     the last piece of a read is here: reply, exactly once
//
// A *part* is a range of whole blocks with one buffer and one fetch. It stays in memory until it is stored and its last
// byte was read, or until memory is needed.
//
// Invariant: the parts of an object do not overlap; a block that is in a part is looked for nowhere else.
//
// Thread: engine. Never blocks, takes no lock.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/block.h"
#include "base/buffer.h"
#include "base/metrics.h"
#include "cache/block_cache.h"
#include "fs/all_readers.h"
#include "fs/content.h"
#include "fs/open_file.h"
#include "fs/readahead.h"
#include "net/fetcher.h"

namespace wormhole {

// The bytes of a read, in order; valid during the call.
// Small, so that it fits into a message to the engine.
using ReadReply = UniqueFunction<void(Result<std::span<const iovec>>), 48>;

struct BlockReaderOptions {
  Duration patience = std::chrono::seconds(30);  // how long a read may wait without any byte arriving
  bool offline = false;                          // what is not cached is an error, without asking the server
  bool speculate = true;                         // fetch on an idle wire what random readers may want
  ReadaheadOptions readahead;
};

class BlockReader final : public FetchSink {
 public:
  // Called when the server has another version of `ino` than the one that is open, or sends what is no part of it; on
  // the engine thread.
  using OnStale = std::function<void(Ino ino)>;
  // Called when memory is short and the readers of other engines keep some: they shall give_back() for so many bytes,
  // soon. On the engine thread.
  using AskOthers = std::function<void(uint64_t bytes)>;

  // All references outlive the reader. `sink` brings the fetcher's events back to this reader's fetch_* on the engine
  // thread.
  BlockReader(BlockReaderOptions options, BlockCache& cache, Index& index, Fetcher& fetcher, BufferPool& buffers,
              Metrics& metrics, const Clock& clock, AllReaders& all, std::shared_ptr<FetchSink> sink, OnStale on_stale,
              AskOthers ask_others);
  ~BlockReader() override;

  // Opens and closes are counted. `file` (may be null) is told when all of it is in the cache, at once if it is so now.
  // `content` (may be null): what the bytes must be; it goes out with every fetch.
  void open(Ino ino, uint64_t size, std::string url, OpenFileRef file = nullptr, ContentRef content = nullptr);
  void close(Ino ino);

  // Answers `reply`, perhaps later, with the bytes of `range` (cut at the end of the file), or with
  //   kStale                     the remote object is no longer this version
  //   kUnreachable, kTimedOut …  as FetchSink::fetch_done
  //   kCancelled                 the mount is ending
  // A broken cache is never an error here: the bytes come from the network.
  // REQUIRES: the object is open.
  void read(Ino ino, ByteRange range, ReadReply reply);

  // What is kept of it in memory for another reader goes.
  void forget(Ino ino);
  // Another engine needs memory: what is kept here for another reader goes, until there is room for `bytes`; and what
  // is more than this engine's share of what all may keep.
  void give_back(uint64_t bytes);

  // Fetches what is missing of a small file before anybody reads it; the file need not be open. What finds no room in
  // the cache waits in memory for a while. `done`: whether something had to be fetched, and now is there; errors as
  // read(), and
  //   kNoSpace   the memory budget is used up, and nobody waits (`lane`)
  //   kNoRanges  the server sends whole files only
  using WholeDone = UniqueFunction<void(Result<bool>), 32>;  // small, so that it fits into a message
  void fetch_whole(Ino ino, uint64_t size, std::string url, ContentRef content, Lane lane, WholeDone done);

  // The fetcher's events, as in FetchSink.
  void fetch_head(FetchId id, ObjectHead head) override;
  void fetch_progress(FetchId id, uint64_t arrived) override;
  void fetch_behind(FetchId id, ByteRange there) override;
  void fetch_copied(FetchId id, ByteRange there, const std::shared_ptr<FileDescriptor>& file) override;
  void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override;
  void fetch_done(FetchId id, Status status) override;

  // Deadlines of readers that wait for a whole body; files that nobody reads, or that came ahead of a reader who does
  // not come, give their memory back. About once a second.
  void tick();

  // Answers every waiting read with kCancelled and ends all fetches; nothing is read after it.
  void shut_down();

 private:
  struct Object;
  struct Part;
  struct Read;
  using ReadRef = std::shared_ptr<Read>;

  // A read.
  void start(const ReadRef& read);
  void take_from_part(const ReadRef& read, Part& part, ByteRange range);
  void read_cached(const ReadRef& read, ByteRange range);
  void read_cached_done(const ReadRef& read, size_t piece, Result<BlockCache::ReadResult> result);
  void read_missing(const ReadRef& read, ByteRange range, const Readahead::Proposal& proposal);
  void read_ahead(Object& object, ByteRange range, const Readahead::Proposal& proposal, const LinkEstimate& link,
                  bool missing);
  void server_speaks();
  void grow_while_waiting(const Part& part);
  bool fetch_ahead(Object& object, ByteRange blocks, uint64_t part_size, int connections);
  WindowBounds window_bounds(const LinkEstimate& link) const;
  void count_hits(Object& object, ByteRange range);
  void guess(Object& object);
  void guess_ended(const Part& part);
  void piece_ready(const ReadRef& read, size_t piece, BufferRef bytes, uint64_t skip, bool from_network);
  void read_finish(Read& read);
  void read_fail(Read& read, Error error);

  // Where the bytes from `offset` on are, and how far the same holds.
  enum class Place { kPart, kDisk, kNowhere };
  struct Run {
    Place place;
    ByteRange range;
    Part* part;
  };
  Run locate(Object& object, ByteRange range);

  // Parts.
  Part* part_at(Object& object, uint64_t offset);
  Part& start_part(Object& object, ByteRange range, Lane lane, Duration patience, ByteRange wanted = {});
  Duration patience_left(const Read& read) const;
  void serve_waiters(Part& part);
  void part_complete(Part& part);
  void part_stored(Ino ino, uint64_t begin, FetchId id, bool stored);
  void part_failed(Part& part, const Error& error);
  void tell_of_failure(const Part& part, const Error& error);
  void remove_part(Part& part);
  void make_resident(Part& part);
  void touch(Part& part, ByteRange read);
  bool make_room(uint64_t bytes, bool must);
  bool keeps_too_much() const;
  bool all_keep_too_much() const;

  // Objects.
  Object& object(Ino ino, uint64_t size, std::string url, ContentRef content);
  void count_read_ahead(Ino ino, uint64_t bytes);
  void publish_if_complete(Object& object);
  void give_back_memory(Object& object);
  void object_stale(Object& object, const Error& why);
  void fail_waiters(Object& object, const Error& error);
  void release_if_unused(Ino ino);
  void give_up_waiting_for_readers(TimePoint now);

  // Servers without ranges.
  void use_whole_body(Object& object);
  void start_stream(Object& object);
  void wait_for_stream(const ReadRef& read, uint64_t first_missing);
  void resume_stream_waiters(Object& object);
  void stream_done(Object& object, const Status& status);

  const BlockReaderOptions options_;
  BlockCache& cache_;
  Index& index_;
  Fetcher& fetcher_;
  BufferPool& buffers_;
  Metrics& metrics_;
  const Clock& clock_;
  AllReaders& all_;
  const std::shared_ptr<FetchSink> sink_;
  const OnStale on_stale_;
  const AskOthers ask_others_;

  std::unordered_map<Ino, std::unique_ptr<Object>> objects_;
  std::unordered_map<FetchId, Part*> fetching_;
  std::unordered_map<FetchId, Object*> streams_;
  std::unordered_map<Ino, uint64_t> unread_;  // files that were fetched ahead and not opened since, and how many bytes
  std::list<Part*> resident_;                 // stored parts that are kept for the next reader; oldest first
  uint64_t resident_bytes_ = 0;
  uint64_t files_in_sequence_ = 0;  // that were read so lately
  bool shut_down_ = false;
};

}  // namespace wormhole
