// How much of what is read would have been in the cache: the eviction policy of this program, against LRU, FIFO and
// the optimum of one who knows the future, over made-up traces and caches of 5 to 80 % of what is read.
//
//   eviction_simulation                a table for each trace: hits in percent of the bytes read
//   eviction_simulation --csv          the same as lines of trace,cache,policy,percent, for eviction_plot.py
//
// Everything follows from fixed seeds. docs/EVICTION.md says what the traces stand for.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "base/block.h"
#include "tests/support/cache_models.h"

namespace wormhole {
namespace {

using test::CacheModel;
using test::FifoModel;
using test::LruModel;
using test::OptimalModel;
using test::PolicyModel;
using test::RegionRead;
using Trace = std::vector<RegionRead>;

constexpr uint64_t kRegions = 10'000;  // of most traces: 40 GB
constexpr uint64_t kSmallFile = 10'000;
constexpr uint64_t kSmallFiles = 200'000;
// Inode numbers: everybody's own.
constexpr Ino kHot = 1, kScanned = 2, kFirstSmall = 1000;

// Numbers below n, the k-th most popular with a share of 1/k^s, in an order that has nothing to do with its place.
class Zipf {
 public:
  Zipf(uint64_t n, double s, uint64_t seed) : order_(n), random_(seed) {
    double sum = 0;
    for (uint64_t k = 0; k < n; ++k) {
      sum += std::pow(static_cast<double>(k + 1), -s);
      below_.push_back(sum);
      order_[k] = k;
    }
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  uint64_t next() {
    const double at = std::uniform_real_distribution<>(0, below_.back())(random_);
    const auto place = std::lower_bound(below_.begin(), below_.end(), at) - below_.begin();
    return order_[static_cast<size_t>(place)];
  }

 private:
  std::vector<double> below_;
  std::vector<uint64_t> order_;
  std::mt19937_64 random_;
};

RegionRead region(Ino ino, uint64_t number, bool hot = true) { return {{ino, number}, kRegionSize, hot}; }

Trace zipf(double s) {
  Zipf popular(kRegions, s, 1);
  Trace trace;
  for (int i = 0; i < 150'000; ++i) trace.push_back(region(kHot, popular.next()));
  return trace;
}

// After a while one reads a file of `size` caches, `times`, as fast as the others read together.
Trace zipf_with_scan(uint64_t capacity, double size, int times) {
  Trace trace;
  const auto length = static_cast<uint64_t>(static_cast<double>(capacity) * size) / kRegionSize;
  uint64_t scanned = 0;
  for (const RegionRead& read : zipf(0.9)) {
    trace.push_back(read);
    if (trace.size() > 60'000 && scanned < length * static_cast<uint64_t>(times)) {
      trace.push_back(region(kScanned, scanned++ % length, false));
    }
  }
  return trace;
}

Trace loop(uint64_t regions) {
  Trace trace;
  for (uint64_t i = 0; i < regions * 20; ++i) trace.push_back(region(kHot, i % regions));
  return trace;
}

// Small files, some more popular than others, and now and then a run through a large file.
Trace mixture() {
  Zipf files(kSmallFiles, 0.8, 2), large(30, 0.8, 3);
  std::mt19937_64 random(4);
  Trace trace;
  while (trace.size() < 600'000) {
    for (int i = 0; i < 2000; ++i) trace.push_back({{kFirstSmall + files.next(), 0}, kSmallFile, true});
    const uint64_t file = large.next();
    const uint64_t first = random() % 100;
    for (uint64_t i = first; i < 100; ++i) trace.push_back(region(kScanned + file, i));
  }
  return trace;
}

// Everybody works in a tenth of the regions, which moves on: each is of interest for a time.
Trace shifting() {
  std::mt19937_64 random(5);
  Zipf place(kRegions / 10, 0.5, 6);
  Trace trace;
  for (uint64_t i = 0; i < 150'000; ++i) trace.push_back(region(kHot, (i / 15 + place.next()) % kRegions));
  return trace;
}

uint64_t footprint(const Trace& trace) {
  std::set<RegionKey> seen;
  uint64_t bytes = 0;
  for (const RegionRead& read : trace) {
    if (seen.insert(read.region).second) bytes += read.bytes;
  }
  return bytes;
}

// Of the bytes of hot reads, how many percent were there.
double hit_percent(CacheModel& cache, const Trace& trace) {
  uint64_t hits = 0, all = 0;
  for (const RegionRead& read : trace) {
    const bool hit = cache.read(read);
    if (!read.hot) continue;
    all += read.bytes;
    if (hit) hits += read.bytes;
  }
  return 100.0 * static_cast<double>(hits) / static_cast<double>(all);
}

struct Scenario {
  std::string name;
  bool same_size;
  uint64_t footprint;                       // what the size of the cache is a share of
  std::function<Trace(uint64_t)> generate;  // for a cache of so many bytes
};

void run(const Scenario& scenario, bool csv) {
  if (!csv) {
    fmt::print("\n{}, {:.1f} GB\n", scenario.name, static_cast<double>(scenario.footprint) / 1e9);
    fmt::print("{:>7} {:>9} {:>7} {:>7} {:>8} {:>17} {:>6}\n", "cache", "S3-FIFO", "LRU", "FIFO", "optimum",
               "judged per victim", "most");
  }
  for (const int percent : {5, 10, 20, 30, 40, 60, 80}) {
    const uint64_t capacity = scenario.footprint / 100 * static_cast<uint64_t>(percent);
    const Trace trace = scenario.generate(capacity);
    PolicyModel policy(capacity);
    LruModel lru(capacity);
    FifoModel fifo(capacity);
    const double ours = hit_percent(policy, trace), of_lru = hit_percent(lru, trace),
                 of_fifo = hit_percent(fifo, trace);
    std::optional<double> best;
    if (scenario.same_size) {
      OptimalModel optimal(capacity, trace);
      best = hit_percent(optimal, trace);
    }
    if (csv) {
      fmt::print("{},{},S3-FIFO,{:.2f}\n{},{},LRU,{:.2f}\n{},{},FIFO,{:.2f}\n", scenario.name, percent, ours,
                 scenario.name, percent, of_lru, scenario.name, percent, of_fifo);
      if (best) fmt::print("{},{},optimum,{:.2f}\n", scenario.name, percent, *best);
      continue;
    }
    const double victims = static_cast<double>(std::max<uint64_t>(policy.evicted(), 1));
    fmt::print("{:>5} % {:>9.1f} {:>7.1f} {:>7.1f} {:>8} {:>17.1f} {:>6}\n", percent, ours, of_lru, of_fifo,
               best ? fmt::format("{:.1f}", *best) : "-", static_cast<double>(policy.judged()) / victims,
               policy.most_judged_for_one());
  }
}

int main_with(bool csv) {
  const auto fixed = [](Trace trace) { return [trace = std::move(trace)](uint64_t) { return trace; }; };
  const Trace popular = zipf(0.9), mixed = mixture(), moving = shifting();
  const uint64_t hot = footprint(popular);
  run({"zipf", true, hot, fixed(popular)}, csv);
  run({"zipf, a scan of 3 caches", true, hot, [](uint64_t c) { return zipf_with_scan(c, 3, 1); }}, csv);
  run({"zipf, half a cache read twice", true, hot, [](uint64_t c) { return zipf_with_scan(c, 0.5, 2); }}, csv);
  run({"loop over 1.1 caches", true, hot, [](uint64_t c) { return loop(c * 11 / 10 / kRegionSize); }}, csv);
  run({"small and large files", false, footprint(mixed), fixed(mixed)}, csv);
  run({"a working set that moves", true, footprint(moving), fixed(moving)}, csv);
  return 0;
}

}  // namespace
}  // namespace wormhole

int main(int argc, char** argv) {
  const bool csv = argc == 2 && std::string_view(argv[1]) == "--csv";
  if (argc > 1 && !csv) {
    fmt::print(stderr, "usage: eviction_simulation [--csv]\n");
    return 2;
  }
  return wormhole::main_with(csv);
}
