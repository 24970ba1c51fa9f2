#include "fs/verified_fetches.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace wormhole {
namespace {

// What is fetched of a hash tree at once, at least: the nodes of 128 MiB of the file, so that a reader in order asks
// seldom, and less than a block, so that a reader of one block does not wait for it.
constexpr uint64_t kTreePiece = 64 * 1024;

// How often a block or a piece of a tree is asked for in all. Each time another server may bring it; a server that has
// it wrong twice will have it wrong the third time.
constexpr int kAttempts = 3;

// The hash trees of so many files are kept, whoever reads them: 2 KiB for 4 MiB that were read of each.
constexpr size_t kKeptTrees = 256;

// Of the blocks of a range one for each group of nodes: those of a group come together.
std::vector<BlockIndex> one_of_each_group(ByteRange range) {
  std::vector<BlockIndex> out;
  for (BlockIndex block = block_of(range.begin); block <= block_of(range.end - 1);
       block = (block / kTreeFanout + 1) * kTreeFanout)
    out.push_back(block);
  return out;
}

}  // namespace

struct VerifiedFetches::Object {
  uint64_t number;
  std::string url;
  uint64_t size;
  Content content;
  HashTree tree;
  std::vector<FetchId> fetches;  // under way
  std::vector<ByteRange> asked;  // pieces of the tree that are under way
  struct Waiter {
    FetchRequest request;
    Known known;
  };
  std::vector<Waiter> waiters;  // with_tree()
  std::list<uint64_t>::iterator place;

  Object(uint64_t n, std::string u, uint64_t s, Content c)
      : number(n), url(std::move(u)), size(s), content(std::move(c)), tree(s, content.hash) {}
};

struct VerifiedFetches::Fetch {
  FetchRequest request;
  Object* object = nullptr;
  uint64_t arrived = 0;           // bytes from range.begin on
  uint64_t verified = 0;          // of these, what the reader has been told of
  bool ended = false;             // the network has brought all of it
  bool done = false;              // nothing more is to be told
  std::vector<ByteRange> behind;  // has come behind a gap, and is not checked yet
  struct Chunk {
    ByteRange range;
    BufferRef bytes;
  };
  std::deque<Chunk> chunks;  // of a whole body, not checked yet
  std::string server;        // that the bytes come from, as far as is known
  FetchId again = 0;         // a block that is being fetched again; 0: none
  int attempts = 1;          // at the block that comes next

  uint64_t end_of(BlockIndex block) const { return block_range(block, object->size).end - request.range.begin; }
  std::span<std::byte> bytes_of(BlockIndex block) const {
    const ByteRange range = block_range(block, object->size);
    return {request.buffer->data() + (range.begin - request.range.begin), range.size()};
  }
};

struct VerifiedFetches::Piece {
  uint64_t object = 0;
  FetchId fetch = 0;  // of a block: whose it is; of a tree: 0
  BlockIndex block = 0;
  ByteRange range;  // of the tree, or of the file
  BufferRef buffer;
  std::string server;
  // To ask again for a piece of a tree.
  Lane lane = Lane::kDemand;
  Duration patience{};
  int attempt = 1;
};

VerifiedFetches::VerifiedFetches(Fetcher& network, BufferPool& buffers, Metrics& metrics, AllReaders& all,
                                 std::shared_ptr<FetchSink> sink, std::function<void(Task)> post)
    : network_(network),
      buffers_(buffers),
      metrics_(metrics),
      all_(all),
      sink_(std::move(sink)),
      post_(std::move(post)) {}

VerifiedFetches::~VerifiedFetches() { *alive_ = false; }

// The file's tree stays for the next fetches of it.
VerifiedFetches::Object& VerifiedFetches::object_of(const FetchRequest& request) {
  auto it = objects_.find(request.object);
  if (it != objects_.end() && it->second->content != *request.content && it->second->fetches.empty() &&
      it->second->waiters.empty()) {
    used_.erase(it->second->place);
    objects_.erase(it);
    it = objects_.end();
  }
  if (it == objects_.end()) {
    auto object = std::make_unique<Object>(request.object, request.url, request.object_size, *request.content);
    object->place = used_.insert(used_.end(), request.object);
    it = objects_.emplace(request.object, std::move(object)).first;
    forget_idle_objects();
  }
  used_.splice(used_.end(), used_, it->second->place);
  return *it->second;
}

