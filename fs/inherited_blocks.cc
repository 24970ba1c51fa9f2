#include "fs/inherited_blocks.h"

#include <fcntl.h>

#include <algorithm>

#include "base/log.h"
#include "cache/block_cache.h"
#include "manifest/blake3.h"

namespace wormhole {

struct InheritedBlocks::Blocks {
  std::shared_ptr<FileDescriptor> file;
  BufferRef buffer;  // of the fetch
  ByteRange range;   // of both files; whole blocks
  std::byte* into = nullptr;
  std::vector<Hash256> nodes;  // of the new file's blocks
};

struct InheritedBlocks::Fetch {
  FetchRequest request;
  std::shared_ptr<FileDescriptor> older;
  std::vector<ByteRange> candidates;  // runs of blocks that the older file has; then those that turned out the same
  bool knows_tree = false;
  size_t reads = 0;                                  // of the older file, under way
  std::vector<std::pair<FetchId, ByteRange>> parts;  // of the rest, under way
  RangeSet there;
  uint64_t told = 0;  // bytes from range.begin on
  bool told_head = false;
  std::optional<Status> failed;  // nothing more is wanted
};

InheritedBlocks::InheritedBlocks(std::string objects_path, VerifiedFetches& network, Index& index, DiskIo& disk,
                                 Metrics& metrics, AllReaders& all, std::function<void(Task)> post)
    : objects_path_(std::move(objects_path)),
      network_(network),
      index_(index),
      disk_(disk),
      metrics_(metrics),
      all_(all),
      post_(std::move(post)) {}

InheritedBlocks::~InheritedBlocks() { *alive_ = false; }

InheritedBlocks::Fetch* InheritedBlocks::find(FetchId id) {
  const auto it = fetches_.find(id);
  return it == fetches_.end() ? nullptr : it->second.get();
}

InheritedBlocks::Fetch* InheritedBlocks::find_by_part(FetchId part) {
  const auto it = parts_.find(part);
  return it == parts_.end() ? nullptr : find(it->second);
}

// --- as a fetcher --------------------------------------------------------------------------------------------------

// Null when there is nothing to inherit.
std::unique_ptr<InheritedBlocks::Fetch> InheritedBlocks::with_candidates(const FetchRequest& request) {
  const bool has_tree = request.object_size > kBlockSize;
  if (!request.content || !request.content->predecessor || request.whole_body || !has_tree) return nullptr;
  const ContentKey& content = request.content->predecessor->content;
  const auto object = index_.shared(content);
  if (!object || lies_in_pack(content.size)) return nullptr;
  auto fetch = std::make_unique<Fetch>();
  RangeSet candidates;
  for (BlockIndex block = block_of(request.range.begin); block <= block_of(request.range.end - 1);) {
    const auto region = index_.region({*object, block / kBlocksPerRegion});
    const BlockIndex next = (block / kBlocksPerRegion + 1) * kBlocksPerRegion;
    for (; region && block < next && block <= block_of(request.range.end - 1); ++block) {
      const ByteRange bytes = block_range(block, request.object_size);
      // The last block of either may be shorter.
      if (region->has(block % kBlocksPerRegion) && bytes == block_range(block, content.size)) candidates.add(bytes);
    }
    block = next;
  }
  if (candidates.size() == 0) return nullptr;
  FileDescriptor file(::open(object_path(objects_path_, *object).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return nullptr;
  fetch->request = request;
  fetch->older = std::make_shared<FileDescriptor>(std::move(file));
  fetch->candidates = candidates.ranges();
  return fetch;
}

void InheritedBlocks::fetch(FetchRequest request) {
  std::unique_ptr<Fetch> fetch = with_candidates(request);
  if (!fetch) return network_.fetch(std::move(request));
  const FetchId id = request.id;
  fetches_.emplace(id, std::move(fetch));
  network_.with_tree(request, [this, id, alive = alive_](const HashTree* tree) {
    if (*alive) tree_came(id, tree);
  });
}

void InheritedBlocks::cancel(FetchId id) {
  Fetch* f = find(id);
  if (f == nullptr) return network_.cancel(id);
  give_up(*f, fail(ErrorCode::kCancelled, "cancelled"));
  post_([this, id, alive = alive_] {
    if (*alive) end_if_over(id);
  });
}

void InheritedBlocks::promote(FetchId id) {
  Fetch* f = find(id);
  if (f == nullptr) return network_.promote(id);
  f->request.lane = Lane::kDemand;
  for (const auto& [part, range] : f->parts) network_.promote(part);
}

void InheritedBlocks::want(FetchId id, ByteRange bytes) {
  Fetch* f = find(id);
  if (f == nullptr) return network_.want(id, bytes);
  f->request.wanted = bytes;
  for (const auto& [part, range] : f->parts) {
    if (range.overlaps(bytes)) network_.want(part, range.intersect(bytes));
  }
}

// --- the predecessor's blocks --------------------------------------------------------------------------------------

void InheritedBlocks::tree_came(FetchId id, const HashTree* tree) {
  Fetch* f = find(id);
  if (f == nullptr || f->failed) return;
  if (tree == nullptr) {
    // Why, the fetch will say.
    FetchRequest request = std::move(f->request);
    fetches_.erase(id);
    return network_.fetch(std::move(request));
  }
  f->knows_tree = true;
  const std::vector<ByteRange> runs = std::exchange(f->candidates, {});
  f->reads = runs.size();
  for (const ByteRange& run : runs) {
    auto blocks = std::make_unique<Blocks>();
    blocks->file = f->older;
    blocks->buffer = f->request.buffer;
    blocks->range = run;
    blocks->into = f->request.buffer->data() + (run.begin - f->request.range.begin);
    for (BlockIndex b = block_of(run.begin); b <= block_of(run.end - 1); ++b) blocks->nodes.push_back(tree->node(b));
    read(id, std::move(blocks));
  }
}

void InheritedBlocks::read(FetchId id, std::unique_ptr<Blocks> blocks) {
  Blocks& b = *blocks;
  disk_.read(b.file->get(), b.range.begin, b.into, b.range.size(),
             [this, id, blocks = std::move(blocks), alive = alive_](int64_t result) {
               if (*alive) was_read(id, *blocks, result);
             });
}

// What is shorter than it should be, or wrong, is as good as not there.
void InheritedBlocks::was_read(FetchId id, const Blocks& blocks, int64_t result) {
  Fetch* f = find(id);
  if (f == nullptr) return;
  --f->reads;
  const uint64_t got = f->failed ? 0 : static_cast<uint64_t>(std::max<int64_t>(result, 0));
  for (size_t i = 0; i < blocks.nodes.size(); ++i) {
    const BlockIndex block = block_of(blocks.range.begin) + i;
    const ByteRange range = block_range(block, f->request.object_size);
    const uint64_t begin = range.begin - blocks.range.begin;
    if (begin + range.size() > got) break;
    if (blake3_block({blocks.into + begin, range.size()}, block) != blocks.nodes[i]) continue;
    f->there.add(range);
    metrics_.blocks_inherited.fetch_add(1, std::memory_order_relaxed);
  }
  if (f->reads > 0) return;
  if (!f->failed) fetch_the_rest(*f);
  end_if_over(id);
}

void InheritedBlocks::fetch_the_rest(Fetch& f) {
  const FetchId id = f.request.id;
  const std::vector<ByteRange> same = f.there.ranges();
  const std::vector<ByteRange> missing = f.there.missing(f.request.range);
  std::vector<FetchRequest> requests;
  for (const ByteRange& range : missing) {
    FetchRequest request = f.request;
    request.id = all_.next_fetch++;
    request.range = range;
    request.wanted = f.request.wanted.intersect(range);
    request.buffer = slice(f.request.buffer, range.begin - f.request.range.begin, range.size());
    f.parts.emplace_back(request.id, range);
    parts_[request.id] = id;
    requests.push_back(std::move(request));
  }
  for (FetchRequest& request : requests) network_.fetch(std::move(request));
  for (const ByteRange& range : same) {
    Fetch* still = find(id);
    if (still == nullptr || still->failed) return;
    if (!std::exchange(still->told_head, true)) reader_->fetch_head(id, {});
    if (still = find(id); still != nullptr && !still->failed) reader_->fetch_copied(id, range, still->older);
    if (still = find(id); still != nullptr && !still->failed) arrived(*still, range);
  }
}

// --- what is fetched -----------------------------------------------------------------------------------------------

// Tells the reader of bytes that are in the buffer from now on.
void InheritedBlocks::arrived(Fetch& f, ByteRange bytes) {
  const FetchId id = f.request.id;
  const uint64_t begin = f.request.range.begin;
  f.there.add(bytes);
  uint64_t prefix = 0;
  for (const ByteRange& range : f.there.ranges()) {
    if (range.begin == begin) prefix = range.size();
  }
  if (prefix > f.told) {
    f.told = prefix;
    // All of it is the end, which is told once nothing is under way any more.
    if (prefix < f.request.range.size()) reader_->fetch_progress(id, prefix);
  } else if (bytes.begin >= begin + f.told) {
    reader_->fetch_behind(id, bytes);
  }
}

void InheritedBlocks::fetch_head(FetchId id, ObjectHead head) {
  Fetch* f = find_by_part(id);
  if (f == nullptr) {
    if (!parts_.contains(id)) reader_->fetch_head(id, std::move(head));
    return;
  }
  if (!f->failed && !std::exchange(f->told_head, true)) reader_->fetch_head(f->request.id, std::move(head));
}

void InheritedBlocks::fetch_progress(FetchId id, uint64_t bytes) {
  Fetch* f = find_by_part(id);
  if (f == nullptr) return reader_->fetch_progress(id, bytes);
  if (f->failed) return;
  const auto part = std::find_if(f->parts.begin(), f->parts.end(), [id](const auto& p) { return p.first == id; });
  arrived(*f, {part->second.begin, part->second.begin + bytes});
}

void InheritedBlocks::fetch_behind(FetchId id, ByteRange there) {
  Fetch* f = find_by_part(id);
  if (f == nullptr) return reader_->fetch_behind(id, there);
  if (!f->failed) arrived(*f, there);
}

void InheritedBlocks::fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) {
  reader_->fetch_chunk(id, range, std::move(bytes));  // of a whole body, which inherits nothing
}

void InheritedBlocks::fetch_done(FetchId id, Status status) {
  Fetch* f = find_by_part(id);
  if (f == nullptr) return reader_->fetch_done(id, std::move(status));
  const FetchId whole = f->request.id;
  const auto part = std::find_if(f->parts.begin(), f->parts.end(), [id](const auto& p) { return p.first == id; });
  const ByteRange range = part->second;
  f->parts.erase(part);
  parts_.erase(id);
  if (!status) {
    if (!f->failed) give_up(*f, std::move(status));
  } else if (!f->failed) {
    arrived(*f, range);
  }
  end_if_over(whole);
}

void InheritedBlocks::give_up(Fetch& f, Status why) {
  if (f.failed) return;
  f.failed = std::move(why);
  for (const auto& [part, range] : std::vector(f.parts)) network_.cancel(part);
}

// Nobody writes into the buffer any more, and all of it is there, or nothing more is wanted.
void InheritedBlocks::end_if_over(FetchId id) {
  Fetch* f = find(id);
  if (f == nullptr || f->reads > 0 || !f->parts.empty()) return;
  if (!f->failed && !f->there.contains(f->request.range)) return;
  const Status status = f->failed.value_or(Status{});
  fetches_.erase(id);
  reader_->fetch_done(id, status);
}

}  // namespace wormhole
