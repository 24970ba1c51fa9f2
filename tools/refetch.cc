#include "tools/refetch.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace wormhole {
namespace {

// As `wormhole warm` reads: what is small costs a round trip each.
constexpr size_t kRangesAtOnce = 16;

// So many in a row that do not come: the server is gone, and each further one would cost a timeout.
constexpr size_t kHopeless = 64;

constexpr Duration kTellEvery = std::chrono::milliseconds(100);

// What has come is being stored a moment longer.
constexpr Duration kSettle = std::chrono::milliseconds(20);
constexpr int kSettleRounds = 50;

}  // namespace

// Shared with the replies: they may come after the run was ended.
struct Refetch::State {
  explicit State(size_t items) : why(items) {}

  std::mutex mutex;
  std::condition_variable changed;
  size_t under_way = 0;
  uint64_t bytes = 0;  // since they were last told
  size_t failed_in_a_row = 0;
  std::vector<std::string> why;  // for each item, why it has not come

  void end(size_t item, uint64_t got, std::string reason) {
    {
      std::lock_guard lock(mutex);
      --under_way;
      bytes += got;
      failed_in_a_row = reason.empty() ? 0 : failed_in_a_row + 1;
      why[item] = std::move(reason);
    }
    changed.notify_one();
  }
};

std::optional<std::vector<NotRefetched>> Refetch::run(const std::vector<WrongBytes>& lost) {
  state_ = std::make_shared<State>(lost.size());
  size_t begun = 0;
  for (; begun < lost.size(); ++begun) {
    if (!wait_until_under_way_at_most(kRangesAtOnce - 1)) return std::nullopt;
    std::unique_lock lock(state_->mutex);
    if (state_->failed_in_a_row >= kHopeless) break;
    ++state_->under_way;
    lock.unlock();
    begin(begun, lost[begun]);
  }
  if (!wait_until_under_way_at_most(0)) return std::nullopt;
  std::vector<NotRefetched> out;
  int rounds = 0;
  for (size_t i = 0; i < lost.size(); ++i) {
    std::string why = i < begun ? state_->why[i] : "given up: those before it did not come either";
    if (why.empty()) {
      while (!is_cached(lost[i]) && rounds++ < kSettleRounds) std::this_thread::sleep_for(kSettle);
      if (is_cached(lost[i])) continue;
      why = "it has come, but the cache did not take it";
    }
    out.push_back({lost[i].ino, lost[i].range.size(), std::move(why)});
  }
  return out;
}

void Refetch::begin(size_t item, const WrongBytes& lost) {
  filesystem_.open(lost.ino, [&fs = filesystem_, state = state_, item, range = lost.range](Result<OpenFile*> opened) {
    if (!opened) return state->end(item, 0, opened.error().message);
    OpenFile& file = **opened;
    fs.read(file, range, [&fs, state, item, &file](Result<std::span<const iovec>> bytes) {
      uint64_t got = 0;
      if (bytes) {
        for (const iovec& part : *bytes) got += part.iov_len;
      }
      fs.passthrough().abandon(fs.release(file));
      state->end(item, got, bytes ? "" : bytes.error().message);
    });
  });
}

bool Refetch::wait_until_under_way_at_most(size_t count) {
  while (true) {
    uint64_t bytes = 0;
    bool through = false;
    {
      std::unique_lock lock(state_->mutex);
      through = state_->changed.wait_for(lock, kTellEvery, [this, count] { return state_->under_way <= count; });
      if (!through || count == 0) bytes = std::exchange(state_->bytes, 0);
    }
    if ((!through || count == 0) && !tell_(bytes)) return false;
    if (through) return true;
  }
}

bool Refetch::is_cached(const WrongBytes& bytes) const {
  const auto record = index_.region({index_.object_of(bytes.ino), bytes.range.begin / kRegionSize});
  if (!record) return false;
  for (BlockIndex b = block_of(bytes.range.begin); b <= block_of(bytes.range.end - 1); ++b) {
    if (!record->has(b % kBlocksPerRegion)) return false;
  }
  return true;
}

}  // namespace wormhole
