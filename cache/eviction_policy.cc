#include "cache/eviction_policy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/block.h"
#include "cache/checksum.h"

namespace wormhole {
namespace {

// The share of the small queue: as in the paper, which found 5 to 20 % to make little difference.
constexpr uint64_t kSmallShare = 10;  // one in ten

// A new region moves to main when so many passes have followed the one that brought it: somebody who reads a file
// twice in a row does not push out what others use daily.
constexpr unsigned kPassesForMain = 2;
constexpr unsigned kMaxCount = 3;

// After so many regions in a row that were spared, one with a pass more may go as well. Each costs two writes to the
// index, some microseconds: a new region never waits longer than a few milliseconds for its room.
constexpr unsigned kPatience = 256;

// A region counts at most once in this time. Requests of one reader overtake each other, and several readers may
// follow closely; they are done with 4 MiB by then, or as good as.
using Ticks = std::chrono::duration<int64_t, std::ratio<1, 4>>;
constexpr uint16_t kBurst = 2 * 4;
// A reader who goes on after a longer pause begins a new pass. Slow ones (music, 20 KB/s, in requests of 128 KiB) come
// back every few seconds.
constexpr uint16_t kPause = 60 * 4;

// A pass under way, in one word: which region, when it was last counted and last seen (ticks, modulo 2^16: five
// hours), and where it has come to, in pages of 4 KiB.
struct Pass {
  uint32_t fingerprint = 0;
  uint16_t counted = 0;
  uint16_t seen = 0;
  uint16_t position = 0;

  static constexpr unsigned kFingerprintBits = 21;
  static constexpr unsigned kPositionBits = 11;  // 0 to 1024
  static_assert(kRegionSize / 4096 < 1 << kPositionBits);

  static Pass unpack(uint64_t word) {
    return {static_cast<uint32_t>(word >> 43), static_cast<uint16_t>(word >> 27), static_cast<uint16_t>(word >> 11),
            static_cast<uint16_t>(word & ((1 << kPositionBits) - 1))};
  }
  uint64_t pack() const {
    return uint64_t{fingerprint} << 43 | uint64_t{counted} << 27 | uint64_t{seen} << 11 | position;
  }
};

uint16_t ticks(TimePoint time) {
  return static_cast<uint16_t>(std::chrono::floor<Ticks>(time.time_since_epoch()).count());
}

uint16_t elapsed(uint16_t from, uint16_t to) { return static_cast<uint16_t>(to - from); }

// Rounded up: a file shorter than a page that is read again is behind its end, not beyond.
uint16_t page(uint64_t offset) { return static_cast<uint16_t>((offset + 4095) / 4096); }

// The same in every run: what is counted is kept.
uint64_t hash_of(RegionKey key) {
  static_assert(std::has_unique_object_representations_v<RegionKey>);
  return block_checksum(reinterpret_cast<const std::byte*>(&key), sizeof(key));
}

// Stands for a file as a whole among the passes; no region has this number.
constexpr uint64_t kWhole = ~uint64_t{0};

// Each table takes its place from other bits of the hash than its fingerprint.
size_t pass_slot(uint64_t hash, size_t slots) { return hash & (slots - 1); }
uint32_t pass_fingerprint(uint64_t hash) { return static_cast<uint32_t>(hash >> (64 - Pass::kFingerprintBits)); }
uint32_t ghost_fingerprint(uint64_t hash) { return std::max<uint32_t>(static_cast<uint32_t>(hash >> 32), 1); }

struct Header {
  std::array<char, 8> magic = {'e', 'v', 'i', 'c', 't', 'i', 'o', 'n'};
  uint32_t version = 1;
  uint32_t words = 0;  // counters and ghosts
  uint64_t ghost_bytes = 0;

