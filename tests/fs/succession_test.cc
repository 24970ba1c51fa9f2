// Which objects go when versions are superseded, and which stay for those that follow.
#include "fs/succession.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SuccessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(path_);
    auto opened = Index::open(path_, metrics_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    index_ = std::move(*opened);
  }

  static ListedEntry file(std::string name, uint8_t hash, uint64_t size = 1000) {
    ListedEntry e{std::move(name), EntryType::kFile, size, 1, 1};
    e.mode = 0644;
    auto content = std::make_shared<Content>();
    content->hash.bytes[0] = hash;
    e.content = std::move(content);
    return e;
  }
  static ListedEntry plain(std::string name, int64_t mtime) {
    return {std::move(name), EntryType::kFile, 1000, mtime, 1};
  }
  // The next listing. Returns what is unused since.
  std::vector<Ino> list(std::vector<ListedEntry> entries) {
    MergeResult merged = merge_listing(known_ ? &*known_ : nullptr, 1, Listing{std::move(entries), 0}, 100,
                                       [this] { return index_->allocate_ino(); });
    std::vector<Ino> unused = settle_succession(*index_, &merged);
    // As it is kept.
    auto kept = decode_directory(1, encode(merged.directory));
    EXPECT_EQ(encode(*kept), encode(merged.directory));
    known_ = std::move(*kept);
    return unused;
  }
  // Somebody reads it.
  Ino read(const std::string& name) {
    const DirectoryEntry& e = *known_->find(name);
    return index_->share({e.content->hash, *e.size}, e.ino);
  }
  Ino ino(const std::string& name) { return known_->find(name)->ino; }
  std::optional<Predecessor> predecessor(const std::string& name) { return known_->find(name)->content->predecessor; }

  test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "index";
  Metrics metrics_;
  std::unique_ptr<Index> index_;
  std::optional<Directory> known_;
};

TEST_F(SuccessionTest, ANewVersionFollowsTheOneThatWasRead) {
  list({file("a", 1)});
  const Ino first = read("a");
  EXPECT_THAT(list({file("a", 2)}), IsEmpty()) << "the new one may have blocks of it";
  ASSERT_TRUE(predecessor("a"));
  EXPECT_EQ(predecessor("a")->file, first);
  EXPECT_EQ(predecessor("a")->content.hash.bytes[0], 1);
  const Ino second = read("a");
  EXPECT_NE(second, first);
  EXPECT_THAT(list({file("a", 3)}), ElementsAre(first));
  EXPECT_EQ(predecessor("a")->file, second);
}

TEST_F(SuccessionTest, AVersionThatNobodyHasReadHandsOnTheOneBefore) {
  list({file("a", 1)});
  const Ino first = read("a");
  for (uint8_t hash = 2; hash < 6; ++hash) EXPECT_THAT(list({file("a", hash)}), IsEmpty());
  EXPECT_EQ(predecessor("a")->file, first);
}

TEST_F(SuccessionTest, AnUnchangedFileKeepsItsPredecessor) {
  list({file("a", 1)});
  read("a");
  list({file("a", 2)});
  const auto before = predecessor("a");
  EXPECT_THAT(list({file("a", 2), file("b", 9)}), IsEmpty());
  EXPECT_EQ(predecessor("a"), before);
}

TEST_F(SuccessionTest, AFileThatIsGoneTakesItsVersionsWithIt) {
  list({file("a", 1)});
  const Ino first = read("a");
  list({file("a", 2)});
  const Ino second = read("a");
  EXPECT_THAT(list({}), ::testing::UnorderedElementsAre(first, second));
}

TEST_F(SuccessionTest, WhatAnotherFileHasStays) {
  list({file("a", 1), file("b", 1)});
  const Ino object = read("a");
  EXPECT_EQ(read("b"), object);
  EXPECT_THAT(list({file("b", 1)}), IsEmpty());
  EXPECT_EQ(read("b"), object);
  EXPECT_THAT(list({}), ElementsAre(object));
}

TEST_F(SuccessionTest, AFileThatIsRenamedKeepsItsBytes) {
  list({file("a", 1), file("z", 7)});
  const Ino object = read("a");
  EXPECT_THAT(list({file("b", 1), file("z", 7)}), IsEmpty());
  EXPECT_EQ(read("b"), object);
  EXPECT_EQ(index_->object_of(ino("z")), ino("z")) << "nobody has read it";
}

TEST_F(SuccessionTest, FilesWithoutAHashGoAtOnce) {
  list({plain("a", 1)});
  const Ino first = ino("a");
  EXPECT_THAT(list({plain("a", 2)}), ElementsAre(first));
  const Ino second = ino("a");
  EXPECT_THAT(list({file("a", 1)}), ElementsAre(second)) << "nothing is known of its blocks";
  EXPECT_EQ(predecessor("a"), std::nullopt);
}

}  // namespace
}  // namespace wormhole