void VerifiedFetches::forget_idle_objects() {
  for (auto it = used_.begin(); it != used_.end() && objects_.size() > kKeptTrees;) {
    const Object& o = *objects_.at(*it);
    const bool idle =
        o.fetches.empty() && o.asked.empty() && o.waiters.empty() && &o != objects_.at(used_.back()).get();
    it = idle ? (objects_.erase(*it), used_.erase(it)) : std::next(it);
  }
}

// --- as a fetcher --------------------------------------------------------------------------------------------------

VerifiedFetches::Fetch* VerifiedFetches::find(FetchId id) {
  const auto it = fetches_.find(id);
  return it == fetches_.end() || it->second->done ? nullptr : it->second.get();
}

void VerifiedFetches::fetch(FetchRequest request) {
  if (!request.content) return network_.fetch(std::move(request));
  Object& o = object_of(request);
  if (!request.wanted.empty()) request.wanted = align_to_blocks(request.wanted, o.size);
  if (request.wanted == request.range) request.wanted = {};
  auto fetch = std::make_unique<Fetch>();
  fetch->request = request;
  fetch->object = &o;
  o.fetches.push_back(request.id);
  Fetch& f = *fetches_.emplace(request.id, std::move(fetch)).first->second;
  request.sink = sink_;
  request.content = nullptr;
  request.validator = {};
  request.by_content = true;
  const ByteRange range = request.range;
  network_.fetch(std::move(request));
  // Beside it: the nodes are there when the bytes are.
  for (const uint64_t at : {range.begin, range.end - 1}) {
    if (!f.request.whole_body) ask_for_tree(o, block_of(at), f.request);
  }
}

void VerifiedFetches::cancel(FetchId id) {
  Fetch* f = find(id);
  if (f == nullptr) return network_.cancel(id);
  if (f->again != 0) network_.cancel(f->again);
  if (!f->ended) return network_.cancel(id);
  // The network has brought all of it; what is waited for is a tree, or a block again.
  post_([this, id, alive = alive_] {
    if (*alive && find(id) != nullptr) end(id, fail(ErrorCode::kCancelled, "cancelled"));
  });
}

void VerifiedFetches::promote(FetchId id) {
  if (Fetch* f = find(id)) f->request.lane = Lane::kDemand;
  network_.promote(id);
}

void VerifiedFetches::want(FetchId id, ByteRange bytes) {
  Fetch* f = find(id);
  if (f != nullptr) {
    bytes = align_to_blocks(bytes, f->object->size);
    for (const uint64_t at : {bytes.begin, bytes.end - 1}) ask_for_tree(*f->object, block_of(at), f->request);
  }
  network_.want(id, bytes);
}

// --- the hash tree -------------------------------------------------------------------------------------------------

bool VerifiedFetches::can_check(Object& o, BlockIndex block, const FetchRequest& fetch) {
  if (o.tree.missing(block).empty()) return true;
  ask_for_tree(o, block, fetch);
  return false;
}

// False: the manifest has none.
bool VerifiedFetches::ask_for_tree(Object& o, BlockIndex block, const FetchRequest& fetch) {
  for (const ByteRange& group : o.tree.missing(block)) {
    const bool under_way = std::any_of(o.asked.begin(), o.asked.end(), [&](const ByteRange& asked) {
      return asked.begin <= group.begin && group.end <= asked.end;
    });
    if (under_way) continue;
    const uint64_t piece_end = std::min(o.tree.shape().bytes(), std::max(group.end, group.begin + kTreePiece));
    if (o.content.trees == nullptr || o.content.tree + piece_end > o.content.trees->size) {
      // The manifest itself is wrong: nothing can be checked.
      post_([this, id = fetch.id, alive = alive_] {
        if (*alive && find(id) != nullptr) end(id, fail(ErrorCode::kCorrupt, "the manifest has no hash tree of it"));
      });
      return false;
    }
    fetch_tree(o, {group.begin, piece_end}, fetch.lane, fetch.patience, 1, {});
  }
  return true;
}