  bool operator==(const Header&) const = default;
};
static_assert(std::has_unique_object_representations_v<Header>);

template <typename T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T read_at(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

uint64_t checksum(std::string_view bytes) {
  return block_checksum(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
}

}  // namespace

EvictionPolicy::EvictionPolicy()
    : counters_(std::make_unique<std::atomic<uint64_t>[]>(kCounterWords)),
      passes_(std::make_unique<std::atomic<uint64_t>[]>(kPasses)),
      ghosts_(std::make_unique<GhostBucket[]>(kGhostBuckets)) {}

// --- reads -----------------------------------------------------------------------------------------------------------

void EvictionPolicy::accessed(Ino ino, ByteRange range, TimePoint now) {
  while (!range.empty()) {
    const RegionKey key{ino, range.begin / kRegionSize};
    const uint64_t start = key.region * kRegionSize;
    const ByteRange here{range.begin - start, std::min(range.end - start, kRegionSize)};
    const uint64_t hash = hash_of(key);
    if (begins_pass(hash, here, now)) increment(hash);
    range.begin = start + here.end;
  }
}

void EvictionPolicy::accessed_whole(Ino ino, uint64_t size, TimePoint now) {
  if (!begins_pass(hash_of({ino, kWhole}), {0, 1}, now)) return;
  const uint64_t regions = (size + kRegionSize - 1) / kRegionSize;
  for (uint64_t region = 0; region < regions; ++region) increment(hash_of({ino, region}));
}

// Whether a read of `range` of the region is the first of a pass that counts.
bool EvictionPolicy::begins_pass(uint64_t hash, ByteRange range, TimePoint now) {
  std::atomic<uint64_t>& slot = passes_[pass_slot(hash, kPasses)];
  const uint16_t time = ticks(now);
  const uint32_t fingerprint = pass_fingerprint(hash);
  uint64_t word = slot.load(std::memory_order_relaxed);
  for (;;) {
    const Pass last = Pass::unpack(word);
    Pass next{fingerprint, time, time, page(range.end)};
    bool counts = true;
    if (word != 0 && last.fingerprint == fingerprint) {
      const bool goes_on = page(range.begin) >= last.position && elapsed(last.seen, time) < kPause;
      counts = !goes_on && elapsed(last.counted, time) >= kBurst;
      if (!counts) next.counted = last.counted;
    }
    // Whoever comes second sees what the first has counted.
    if (slot.compare_exchange_weak(word, next.pack(), std::memory_order_relaxed)) return counts;
  }
}

// --- counters --------------------------------------------------------------------------------------------------------

unsigned EvictionPolicy::count(RegionKey key) const { return count_of(hash_of(key)); }

unsigned EvictionPolicy::count_of(uint64_t hash) const {
  const size_t counter = hash & (kCounters - 1);
  const uint64_t word = counters_[counter / kCountersPerWord].load(std::memory_order_relaxed);
  return static_cast<unsigned>(word >> counter % kCountersPerWord * 2) & 3;
}

void EvictionPolicy::increment(uint64_t hash) {
  const size_t counter = hash & (kCounters - 1);
  const unsigned shift = counter % kCountersPerWord * 2;
  std::atomic<uint64_t>& slot = counters_[counter / kCountersPerWord];
  uint64_t word = slot.load(std::memory_order_relaxed);
  while ((word >> shift & 3) < kMaxCount) {
    if (slot.compare_exchange_weak(word, word + (uint64_t{1} << shift), std::memory_order_relaxed)) return;
  }
}

void EvictionPolicy::decrement(uint64_t hash, unsigned by) {
  const size_t counter = hash & (kCounters - 1);
  const unsigned shift = counter % kCountersPerWord * 2;
  std::atomic<uint64_t>& slot = counters_[counter / kCountersPerWord];
  uint64_t word = slot.load(std::memory_order_relaxed);
  while ((word >> shift & 3) != 0) {
    const uint64_t less = std::min<uint64_t>(word >> shift & 3, by);
    if (slot.compare_exchange_weak(word, word - (less << shift), std::memory_order_relaxed)) return;
  }
}

// --- ghosts ----------------------------------------------------------------------------------------------------------

// Ghosts stand for as many bytes as main may have.
bool EvictionPolicy::is_alive(uint64_t ghost, uint64_t clock, Occupancy occupancy) {
  const uint64_t age = static_cast<uint32_t>(clock - ghost);
  return age * kGhostAgeStep <= occupancy.total() - occupancy.total() / kSmallShare;
}

void EvictionPolicy::enter_ghost(uint64_t hash, uint64_t bytes) {
  ghost_bytes_ += bytes;
  const auto clock = static_cast<uint32_t>(ghost_clock());
  auto& entries = ghosts_[hash & (kGhostBuckets - 1)].entries;
  // Its own place, a free one, or that of the oldest.
  auto place = entries.begin();
  uint64_t oldest = 0;
  for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
    if (*entry >> 32 == ghost_fingerprint(hash)) {
      place = entry;
      break;
    }
    const uint64_t age = *entry == 0 ? ~uint64_t{0} : static_cast<uint32_t>(clock - *entry);
    if (age > oldest) {
      oldest = age;
      place = entry;
    }
  }
  *place = uint64_t{ghost_fingerprint(hash)} << 32 | clock;
}

bool EvictionPolicy::take_ghost(uint64_t hash, Occupancy occupancy) {
  for (uint64_t& entry : ghosts_[hash & (kGhostBuckets - 1)].entries) {
    if (entry >> 32 != ghost_fingerprint(hash)) continue;
    return is_alive(std::exchange(entry, 0), ghost_clock(), occupancy);
  }
  return false;
}

bool EvictionPolicy::has_ghost(RegionKey key, Occupancy occupancy) const {
  const uint64_t hash = hash_of(key);
  const auto& entries = ghosts_[hash & (kGhostBuckets - 1)].entries;
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](uint64_t entry) { return entry >> 32 == ghost_fingerprint(hash); });
  return found != entries.end() && is_alive(*found, ghost_clock(), occupancy);
}

