#include "fs/directory.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr int64_t kNow = 1'800'000'000;
constexpr int64_t kLongAgo = kNow - 1'000'000;

ListedEntry file(std::string name, uint64_t size, int64_t mtime = kLongAgo) {
  return {std::move(name), EntryType::kFile, size, mtime, 60};
}

ListedEntry directory(std::string name) { return {std::move(name), EntryType::kDirectory, std::nullopt, kLongAgo, 60}; }

class MergeTest : public testing::Test {
 protected:
  MergeResult merge(std::vector<ListedEntry> entries, int64_t now = kNow) {
    MergeResult result = merge_listing(has_old_ ? &old_ : nullptr, 7, Listing{std::move(entries), 0}, now, [this] { return next_++; });
    return result;
  }
  // What is listed now is the old listing of the next merge.
  void given(std::vector<ListedEntry> entries, int64_t now = kNow) {
    old_ = merge(std::move(entries), now).directory;
    has_old_ = true;
  }
  Ino ino_of(std::string_view name) const { return old_.find(name)->ino; }

  Directory old_;
  bool has_old_ = false;
  Ino next_ = 100;
};

TEST_F(MergeTest, SortsByNameSoThatNamesAreFound) {
  given({file("b", 1), directory("c"), file("a", 2)});
  ASSERT_EQ(old_.entries.size(), 3u);
  EXPECT_EQ(old_.entries[0].name, "a");
  EXPECT_EQ(old_.find("c")->type, EntryType::kDirectory);
  EXPECT_EQ(old_.find("d"), nullptr);
  EXPECT_EQ(old_.find(""), nullptr);
}

TEST_F(MergeTest, AnUnchangedFileKeepsItsInode) {
  given({file("a", 5)});
  const MergeResult again = merge({file("a", 5)}, kNow + 60);
  EXPECT_EQ(again.directory.find("a")->ino, ino_of("a"));
  EXPECT_FALSE(again.directory.find("a")->doubtful);
  EXPECT_TRUE(again.superseded.empty());
}

TEST_F(MergeTest, AnotherSizeIsAnotherVersion) {
  given({file("a", 5)});
  const MergeResult again = merge({file("a", 6)});
  EXPECT_NE(again.directory.find("a")->ino, ino_of("a"));
  EXPECT_EQ(again.superseded, std::vector<Ino>{ino_of("a")});
}

TEST_F(MergeTest, AnotherTimeIsAnotherVersion) {
  given({file("a", 5)});
  const MergeResult again = merge({file("a", 5, kLongAgo + 60)});
  EXPECT_NE(again.directory.find("a")->ino, ino_of("a"));
}

TEST_F(MergeTest, AFileThatIsGoneIsSuperseded) {
  given({file("a", 5), file("b", 5)});
  const MergeResult again = merge({file("b", 5)});
  EXPECT_EQ(again.directory.find("a"), nullptr);
  EXPECT_EQ(again.superseded, std::vector<Ino>{ino_of("a")});
}

TEST_F(MergeTest, ADirectoryKeepsItsInodeWhateverItsTime) {
  given({directory("d")});
  ListedEntry later = directory("d");
  later.mtime = kNow;
  EXPECT_EQ(merge({later}).directory.find("d")->ino, ino_of("d"));
}

TEST_F(MergeTest, AFileThatBecomesADirectoryIsAnotherInode) {
  given({file("x", 5)});
  const MergeResult again = merge({directory("x")});
  EXPECT_NE(again.directory.find("x")->ino, ino_of("x"));
  EXPECT_EQ(again.superseded.size(), 1u);
}

// The listing prints minutes: a change within the minute in which it was taken does not show in the next one.
TEST_F(MergeTest, AFileChangedInTheMinuteOfTheListingIsDoubtful) {
  given({file("a", 5, kNow - 30)});
  EXPECT_TRUE(merge({file("a", 5, kNow - 30)}, kNow + 100).directory.find("a")->doubtful);
}

TEST_F(MergeTest, DoubtStaysUntilAHeadHasShownTheVersion) {
  given({file("a", 5, kNow - 30)});
  given({file("a", 5, kNow - 30)}, kNow + 100);
  EXPECT_TRUE(merge({file("a", 5, kNow - 30)}, kNow + 1000).directory.find("a")->doubtful);
}

TEST_F(MergeTest, AFileWithoutATimeIsAlwaysDoubtful) {
  ListedEntry timeless = file("a", 5);
  timeless.mtime.reset();
  given({timeless});
  const MergeResult again = merge({timeless}, kNow + 100'000);
  EXPECT_EQ(again.directory.find("a")->ino, ino_of("a"));
  EXPECT_TRUE(again.directory.find("a")->doubtful);
}

TEST_F(MergeTest, ASizeThatTheListingDoesNotGiveIsKept) {
  given({file("a", 5)});
  ListedEntry inexact = file("a", 0);
  inexact.size.reset();
  const MergeResult again = merge({inexact});
  EXPECT_EQ(again.directory.find("a")->ino, ino_of("a"));
  EXPECT_EQ(again.directory.find("a")->size, 5u);
}

// A HEAD has found the version; what the listing makes of its time is not known before the next one.
TEST_F(MergeTest, AVersionFoundByHeadTakesTheTimeOfTheNextListing) {
  given({file("a", 5)});
  old_.find("a")->listed_mtime = DirectoryEntry::kNotListedYet;
  const MergeResult again = merge({file("a", 5, kLongAgo + 3600)});
  EXPECT_EQ(again.directory.find("a")->ino, ino_of("a"));
  EXPECT_EQ(again.directory.find("a")->listed_mtime, kLongAgo + 3600);
  EXPECT_TRUE(again.directory.find("a")->doubtful);
}

TEST(DirectoryFormat, ComesBackAsItWas) {
  Directory d{9, kNow, {}};
  d.entries.push_back({10, EntryType::kDirectory, false, std::nullopt, 0, 0, 1, "dir"});
  d.entries.push_back({11, EntryType::kFile, true, 1ull << 40, -5, DirectoryEntry::kNotListedYet, 60, "name with \xc3\xbc"});
  d.entries.push_back({12, EntryType::kFile, false, std::nullopt, kNow, kNow, 1, std::string(255, 'x')});
  const auto back = decode_directory(9, encode(d));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->fetched_at, kNow);
  EXPECT_EQ(back->entries, d.entries);
}

TEST(DirectoryFormat, EveryTruncationIsRefused) {
  Directory d{9, kNow, {}};
  d.entries.push_back({10, EntryType::kFile, false, 1, 2, 2, 1, "a"});
  d.entries.push_back({11, EntryType::kFile, false, 1, 2, 2, 1, "bb"});
  const std::string bytes = encode(d);
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode_directory(9, bytes.substr(0, n))) << n;
  EXPECT_FALSE(decode_directory(9, bytes + "x"));
}

TEST(DirectoryFormat, NamesOutOfOrderAreRefused) {
  Directory d{9, kNow, {}};
  d.entries.push_back({10, EntryType::kFile, false, 1, 2, 2, 1, "b"});
  d.entries.push_back({11, EntryType::kFile, false, 1, 2, 2, 1, "a"});
  EXPECT_FALSE(decode_directory(9, encode(d)));
}

}  // namespace
}  // namespace wormhole
