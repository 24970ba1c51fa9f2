#include "fs/engine.h"

#include <fmt/format.h>

#include <future>
#include <utility>

#include "base/thread.h"

namespace wormhole {
namespace {

// Deadlines of whole-body readers, in seconds: looked at as often.
constexpr Duration kTick = std::chrono::seconds(1);

}  // namespace

// Carries the fetcher's events from the net thread to the engine's.
class Engine::Sink final : public FetchSink {
 public:
  explicit Sink(Engine& engine) : engine_(engine) {}

  void fetch_head(FetchId id, ObjectHead head) override {
    auto shared = std::make_unique<ObjectHead>(std::move(head));
    engine_.loop_->post([&e = engine_, id, h = std::move(shared)] { e.verified_->fetch_head(id, std::move(*h)); });
  }
  void fetch_progress(FetchId id, uint64_t arrived) override {
    engine_.loop_->post([&e = engine_, id, arrived] { e.verified_->fetch_progress(id, arrived); });
  }
  void fetch_behind(FetchId id, ByteRange there) override {
    engine_.loop_->post([&e = engine_, id, there] { e.verified_->fetch_behind(id, there); });
  }
  void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override {
    engine_.loop_->post([&e = engine_, id, range, b = std::move(bytes)]() mutable {
      e.verified_->fetch_chunk(id, range, std::move(b));
    });
  }
  void fetch_done(FetchId id, Status status) override {
    engine_.loop_->post(
        [&e = engine_, id, s = std::move(status)]() mutable { e.verified_->fetch_done(id, std::move(s)); });
  }

 private:
  Engine& engine_;
};

Engine::Engine(unsigned number, BlockReaderOptions reader, BlockCacheOptions cache, EngineBase base, AllReaders& all,
               BlockReader::OnStale on_stale, BlockReader::AskOthers ask_others)
    : reader_options_(reader),
      cache_options_(std::move(cache)),
      base_(base),
      all_(all),
      on_stale_(std::move(on_stale)),
      ask_others_(std::move(ask_others)) {
  std::promise<void> ready;
  thread_ = start_thread(fmt::format("wh-engine-{}", number), [this, &ready] { run([&ready] { ready.set_value(); }); });
  ready.get_future().wait();
}

Engine::~Engine() { stop(); }

// The ring belongs to the thread that makes it, so everything is made here.
void Engine::run(const std::function<void()>& ready) {
  loop_ = EventLoop::create();
  io_backend_ = loop_->name();
  cache_ = std::make_unique<BlockCache>(cache_options_, base_.space, base_.index, *loop_, base_.buffers, base_.metrics);
  sink_ = std::make_shared<Sink>(*this);
  verified_ = std::make_unique<VerifiedFetches>(base_.fetcher, base_.buffers, base_.metrics, all_, sink_,
                                                [this](Task task) { loop_->post(std::move(task)); });
  inherited_ =
      std::make_unique<InheritedBlocks>(cache_options_.objects_path, *verified_, base_.index, *loop_, base_.metrics,
                                        all_, [this](Task task) { loop_->post(std::move(task)); });
  reader_ = std::make_unique<BlockReader>(reader_options_, *cache_, base_.index, *inherited_, base_.buffers,
                                          base_.metrics, base_.clock, all_, sink_, on_stale_, ask_others_);
  verified_->set_reader(*inherited_);
  inherited_->set_reader(*reader_);
  loop_->every(kTick, [this] {
    reader_->tick();
    if (scrubber_) scrubber_->tick();
    reclaim_later();
  });
  ready();
  loop_->run();
}

void Engine::open(OpenFileRef file, std::string url, Opened opened) {
  const bool now = static_cast<bool>(opened);
  Task task = [this, file = std::move(file), url = std::move(url), opened = std::move(opened)]() mutable {
    const Ino ino = file->ino();
    const uint64_t size = file->size();
    ContentRef content = file->content();
    reader_->open(ino, size, std::move(url), std::move(file), std::move(content));
    if (opened) opened();
  };
  now ? loop_->post(std::move(task)) : loop_->post_later(std::move(task));
}

void Engine::close(Ino ino, bool now) {
  Task task = [this, ino] { reader_->close(ino); };
  now ? loop_->post(std::move(task)) : loop_->post_later(std::move(task));
}

void Engine::read(Ino ino, ByteRange range, ReadReply reply) {
  loop_->post([this, ino, range, reply = std::move(reply)]() mutable { reader_->read(ino, range, std::move(reply)); });
}

void Engine::fetch_whole(Ino ino, uint64_t size, std::string url, ContentRef content, Lane lane,
                         BlockReader::WholeDone done) {
  // Too much for a message by itself.
  auto place = std::make_unique<std::pair<std::string, ContentRef>>(std::move(url), std::move(content));
  loop_->post([this, ino, size, place = std::move(place), lane, done = std::move(done)]() mutable {
    reader_->fetch_whole(ino, size, std::move(place->first), std::move(place->second), lane, std::move(done));
  });
}

void Engine::drop(std::vector<Ino> inos) {
  loop_->post([this, inos = std::move(inos)] {
    for (const Ino ino : inos) cache_->drop(ino);
  });
}

void Engine::evict(std::vector<RegionKey> regions) {
  loop_->post([this, regions = std::move(regions)] {
    cache_->evict(regions, [this](Task task) { loop_->post(std::move(task)); });
  });
}

void Engine::evict_on_request(std::vector<RegionKey> regions, BlockCache::EvictionDone done) {
  loop_->post([this, regions = std::move(regions), done = std::move(done)]() mutable {
    for (size_t i = 0; i < regions.size(); ++i) {
      if (i == 0 || regions[i].ino != regions[i - 1].ino) reader_->forget(regions[i].ino);
    }
    cache_->evict_on_request(
        regions, [this](Task task) { loop_->post(std::move(task)); }, std::move(done));
  });
}

void Engine::check_region(RegionKey key, CheckDone done) {
  loop_->post([this, key, done = std::move(done)]() mutable { cache_->check_region(key, std::move(done)); });
}

void Engine::trust_index(uint64_t failures) {
  loop_->post([this, failures] { cache_->trust_index(failures); });
}

void Engine::reclaim(Ino ino) {
  loop_->post([this, ino] { try_to_reclaim(ino); });
}

void Engine::try_to_reclaim(Ino ino) {
  if (!cache_->reclaim(ino)) in_use_.push_back(ino);
}

void Engine::reclaim_later() {
  for (const Ino ino : std::exchange(in_use_, {})) try_to_reclaim(ino);
}

void Engine::give_back(uint64_t bytes) {
  loop_->post([this, bytes] { reader_->give_back(bytes); });
}

void Engine::run_scrubber(std::unique_ptr<Scrubber> scrubber) {
  loop_->post([this, scrubber = std::move(scrubber)]() mutable { scrubber_ = std::move(scrubber); });
}

void Engine::all_checked(uint64_t failures) {
  loop_->post([this, failures] { scrubber_->all_checked(failures); });
}

void Engine::stop() {
  if (!thread_.joinable()) return;
  loop_->post([this] {
    if (scrubber_) scrubber_->stop();
    reader_->shut_down();
  });
  loop_->stop();
  thread_.join();
}

}  // namespace wormhole
