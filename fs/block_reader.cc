#include "fs/block_reader.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "fs/speculation.h"
#include "net/range_planner.h"
#include "net/range_set.h"

namespace wormhole {
namespace {

// Of the memory budget, what parts may keep that are stored already and wait for another reader: a quarter, so that
// streams always find room.
constexpr uint64_t kResidentShare = 4;

// After a fetch has timed out, the next ones find the server silent too, most likely: for a while they get this much
// patience only. Without it a program waits for several timeouts, one after the other: the kernel turns a read-ahead
// that failed into single reads.
constexpr Duration kDoubtsLast = std::chrono::seconds(5);
constexpr Duration kPatienceInDoubt = std::chrono::seconds(1);

// Of the memory budget, what the windows of all streams may have together: half, so that readers themselves, parts
// that are being stored and guesses find room.
constexpr uint64_t kWindowShare = 2;
// A window of two BDPs, counted with the time that a part takes: rates that are measured while the window is the limit
// can still double.
constexpr uint64_t kWindowGain = 2;
constexpr uint64_t kLeastWindowBound = 4 << 20;   // a link that was idle looks slow
constexpr uint64_t kUnmeasuredWindow = 64 << 20;  // 1 Gbit/s x 0.5 s
constexpr uint64_t kUnmeasuredPart = 1 << 20;     // all of them share a rate nobody knows, and the first is waited for
constexpr uint64_t kSmallestShareOfBudget = 1 << 20;

// A jump into a block behind this begins with the wanted bytes: what is before them would be more than half of what a
// new connection carries at once (RFC 6928: ten segments, 14 KB).
constexpr uint64_t kWorthSkipping = 8 * 1024;

// A reader's own blocks and what may come with them in one request.
constexpr uint64_t kFirstRequest = 128 * 1024;

// A reader's window grows at most once in this time while he waits, and at most once for each round trip.
constexpr Duration kShortestGrowth = std::chrono::milliseconds(10);

// Guesses: how large each is (small, because what is under way cannot be preempted), how many are under way for each
// connection (one that runs, one that follows), and their share of the budget.
constexpr uint64_t kGuessSize = 2 << 20;
constexpr int kGuessesPerConnection = 2;
constexpr int kSmallGuessesPerConnection = 8;
constexpr uint64_t kGuessShare = 4;
constexpr int kProposalsAtOnce = 64;  // looks at what is there already, for each call

// A file that was read in sequence within this time counts as a stream; one that nobody has read for the longer one
// gives its memory back.
constexpr Duration kStreamFor = std::chrono::seconds(3);
constexpr Duration kIdleAfter = std::chrono::seconds(10);

// How long a file that came ahead and found no room in the cache waits in memory for its reader: those who go through a
// directory come within seconds.
constexpr Duration kAwaitedFor = std::chrono::seconds(10);

// Files that cannot be fetched ahead are as many as there are: one line in a minute says so.
constexpr Duration kTellOfAheadEvery = std::chrono::seconds(60);

// Parts of at least this size belong to a stream: a random reader's own are a block or a few.
constexpr uint64_t kStreamPart = 256 * 1024;

// Of so many files it is remembered that nobody has opened them: 2 MiB. Those that are forgotten stay counted as
// unread.
constexpr size_t kMostUnread = 50'000;

// How often a read starts over when the part it waited for failed for reasons that were not its own.
constexpr int kMaxRestarts = 2;

}  // namespace

struct BlockReader::Object {
  Ino ino = 0;
  uint64_t size = 0;
  std::string url;
  OpenFileRef file;                        // what its handles share; null in tests
  std::shared_ptr<const Content> content;  // null: not known
  Validator validator;                     // empty until the first response, if the index does not know it
  bool recorded = false;
  bool stale = false;
  int opens = 0;
  int reads = 0;  // under way
  Readahead readahead;
  TimePoint last_read{}, last_in_sequence{};
  TimePoint last_growth{};  // of a window, while a reader waited
  bool rests = false;       // has given its memory back

  std::optional<Speculation> speculation;  // since the first random read
  std::vector<bool> guessed;               // by block: guessed, and not read since

  std::map<uint64_t, std::unique_ptr<Part>> parts;  // by begin; they do not overlap

  // A server without ranges: one plain GET delivers everything in order.
  struct Stream {
    bool wanted = false;  // the server has no ranges
    FetchId id = 0;       // 0: not under way
    uint64_t arrived = 0;
    TimePoint last_progress;
    std::vector<ReadRef> waiters;
  } stream;

  explicit Object(ReadaheadOptions options) : readahead(options) {}
};

struct BlockReader::Part {
  enum class State : uint8_t { kFetching, kStoring, kResident };

  Object* object = nullptr;
  ByteRange range;
  FetchId id = 0;
  Lane lane = Lane::kDemand;
  State state = State::kFetching;
  TimePoint started;
  Duration patience{};
  BufferRef buffer;
  uint64_t arrived = 0;  // bytes from range.begin on that are in the buffer
  RangeSet behind;       // what else is in the buffer already, because somebody wanted it first
  CopiedBytes copied;    // what another version had too
  bool in_order = true;  // otherwise the fetcher has to be told who waits for what
  bool used_up = false;  // somebody has read its last byte
  bool awaited = false;  // came ahead and is nowhere else: kept for the reader who has not opened the file yet
  struct Waiter {
    ReadRef read;
    size_t piece;
    ByteRange needs;
  };
  bool has(ByteRange bytes) const { return bytes.end <= range.begin + arrived || behind.contains(bytes); }
  std::vector<Waiter> waiters;
  WholeDone done;                    // who asked for it without reading
  std::list<Part*>::iterator place;  // in resident_, when kResident
};

struct BlockReader::Read {
  struct Piece {
    ByteRange range;
    BufferRef bytes;
    uint64_t skip = 0;
    bool from_network = false;
  };

