#include "tools/verification.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/block.h"

namespace wormhole {
namespace {

// A region is read 1 MiB at a time: so many keep an SSD at its full speed, and a reader who comes between waits some
// milliseconds.
constexpr size_t kRegionsAtOnce = 8;

// As often as a progress bar is redrawn, and as soon as Ctrl-C is felt.
constexpr Duration kTellEvery = std::chrono::milliseconds(100);

// Regions of the index that are looked up at once.
constexpr size_t kLookup = 1024;

uint64_t bytes_of(uint64_t blocks, uint64_t region, uint64_t size) {
  uint64_t bytes = 0;
  for (; blocks != 0; blocks &= blocks - 1)
    bytes += block_range(region * kBlocksPerRegion + static_cast<unsigned>(std::countr_zero(blocks)), size).size();
  return bytes;
}

void add_wrong(Ino ino, uint64_t region, uint64_t blocks, uint64_t size, Verified* found) {
  for (; blocks != 0; blocks &= blocks - 1) {
    const BlockIndex block = region * kBlocksPerRegion + static_cast<unsigned>(std::countr_zero(blocks));
    const ByteRange bytes = block_range(block, size);
    ++found->wrong_blocks;
    found->wrong_bytes += bytes.size();
    auto& wrong = found->wrong;
    const bool goes_on = !wrong.empty() && wrong.back().ino == ino && wrong.back().range.end == bytes.begin &&
                         wrong.back().range.begin / kRegionSize == region;
    goes_on ? void(wrong.back().range.end = bytes.end) : wrong.push_back({ino, bytes});
  }
}

}  // namespace

nlohmann::json to_json(const Verified& found) {
  nlohmann::json wrong = nlohmann::json::array();
  for (const WrongBytes& w : found.wrong) wrong.push_back({w.ino, w.range.begin, w.range.end});
  return {{"files", found.files},
          {"blocks", found.blocks},
          {"bytes", found.bytes},
          {"wrong_files", found.wrong_files},
          {"wrong_blocks", found.wrong_blocks},
          {"wrong_bytes", found.wrong_bytes},
          {"wrong", wrong}};
}

void add(const nlohmann::json& said, Verified* sum) {
  const auto number = [&](const char* name) { return said.value(name, uint64_t{0}); };
  sum->files += number("files");
  sum->blocks += number("blocks");
  sum->bytes += number("bytes");
  sum->wrong_files += number("wrong_files");
  sum->wrong_blocks += number("wrong_blocks");
  sum->wrong_bytes += number("wrong_bytes");
  for (const auto& [ino, begin, end] : said.value("wrong", std::vector<std::array<uint64_t, 3>>{}))
    sum->wrong.push_back({ino, {begin, end}});
}

bool Verification::run(const std::vector<Ino>& files) {
  told_ = SystemClock().now();
  for (const Ino ino : files) {
    if (!look_at(ino)) return false;
  }
  return wait_until_under_way_at_most(0) && tell_(std::exchange(found_, {}));
}

// Files that come meanwhile have higher numbers, and are found too.
bool Verification::run_all() {
  told_ = SystemClock().now();
  Ino last = 0;
  while (true) {
    const auto regions = index_.regions_from({last + 1, 0}, kLookup);
    if (regions.empty()) break;
    for (const RegionKey& key : regions) {
      if (key.ino == last) continue;
      last = key.ino;
      if (!look_at(last)) return false;
    }
  }
  return wait_until_under_way_at_most(0) && tell_(std::exchange(found_, {}));
}

bool Verification::look_at(Ino ino) {
  const auto record = index_.object(ino);
  auto regions = index_.cached_regions(ino);
  if (!record || regions.empty() || files_.contains(ino)) return true;
  const size_t count = regions.size();
  std::vector<RegionKey> keys;
  for (const CachedRegion& r : regions) keys.push_back({ino, r.region});
  files_[ino] = File{record->size, std::move(regions), std::vector<BlockCache::Checked>(count), count};
  for (const RegionKey& key : keys) {
    if (!wait_until_under_way_at_most(kRegionsAtOnce - 1)) return false;
    ++under_way_;
    check_(key, [answers = answers_, key](BlockCache::Checked checked) {
      {
        std::lock_guard lock(answers->mutex);
        answers->ready.emplace_back(key, checked);
      }
      answers->changed.notify_one();
    });
  }
  return true;
}

bool Verification::wait_until_under_way_at_most(size_t count) {
  while (true) {
    decltype(Answers::ready) ready;
    {
      std::unique_lock lock(answers_->mutex);
      if (under_way_ > count) answers_->changed.wait_for(lock, kTellEvery, [this] { return !answers_->ready.empty(); });
      ready.swap(answers_->ready);
    }
    for (const auto& [key, checked] : ready) take(key, checked);
    if (!tell_when_due()) return false;
    if (under_way_ <= count) return true;
  }
}

void Verification::take(RegionKey key, BlockCache::Checked checked) {
  --under_way_;
  const auto it = files_.find(key.ino);
  File& file = it->second;
  found_.bytes += bytes_of(checked.blocks, key.region, file.size);
  const auto at = std::lower_bound(file.regions.begin(), file.regions.end(), key.region,
                                   [](const CachedRegion& r, uint64_t number) { return r.region < number; });
  file.checked[static_cast<size_t>(at - file.regions.begin())] = checked;
  if (--file.unchecked > 0) return;
  count(key.ino, file);
  files_.erase(it);
}

void Verification::count(Ino ino, const File& file) {
  const uint64_t wrong_before = found_.wrong_blocks;
  const bool any_wrong = std::any_of(file.checked.begin(), file.checked.end(), [](auto& c) { return c.wrong != 0; });
  // The first region that finds its file gone takes all of them along: the others have found nothing to check.
  // Without that, what is gone was evicted meanwhile.
  const bool lost = any_wrong && index_.blocks_present(ino) == 0;
  for (size_t i = 0; i < file.regions.size(); ++i) {
    const BlockCache::Checked& checked = file.checked[i];
    const uint64_t gone = lost ? file.regions[i].present & ~checked.blocks : 0;
    found_.blocks += static_cast<uint64_t>(std::popcount(checked.blocks | gone));
    found_.bytes += bytes_of(gone, file.regions[i].region, file.size);
    add_wrong(ino, file.regions[i].region, checked.wrong | gone, file.size, &found_);
  }
  ++found_.files;
  if (found_.wrong_blocks > wrong_before) ++found_.wrong_files;
}

bool Verification::tell_when_due() {
  const TimePoint now = SystemClock().now();
  if (now - told_ < kTellEvery) return true;
  told_ = now;
  return tell_(std::exchange(found_, {}));
}

}  // namespace wormhole
