#include "fs/manifest_tree.h"

#include <algorithm>
#include <iterator>

#include "base/log.h"

namespace wormhole {
namespace {

// What one request brings: some twenty pages; at 1 Gbit/s 4 ms beside a round trip. And so much more that a page which
// begins in it also ends in it.
constexpr uint64_t kWindow = 512 * 1024;
constexpr uint64_t kOverlap = kPageBytes;
// Windows that are kept: 16 MiB, as much as 500 directories of 600 files.
constexpr size_t kKeptWindows = 32;
// Decoded pages that are kept: the way down to where a reader is, and what lies beside it. 200 bytes for an entry, 600
// entries in a page: 8 MiB.
constexpr size_t kKeptPages = 64;
// A directory of 10^9 entries has five levels of pages.
constexpr int kMostLevels = 8;
// Each time another server may bring it.
constexpr int kAttempts = 3;

}  // namespace

// The way to a directory, and then through its pages.
struct ManifestTree::Walk {
  std::vector<std::string> path;
  size_t depth = 0;           // of the path, that has been walked
  std::vector<PageRef> next;  // pages to be looked at, the next one at the back
  int levels = 0;             // of pages that name pages, in this directory
  std::vector<ManifestEntry> entries;
  Listed done;
};

struct ManifestTree::Window {
  ByteRange range;
  BufferRef bytes;
  bool there = false;
  std::string server;
  struct Waiter {
    PageRef page;
    PageDone done;
    int attempt;
  };
  std::vector<Waiter> waiters;
  std::list<uint64_t>::iterator place;  // in used_windows_, when it is there
};

// Brings the end of a fetch to the tree thread. What comes after the tree's end is dropped.
class ManifestTree::Sink final : public FetchSink, public std::enable_shared_from_this<Sink> {
 public:
  explicit Sink(ManifestTree& tree) : tree_(&tree), post_(tree.post_) {}
  void end() { tree_ = nullptr; }  // on the tree thread

  void fetch_head(FetchId id, ObjectHead head) override {
    post_([self = shared_from_this(), id, server = std::move(head.server)] {
      if (self->tree_ == nullptr) return;
      const auto it = self->tree_->under_way_.find(id);
      if (it != self->tree_->under_way_.end()) self->tree_->windows_.at(it->second)->server = server;
    });
  }
  void fetch_progress(FetchId, uint64_t) override {}
  void fetch_chunk(FetchId, ByteRange, BufferRef) override {}
  void fetch_done(FetchId id, Status status) override {
    post_([self = shared_from_this(), id, s = std::make_shared<Status>(std::move(status))] {
      if (self->tree_ == nullptr) return;
      const auto keep = self->tree_->shared_from_this();  // whoever is answered may let go of it
      keep->window_came(id, std::move(*s));
    });
  }