  Object* object = nullptr;
  ByteRange range;
  ReadReply reply;  // empty once answered
  std::vector<Piece> pieces;
  size_t missing = 0;
  TimePoint started;
  int restarts = 0;
  FetchId missed_stream =
      0;  // a whole body in which its bytes have gone by and could not be kept: it waits for the next one
};

BlockReader::BlockReader(BlockReaderOptions options, BlockCache& cache, Index& index, Fetcher& fetcher,
                         BufferPool& buffers, Metrics& metrics, const Clock& clock, AllReaders& all,
                         std::shared_ptr<FetchSink> sink, OnStale on_stale, AskOthers ask_others)
    : options_(options),
      cache_(cache),
      index_(index),
      fetcher_(fetcher),
      buffers_(buffers),
      metrics_(metrics),
      clock_(clock),
      all_(all),
      sink_(std::move(sink)),
      on_stale_(std::move(on_stale)),
      ask_others_(std::move(ask_others)) {}

BlockReader::~BlockReader() = default;

// --- objects -------------------------------------------------------------------------------------------------------

void BlockReader::open(Ino ino, uint64_t size, std::string url, OpenFileRef file, ContentRef content) {
  Object& o = object(ino, size, std::move(url), std::move(content));
  ++o.opens;
  if (file) o.file = std::move(file);
  if (const auto it = unread_.find(ino); it != unread_.end()) {
    metrics_.bytes_ahead_unread.fetch_sub(static_cast<int64_t>(it->second), std::memory_order_relaxed);
    unread_.erase(it);
  }
  for (auto& [begin, part] : o.parts) part->awaited = false;
  publish_if_complete(o);
}

BlockReader::Object& BlockReader::object(Ino ino, uint64_t size, std::string url, ContentRef content) {
  auto& slot = objects_[ino];
  if (slot == nullptr) {
    slot = std::make_unique<Object>(options_.readahead);
    slot->ino = ino;
    slot->size = size;
    slot->url = std::move(url);
    slot->content = std::move(content);
    if (auto record = index_.object(ino); record && record->size == size) {
      slot->validator = std::move(record->validator);
      slot->recorded = true;
    }
    cache_.open(ino, size, slot->recorded);
  } else if (slot->content && slot->url != url) {
    // Another file with the same bytes: what one place does not have any more, the other may.
    slot->url = std::move(url);
    slot->stale = false;
  }
  return *slot;
}

// What of it is on disk, or under way, is left alone.
void BlockReader::fetch_whole(Ino ino, uint64_t size, std::string url, ContentRef content, Lane lane, WholeDone done) {
  if (shut_down_ || options_.offline) return done(fail(ErrorCode::kCancelled, "nothing is fetched any more"));
  Object& o = object(ino, size, std::move(url), std::move(content));
  Run run{Place::kDisk, {0, 0}, nullptr};
  while (run.place != Place::kNowhere && run.range.end < size) run = locate(o, {run.range.end, size});
  const bool waits = lane == Lane::kDemand;
  if (o.stale || o.stream.wanted) {
    done(fail(o.stale ? ErrorCode::kStale : ErrorCode::kNoRanges, "{}: cannot be fetched ahead", o.url));
  } else if (run.place != Place::kNowhere) {
    done(false);
  } else if (!make_room(run.range.size(), waits)) {
    done(fail(ErrorCode::kNoSpace, "{}: no memory to fetch it ahead", o.url));
  } else {
    if (!waits) count_read_ahead(ino, run.range.size());
    start_part(o, run.range, lane, options_.patience).done = std::move(done);
  }
  release_if_unused(ino);
}

// The count of bytes that were never read may miss what was forgotten here.
void BlockReader::count_read_ahead(Ino ino, uint64_t bytes) {
  metrics_.files_ahead.fetch_add(1, std::memory_order_relaxed);
  metrics_.bytes_ahead_unread.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  if (unread_.size() >= kMostUnread) unread_.clear();
  unread_[ino] += bytes;
}

// Its readers need not come by any more. A file of one block is read once, and then is in the kernel's page cache:
// opening its file, and telling, would cost more than it saves.
void BlockReader::publish_if_complete(Object& o) {
  if (!o.file || o.stale || lies_in_pack(o.size)) return;
  if (CompleteFileRef file = cache_.complete_file(o.ino)) o.file->publish(std::move(file));
}

void BlockReader::close(Ino ino) {
  auto it = objects_.find(ino);
  if (it == objects_.end()) return;
  Object& o = *it->second;
  if (--o.opens > 0) return;
  // Nobody reads on: what is still being fetched for nobody ends here. What has arrived of it is stored (part_failed).
  for (auto& [begin, part] : o.parts) {
    if (part->state == Part::State::kFetching && part->waiters.empty()) fetcher_.cancel(part->id);
  }
  if (o.stream.id != 0 && o.stream.waiters.empty()) fetcher_.cancel(o.stream.id);
  release_if_unused(ino);
}

// Open, but nobody reads: what is under way for nobody ends, what is stored needs no memory, and the next reader begins
// with a small window.
void BlockReader::forget(Ino ino) {
  const auto object = objects_.find(ino);
  if (object == objects_.end()) return;
  auto& parts = object->second->parts;
  for (auto it = parts.begin(); it != parts.end();) {
    Part& part = *(it++)->second;
    if (part.state == Part::State::kResident) remove_part(part);
  }
}

void BlockReader::give_back_memory(Object& o) {
  o.rests = true;
  o.readahead.rest();
  for (auto it = o.parts.begin(); it != o.parts.end();) {
    Part& part = *(it++)->second;
    if (part.state == Part::State::kFetching && part.waiters.empty()) fetcher_.cancel(part.id);
    if (part.state == Part::State::kResident) remove_part(part);
  }
}

void BlockReader::release_if_unused(Ino ino) {
  auto it = objects_.find(ino);
  if (it == objects_.end()) return;
  Object& o = *it->second;
  if (o.opens > 0 || o.reads > 0 || o.stream.id != 0) return;
  for (auto part = o.parts.begin(); part != o.parts.end();) {
    Part& p = *(part++)->second;
    const bool kept = p.awaited && !o.stale && !shut_down_;
    if (p.state == Part::State::kResident && !kept) remove_part(p);
  }
  if (!o.parts.empty()) return;  // comes back when they are stored, failed, or not awaited any more
  // What was checked against a hash is right wherever it came from.
  const bool stale = o.stale && !o.content;
  objects_.erase(it);
  cache_.close(ino);
  if (stale) cache_.drop(ino);
}

// --- a read --------------------------------------------------------------------------------------------------------

void BlockReader::read(Ino ino, ByteRange range, ReadReply reply) {
  metrics_.read_requests.fetch_add(1, std::memory_order_relaxed);
  auto it = objects_.find(ino);
  if (shut_down_ || it == objects_.end()) {
    reply(fail(ErrorCode::kCancelled, "the mount is ending"));
    return;
  }
  Object& o = *it->second;
  range.end = std::min(range.end, o.size);
  if (range.empty()) {
    reply(std::span<const iovec>{});
    return;
  }
  auto read = std::make_shared<Read>();
  read->object = &o;
  read->range = range;
  read->reply = std::move(reply);
  read->started = clock_.now();
  ++o.reads;
  start(read);
}

// Cuts the read into pieces, and sets each of them on its way.
void BlockReader::start(const ReadRef& read) {
  Object& o = *read->object;
  if (shut_down_) return read_fail(*read, Error{ErrorCode::kCancelled, "the mount is ending"});
  if (o.stale) return read_fail(*read, Error{ErrorCode::kStale, o.url + ": another version is on the server"});
  read->pieces.clear();

  // First all the cuts, then the work: a piece that is served at once must not find the read complete while others are
  // still to be cut.
  std::vector<Run> runs;
  bool stalled = false;
  for (ByteRange rest = read->range; !rest.empty(); rest.begin = runs.back().range.end) {
    runs.push_back(locate(o, rest));
    const Run& run = runs.back();
    stalled |= run.place == Place::kNowhere || (run.place == Place::kPart && !run.part->has(run.range));
    read->pieces.push_back(Read::Piece{run.range, nullptr, 0, false});
  }
  const auto missing = std::find_if(runs.begin(), runs.end(), [](auto& r) { return r.place == Place::kNowhere; });
  if (o.stream.wanted && missing != runs.end()) return wait_for_stream(read, missing->range.begin);
  read->missing = runs.size();
  const ByteRange range = read->range;
  count_hits(o, range);
  ++o.reads;  // answering may be the last thing that keeps the object
  // Parts come first: making room for what is missing may cost a part that only waits for readers.
  for (const Run& run : runs) {
    if (run.place == Place::kPart) take_from_part(read, *run.part, run.range);
  }
  const bool looks_ahead = !o.stream.wanted && !options_.offline && !o.stale;
  const LinkEstimate link = fetcher_.link();
  Readahead::Proposal proposal;
  if (looks_ahead) proposal = o.readahead.on_read(range, o.size, stalled, window_bounds(link));
  for (const Run& run : runs) {
    if (!read->reply) break;  // failed, or started over
    if (run.place == Place::kDisk) read_cached(read, run.range);
    if (run.place == Place::kNowhere) read_missing(read, run.range, proposal);
  }
  if (looks_ahead && !o.stale) read_ahead(o, range, proposal, link, missing != runs.end());
  --o.reads;
  release_if_unused(o.ino);
}

// The longest run from the front of `range` that is in one place.
BlockReader::Run BlockReader::locate(Object& o, ByteRange range) {
  if (Part* part = part_at(o, range.begin))
    return {Place::kPart, {range.begin, std::min(range.end, part->range.end)}, part};
  const bool on_disk = cache_.has(o.ino, block_of(range.begin));
  uint64_t end = block_range(block_of(range.begin), o.size).end;
  while (end < range.end && part_at(o, end) == nullptr && cache_.has(o.ino, block_of(end)) == on_disk) {
    end = block_range(block_of(end), o.size).end;
  }
  return {on_disk ? Place::kDisk : Place::kNowhere, {range.begin, std::min(range.end, end)}, nullptr};
}

namespace {

template <typename Pieces>
size_t piece_at(const Pieces& pieces, uint64_t begin) {
  const auto it = std::find_if(pieces.begin(), pieces.end(), [&](auto& p) { return p.range.begin == begin; });
  return static_cast<size_t>(it - pieces.begin());
}

}  // namespace

void BlockReader::take_from_part(const ReadRef& read, Part& part, ByteRange range) {
  const size_t piece = piece_at(read->pieces, range.begin);
  touch(part, range);
  if (part.has(range)) {
    const BufferRef bytes = part.buffer;
    const uint64_t skip = range.begin - part.range.begin;
    // May answer the read, and that may end the part: `part` is not used after it.
    if (part.state == Part::State::kResident && part.used_up) remove_part(part);
    piece_ready(read, piece, bytes, skip, true);
    return;
  }
  if (part.lane == Lane::kSpeculative) {
    part.lane = Lane::kDemand;
    fetcher_.promote(part.id);
  } else if (!part.in_order) {
    fetcher_.want(part.id, range);
  }
  part.waiters.push_back({read, piece, range});
}

void BlockReader::read_cached(const ReadRef& read, ByteRange range) {
  const size_t piece = piece_at(read->pieces, range.begin);
  cache_.read(read->object->ino, range, [this, read, piece](Result<BlockCache::ReadResult> result) {
    read_cached_done(read, piece, std::move(result));
  });
}

void BlockReader::read_cached_done(const ReadRef& read, size_t piece, Result<BlockCache::ReadResult> result) {
  if (!read->reply) return;  // answered already, with an error
  if (result) {
    publish_if_complete(*read->object);  // the last block may have been stored or checked meanwhile
    return piece_ready(read, piece, std::move(result->bytes), result->skip, false);
  }
  // The cache has forgotten the bad blocks. The whole read starts over and finds them missing. Each failure costs the
  // cache a block of this range, so this ends.
  start(std::make_shared<Read>(std::move(*read)));
}

// A little of what is to be fetched ahead is asked for with the same request: a reader of a few bytes then needs one
// connection, which is open. Of a reader who jumped here his bytes come first, and the rest of the block later: in the
// middle of a block they may be several round trips away on a connection that is new.
void BlockReader::read_missing(const ReadRef& read, ByteRange range, const Readahead::Proposal& proposal) {
  Object& o = *read->object;
  if (options_.offline) return read_fail(*read, Error{ErrorCode::kUnreachable, o.url + ": not cached, and offline=on"});
  ByteRange blocks = align_to_blocks(range, o.size);
  const uint64_t ahead = proposal.ranges.empty() || range.end != read->range.end ? 0 : proposal.ranges.front().end;
  if (ahead > blocks.end && blocks.size() < kFirstRequest) {
    const ByteRange more = align_to_blocks({blocks.end, std::min(ahead, blocks.begin + kFirstRequest)}, o.size);
    if (const Run run = locate(o, more); run.place == Place::kNowhere) blocks.end = run.range.end;
  }
  make_room(blocks.size(), true);
  const bool first = !proposal.sequential && range.begin - blocks.begin >= kWorthSkipping;
  Part& part = start_part(o, blocks, Lane::kDemand, patience_left(*read), first ? range : ByteRange{});
  take_from_part(read, part, range);
  part.in_order = !first;
}

// A read that starts over has used up some of its patience.
Duration BlockReader::patience_left(const Read& read) const {
  const TimePoint now = clock_.now();
  const TimePoint last_timeout = all_.last_timeout;
  const bool in_doubt = last_timeout != TimePoint{} && now - last_timeout < kDoubtsLast;
  const Duration whole = in_doubt ? std::min(options_.patience, kPatienceInDoubt) : options_.patience;
  return std::max<Duration>(read.started + whole - now, std::chrono::milliseconds(100));
}

WindowBounds BlockReader::window_bounds(const LinkEstimate& link) const {
  const uint64_t files = std::max<uint64_t>(1, all_.files_in_sequence);
  const uint64_t share = std::max(buffers_.budget() / kWindowShare / files, kSmallestShareOfBudget);
  if (link.rate == 0) return {0, std::min(share, kUnmeasuredWindow)};
  const double rate = static_cast<double>(link.rate);
  const double trip = std::chrono::duration<double>(link.round_trip).count();
  const double part_time = static_cast<double>(link.part_size) * std::max(1, link.connections) / rate;
  const auto pipe = static_cast<uint64_t>(rate * trip) * kWindowGain;
  const auto bound = static_cast<uint64_t>(rate * (trip + part_time)) * kWindowGain;
  return {pipe, std::min(share, std::max(bound, kLeastWindowBound))};
}

void BlockReader::read_ahead(Object& o, ByteRange range, const Readahead::Proposal& proposal, const LinkEstimate& link,
                             bool missing) {
  o.last_read = clock_.now();
  o.rests = false;
  if (proposal.sequential) {
    o.last_in_sequence = o.last_read;
    metrics_.window_bytes.store(static_cast<int64_t>(o.readahead.window()), std::memory_order_relaxed);
    const uint64_t part_size =
        std::min(part_size_for(o.readahead.window()), link.part_size > 0 ? link.part_size : kUnmeasuredPart);
    for (const ByteRange& ahead : proposal.ranges) {
      if (!fetch_ahead(o, align_to_blocks(ahead, o.size), part_size, link.connections)) return;
    }
    return;
  }
  if (!missing || !options_.speculate) return;
  if (!o.speculation) o.speculation.emplace(o.size);
  o.speculation->demanded(align_to_blocks(range, o.size));
  guess(o);
}

// False when memory has run out.
bool BlockReader::fetch_ahead(Object& o, ByteRange blocks, uint64_t part_size, int connections) {
  for (ByteRange part : split_to_end(blocks, part_size, o.size, connections)) {
    // What is there already is skipped.
    while (!part.empty()) {
      const Run run = locate(o, part);
      if (run.place == Place::kNowhere) {
        if (!make_room(run.range.size(), false)) {
          o.readahead.give_back(run.range.begin);
          return false;
        }
        start_part(o, run.range, Lane::kSpeculative, options_.patience);
      }
      part.begin = run.range.end;
    }
  }
  return true;
}

// The blocks of `range` that were guessed have been worth it.
void BlockReader::count_hits(Object& o, ByteRange range) {
  if (o.guessed.empty()) return;
  for (BlockIndex b = block_of(range.begin); b <= block_of(range.end - 1); ++b) {
    if (!o.guessed[b]) continue;
    o.guessed[b] = false;
    o.speculation->hit(kBlockSize);
  }
}

// Keeps the idle wire busy with what speculation.h proposes.
void BlockReader::guess(Object& o) {
  if (!o.speculation || o.stale || o.stream.wanted || o.opens == 0 || shut_down_) return;
  const LinkEstimate link = fetcher_.link();
  const int connections = std::max(1, link.connections);
  // Where much is there already, guesses are what is left between: small, and more of them fill the wire.
  const auto under_way = [&] {
    const int guesses = all_.guesses;
    return guesses >= connections * kGuessesPerConnection &&
           (all_.guess_bytes >= window_bounds(link).pipe || guesses >= connections * kSmallGuessesPerConnection);
  };
  for (int i = 0; i < kProposalsAtOnce && !under_way(); ++i) {
    if (all_.guess_bytes + kGuessSize > buffers_.budget() / kGuessShare || !make_room(kGuessSize, false)) return;
    ByteRange piece = align_to_blocks(o.speculation->next(kGuessSize, link.rate), o.size);
    if (piece.empty()) return;
    while (!piece.empty()) {
      const Run run = locate(o, piece);
      piece.begin = run.range.end;
      if (run.place != Place::kNowhere) continue;
      all_.guess_bytes += start_part(o, run.range, Lane::kIdle, options_.patience).buffer->capacity();
      ++all_.guesses;
      o.speculation->guessed(run.range);
      if (o.guessed.empty()) o.guessed.resize(block_count(o.size));
      for (BlockIndex b = block_of(run.range.begin); b <= block_of(run.range.end - 1); ++b) o.guessed[b] = true;
    }
  }
}

void BlockReader::guess_ended(const Part& part) {
  --all_.guesses;
  all_.guess_bytes -= part.buffer->capacity();
}

void BlockReader::piece_ready(const ReadRef& read, size_t piece, BufferRef bytes, uint64_t skip, bool from_network) {
  Read::Piece& p = read->pieces[piece];
  p.bytes = std::move(bytes);
  p.skip = skip;
  p.from_network = from_network;
  if (--read->missing == 0) read_finish(*read);
}

void BlockReader::read_finish(Read& read) {
  std::vector<iovec> vectors;
  vectors.reserve(read.pieces.size());
  for (const Read::Piece& p : read.pieces) {
    vectors.push_back({p.bytes->data() + p.skip, p.range.size()});
    auto& counter = p.from_network ? metrics_.bytes_from_network : metrics_.bytes_from_cache;
    counter.fetch_add(p.range.size(), std::memory_order_relaxed);
  }
  ReadReply reply = std::move(read.reply);
  read.reply = {};
  reply(std::span<const iovec>(vectors));
  read.pieces.clear();
  const Ino ino = read.object->ino;
  index_.policy().accessed(ino, read.range, clock_.now());
  --read.object->reads;
  release_if_unused(ino);
}

void BlockReader::read_fail(Read& read, Error error) {
  if (!read.reply) return;
  ReadReply reply = std::move(read.reply);
  read.reply = {};
  log::debug("read failed: url={} offset={} size={} error={} \"{}\"", read.object->url, read.range.begin,
             read.range.size(), to_string(error.code), error.message);
  reply(fail(std::move(error)));
  const Ino ino = read.object->ino;
  --read.object->reads;
  release_if_unused(ino);
}

// --- parts ---------------------------------------------------------------------------------------------------------

BlockReader::Part* BlockReader::part_at(Object& o, uint64_t offset) {
  auto it = o.parts.upper_bound(offset);
  if (it == o.parts.begin()) return nullptr;
  Part* part = std::prev(it)->second.get();
  return part->range.contains(offset) ? part : nullptr;
}

BlockReader::Part& BlockReader::start_part(Object& o, ByteRange range, Lane lane, Duration patience, ByteRange wanted) {
  // Not beyond the part that follows.
  if (auto next = o.parts.lower_bound(range.begin); next != o.parts.end()) range.end = std::min(range.end, next->first);
  auto part = std::make_unique<Part>();
  part->object = &o;
  part->range = range;
  part->id = all_.next_fetch++;
  part->lane = lane;
  part->started = clock_.now();
  part->patience = patience;
  part->in_order = lane != Lane::kIdle;
  part->buffer = buffers_.allocate(range.size());
  Part& p = *part;
  fetching_[p.id] = &p;
  o.parts[range.begin] = std::move(part);
  FetchRequest request;
  request.id = p.id;
  request.url = o.url;
  request.object = o.ino;
  request.range = range;
  request.object_size = o.size;
  request.validator = o.validator;
  request.lane = lane;
  request.wanted = wanted;
  request.buffer = p.buffer;
  request.patience = patience;
  request.sink = sink_;
  request.content = o.content;
  fetcher_.fetch(std::move(request));
  return p;
}

void BlockReader::touch(Part& part, ByteRange read) {
  if (read.end == part.range.end) part.used_up = true;
  if (part.state == Part::State::kResident) resident_.splice(resident_.end(), resident_, part.place);
}

void BlockReader::serve_waiters(Part& part) {
  for (size_t i = 0; i < part.waiters.size();) {
    if (!part.has(part.waiters[i].needs)) {
      ++i;
      continue;
    }
    Part::Waiter w = std::move(part.waiters[i]);
    part.waiters.erase(part.waiters.begin() + static_cast<std::ptrdiff_t>(i));
    if (!w.read->reply) continue;
    const uint64_t skip = w.read->pieces[w.piece].range.begin - part.range.begin;
    piece_ready(w.read, w.piece, part.buffer, skip, true);
  }
}

void BlockReader::part_complete(Part& part) {
  fetching_.erase(part.id);
  const bool guessed = part.state == Part::State::kFetching && part.lane == Lane::kIdle;
  if (guessed) guess_ended(part);
  part.state = Part::State::kStoring;
  const Ino ino = part.object->ino;
  // What random readers get is soon read again from the cache's file; a stream is not, and its parts are large.
  const bool stream = part.lane != Lane::kIdle && part.range.size() >= kStreamPart;
  cache_.store(
      ino, part.range, part.buffer, stream ? BlockCache::PageCache::kBypass : BlockCache::PageCache::kKeep,
      [this, ino, begin = part.range.begin, id = part.id](bool ok) { part_stored(ino, begin, id, ok); },
      std::move(part.copied));
}

void BlockReader::part_stored(Ino ino, uint64_t begin, FetchId id, bool stored) {
  auto object = objects_.find(ino);
  if (object == objects_.end()) return;
  auto it = object->second->parts.find(begin);
  if (it == object->second->parts.end() || it->second->id != id) return;
  Part& part = *it->second;
  // A guess is on disk now, and nobody is expected to read it soon.
  if (part.used_up || part.lane == Lane::kIdle || part.object->stale || shut_down_) {
    remove_part(part);
  } else {
    part.awaited = !stored && unread_.contains(ino);
    make_resident(part);
  }
  release_if_unused(ino);
}

void BlockReader::make_resident(Part& part) {
  part.state = Part::State::kResident;
  part.place = resident_.insert(resident_.end(), &part);
  resident_bytes_ += part.buffer->capacity();
  all_.resident_bytes += part.buffer->capacity();
  while (keeps_too_much()) remove_part(*resident_.front());
  if (all_keep_too_much()) ask_others_(0);
}

// All readers may keep a share of the budget together, whoever does; when it is more, those go back to equal shares who
// have more than that.
bool BlockReader::keeps_too_much() const {
  return all_keep_too_much() && resident_bytes_ > buffers_.budget() / kResidentShare / all_.count;
}

bool BlockReader::all_keep_too_much() const { return all_.resident_bytes > buffers_.budget() / kResidentShare; }

void BlockReader::give_back(uint64_t bytes) {
  while (!resident_.empty() && (keeps_too_much() || !buffers_.has_room(bytes))) remove_part(*resident_.front());
}

void BlockReader::remove_part(Part& part) {
  if (part.done) part.done(fail(ErrorCode::kCancelled, "{}: given up", part.object->url));
  if (part.state == Part::State::kFetching) {
    fetching_.erase(part.id);
    if (part.lane == Lane::kIdle) guess_ended(part);
  }
  if (part.state == Part::State::kResident) {
    resident_.erase(part.place);
    resident_bytes_ -= part.buffer->capacity();
    all_.resident_bytes -= part.buffer->capacity();
  }
  part.object->parts.erase(part.range.begin);
}

// Room for `bytes` more in the budget, at the cost of stored parts that wait for nobody. With `must` the answer does
// not matter: a reader waits, and there are only as many of them as the kernel has requests in flight. What others have
// to give comes later: then there is room for the next.
bool BlockReader::make_room(uint64_t bytes, bool must) {
  while (!buffers_.has_room(bytes) && !resident_.empty()) remove_part(*resident_.front());
  if (buffers_.has_room(bytes)) return true;
  if (all_.resident_bytes > 0) ask_others_(bytes);
  return must;
}

// --- what the fetcher tells ----------------------------------------------------------------------------------------

void BlockReader::fetch_head(FetchId id, ObjectHead head) {
  Object* o = nullptr;
  if (auto it = fetching_.find(id); it != fetching_.end()) o = it->second->object;
  if (auto it = streams_.find(id); it != streams_.end()) o = it->second;
  if (o == nullptr || o->stale) return;
  if (!o->recorded) {
    // The first response fixes the version. From here on every range carries it.
    o->recorded = true;
    o->validator = std::move(head.validator);
    index_.put_object(o->ino, ObjectRecord{o->size, o->validator});
    return;
  }
  // Several first requests may have been under way at once, none of which knew a validator.
  if (o->validator.contradicts(head.validator)) {
    object_stale(*o, Error{ErrorCode::kStale, o->url + ": changed between two first responses"});
  }
}

void BlockReader::fetch_progress(FetchId id, uint64_t arrived) {
  auto it = fetching_.find(id);
  if (it == fetching_.end()) return;
  Part& part = *it->second;
  server_speaks();
  part.arrived = std::max(part.arrived, arrived);
  Object& o = *part.object;
  ++o.reads;  // served readers may close the file
  serve_waiters(part);
  if (it = fetching_.find(id); it != fetching_.end()) grow_while_waiting(*it->second);
  --o.reads;
  release_if_unused(o.ino);
}

void BlockReader::server_speaks() {
  if (all_.last_timeout.load() != TimePoint{}) all_.last_timeout = TimePoint{};
}

// Its bytes have begun to come and a reader waits for much more of them: he will read on. At the begin of a file this
// is a round trip after the request; on connections that are still slow he would ask again only several later.
void BlockReader::grow_while_waiting(const Part& part) {
  Object& o = *part.object;
  if (part.lane == Lane::kIdle || part.waiters.empty() || o.stale || o.stream.wanted || shut_down_) return;
  const ByteRange needs = part.waiters.front().needs;
  if (needs.end <= part.range.begin + part.arrived + kBlockSize) return;
  const LinkEstimate link = fetcher_.link();
  const TimePoint now = clock_.now();
  if (now - o.last_growth < std::max<Duration>(link.round_trip, kShortestGrowth)) return;
  o.last_growth = now;
  read_ahead(o, needs, o.readahead.on_wait(needs, o.size, window_bounds(link)), link, false);
}

void BlockReader::fetch_behind(FetchId id, ByteRange there) {
  auto it = fetching_.find(id);
  if (it == fetching_.end()) return;
  Part& part = *it->second;
  server_speaks();
  part.behind.add(there);
  serve_waiters(part);
}

void BlockReader::fetch_copied(FetchId id, ByteRange there, const std::shared_ptr<FileDescriptor>& file) {
  const auto it = fetching_.find(id);
  if (it == fetching_.end()) return;
  it->second->copied.file = file;
  it->second->copied.ranges.push_back(there);
}

void BlockReader::fetch_done(FetchId id, Status status) {
  if (auto stream = streams_.find(id); stream != streams_.end()) {
    Object& o = *stream->second;
    streams_.erase(stream);
    return stream_done(o, status);
  }
  auto it = fetching_.find(id);
  if (it == fetching_.end()) return;
  Part& part = *it->second;
  Object& o = *part.object;
  if (WholeDone done = std::exchange(part.done, {})) done(status ? Result<bool>(true) : fail(status.error()));
  if (status) {
    part.arrived = part.range.size();
    ++o.reads;  // served readers may close the file, and a store that fails at once ends the part
    serve_waiters(part);
    part_complete(part);
    if (o.speculation) guess(o);
    --o.reads;
    release_if_unused(o.ino);
  } else {
    part_failed(part, std::move(status.error()));
  }
}

void BlockReader::part_failed(Part& part, const Error& error) {
  Object& o = *part.object;
  if (error.code == ErrorCode::kStale || error.code == ErrorCode::kNotFound) return object_stale(o, error);
  if (error.code == ErrorCode::kNoRanges) return use_whole_body(o);
  if (error.code == ErrorCode::kCorrupt) on_stale_(o.ino);  // this reader fails; the next open may find another version
  // Only a fetch that had (nearly) all the patience says something about the server: a slow one must not be kept out
  // for ever.
  if (error.code == ErrorCode::kTimedOut && part.patience * 2 > options_.patience) all_.last_timeout = clock_.now();
  if (error.code != ErrorCode::kCancelled) tell_of_failure(part, error);
  std::vector<Part::Waiter> waiters = std::move(part.waiters);
  part.waiters.clear();
  const TimePoint started = part.started;
  const Ino ino = o.ino;
  ++o.reads;  // the object outlives its readers' answers
  // Whole blocks that have arrived are good; they are stored like a complete part.
  const uint64_t whole = part.arrived / kBlockSize * kBlockSize;
  if (whole > 0 && !o.stale && !shut_down_) {
    part.range.end = part.range.begin + whole;
    part.arrived = whole;
    part_complete(part);
  } else {
    remove_part(part);
  }
  for (Part::Waiter& w : waiters) {
    if (!w.read->reply) continue;
    // A fetch that was begun before this read, or was given up by others, is not this read's failure: it gets its own.
    // One that was given up does not count: a read may have joined many of them, and its own is not given up while it
    // waits.
    const bool given_up = error.code == ErrorCode::kCancelled;
    const bool others_failure = given_up || (w.read->started > started && w.read->restarts < kMaxRestarts);
    if (others_failure && !shut_down_) {
      if (!given_up) ++w.read->restarts;
      start(std::make_shared<Read>(std::move(*w.read)));
    } else {
      read_fail(*w.read, error);
    }
  }
  --o.reads;
  release_if_unused(ino);
}

// Of what was fetched ahead nobody need know more than that it fails, and why the last one did.
void BlockReader::tell_of_failure(const Part& part, const Error& error) {
  const Object& o = *part.object;
  if (o.opens > 0) {
    return log::warn("fetch failed: url={} range={}-{} error={} \"{}\"", o.url, part.range.begin, part.range.end,
                     to_string(error.code), error.message);
  }
  const TimePoint now = clock_.now();
  TimePoint told = all_.told_of_ahead;
  if (told != TimePoint{} && now - told < kTellOfAheadEvery) return;
  if (!all_.told_of_ahead.compare_exchange_strong(told, now)) return;  // another engine has just done so
  log::warn("files cannot be fetched ahead of their readers: url={} error={} \"{}\"", o.url, to_string(error.code),
            error.message);
}

// --- versions ------------------------------------------------------------------------------------------------------

// The server has another version. Nothing of this one can be completed any more: everybody who waits gets ESTALE, and
// the next open finds the new version. What is cached of it goes when the last handle is closed.
void BlockReader::object_stale(Object& o, const Error& why) {
  if (o.stale) return;
  o.stale = true;
  metrics_.stale_objects.fetch_add(1, std::memory_order_relaxed);
  log::info("file has changed on the server: url={} why=\"{}\"", o.url, why.message);
  on_stale_(o.ino);
  fail_waiters(o, Error{ErrorCode::kStale, why.message});
}

// Ends all fetches of the object and answers all its readers.
void BlockReader::fail_waiters(Object& o, const Error& error) {
  ++o.reads;  // so that the object outlives the answers
  std::vector<ReadRef> failed = std::move(o.stream.waiters);
  o.stream.waiters.clear();
  for (auto it = o.parts.begin(); it != o.parts.end();) {
    Part& part = *(it++)->second;
    for (Part::Waiter& w : part.waiters) failed.push_back(std::move(w.read));
    part.waiters.clear();
    if (part.state != Part::State::kFetching) continue;
    fetcher_.cancel(part.id);
    remove_part(part);
  }
  if (o.stream.id != 0) {
    fetcher_.cancel(o.stream.id);
    streams_.erase(o.stream.id);
    o.stream.id = 0;
  }
  for (ReadRef& read : failed) read_fail(*read, error);
  --o.reads;
  release_if_unused(o.ino);
}

// --- servers without ranges ----------------------------------------------------------------------------------------

void BlockReader::use_whole_body(Object& o) {
  if (!o.stream.wanted) {
    log::info("the server has no ranges, the file is taken whole: url={} size={}", o.url, o.size);
    o.stream.wanted = true;
  }
  std::vector<ReadRef> again;
  for (auto it = o.parts.begin(); it != o.parts.end();) {
    Part& part = *(it++)->second;
    if (part.state != Part::State::kFetching) continue;
    for (Part::Waiter& w : part.waiters) {
      if (w.read->reply && std::find(again.begin(), again.end(), w.read) == again.end())
        again.push_back(std::move(w.read));
    }
    fetcher_.cancel(part.id);
    remove_part(part);
  }
  ++o.reads;
  for (ReadRef& read : again) start(std::make_shared<Read>(std::move(*read)));
  --o.reads;
  release_if_unused(o.ino);
}

void BlockReader::wait_for_stream(const ReadRef& read, uint64_t first_missing) {
  Object& o = *read->object;
  if (o.stream.id != 0 && first_missing < o.stream.arrived) read->missed_stream = o.stream.id;
  o.stream.waiters.push_back(read);
  if (o.stream.id == 0) start_stream(o);
}

void BlockReader::start_stream(Object& o) {
  o.stream.id = all_.next_fetch++;
  o.stream.arrived = 0;
  o.stream.last_progress = clock_.now();
  streams_[o.stream.id] = &o;
  FetchRequest request;
  request.id = o.stream.id;
  request.url = o.url;
  request.range = {0, o.size};
  request.object_size = o.size;
  request.validator = o.validator;
  request.patience = options_.patience;
  request.whole_body = true;
  request.sink = sink_;
  request.content = o.content;
  fetcher_.fetch(std::move(request));
}

void BlockReader::fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) {
  auto it = streams_.find(id);
  if (it == streams_.end()) return;
  Object& o = *it->second;
  o.stream.arrived = range.end;
  o.stream.last_progress = clock_.now();
  // What is there already (from an earlier stream that broke, or from ranges before it) is not stored again.
  std::vector<Part*> fresh;
  for (ByteRange rest = range; !rest.empty();) {
    const Run run = locate(o, rest);
    rest.begin = run.range.end;
    if (run.place != Place::kNowhere) continue;
    auto part = std::make_unique<Part>();
    part->object = &o;
    part->state = Part::State::kStoring;
    part->range = run.range;
    part->id = all_.next_fetch++;
    part->buffer = bytes;
    if (run.range != range) {
      part->buffer = buffers_.allocate(run.range.size());
      std::memcpy(part->buffer->data(), bytes->data() + (run.range.begin - range.begin), run.range.size());
    }
    part->arrived = run.range.size();
    fresh.push_back(part.get());
    o.parts[run.range.begin] = std::move(part);
  }
  // Readers first: where there is no room for it, a part is gone as soon as it was offered to the cache.
  ++o.reads;  // the object outlives its readers' answers
  resume_stream_waiters(o);
  for (Part* part : fresh) part_complete(*part);
  --o.reads;
  release_if_unused(o.ino);
}