// --- decisions -------------------------------------------------------------------------------------------------------

EvictionPolicy::Queue EvictionPolicy::queue_for_new(RegionKey key, Occupancy occupancy, TimePoint now) {
  const uint64_t hash = hash_of(key);
  std::atomic<uint64_t>& slot = passes_[pass_slot(hash, kPasses)];
  const uint16_t time = ticks(now);
  uint64_t word = slot.load(std::memory_order_relaxed);
  bool counted = false;
  Pass pass;
  do {
    pass = Pass::unpack(word);
    counted = word != 0 && pass.fingerprint == pass_fingerprint(hash) && elapsed(pass.seen, time) < kPause;
    if (!counted) pass = {pass_fingerprint(hash), time, time, 0};
    pass.counted = pass.seen = time;
  } while (!slot.compare_exchange_weak(word, pass.pack(), std::memory_order_relaxed));
  // The pass that brings it has been counted when it began. What follows of it is seen to belong to it.
  if (counted) decrement(hash, 1);
  return take_ghost(hash, occupancy) ? Queue::kMain : Queue::kSmall;
}

EvictionPolicy::Queue EvictionPolicy::examine_next(Occupancy occupancy) {
  if (occupancy.main == 0) return Queue::kSmall;
  return occupancy.small > 0 && occupancy.small >= occupancy.total() / kSmallShare ? Queue::kSmall : Queue::kMain;
}

EvictionPolicy::Verdict EvictionPolicy::judge(Queue queue, RegionKey key, uint64_t bytes) {
  const uint64_t hash = hash_of(key);
  const unsigned count = count_of(hash);
  const unsigned leniency = spared_ / kPatience;
  ++spared_;
  if (queue == Queue::kSmall && count >= kPassesForMain + leniency) {
    decrement(hash, kPassesForMain);  // they have earned it its place; a third is good for a round in main
    return Verdict::kToMain;
  }
  if (queue == Queue::kMain && count > leniency) {
    decrement(hash, 1);
    return Verdict::kBackToMain;
  }
  spared_ = 0;
  decrement(hash, kMaxCount);
  if (queue == Queue::kSmall) enter_ghost(hash, bytes);
  return Verdict::kEvict;
}

// --- over a restart --------------------------------------------------------------------------------------------------

// Header; a bit for each word, whether it is not zero; the words that are not; a checksum of all that.
std::string EvictionPolicy::encode() const {
  constexpr size_t kWords = kCounterWords + kGhostBuckets * kGhostsPerBucket;
  std::string bits(kWords / 8, '\0');
  std::string words;
  size_t number = 0;
  const auto add = [&](uint64_t word) {
    if (word != 0) {
      bits[number / 8] = static_cast<char>(bits[number / 8] | 1 << number % 8);
      append(words, word);
    }
    ++number;
  };
  for (size_t i = 0; i < kCounterWords; ++i) add(counters_[i].load(std::memory_order_relaxed));
  for (size_t i = 0; i < kGhostBuckets; ++i) {
    for (const uint64_t entry : ghosts_[i].entries) add(entry);
  }
  std::string out;
  append(out, Header{.words = kWords, .ghost_bytes = ghost_bytes_});
  out += bits;
  out += words;
  append(out, checksum(out));
  return out;
}

bool EvictionPolicy::restore(std::string_view bytes) {
  constexpr size_t kWords = kCounterWords + kGhostBuckets * kGhostsPerBucket;
  constexpr size_t kFixed = sizeof(Header) + kWords / 8 + sizeof(uint64_t);
  if (bytes.size() < kFixed) return false;
  const auto header = read_at<Header>(bytes, 0);
  if (header != Header{.words = kWords, .ghost_bytes = header.ghost_bytes}) return false;
  const size_t end = bytes.size() - sizeof(uint64_t);
  if (checksum(bytes.substr(0, end)) != read_at<uint64_t>(bytes, end)) return false;

  const std::string_view bits = bytes.substr(sizeof(Header), kWords / 8);
  size_t present = 0;
  for (const char c : bits) present += static_cast<size_t>(std::popcount(static_cast<unsigned char>(c)));
  if (bytes.size() != kFixed + present * sizeof(uint64_t)) return false;

  size_t number = 0;
  size_t offset = sizeof(Header) + bits.size();
  const auto next = [&]() -> uint64_t {
    const bool is_there = bits[number / 8] >> number % 8 & 1;
    ++number;
    if (!is_there) return 0;
    offset += sizeof(uint64_t);
    return read_at<uint64_t>(bytes, offset - sizeof(uint64_t));
  };
  for (size_t i = 0; i < kCounterWords; ++i) counters_[i].store(next(), std::memory_order_relaxed);
  for (size_t i = 0; i < kGhostBuckets; ++i) {
    for (uint64_t& entry : ghosts_[i].entries) entry = next();
  }
  ghost_bytes_ = header.ghost_bytes;
  return true;
}

}  // namespace wormhole
