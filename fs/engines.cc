#include "fs/engines.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "cache/leftovers.h"

namespace wormhole {
namespace {

// A read costs the program, the kernel's worker and the network or the disk's interrupts about as much as the engine,
// so an engine can keep four cores busy; on fewer, a second one only takes turns with the first, and messages that one
// would take in a batch wake two. At most eight: no more workers decode requests for them (tools/daemon.cc).
// Measured on two cores with 16 readers: two engines answer no more than one.
constexpr unsigned kCoresForEach = 4;
constexpr unsigned kEnough = 8;

// Between two files whose leftovers are freed: readers wait for the engine meanwhile, some 50 us for each.
constexpr Duration kReclaimPause = std::chrono::milliseconds(1);

}  // namespace

unsigned engines_for(unsigned cores) { return std::clamp(cores / kCoresForEach, 1u, kEnough); }

Engines::Engines(unsigned count, BlockReaderOptions reader, BlockCacheOptions cache, ScrubberOptions scrubber,
                 EngineBase base, const BlockReader::OnStale& on_stale)
    : base_(base), all_(count) {
  cache.engines = count;
  for (unsigned number = 0; number < count; ++number) {
    const auto ask_others = [this, number](uint64_t bytes) {
      for (size_t i = 0; i < engines_.size(); ++i) {
        if (i != number) engines_[i]->give_back(bytes);
      }
    };
    engines_.push_back(std::make_unique<Engine>(number, reader, cache, base_, all_, on_stale, ask_others));
  }
  start_scrubber(scrubber);
  if (cache.reclaim) {
    leftovers_thread_ = start_thread("wh-leftovers", [this, path = cache.objects_path] { look_for_leftovers(path); });
  }
  base_.index.start_evicting(base_.space,
                             [this](const std::vector<RegionKey>& regions) { return evict_for_room(regions); });
}

Engines::~Engines() { stop(); }

// The first engine has it, and the others check for it.
void Engines::start_scrubber(ScrubberOptions options) {
  Engine& home = *engines_.front();
  Scrubber::Checks checks;
  checks.check_region = [this, &home](RegionKey key, Scrubber::Checked checked) {
    owner(key.ino).check_region(key, [&home, checked = std::move(checked)](BlockCache::Checked found) mutable {
      home.post([checked = std::move(checked), bytes = found.bytes]() mutable { checked(bytes); });
    });
  };
  checks.trust_index = [this](uint64_t failures) {
    for (auto& engine : engines_) engine->trust_index(failures);
  };
  home.run_scrubber(std::make_unique<Scrubber>(options, base_.index, std::move(checks), base_.metrics, base_.clock));
}

// After a crash: what it has left is found on a thread of its own, and freed by the owner of the blocks.
void Engines::look_for_leftovers(const std::string& objects_path) {
  uint64_t found = 0;
  find_leftovers(objects_path, base_.index, [this, &found](Ino ino) {
    if (stopping_) return false;
    ++found;
    owner(ino).reclaim(ino);
    std::this_thread::sleep_for(kReclaimPause);
    return true;
  });
  log::info("what the cache does not know of is freed: files={} stopped={}", found, stopping_.load());
}

// In the order of `all`.
template <typename T, typename InoOf>
std::vector<std::vector<T>> Engines::by_owner(std::span<const T> all, InoOf ino_of) const {
  std::vector<std::vector<T>> out(engines_.size());
  for (const T& one : all) out[number_of(ino_of(one))].push_back(one);
  return out;
}

// A pin of a file is one of the bytes that it uses, from the first use on.
Ino Engines::object_of(const Node& file) {
  if (!file.content || file.size == 0) return file.ino;
  const Ino object = base_.index.share({file.content->hash, file.size}, file.ino);
  const PinnedFiles& pinned = base_.index.pinned();
  if (object != file.ino && pinned.contains(file.ino) && !pinned.contains(object)) base_.index.pin({object});
  return object;
}

void Engines::drop(std::span<const Ino> inos) {
  auto parts = by_owner(inos, [](Ino ino) { return ino; });
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].empty()) engines_[i]->drop(std::move(parts[i]));
  }
}

size_t Engines::evict_for_room(const std::vector<RegionKey>& regions) {
  auto parts = by_owner(std::span(regions), [](RegionKey key) { return key.ino; });
  size_t asked = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    engines_[i]->evict(std::move(parts[i]));
    ++asked;
  }
  return asked;
}

void Engines::evict(std::span<const RegionKey> regions, BlockCache::EvictionDone done) {
  auto parts = by_owner(regions, [](RegionKey key) { return key.ino; });
  std::erase_if(parts, [](const auto& part) { return part.empty(); });
  // The answers come one after the other, on the index thread.
  struct Answers {
    size_t missing;
    BlockCache::EvictionResult all;
    BlockCache::EvictionDone done;
  };
  auto answers = std::make_shared<Answers>(Answers{parts.size(), {true, {}}, std::move(done)});
  if (parts.empty()) return answers->done(std::move(answers->all));
  for (auto& part : parts) {
    Engine& engine = owner(part.front().ino);
    engine.evict_on_request(std::move(part), [answers](BlockCache::EvictionResult result) {
      answers->all.ok &= result.ok;
      std::move(result.stayed.begin(), result.stayed.end(), std::back_inserter(answers->all.stayed));
      if (--answers->missing == 0) answers->done(std::move(answers->all));
    });
  }
}

// Engines that have not ended may still post to those that have: such messages are dropped.
void Engines::stop() {
  if (stopping_.exchange(true)) return;
  base_.index.stop_evicting();
  if (leftovers_thread_.joinable()) leftovers_thread_.join();
  for (auto& engine : engines_) engine->stop();
}

std::string Engines::io_backend() const {
  const auto worst = std::find_if(engines_.begin(), engines_.end(),
                                  [](auto& engine) { return engine->io_backend() != std::string_view("io_uring"); });
  return worst == engines_.end() ? "io_uring" : (*worst)->io_backend();
}

}  // namespace wormhole
