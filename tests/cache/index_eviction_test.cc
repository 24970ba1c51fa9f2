// Whom the index asks to let go, and when it asks again.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <mutex>

#include "cache/index.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;

constexpr Ino kFile = 1000;
constexpr uint64_t kRegions = 100;

class IndexEvictionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(directory_ / "index");
    auto opened = Index::open(directory_ / "index", metrics_, clock_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index_ = std::move(*opened);
    const auto file = std::make_shared<FileDescriptor>(::open((directory_ / "file").c_str(), O_RDWR | O_CREAT, 0600));
    index_->put_object(kFile, ObjectRecord{kRegions * kRegionSize, {"\"v1\"", ""}});
    for (uint64_t r = 0; r < kRegions; ++r) {
      index_->put_blocks({kFile, file, r * kBlocksPerRegion, std::vector<uint64_t>(kBlocksPerRegion), kRegionSize}, {});
    }
    index_->flush();
  }
  void TearDown() override { index_->stop_evicting(); }

  // From here on the cache is far above its limit, and so many owners are to answer each question.
  void start_evicting(size_t owners) {
    index_->start_evicting(space_, [this, owners](std::vector<RegionKey> regions) {
      std::lock_guard lock(mutex_);
      ++asked_;
      chosen_ = std::move(regions);
      return owners;
    });
    settle();
  }
  // The index chooses behind each commit: the second of two commits comes after the choice of the first.
  void settle() {
    for (int i = 0; i < 2; ++i) {
      index_->put_host("http://x", "");
      index_->flush();
    }
  }
  void answer(std::vector<RegionKey> going) {
    index_->evict(std::move(going), Index::EvictionFor::kRoom,
                  [this](bool, uint64_t bytes) { space_.end_eviction(bytes); });
    settle();
  }
  int asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }
  RegionKey chosen(size_t number) {
    std::lock_guard lock(mutex_);
    return chosen_.at(number);
  }

  test::TemporaryDirectory directory_;
  Metrics metrics_;
  test::ManualClock clock_;
  Space space_{SpaceOptions{directory_.path(), 10 * kRegionSize, 0}, metrics_};
  std::unique_ptr<Index> index_;
  std::mutex mutex_;
  int asked_ = 0;
  std::vector<RegionKey> chosen_;
};

TEST_F(IndexEvictionTest, AsksAgainWhenAllOwnersHaveAnswered) {
  start_evicting(3);
  ASSERT_EQ(asked(), 1);
  answer({chosen(0)});
  answer({});
  EXPECT_EQ(asked(), 1);
  answer({chosen(1), chosen(2)});
  EXPECT_EQ(asked(), 2);
}

TEST_F(IndexEvictionTest, WhatSomebodyWantsToGoIsNoAnswer) {
  start_evicting(1);
  index_->evict({chosen(0)}, Index::EvictionFor::kRequest,
                [this](bool, uint64_t bytes) { space_.end_eviction(bytes); });
  settle();
  EXPECT_EQ(asked(), 1);
  answer({chosen(1)});
  EXPECT_EQ(asked(), 2);
}

TEST_F(IndexEvictionTest, RestsAWhileWhenAllOwnersHadToKeepWhatTheyHave) {
  start_evicting(2);
  answer({});
  answer({});
  EXPECT_EQ(asked(), 1);
  clock_.advance(2s);
  settle();
  EXPECT_EQ(asked(), 2);
}

TEST_F(IndexEvictionTest, DoesNotRestWhenOneOwnerHasLetGo) {
  start_evicting(2);
  answer({chosen(0)});
  answer({});
  EXPECT_EQ(asked(), 2);
}

}  // namespace
}  // namespace wormhole