// Those whose bytes have gone by start again, and find them in a part or on disk.
void BlockReader::resume_stream_waiters(Object& o) {
  std::vector<ReadRef> ready;
  std::erase_if(o.stream.waiters, [&](ReadRef& read) {
    if (read->range.end > o.stream.arrived || read->missed_stream == o.stream.id) return false;
    ready.push_back(std::move(read));
    return true;
  });
  for (ReadRef& read : ready) {
    // Missing again although it has gone by (it could not be stored): the stream is taken once more, but not for ever.
    if (read->restarts++ > kMaxRestarts) {
      read_fail(*read, Error{ErrorCode::kIo, "the file must be taken whole, and the cache cannot hold it"});
    } else {
      start(read);
    }
  }
}

void BlockReader::stream_done(Object& o, const Status& status) {
  o.stream.id = 0;
  std::vector<ReadRef> waiters = std::move(o.stream.waiters);
  o.stream.waiters.clear();
  ++o.reads;  // the object outlives its readers' answers
  if (!status && (status.error().code == ErrorCode::kStale || status.error().code == ErrorCode::kNotFound)) {
    o.stream.waiters = std::move(waiters);
    --o.reads;
    return object_stale(o, status.error());
  }
  if (!status && status.error().code == ErrorCode::kCorrupt) on_stale_(o.ino);
  if (!status && status.error().code != ErrorCode::kCancelled) {
    log::warn("fetch failed: url={} range=whole error={} \"{}\"", o.url, to_string(status.error().code),
              status.error().message);
  }
  // Given up when nobody waited for it; whoever has come since gets another.
  const bool given_up = !status && status.error().code == ErrorCode::kCancelled && !shut_down_;
  for (ReadRef& read : waiters) {
    if (!status && !given_up) {
      read_fail(*read, status.error());
    } else if (read->restarts++ > kMaxRestarts) {
      read_fail(*read, Error{ErrorCode::kIo, "the file must be taken whole, and the cache cannot hold it"});
    } else {
      start(read);
    }
  }
  --o.reads;
  release_if_unused(o.ino);
}

