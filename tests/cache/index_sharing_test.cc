// Files with the same bytes have one object, until the last of them is gone.
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "cache/index.h"
#include "cache/index_check.h"
#include "tests/support/child_process.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

ContentKey content(uint8_t first_byte, uint64_t size = 1000) {
  ContentKey key{{}, size};
  key.hash.bytes[0] = first_byte;
  return key;
}

class IndexSharingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(path_);
    open();
    for (Ino& file : files_) file = index_->allocate_ino();
  }
  void open() {
    auto opened = Index::open(path_, metrics_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index_ = std::move(*opened);
  }
  void reopen() {
    index_.reset();
    open();
  }
  // The same must hold of what is posted, of what is committed, and after a new start.
  template <typename F>
  void at_each_stage(F check) {
    check();
    index_->flush();
    check();
    reopen();
    check();
  }

  test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "index";
  Metrics metrics_;
  std::unique_ptr<Index> index_;
  std::array<Ino, 4> files_{};
};

TEST_F(IndexSharingTest, TheFirstFileOfAContentHasTheObject) {
  EXPECT_EQ(index_->shared(content(1)), std::nullopt);
  EXPECT_EQ(index_->share(content(1), files_[0]), files_[0]);
  at_each_stage([&] {
    EXPECT_EQ(index_->share(content(1), files_[1]), files_[0]);
    EXPECT_EQ(index_->share(content(1), files_[0]), files_[0]);
    EXPECT_EQ(index_->share(content(1), files_[1]), files_[0]) << "again";
    EXPECT_EQ(index_->shared(content(1)), files_[0]);
    EXPECT_EQ(index_->object_of(files_[1]), files_[0]);
    EXPECT_EQ(index_->object_of(files_[0]), files_[0]);
    EXPECT_EQ(index_->object_of(files_[2]), files_[2]) << "it shares with nobody";
  });
}

TEST_F(IndexSharingTest, AnotherHashOrAnotherSizeIsAnotherContent) {
  index_->share(content(1), files_[0]);
  EXPECT_EQ(index_->share(content(2), files_[1]), files_[1]);
  EXPECT_EQ(index_->share(content(1, 999), files_[2]), files_[2]);
  EXPECT_EQ(index_->share(content(1, 1001), files_[3]), files_[3]);
}

TEST_F(IndexSharingTest, TheObjectIsUnusedAfterTheLastFile) {
  for (const Ino file : {files_[0], files_[1], files_[2]}) index_->share(content(1), file);
  index_->flush();
  EXPECT_EQ(index_->unshare(content(1), files_[0]), std::nullopt) << "two others use it";
  EXPECT_EQ(index_->unshare(content(1), files_[0]), std::nullopt) << "it did not use it any more";
  at_each_stage([&] { EXPECT_EQ(index_->share(content(1), files_[1]), files_[0]); });
  EXPECT_EQ(index_->unshare(content(1), files_[2]), std::nullopt);
  EXPECT_EQ(index_->unshare(content(1), files_[1]), files_[0]);
  at_each_stage([&] {
    EXPECT_EQ(index_->shared(content(1)), std::nullopt);
    EXPECT_EQ(index_->object_of(files_[1]), files_[1]);
    EXPECT_EQ(index_->unshare(content(1), files_[1]), std::nullopt);
  });
  EXPECT_EQ(index_->share(content(1), files_[3]), files_[3]) << "a new object";
}

TEST_F(IndexSharingTest, OfFilesThatComeAtOnceAllHaveOneObject) {
  for (uint8_t round = 0; round < 50; ++round) {
    std::array<Ino, 4> objects{};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < objects.size(); ++i)
      threads.emplace_back([&, i] { objects[i] = index_->share(content(round), files_[i]); });
    for (std::thread& t : threads) t.join();
    for (const Ino object : objects) ASSERT_EQ(object, objects[0]);
  }
}

TEST_F(IndexSharingTest, ACheckOfTheIndexFindsItSound) {
  for (const Ino file : files_) index_->share(content(1), file);
  index_->unshare(content(1), files_[2]);
  index_.reset();
  const auto report = check_index(path_);
  EXPECT_TRUE(report.has_value()) << report.error().message;
}

TEST_F(IndexSharingTest, ANumberThatWasNeverGivenIsDamage) {
  index_->share(content(1), files_[0] + (uint64_t{1} << 40));
  index_.reset();
  EXPECT_FALSE(check_index(path_).has_value());
}

}  // namespace
}  // namespace wormhole