// Of all blocks of the range that are still unknown; false: it cannot be had.
bool VerifiedFetches::ask_for_trees(Object& o, const FetchRequest& fetch) {
  const auto blocks = one_of_each_group(fetch.range);
  return std::all_of(blocks.begin(), blocks.end(), [&](BlockIndex block) { return ask_for_tree(o, block, fetch); });
}

void VerifiedFetches::with_tree(const FetchRequest& request, Known known) {
  Object& o = object_of(request);
  o.waiters.push_back({request, std::move(known)});
  tell_who_waits(o, !ask_for_trees(o, request));
}

void VerifiedFetches::tell_who_waits(Object& o, bool failed) {
  const auto waits = [](const Object& object, const Object::Waiter& w) {
    const auto blocks = one_of_each_group(w.request.range);
    return std::any_of(blocks.begin(), blocks.end(),
                       [&](BlockIndex block) { return !object.tree.missing(block).empty(); });
  };
  // What they do next may bring more of them.
  std::vector<Object::Waiter> all = std::exchange(o.waiters, {}), ready;
  for (Object::Waiter& w : all) (failed || !waits(o, w) ? ready : o.waiters).push_back(std::move(w));
  const uint64_t number = o.number;
  for (Object::Waiter& w : ready) {
    // It may go while they are told, one after the other.
    const auto it = objects_.find(number);
    const bool known = it != objects_.end() && it->second->content == *w.request.content && !waits(*it->second, w);
    w.known(known ? &it->second->tree : nullptr);
  }
}

void VerifiedFetches::fetch_tree(Object& o, ByteRange range, Lane lane, Duration patience, int attempt,
                                 std::string avoid) {
  o.asked.push_back(range);
  auto piece = std::make_unique<Piece>();
  piece->object = o.number;
  piece->range = range;
  piece->buffer = buffers_.allocate(range.size());
  piece->lane = lane;
  piece->patience = patience;
  piece->attempt = attempt;
  FetchRequest request;
  request.id = all_.next_fetch++;
  request.url = o.content.trees->url;
  request.object = std::hash<std::string>()(request.url);
  request.range = {o.content.tree + range.begin, o.content.tree + range.end};
  request.object_size = o.content.trees->size;
  request.lane = lane;
  request.by_content = true;
  request.avoid = std::move(avoid);
  request.buffer = piece->buffer;
  request.patience = patience;
  request.sink = sink_;
  pieces_.emplace(request.id, std::move(piece));
  network_.fetch(std::move(request));
}

void VerifiedFetches::tree_came(FetchId id, Status status) {
  const auto it = pieces_.find(id);
  const std::unique_ptr<Piece> piece = std::move(it->second);
  pieces_.erase(it);
  Object& o = *objects_.at(piece->object);
  std::erase(o.asked, piece->range);
  if (status && !take_tree(o, *piece)) {
    const bool last = piece->attempt >= kAttempts;
    metrics_.blocks_refused.fetch_add(1, std::memory_order_relaxed);
    log::error("hash tree does not match the manifest, {}: url={} of={} server={} attempt={}",
               last ? "reads of it fail" : "it is fetched again", o.content.trees->url, o.url, piece->server,
               piece->attempt);
    if (!last) return fetch_tree(o, piece->range, piece->lane, piece->patience, piece->attempt + 1, piece->server);
    status = fail(ErrorCode::kCorrupt, "{}: its hash tree does not match the manifest", o.url);
  }
  const uint64_t number = o.number;
  tell_who_waits(o, !status);
  if (!objects_.contains(number)) return;  // nobody else had asked
  for (const FetchId fetch : std::vector<FetchId>(o.fetches)) {
    if (status) {
      advance(fetch);
      continue;
    }
    // Those who have all they need go on.
    Fetch* f = find(fetch);
    if (f == nullptr || o.tree.missing(block_of(f->request.range.begin + f->verified)).empty()) continue;
    if (!f->ended) network_.cancel(fetch);
    end(fetch, fail(status.error()));
  }
}

