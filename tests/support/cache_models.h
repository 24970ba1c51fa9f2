// Caches that hold nothing: what of a trace of reads would have been there. The policy of this cache with its two
// queues, and what it is compared with.
//
// Thread: values, any one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cache/eviction_policy.h"

namespace wormhole::test {

// Somebody reads a region from begin to end.
struct RegionRead {
  RegionKey region{};
  uint64_t bytes = 0;
  bool hot = false;  // one of those whose hits are looked at

  bool operator==(const RegionRead&) const = default;
};

struct RegionHash {
  size_t operator()(const RegionKey& key) const {
    return std::hash<uint64_t>()(key.ino * 0x9e37'79b9'7f4a'7c15 + key.region);
  }
};

class CacheModel {
 public:
  explicit CacheModel(uint64_t capacity) : capacity_(capacity) {}
  virtual ~CacheModel() = default;
  // True when it was there. After that it is.
  virtual bool read(const RegionRead& read) = 0;

 protected:
  const uint64_t capacity_;
};

// The policy, used as the index thread does.
class PolicyModel final : public CacheModel {
 public:
  using CacheModel::CacheModel;
  using Queue = EvictionPolicy::Queue;
  using Verdict = EvictionPolicy::Verdict;

  bool read(const RegionRead& r) override {
    // In requests of at most 1 MiB, over a line of 200 MB/s, and a millisecond for the opening of a file.
    now_ += std::chrono::milliseconds(1);
    for (uint64_t at = 0; at < r.bytes; at += kRequest) {
      const uint64_t begin = r.region.region * kRegionSize + at;
      policy_.accessed(r.region.ino, {begin, begin + std::min(kRequest, r.bytes - at)}, now_);
      now_ += std::chrono::nanoseconds(std::min(kRequest, r.bytes - at) * 5);
    }
    if (present_.contains(r.region)) return true;
    if (r.bytes > capacity_) return false;
    make_room(r.bytes);
    const Queue queue = policy_.queue_for_new(r.region, occupancy_, now_);
    present_.emplace(r.region, r.bytes);
    push(queue, {r.region, r.bytes});
    return false;
  }
  void wait(Duration time) { now_ += time; }

  EvictionPolicy& policy() { return policy_; }
  EvictionPolicy::Occupancy occupancy() const { return occupancy_; }
  bool has(RegionKey region) const { return present_.contains(region); }
  uint64_t evicted() const { return evicted_; }
  uint64_t judged() const { return judged_; }
  uint64_t most_judged_for_one() const { return most_judged_; }

 private:
  using Entry = std::pair<RegionKey, uint64_t>;
  static constexpr uint64_t kRequest = 1 << 20;

  std::deque<Entry>& queue(Queue which) { return which == Queue::kSmall ? small_ : main_; }
  uint64_t& bytes(Queue which) { return which == Queue::kSmall ? occupancy_.small : occupancy_.main; }
  void push(Queue to, Entry entry) {
    bytes(to) += entry.second;
    queue(to).push_back(entry);
  }
  void make_room(uint64_t needed) {
    uint64_t judged = 0;
    while (occupancy_.total() + needed > capacity_) {
      const Queue from = EvictionPolicy::examine_next(occupancy_);
      const Entry head = queue(from).front();
      queue(from).pop_front();
      bytes(from) -= head.second;
      most_judged_ = std::max(most_judged_, ++judged);
      ++judged_;
      if (policy_.judge(from, head.first, head.second) == Verdict::kEvict) {
        present_.erase(head.first);
        ++evicted_;
        judged = 0;
      } else {
        push(Queue::kMain, head);
      }
    }
  }

  EvictionPolicy policy_;
  EvictionPolicy::Occupancy occupancy_;
  std::deque<Entry> small_, main_;
  std::unordered_map<RegionKey, uint64_t, RegionHash> present_;
  TimePoint now_{std::chrono::hours(1)};
  uint64_t evicted_ = 0, judged_ = 0, most_judged_ = 0;
};

// The one unused for longest goes; or, without `touch`, the one that came first.
class ListModel : public CacheModel {
 public:
  ListModel(uint64_t capacity, bool touch) : CacheModel(capacity), touch_(touch) {}

  bool read(const RegionRead& r) override {
    const auto found = present_.find(r.region);
    if (found != present_.end()) {
      if (touch_) order_.splice(order_.end(), order_, found->second);
      return true;
    }
    if (r.bytes > capacity_) return false;
    while (used_ + r.bytes > capacity_) {
      used_ -= order_.front().bytes;
      present_.erase(order_.front().region);
      order_.pop_front();
    }
    order_.push_back(r);
    present_.emplace(r.region, std::prev(order_.end()));
    used_ += r.bytes;
    return false;
  }

 private:
  const bool touch_;
  uint64_t used_ = 0;
  std::list<RegionRead> order_;
  std::unordered_map<RegionKey, std::list<RegionRead>::iterator, RegionHash> present_;
};

class LruModel final : public ListModel {
 public:
  explicit LruModel(uint64_t capacity) : ListModel(capacity, true) {}
};

class FifoModel final : public ListModel {
 public:
  explicit FifoModel(uint64_t capacity) : ListModel(capacity, false) {}
};

// Belady: the one whose next read is farthest goes, and what is read never again does not come in. The optimum where
// all have one size. Wants the trace beforehand, and exactly its reads.
class OptimalModel final : public CacheModel {
 public:
  OptimalModel(uint64_t capacity, const std::vector<RegionRead>& trace) : CacheModel(capacity), next_(trace.size()) {
    std::unordered_map<RegionKey, size_t, RegionHash> later;
    for (size_t i = trace.size(); i-- > 0;) {
      const auto found = later.find(trace[i].region);
      next_[i] = found == later.end() ? kNever + i : found->second;
      later[trace[i].region] = i;
    }
  }

  bool read(const RegionRead& r) override {
    const size_t next = next_[at_++];
    const auto found = present_.find(r.region);
    const bool hit = found != present_.end();
    if (hit) {
      by_next_.erase({found->second, r.region});
      used_ -= r.bytes;
    }
    present_[r.region] = next;
    by_next_.insert({next, r.region});
    used_ += r.bytes;
    while (used_ > capacity_) {
      const auto last = std::prev(by_next_.end());
      present_.erase(last->second);
      by_next_.erase(last);
      used_ -= r.bytes;
    }
    return hit;
  }

 private:
  static constexpr size_t kNever = size_t{1} << 60;

  std::vector<size_t> next_;
  size_t at_ = 0;
  uint64_t used_ = 0;
  std::unordered_map<RegionKey, size_t, RegionHash> present_;
  std::set<std::pair<size_t, RegionKey>> by_next_;
};

}  // namespace wormhole::test
