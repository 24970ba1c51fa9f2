// A network that does nothing by itself: it holds every request until the test answers it. What it delivers are bytes
// of the formula in pattern.h, of the version that the test says is served.
//
// Thread: any; sinks and callbacks are called on the thread that answers, with no lock held.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "net/fetcher.h"
#include "tests/support/pattern.h"

namespace wormhole::test {

class FakeFetcher final : public Fetcher {
 public:
  // What the server has: bytes and what it says of them.
  struct Version {
    uint64_t seed = 0;
    uint64_t size = 0;
    Validator validator;
  };

  // --- as a Fetcher ---

  void fetch(FetchRequest request) override {
    std::lock_guard lock(mutex_);
    ++asked_;
    const FetchId id = request.id;
    EXPECT_FALSE(active_.contains(id)) << "fetch " << id << " is under way already";
    active_.emplace(id, Active{std::move(request), 0, false});
  }
  void cancel(FetchId id) override {
    std::lock_guard lock(mutex_);
    if (active_.contains(id)) cancelled_.insert(id);
  }
  void promote(FetchId id) override {
    std::lock_guard lock(mutex_);
    if (auto it = active_.find(id); it != active_.end()) it->second.request.lane = Lane::kDemand;
  }
  void want(FetchId id, ByteRange bytes) override {
    std::lock_guard lock(mutex_);
    if (active_.contains(id)) wanted_.emplace_back(id, bytes);
  }
  LinkEstimate link() const override {
    std::lock_guard lock(mutex_);
    return link_;
  }
  void get(DocumentRequest request) override {
    {
      std::lock_guard lock(mutex_);
      documents_.push_back(std::move(request));
    }
    changed_.notify_all();
  }

  // --- fetches, for the test ---

  // What link() says from now on.
  void set_link(LinkEstimate link) {
    std::lock_guard lock(mutex_);
    link_ = link;
  }
  // How many were ever asked for.
  size_t asked() const {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  // Those that wait for their end, in the order of their requests.
  std::vector<FetchRequest> active() const {
    std::lock_guard lock(mutex_);
    std::vector<FetchRequest> out;
    for (const auto& [id, a] : active_) out.push_back(a.request);
    return out;
  }
  std::vector<ByteRange> active_ranges() const {
    std::vector<ByteRange> out;
    for (const FetchRequest& r : active()) out.push_back(r.range);
    return out;
  }
  bool is_cancelled(FetchId id) const {
    std::lock_guard lock(mutex_);
    return cancelled_.contains(id);
  }

  // The head, unless it was told; then the bytes of `version` up to `upto` of the range.
  void arrive(FetchId id, uint64_t upto, const Version& version) {
    auto a = copy(id);
    if (!a) return;
    tell_head(id, version);
    if (upto <= a->arrived) return;
    fill_pattern(version.seed, a->request.range.begin + a->arrived,
                 {a->request.buffer->data() + a->arrived, upto - a->arrived});
    change(id, [&](Active& active) { active.arrived = upto; });
    a->request.sink->fetch_progress(id, upto);
  }
  // The head, unless it was told; then the bytes `there`, behind a gap.
  void arrive_behind(FetchId id, ByteRange there, const Version& version) {
    auto a = copy(id);
    if (!a) return;
    tell_head(id, version);
    fill_pattern(version.seed, there.begin,
                 {a->request.buffer->data() + (there.begin - a->request.range.begin), there.size()});
    a->request.sink->fetch_behind(id, there);
  }
  // What want() has named, in order.
  std::vector<std::pair<FetchId, ByteRange>> wanted() const {
    std::lock_guard lock(mutex_);
    return wanted_;
  }
  void tell_head(FetchId id, const Version& version) {
    auto a = copy(id);
    if (!a || a->head_told) return;
    change(id, [](Active& active) { active.head_told = true; });
    a->request.sink->fetch_head(id, {version.validator, version.size});
  }
  // A whole body: the next `bytes` of it.
  void arrive_chunk(FetchId id, uint64_t bytes, BufferPool& buffers, const Version& version) {
    auto a = copy(id);
    if (!a) return;
    tell_head(id, version);
    const ByteRange range{a->arrived, std::min(a->arrived + bytes, a->request.object_size)};
    BufferRef chunk = buffers.allocate(range.size());
    fill_pattern(version.seed, range.begin, {chunk->data(), range.size()});
    change(id, [&](Active& active) { active.arrived = range.end; });
    a->request.sink->fetch_chunk(id, range, std::move(chunk));
  }
  void complete(FetchId id, const Version& version) {
    if (auto a = copy(id); a && !a->request.whole_body) arrive(id, a->request.range.size(), version);
    end(id, {});
  }
  void fail(FetchId id, ErrorCode code) { end(id, wormhole::fail(code, "{} by order of the test", to_string(code))); }
  // As the net thread does, some time after a cancel().
  void end_cancelled() {
    std::set<FetchId> all;
    {
      std::lock_guard lock(mutex_);
      all = cancelled_;
    }
    for (const FetchId id : all) fail(id, ErrorCode::kCancelled);
  }
  // As when the process dies: nobody is told of anything.
  void lose_all() {
    std::lock_guard lock(mutex_);
    active_.clear();
    cancelled_.clear();
  }
  uint64_t arrived(FetchId id) {
    auto a = copy(id);
    return a ? a->arrived : 0;
  }

  // --- documents, for the test ---

  size_t waiting_documents() const {
    std::lock_guard lock(mutex_);
    return documents_.size();
  }
  // The oldest that waits; waits for one to come. Nothing when none comes.
  std::optional<DocumentRequest> take_document(std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [&] { return !documents_.empty(); })) return std::nullopt;
    DocumentRequest request = std::move(documents_.front());
    documents_.erase(documents_.begin());
    return request;
  }

 private:
  struct Active {
    FetchRequest request;
    uint64_t arrived = 0;
    bool head_told = false;
  };

  std::optional<Active> copy(FetchId id) const {
    std::lock_guard lock(mutex_);
    auto it = active_.find(id);
    return it == active_.end() ? std::nullopt : std::optional(it->second);
  }
  template <typename F>
  void change(FetchId id, F edit) {
    std::lock_guard lock(mutex_);
    if (auto it = active_.find(id); it != active_.end()) edit(it->second);
  }
  void end(FetchId id, Status status) {
    std::optional<Active> a = copy(id);
    if (!a) return;
    {
      std::lock_guard lock(mutex_);
      active_.erase(id);
      cancelled_.erase(id);
    }
    const auto sink = a->request.sink;
    a.reset();  // its buffer is the reader's alone
    sink->fetch_done(id, std::move(status));
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t asked_ = 0;
  LinkEstimate link_;
  std::map<FetchId, Active> active_;
  std::set<FetchId> cancelled_;
  std::vector<std::pair<FetchId, ByteRange>> wanted_;
  std::vector<DocumentRequest> documents_;
};

}  // namespace wormhole::test