// From the top down: a group is checked against the one above it. False: one is wrong.
bool VerifiedFetches::take_tree(Object& o, const Piece& piece) {
  for (const ByteRange& group : o.tree.shape().groups_in(piece.range)) {
    const Bytes bytes{piece.buffer->data() + (group.begin - piece.range.begin), group.size()};
    if (o.tree.can_add(group) && !o.tree.add(group, bytes)) return false;
  }
  return true;
}

// --- what the network brings ---------------------------------------------------------------------------------------

void VerifiedFetches::fetch_head(FetchId id, ObjectHead head) {
  if (const auto piece = pieces_.find(id); piece != pieces_.end()) {
    piece->second->server = std::move(head.server);
    return;
  }
  if (fetches_.contains(id)) {
    Fetch* f = find(id);
    if (f == nullptr) return;
    f->server = std::move(head.server);
    head.validator = {};
  }
  reader_->fetch_head(id, std::move(head));
}

void VerifiedFetches::fetch_progress(FetchId id, uint64_t arrived) {
  if (pieces_.contains(id)) return;
  if (!fetches_.contains(id)) return reader_->fetch_progress(id, arrived);
  Fetch* f = find(id);
  if (f == nullptr) return;
  f->arrived = std::max(f->arrived, arrived);
  advance(id);
}

void VerifiedFetches::fetch_behind(FetchId id, ByteRange there) {
  if (pieces_.contains(id)) return;
  if (!fetches_.contains(id)) return reader_->fetch_behind(id, there);
  Fetch* f = find(id);
  if (f == nullptr) return;
  f->behind.push_back(there);
  advance(id);
}

void VerifiedFetches::fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) {
  if (!fetches_.contains(id)) return reader_->fetch_chunk(id, range, std::move(bytes));
  Fetch* f = find(id);
  if (f == nullptr) return;
  f->chunks.push_back({range, std::move(bytes)});
  advance(id);
}

void VerifiedFetches::fetch_done(FetchId id, Status status) {
  if (const auto piece = pieces_.find(id); piece != pieces_.end())
    return piece->second->fetch == 0 ? tree_came(id, std::move(status)) : block_came(id, std::move(status));
  const auto it = fetches_.find(id);
  if (it == fetches_.end()) return reader_->fetch_done(id, std::move(status));
  Fetch& f = *it->second;
  f.ended = true;
  if (f.done) {
    fetches_.erase(it);
    return;
  }
  if (!status) return end(id, std::move(status));
  if (!f.request.whole_body) f.arrived = f.request.range.size();
  advance(id);
}

// Checks what has come and can be checked, in order, and tells the reader.
void VerifiedFetches::advance(FetchId id) {
  Fetch* f = find(id);
  if (f == nullptr) return;
  if (f->request.whole_body) return advance_chunks(*f);
  const ByteRange range = f->request.range;
  uint64_t verified = f->verified;
  while (f->again == 0 && verified < f->arrived) {
    const BlockIndex block = block_of(range.begin + verified);
    if (f->end_of(block) > f->arrived || !can_check(*f->object, block, f->request)) break;
    if (!f->object->tree.matches(block, f->bytes_of(block))) {
      wrong(*f, block);
      break;
    }
    verified = f->end_of(block);
    f->attempts = 1;
  }
  if (find(id) == nullptr) return;
  if (verified > f->verified) {
    f->verified = verified;
    if (verified < range.size()) reader_->fetch_progress(id, verified);
    if (f = find(id); f == nullptr) return;
  }
  advance_behind(*f);
  if (f = find(id); f == nullptr) return;
  if (f->ended && f->verified == range.size()) end(id, {});
}

