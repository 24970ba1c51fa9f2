// How fast the cache engine is by itself: event loop, block cache and index as the daemon has them, on real files,
// without FUSE and without a network.
//
//   engine_bench DIR --lay-out --data 1G                        a cache in DIR that holds so much, for reads
//   engine_bench DIR --work read --size 4K --depth 16           one cell: prints a JSON object
//
// A cell is `depth` chains of requests on the loop's own thread; each begins its next request where the last one ends.
//
//   read         is the block there (BlockCache::has)? then read it (BlockCache::read)
//   store        a range of whole blocks arrives in memory: checksum, write, record (BlockCache::store)
//   store-small  the same with an object for each request, as in a tree of small files: made, stored, closed
//   mixed        read, and for 30 of 100 requests store; what is stored is never less than a block, as in a miss
//
// Requests visit each place once, in order or shuffled; a cell is over after `seconds`, or when no place is left. Only
// reads from the page cache begin again. A cell with stores ends when the index has committed them all, and what it has
// stored is dropped behind its clock, unless it is to --keep it. Each page carries its own address, and each read is
// checked for it: bytes from the wrong place, or none, end the program.
//
// tools/bench/engine.py runs it beside fio.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "cache/block_cache.h"
#include "cache/index.h"

namespace wormhole {
namespace {

namespace fs = std::filesystem;

// What lies in an object: large enough that opening it is nothing beside its requests, small enough that a run visits
// several.
constexpr uint64_t kObjectSize = 64 << 20;
// The numbers of laid-out objects, far away from those that the index gives out.
constexpr Ino kFirstLaidOut = Ino{1} << 40;
// What the daemon has for its buffers unless it is told otherwise (tools/mount_options.h).
constexpr uint64_t kBufferBudget = 256 << 20;
// Of 100 requests of `mixed`.
constexpr unsigned kStoresOfAHundred = 30;
// The kernel's page, which is also what direct I/O is cut into.
constexpr uint64_t kPage = 4096;
// Figures of two runs differ by the machine, not by the places that were visited.
constexpr uint64_t kSeed = 1;

struct Options {
  std::string directory;
  bool lay_out = false;
  bool keep = false;
  std::string work = "read";
  std::string order = "random";
  std::string page_cache = "cold";
  uint64_t data = 1 << 30;
  uint64_t size = kPage;
  unsigned depth = 16;
  double seconds = 2;
  uint64_t requests = ~uint64_t{0};
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "engine_bench: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
T expect(Result<T> result) {
  if (!result) die(result.error().message);
  return std::move(*result);
}

double seconds_since(TimePoint begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What stands at the begin of the page at `offset`.
uint64_t address_mark(Ino ino, uint64_t offset) { return (ino * 0x9e3779b97f4a7c15ull) ^ offset; }

// The places of requests, each once.
class Places {
 public:
  Places(uint64_t data, uint64_t size, bool shuffled, bool again) : size_(size), again_(again) {
    order_.resize(data / size);
    std::iota(order_.begin(), order_.end(), 0u);
    if (shuffled) std::shuffle(order_.begin(), order_.end(), std::mt19937_64(kSeed));
  }
  bool left() const { return next_ < order_.size() || (again_ && !order_.empty()); }
  uint64_t take() {
    if (next_ == order_.size()) next_ = 0;
    return order_[next_++] * size_;
  }

 private:
  const uint64_t size_;
  const bool again_;
  std::vector<uint32_t> order_;
  size_t next_ = 0;
};

class Bench {
 public:
  explicit Bench(Options options)
      : options_(std::move(options)),
        reads_(options_.work == "read" || options_.work == "mixed"),
        stores_(options_.work != "read"),
        small_(options_.work == "store-small"),
        store_size_(options_.work == "mixed" ? std::max(options_.size, kBlockSize) : options_.size),
        read_places_(options_.data, options_.size, options_.order == "random", options_.page_cache == "warm"),
        store_places_(options_.data, store_size_, options_.order == "random", false) {
    fs::create_directories(options_.directory + "/index");
    fs::create_directories(objects_path());
    index_ = expect(Index::open(options_.directory + "/index", metrics_));
    loop_ = EventLoop::create();
    BlockCacheOptions cache;
    cache.objects_path = objects_path();
    cache_ = std::make_unique<BlockCache>(cache, space_, *index_, *loop_, buffers_, metrics_);
  }

  void lay_out() {
    Places places(options_.data, 1 << 20, false, false);
    for (uint64_t i = 0; i * kObjectSize < options_.data; ++i) {
      const Ino ino = kFirstLaidOut + i;
      index_->put_object(ino, record(kObjectSize));
      cache_->open(ino, kObjectSize, true);
    }
    std::function<void()> next = [&] {
      if (!places.left()) return loop_->stop();
      const uint64_t place = places.take();
      const Ino ino = kFirstLaidOut + place / kObjectSize;
      const ByteRange range{place % kObjectSize, place % kObjectSize + (1 << 20)};
      BufferRef bytes = arrived(1 << 20);
      mark(*bytes, ino, range);
      cache_->store(ino, range, std::move(bytes), BlockCache::PageCache::kBypass, [&](bool ok) {
        if (!ok) die("a block could not be stored");
        next();
      });
    };
    loop_->post([&] { next(); });
    loop_->run();
    index_->flush();
  }

  nlohmann::json run() {
    if (reads_) open_laid_out();
    if (stores_ && !small_) make_objects();
    chains_.resize(options_.depth);
    for (Chain& chain : chains_) {
      if (stores_) chain.bytes = arrived(store_size_);
    }
    const double cpu = cpu_seconds();
    begin_ = std::chrono::steady_clock::now();
    loop_->post([this] {
      running_ = options_.depth;
      for (Chain& chain : chains_) next(chain);
    });
    loop_->run();
    const double answered = seconds_since(begin_);
    if (stores_) index_->flush();
    const double seconds = seconds_since(begin_);
    nlohmann::json result{{"requests", requests_},
                          {"bytes", bytes_},
                          {"seconds", seconds},
                          {"seconds_until_answered", answered},
                          {"commits", metrics_.index_commits.load()},
                          {"cpu_seconds", cpu_seconds() - cpu},
                          {"loop", loop_->name()}};
    if (!options_.keep) clean_up();
    return result;
  }

 private:
  struct Chain {
    BufferRef bytes;  // what "arrives"
  };

  std::string objects_path() const { return options_.directory + "/objects"; }
  static ObjectRecord record(uint64_t size) { return ObjectRecord{size, {"\"engine_bench\"", ""}}; }

  // --- before the clock ---

  BufferRef arrived(uint64_t size) {
    BufferRef bytes = buffers_.allocate(size);
    std::mt19937_64 random(kSeed);
    for (uint64_t at = 0; at < size; at += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(bytes->data() + at, &word, sizeof word);
    }
    return bytes;
  }

  void open_laid_out() {
    // What earlier cells have written is on disk: only clean pages can be dropped.
    ::sync();
    for (uint64_t i = 0; i * kObjectSize < options_.data; ++i) {
      const Ino ino = kFirstLaidOut + i;
      if (!index_->object(ino)) die("not so much is laid out: --lay-out first");
      cache_->open(ino, kObjectSize, true);
      const std::string path = fmt::format("{}/{:02x}/{:016x}", objects_path(), ino & 0xff, ino);
      const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (!file) die("cannot open " + path);
      ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
      if (options_.page_cache != "warm") continue;
      std::vector<std::byte> into(1 << 20);
      while (::read(file.get(), into.data(), into.size()) > 0) continue;
    }
  }

  void make_objects() {
    for (uint64_t i = 0; i * kObjectSize < options_.data; ++i) {
      made_.push_back(index_->allocate_ino());
      index_->put_object(made_.back(), record(kObjectSize));
      cache_->open(made_.back(), kObjectSize, true);
    }
    index_->flush();
  }

  // --- requests ---

  bool over() const { return begun_ >= options_.requests || seconds_since(begin_) >= options_.seconds; }

  void next(Chain& chain) {
    const bool store = stores_ && (!reads_ || random_() % 100 < kStoresOfAHundred);
    if (over() || !(store ? store_places_ : read_places_).left()) {
      if (--running_ == 0) loop_->stop();
      return;
    }
    ++begun_;
    if (!store) return read(chain);
    small_ ? store_small(chain) : store_blocks(chain);
  }

  void answered(Chain& chain, uint64_t bytes) {
    ++requests_;
    bytes_ += bytes;
    next(chain);
  }

  void read(Chain& chain) {
    const uint64_t place = read_places_.take();
    const Ino ino = kFirstLaidOut + place / kObjectSize;
    const ByteRange range{place % kObjectSize, place % kObjectSize + options_.size};
    for (BlockIndex b = block_of(range.begin); b <= block_of(range.end - 1); ++b) {
      if (!cache_->has(ino, b)) die("a block that was laid out is not there");
    }
    cache_->read(ino, range, [this, &chain, ino, range](Result<BlockCache::ReadResult> result) {
      const BlockCache::ReadResult got = expect(std::move(result));
      uint64_t mark = 0;
      std::memcpy(&mark, got.bytes->data() + got.skip, sizeof mark);
      if (mark != address_mark(ino, range.begin)) die("wrong bytes");
      answered(chain, range.size());
    });
  }

  static void mark(Buffer& bytes, Ino ino, ByteRange range) {
    for (uint64_t at = range.begin; at < range.end; at += kPage) {
      const uint64_t word = address_mark(ino, at);
      std::memcpy(bytes.data() + (at - range.begin), &word, sizeof word);
    }
  }

  BlockCache::PageCache store_mode() const {
    return options_.page_cache == "warm" ? BlockCache::PageCache::kKeep : BlockCache::PageCache::kBypass;
  }

  void store_blocks(Chain& chain) {
    const uint64_t place = store_places_.take();
    const Ino ino = made_[place / kObjectSize];
    const ByteRange range{place % kObjectSize, place % kObjectSize + store_size_};
    mark(*chain.bytes, ino, range);
    cache_->store(ino, range, chain.bytes, store_mode(), [this, &chain](bool ok) {
      if (!ok) die("a block could not be stored");
      answered(chain, store_size_);
    });
  }

  void store_small(Chain& chain) {
    store_places_.take();
    const Ino ino = index_->allocate_ino();
    made_.push_back(ino);
    index_->put_object(ino, record(store_size_));
    cache_->open(ino, store_size_, true);
    const ByteRange range{0, store_size_};
    mark(*chain.bytes, ino, range);
    cache_->store(ino, range, chain.bytes, store_mode(), [this, &chain, ino](bool ok) {
      if (!ok) die("a block could not be stored");
      cache_->close(ino);
      answered(chain, store_size_);
    });
  }

  // --- behind it ---

  void clean_up() {
    for (const Ino ino : made_) {
      if (!small_) cache_->close(ino);
      cache_->drop(ino);
    }
    index_->flush();
  }

  const Options options_;
  const bool reads_, stores_, small_;
  const uint64_t store_size_;
  Places read_places_, store_places_;

  Metrics metrics_;
  BufferPool buffers_{kBufferBudget, metrics_};
  Space space_{SpaceOptions{"/", ~uint64_t{0} >> 1, 0}, metrics_};  // never full
  std::unique_ptr<Index> index_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<BlockCache> cache_;
  std::vector<Ino> made_;

  std::vector<Chain> chains_;
  std::minstd_rand random_{kSeed};
  TimePoint begin_{};
  unsigned running_ = 0;
  uint64_t begun_ = 0, requests_ = 0, bytes_ = 0;
};

Options parse(int argc, char** argv) {
  Options o;
  CLI::App app("How fast the cache engine is by itself: one cell, as a JSON object", "engine_bench");
  app.add_option("directory", o.directory, "where the cache is")->required();
  app.add_flag("--lay-out", o.lay_out, "store what cells read");
  app.add_flag("--keep", o.keep, "leave what was stored");
  app.add_option("--work", o.work)->check(CLI::IsMember({"read", "store", "store-small", "mixed"}));
  app.add_option("--order", o.order)->check(CLI::IsMember({"random", "sequential"}));
  app.add_option("--page-cache", o.page_cache,
                 "cold: it holds nothing of what is read, and is bypassed by what is stored; warm: it holds all")
      ->check(CLI::IsMember({"cold", "warm"}));
  app.add_option("--data", o.data, "bytes that are laid out, and the most that is stored")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--size", o.size, "bytes of a request")->transform(CLI::AsSizeValue(false));
  app.add_option("--depth", o.depth, "requests at a time")->check(CLI::PositiveNumber);
  app.add_option("--seconds", o.seconds, "how long a cell takes at most");
  app.add_option("--requests", o.requests, "how many it has at most");
  try {
    app.parse(argc, argv);
    if (o.data == 0 || o.data % kObjectSize != 0) throw CLI::ValidationError("--data", "must be a multiple of 64 MiB");
    if (o.size < kPage || o.size > (1 << 20) || (o.size & (o.size - 1)) != 0)
      throw CLI::ValidationError("--size", "must be a power of two from 4K to 1M");
    if (o.work == "store" && o.size < kBlockSize)
      throw CLI::ValidationError("--size", "only whole blocks are stored: 64K and more, or --work store-small");
    if (o.work == "store-small" && o.size > kBlockSize)
      throw CLI::ValidationError("--size", "a small object has one block: 64K at most");
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return o;
}

}  // namespace
}  // namespace wormhole

int main(int argc, char** argv) {
  const wormhole::Options options = wormhole::parse(argc, argv);
  wormhole::Bench bench(options);
  if (options.lay_out) {
    bench.lay_out();
  } else {
    std::printf("%s\n", bench.run().dump().c_str());
  }
}