void BlockReader::tick() {
  const TimePoint now = clock_.now();
  uint64_t streams = 0;
  for (auto& [ino, o] : objects_) {
    if (o->last_in_sequence != TimePoint{} && now - o->last_in_sequence < kStreamFor) ++streams;
    if (!o->rests && o->last_read != TimePoint{} && now - o->last_read >= kIdleAfter) give_back_memory(*o);
  }
  all_.files_in_sequence += streams - std::exchange(files_in_sequence_, streams);
  give_up_waiting_for_readers(now);
  for (auto& [id, o] : streams_) {
    if (now - o->stream.last_progress < options_.patience) continue;
    std::vector<ReadRef> late = std::move(o->stream.waiters);
    o->stream.waiters.clear();
    for (ReadRef& read : late) read_fail(*read, Error{ErrorCode::kTimedOut, o->url + ": nothing arrives any more"});
  }
}

// Files that nobody has opened: what they keep goes, and so do they.
void BlockReader::give_up_waiting_for_readers(TimePoint now) {
  std::vector<Ino> unopened;
  for (auto& [ino, o] : objects_) {
    if (o->opens > 0) continue;
    unopened.push_back(ino);
    for (auto& [begin, part] : o->parts) part->awaited = part->awaited && now - part->started < kAwaitedFor;
  }
  for (const Ino ino : unopened) release_if_unused(ino);
}

void BlockReader::shut_down() {
  shut_down_ = true;
  std::vector<Object*> all;
  for (auto& [ino, o] : objects_) all.push_back(o.get());
  for (Object* o : all) {
    const Ino ino = o->ino;
    fail_waiters(*o, Error{ErrorCode::kCancelled, "the mount is ending"});
    if (auto it = objects_.find(ino); it != objects_.end()) {
      it->second->opens = 0;
      release_if_unused(ino);
    }
  }
}

}  // namespace wormhole