// A wrong block of these is found again when its turn comes.
void VerifiedFetches::advance_behind(Fetch& f) {
  const FetchId id = f.request.id;
  for (const ByteRange& there : std::exchange(f.behind, {})) {
    if (there.end <= f.request.range.begin + f.verified) continue;
    ByteRange right{there.begin, there.begin};
    bool waits = false;
    for (BlockIndex block = block_of(there.begin); block <= block_of(there.end - 1); ++block) {
      if (!can_check(*f.object, block, f.request)) {
        waits = true;
        break;
      }
      if (!f.object->tree.matches(block, f.bytes_of(block))) break;
      right.end = block_range(block, f.object->size).end;
    }
    if (waits) f.behind.push_back(there);
    if (!waits && !right.empty()) {
      reader_->fetch_behind(id, right);
      if (find(id) == nullptr) return;
    }
  }
}

void VerifiedFetches::advance_chunks(Fetch& f) {
  const FetchId id = f.request.id;
  while (!f.chunks.empty()) {
    const Fetch::Chunk& chunk = f.chunks.front();
    for (BlockIndex block = block_of(chunk.range.begin); block <= block_of(chunk.range.end - 1); ++block) {
      if (!can_check(*f.object, block, f.request)) return;
      const ByteRange range = block_range(block, f.object->size);
      const Bytes bytes{chunk.bytes->data() + (range.begin - chunk.range.begin), range.size()};
      if (f.object->tree.matches(block, bytes)) continue;
      // It comes in one piece or not at all: nothing can be asked for again.
      f.attempts = kAttempts;
      return wrong(f, block);
    }
    const Fetch::Chunk right = std::move(f.chunks.front());
    f.chunks.pop_front();
    reader_->fetch_chunk(id, right.range, right.bytes);
    if (find(id) == nullptr) return;
  }
  if (f.ended) end(id, {});
}

// --- a wrong block -------------------------------------------------------------------------------------------------

void VerifiedFetches::wrong(Fetch& f, BlockIndex block) {
  metrics_.blocks_refused.fetch_add(1, std::memory_order_relaxed);
  const bool last = f.attempts >= kAttempts;
  log::error("a block does not match the manifest, {}: url={} block={} server={} attempt={}",
             last ? "reads of it fail" : "it is fetched again", f.object->url, block, f.server, f.attempts);
  if (last) {
    const FetchId id = f.request.id;
    if (!f.ended) network_.cancel(id);
    return end(id, fail(ErrorCode::kCorrupt, "{}: block {} does not match the manifest", f.object->url, block));
  }
  ++f.attempts;
  auto piece = std::make_unique<Piece>();
  piece->object = f.request.object;
  piece->fetch = f.request.id;
  piece->block = block;
  piece->range = block_range(block, f.object->size);
  piece->buffer = buffers_.allocate(piece->range.size());
  FetchRequest request = f.request;
  request.id = f.again = all_.next_fetch++;
  request.range = piece->range;
  request.wanted = {};
  request.content = nullptr;
  request.validator = {};
  request.by_content = true;
  request.buffer = piece->buffer;
  request.sink = sink_;
  request.avoid = f.server;
  pieces_.emplace(request.id, std::move(piece));
  network_.fetch(std::move(request));
}

void VerifiedFetches::block_came(FetchId id, Status status) {
  const auto it = pieces_.find(id);
  const std::unique_ptr<Piece> piece = std::move(it->second);
  pieces_.erase(it);
  Fetch* f = find(piece->fetch);
  if (f == nullptr) return;
  f->again = 0;
  f->server = piece->server;
  if (!status) {
    if (!f->ended) network_.cancel(piece->fetch);
    return end(piece->fetch, std::move(status));
  }
  // The reader has not seen these bytes of his buffer yet, and the network is through with them.
  std::memcpy(f->bytes_of(piece->block).data(), piece->buffer->data(), piece->range.size());
  advance(piece->fetch);
}

// The last that the reader hears of it. Its own last event may be still to come.
void VerifiedFetches::end(FetchId id, Status status) {
  const auto it = fetches_.find(id);
  Fetch& f = *it->second;
  f.done = true;
  std::erase(f.object->fetches, id);
  if (f.again != 0) {
    network_.cancel(f.again);
    pieces_.erase(f.again);
  }
  if (f.ended) fetches_.erase(it);
  reader_->fetch_done(id, std::move(status));
}

}  // namespace wormhole