 private:
  ManifestTree* tree_;
  const std::function<void(Task)> post_;
};

ManifestTree::ManifestTree(ManifestHead head, std::string pages_url, Fetcher& fetcher, BufferPool& buffers,
                           Metrics& metrics, AllReaders& all, Duration patience, std::function<void(Task)> post)
    : head_(std::move(head)),
      url_(std::move(pages_url)),
      fetcher_(fetcher),
      buffers_(buffers),
      metrics_(metrics),
      all_(all),
      patience_(patience),
      post_(std::move(post)),
      sink_(std::make_shared<Sink>(*this)) {}

// What is under way ends by itself: at the end of a mount the fetcher may be gone already.
ManifestTree::~ManifestTree() { sink_->end(); }

void ManifestTree::abandon() {
  sink_->end();
  windows_.clear();
  used_windows_.clear();
  under_way_.clear();
  ready_.clear();
}

// --- the way to a directory, and through it ------------------------------------------------------------------------

void ManifestTree::list(std::vector<std::string> path, Listed done) {
  auto walk = std::make_shared<Walk>();
  walk->path = std::move(path);
  walk->done = std::move(done);
  walk->next = {head_.root};
  step(walk);
}

void ManifestTree::step(const std::shared_ptr<Walk>& walk) {
  if (walk->next.empty()) return finish(walk, std::move(walk->entries));
  const PageRef ref = walk->next.back();
  walk->next.pop_back();
  page(ref, [this, walk](const Result<PageRefPtr>& page) {
    if (!page) return finish(walk, fail(page.error()));
    run_soon(
        [this, walk, page = *page] { walk->depth < walk->path.size() ? descend(walk, *page) : gather(walk, *page); });
  });
}

// To the next name of the path.
void ManifestTree::descend(const std::shared_ptr<Walk>& walk, const DirectoryPage& page) {
  const std::string& name = walk->path[walk->depth];
  const auto [entry, next] = look_up(page, name);
  if (next != nullptr) {
    if (++walk->levels > kMostLevels) return finish(walk, fail(ErrorCode::kCorrupt, "manifest: pages without end"));
    walk->next = {*next};
    return step(walk);
  }
  if (entry == nullptr) return finish(walk, fail(ErrorCode::kNotFound, "{}: not in the manifest", name));
  if (entry->type != ManifestEntry::Type::kDirectory)
    return finish(walk, fail(ErrorCode::kNotDirectory, "{}: not a directory in the manifest", name));
  ++walk->depth;
  walk->levels = 0;
  walk->next = {entry->page};
  step(walk);
}

void ManifestTree::gather(const std::shared_ptr<Walk>& walk, const DirectoryPage& page) {
  if (!page.children.empty()) {
    if (++walk->levels > kMostLevels) return finish(walk, fail(ErrorCode::kCorrupt, "manifest: pages without end"));
    // They are asked for at once, as many as will be kept.
    size_t ahead = 0;
    std::transform(page.children.rbegin(), page.children.rend(), std::back_inserter(walk->next),
                   [](const auto& child) { return child.page; });
    for (const auto& child : page.children) {
      if (!pages_.contains(child.page.hash) && ++ahead < kKeptWindows / 2) window(window_of(child.page), {});
    }
    return step(walk);
  }
  walk->levels = 0;
  if (!page.entries.empty() && !walk->entries.empty() && walk->entries.back().name >= page.entries.front().name)
    return finish(walk, fail(ErrorCode::kCorrupt, "manifest: the pages of a directory are not in order"));
  walk->entries.insert(walk->entries.end(), page.entries.begin(), page.entries.end());
  step(walk);
}

void ManifestTree::finish(const std::shared_ptr<Walk>& walk, Result<std::vector<ManifestEntry>> result) {
  walk->done(std::move(result));
}

// --- pages ---------------------------------------------------------------------------------------------------------

void ManifestTree::page(const PageRef& ref, const PageDone& done) {
  if (const auto it = pages_.find(ref.hash); it != pages_.end()) {
    used_pages_.splice(used_pages_.end(), used_pages_, it->second.place);
    return done(it->second.page);
  }
  if (!ref.is_possible() || ref.offset > head_.pages_bytes || ref.stored > head_.pages_bytes - ref.offset)
    return done(fail(ErrorCode::kCorrupt, "manifest: a page lies outside of its file"));
  load(ref, done, 1);
}

void ManifestTree::load(const PageRef& ref, const PageDone& done, int attempt) {
  Window& w = window(window_of(ref), {});
  if (!w.there) {
    w.waiters.push_back({ref, done, attempt});
    return;
  }
  used_windows_.splice(used_windows_.end(), used_windows_, w.place);
  const char* bytes = reinterpret_cast<const char*>(w.bytes->data()) + (ref.offset - w.range.begin);
  auto decoded = load_page(ref, {bytes, ref.stored});
  if (decoded) {
    auto shared = std::make_shared<const DirectoryPage>(std::move(*decoded));
    remember(ref, shared);
    return done(PageRefPtr(shared));
  }
  const bool last = attempt >= kAttempts;
  metrics_.blocks_refused.fetch_add(1, std::memory_order_relaxed);
  log::error("{}, {}: url={} server={} attempt={}", decoded.error().message,
             last ? "the directory cannot be listed" : "it is fetched again", url_, w.server, attempt);
  const std::string server = w.server;
  const ByteRange range = w.range;
  used_windows_.erase(w.place);
  windows_.erase(range.begin);
  if (last) return done(fail(decoded.error()));
  window(range, server);
  load(ref, done, attempt + 1);
}

void ManifestTree::remember(const PageRef& ref, PageRefPtr page) {
  if (pages_.contains(ref.hash)) return;
  pages_[ref.hash] = {std::move(page), used_pages_.insert(used_pages_.end(), ref.hash)};
  while (pages_.size() > kKeptPages) {
    pages_.erase(used_pages_.front());
    used_pages_.pop_front();
  }
}

// --- windows of the pages file -------------------------------------------------------------------------------------

// One of its own for a page that is larger than others.
ByteRange ManifestTree::window_of(const PageRef& ref) const {
  const uint64_t begin = ref.offset / kWindow * kWindow;
  if (ref.offset + ref.stored > begin + kWindow + kOverlap) return ByteRange::of(ref.offset, ref.stored);
  return {begin, std::min(begin + kWindow + kOverlap, head_.pages_bytes)};
}

ManifestTree::Window& ManifestTree::window(ByteRange range, const std::string& avoid) {
  auto& slot = windows_[range.begin];
  if (slot != nullptr && slot->range.end >= range.end) return *slot;
  if (slot != nullptr && slot->there) used_windows_.erase(slot->place);
  auto fresh = std::make_unique<Window>();
  fresh->range = range;
  fresh->bytes = buffers_.allocate(range.size());
  // Those who waited for a shorter one that begins here are answered by this one.
  if (slot != nullptr) {
    fresh->waiters = std::move(slot->waiters);
    std::erase_if(under_way_, [&](const auto& fetch) { return fetch.second == range.begin; });
  }
  slot = std::move(fresh);
  FetchRequest request;
  request.id = all_.next_fetch++;
  request.url = url_;
  request.object = std::hash<std::string>()(url_);
  request.range = range;
  request.object_size = head_.pages_bytes;
  request.by_content = true;
  request.avoid = avoid;
  request.buffer = slot->bytes;
  request.patience = patience_;
  request.sink = sink_;
  under_way_[request.id] = range.begin;
  fetcher_.fetch(std::move(request));
  return *slot;
}

void ManifestTree::window_came(FetchId id, Status status) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end()) return;
  const uint64_t begin = it->second;
  under_way_.erase(it);
  Window& w = *windows_.at(begin);
  auto waiters = std::move(w.waiters);
  w.waiters.clear();
  if (status) {
    w.there = true;
    w.place = used_windows_.insert(used_windows_.end(), begin);
  } else {
    windows_.erase(begin);
  }
  for (const Window::Waiter& waiter : waiters) {
    status ? load(waiter.page, waiter.done, waiter.attempt) : waiter.done(fail(status.error()));
  }
  forget_windows();
}

void ManifestTree::forget_windows() {
  while (used_windows_.size() > kKeptWindows) {
    windows_.erase(used_windows_.front());
    used_windows_.pop_front();
  }
}

void ManifestTree::run_soon(std::function<void()> work) {
  ready_.push_back(std::move(work));
  if (running_) return;
  running_ = true;
  while (!ready_.empty()) {
    const auto next = std::move(ready_.front());
    ready_.pop_front();
    next();
  }
  running_ = false;
}

}  // namespace wormhole
