#include "tools/cache_requests.h"

#include <algorithm>
#include <future>
#include <map>
#include <optional>

#include "tools/refetch.h"

namespace wormhole {
namespace {

// Regions that go in one transaction: some 10 ms, for which others wait who want to commit.
constexpr size_t kRegionsAtOnce = 1024;

// Holes that one answer tells: it stays below 200 KB. Who has read them asks again.
constexpr size_t kRangesAtOnce = 4096;

constexpr const char* kIndexFails = "the index of the cache cannot be written: see the log";

nlohmann::json error(const char* why) { return {{"error", why}}; }

// Nothing when they are no inode numbers.
std::optional<std::vector<Ino>> files_of(const nlohmann::json& request) {
  const auto files = request.find("files");
  if (files == request.end() || !files->is_array()) return std::nullopt;
  const bool numbers = std::all_of(files->begin(), files->end(), [](const auto& f) { return f.is_number_unsigned(); });
  if (!numbers) return std::nullopt;
  return files->get<std::vector<Ino>>();
}

// Ranges, each in one region.
std::optional<std::vector<WrongBytes>> wrong_of(const nlohmann::json& request) {
  const auto ranges = request.find("wrong");
  if (ranges == request.end() || !ranges->is_array()) return std::nullopt;
  std::vector<WrongBytes> out;
  for (const auto& r : *ranges) {
    const bool good = r.is_array() && r.size() == 3 && r[0].is_number_unsigned() && r[1].is_number_unsigned() &&
                      r[2].is_number_unsigned();
    if (!good) return std::nullopt;
    const WrongBytes bytes{r[0], {r[1], r[2]}};
    if (bytes.range.begin / kRegionSize * kRegionSize + kRegionSize < bytes.range.end ||
        bytes.range.begin >= bytes.range.end)
      return std::nullopt;
    out.push_back(bytes);
  }
  return out;
}

// What keeps one region of a file keeps the file; of several reasons the one that lasts longest is told.
const char* word(BlockCache::Stays why) {
  switch (why) {
    case BlockCache::Stays::kPinned: return "pinned";
    case BlockCache::Stays::kOpen: return "open";
    case BlockCache::Stays::kBusy: return "busy";
  }
  return "";
}

// The objects that have the bytes of these files, and for each the first of the files: answers speak of files.
std::map<Ino, Ino> objects_of(Index& index, const std::vector<Ino>& files) {
  std::map<Ino, Ino> out;
  for (const Ino file : files) out.try_emplace(index.object_of(file), file);
  return out;
}

uint64_t sum(const std::vector<CachedRegion>& regions) {
  uint64_t bytes = 0;
  for (const CachedRegion& r : regions) bytes += r.bytes;
  return bytes;
}

}  // namespace

nlohmann::json CacheRequests::answer(const nlohmann::json& request, const ControlServer::Say& say) {
  const auto what_field = request.find("do");
  const std::string what = what_field != request.end() && what_field->is_string() ? what_field->get<std::string>() : "";
  if (what == "cache") return contents(request.contains("files") && request["files"] == true);
  if (what == "pinned") return pinned_bytes();
  if (what == "sync") return sync();
  if (what == "verify" && !request.contains("files")) return verify(std::nullopt, say);
  if (what == "refetch") {
    const auto wrong = wrong_of(request);
    return wrong ? refetch(*wrong, say) : error("no ranges in the request");
  }
  if (what == "missing") {
    for (const char* name : {"file", "size", "from"}) {
      if (const auto it = request.find(name); it == request.end() || !it->is_number_unsigned())
        return error("file, size or from are missing in the request");
    }
    return missing(request["file"], request["size"], request["from"]);
  }
  const bool about_files = what == "evict" || what == "pin" || what == "unpin" || what == "cached" || what == "verify";
  if (!about_files) return error("this daemon does not know the request: it is of another version");
  const auto files = files_of(request);
  if (!files) return error("no files in the request");
  if (what == "evict") return evict(*files);
  if (what == "cached") return cached(*files);
  if (what == "verify") return verify(files, say);
  return pin(*files, what == "pin");
}

nlohmann::json CacheRequests::evict(const std::vector<Ino>& files) {
  struct Left {
    BlockCache::Stays why;
    uint64_t bytes = 0;
  };
  std::map<Ino, Left> left;
  std::map<RegionKey, uint64_t> going;  // with their bytes
  uint64_t freed_bytes = 0, freed_files = 0;
  Ino last_freed = 0;
  bool ok = true;
  const auto go = [&] {
    if (going.empty()) return;
    std::vector<RegionKey> regions;
    regions.reserve(going.size());
    for (const auto& [key, bytes] : going) regions.push_back(key);
    std::promise<BlockCache::EvictionResult> done;
    auto result = done.get_future();
    engines_.evict(regions, [&done](BlockCache::EvictionResult r) { done.set_value(std::move(r)); });
    const BlockCache::EvictionResult r = result.get();
    ok = ok && r.ok;
    for (const auto& [key, why] : r.stayed) {
      left.try_emplace(key.ino, Left{why}).first->second.bytes += going[key];
      going.erase(key);
    }
    for (const auto& [key, bytes] : going) {
      freed_bytes += bytes;
      if (std::exchange(last_freed, key.ino) != key.ino) ++freed_files;
    }
    going.clear();
  };
  // In order, each once, so that files can be counted as they go.
  const std::map<Ino, Ino> objects = objects_of(index_, files);
  for (const auto& [ino, file] : objects) {
    for (const CachedRegion& r : index_.cached_regions(ino)) {
      going[{ino, r.region}] = r.bytes;
      if (going.size() == kRegionsAtOnce) go();
      if (stopping_.load()) return error("the mount is ending");
    }
  }
  go();
  if (!ok) return error(kIndexFails);
  nlohmann::json stayed = nlohmann::json::array();
  for (const auto& [ino, l] : left)
    stayed.push_back({{"file", objects.at(ino)}, {"why", word(l.why)}, {"bytes", l.bytes}});
  return {{"freed_bytes", freed_bytes}, {"freed_files", freed_files}, {"stayed", stayed}};
}

nlohmann::json CacheRequests::pin(const std::vector<Ino>& files, bool pinned) {
  const uint64_t before = index_.pinned().count();
  const uint64_t failures = index_.failures();
  std::vector<Ino> numbers = files;
  for (const auto& [object, file] : objects_of(index_, files)) {
    if (object != file) numbers.push_back(object);
  }
  pinned ? index_.pin(numbers) : index_.unpin(numbers);
  index_.flush();
  if (index_.failures() != failures) return error(kIndexFails);
  const uint64_t now = index_.pinned().count();
  return {{"changed", now > before ? now - before : before - now}, {"pinned", now}};
}

nlohmann::json CacheRequests::cached(const std::vector<Ino>& files) {
  nlohmann::json bytes = nlohmann::json::array(), pinned = nlohmann::json::array();
  for (const Ino ino : files) {
    bytes.push_back(sum(index_.cached_regions(index_.object_of(ino))));
    pinned.push_back(index_.pinned().contains(ino));
  }
  return {{"cached", bytes}, {"pinned", pinned}};
}

nlohmann::json CacheRequests::missing(Ino file, uint64_t size, uint64_t from) {
  const auto regions = index_.cached_regions(index_.object_of(file));
  std::vector<ByteRange> ranges;
  auto region = regions.begin();
  for (BlockIndex block = from / kBlockSize; block < block_count(size) && ranges.size() < kRangesAtOnce;) {
    const uint64_t number = block / kBlocksPerRegion;
    while (region != regions.end() && region->region < number) ++region;
    const uint64_t present = region != regions.end() && region->region == number ? region->present : 0;
    // A region of which nothing is there is one step.
    const uint64_t step = present == 0 ? kBlocksPerRegion - block % kBlocksPerRegion : 1;
    const ByteRange range{block * kBlockSize, std::min((block + step) * kBlockSize, size)};
    block += step;
    if (present != 0 && ((present >> ((block - 1) % kBlocksPerRegion)) & 1) != 0) continue;
    if (!ranges.empty() && ranges.back().end == range.begin) {
      ranges.back().end = range.end;
    } else {
      ranges.push_back(range);
    }
  }
  nlohmann::json out = nlohmann::json::array();
  for (const ByteRange& r : ranges) out.push_back({r.begin, r.end});
  return {{"ranges", out}};
}

nlohmann::json CacheRequests::contents(bool count_files) {
  index_.flush();  // so that the numbers are of now
  const auto value = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  const CacheContents c = index_.contents();
  const Space::State s = space_.state();
  nlohmann::json out = {
      {"bytes_cached", c.small_bytes + c.main_bytes},
      {"cache_size", s.limit},
      {"holds", s.holds},
      {"disk_free", s.disk_free},
      {"min_free", s.min_free},
      {"small_queue_bytes", c.small_bytes},
      {"main_queue_bytes", c.main_bytes},
      {"regions", c.regions},
      {"files_pinned", index_.pinned().count()},
      {"bytes_evicted", value(metrics_.bytes_evicted)},
      {"stores_without_room", value(metrics_.stores_without_room)},
  };
  if (count_files) {
    const CachedFiles files = index_.count_files();
    out["files_complete"] = files.complete;
    out["files_partial"] = files.partial;
  }
  return out;
}

nlohmann::json CacheRequests::sync() {
  const uint64_t failures = index_.failures();
  index_.flush();
  return index_.failures() == failures ? nlohmann::json::object() : error(kIndexFails);
}

nlohmann::json CacheRequests::verify(const std::optional<std::vector<Ino>>& files, const ControlServer::Say& say) {
  const uint64_t failures = index_.failures();
  const std::map<Ino, Ino> objects = objects_of(index_, files.value_or(std::vector<Ino>{}));
  Verification verification(
      index_, [this](RegionKey key, auto done) { engines_.check_region(key, std::move(done)); },
      [&](Verified found) {
        for (WrongBytes& wrong : found.wrong) {
          if (const auto file = objects.find(wrong.ino); file != objects.end()) wrong.ino = file->second;
        }
        return !stopping_.load() && say(to_json(found));
      });
  std::vector<Ino> numbers;
  for (const auto& [object, file] : objects) numbers.push_back(object);
  if (!(files ? verification.run(numbers) : verification.run_all())) return error("given up");
  if (!files) engines_.all_checked(failures);
  return sync();
}

nlohmann::json CacheRequests::refetch(const std::vector<WrongBytes>& wrong, const ControlServer::Say& say) {
  Refetch refetch(filesystem_, index_, [&](uint64_t bytes) { return !stopping_.load() && say({{"bytes", bytes}}); });
  const auto not_there = refetch.run(wrong);
  if (!not_there) return error("given up");
  nlohmann::json failed = nlohmann::json::array();
  for (const auto& f : *not_there) failed.push_back({{"file", f.ino}, {"bytes", f.bytes}, {"why", f.why}});
  const nlohmann::json synced = sync();
  return synced.contains("error") ? synced : nlohmann::json{{"failed", failed}};
}

nlohmann::json CacheRequests::pinned_bytes() {
  uint64_t bytes = 0;
  for (const Ino ino : index_.pinned().all()) {
    bytes += sum(index_.cached_regions(ino));
    if (stopping_.load()) return error("the mount is ending");
  }
  return {{"bytes", bytes}};
}

}  // namespace wormhole
