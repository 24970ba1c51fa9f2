// A listing merged into the one before: which files keep their inode number, which get a new one, and of which nobody
// can be sure.
#include "fs/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr Ino kDirectory = 10;
constexpr int64_t kNoon = 1'800'000'000;  // when the first listing is fetched
constexpr int64_t kLongAgo = kNoon - 100'000;
constexpr int64_t kLater = kNoon + 3600;

class DirectoryTest : public ::testing::Test {
 protected:
  static ListedEntry file(std::string name, std::optional<uint64_t> size = 100, std::optional<int64_t> mtime = kLongAgo,
                          int32_t granularity = 60) {
    return {std::move(name), EntryType::kFile, size, mtime, granularity};
  }
  static ListedEntry directory(std::string name, std::optional<int64_t> mtime = kLongAgo) {
    return {std::move(name), EntryType::kDirectory, std::nullopt, mtime, 60};
  }

  // The next listing of the same directory.
  const Directory& list(std::vector<ListedEntry> entries, int64_t now) {
    MergeResult merged = merge_listing(known_ ? &*known_ : nullptr, kDirectory, Listing{std::move(entries), 0}, now,
                                       [this] { return next_ino_++; });
    superseded_.clear();
    for (const DirectoryEntry& old : merged.superseded) superseded_.push_back(old.ino);
    successions_ = std::move(merged.successions);
    known_ = std::move(merged.directory);
    return *known_;
  }
  DirectoryEntry& entry(std::string_view name) {
    DirectoryEntry* e = known_->find(name);
    if (e == nullptr) throw std::runtime_error("no such entry");
    return *e;
  }
  Ino ino(std::string_view name) { return entry(name).ino; }

  std::optional<Directory> known_;
  std::vector<Ino> superseded_;
  std::vector<MergeResult::Succession> successions_;
  Ino next_ino_ = 100;
};

// --- a first listing -----------------------------------------------------------------------------------------------

TEST_F(DirectoryTest, AFirstListingGivesEveryEntryANumber) {
  list({file("b"), directory("a"), file("c")}, kNoon);
  EXPECT_EQ(known_->ino, kDirectory);
  EXPECT_EQ(known_->fetched_at, kNoon);
  ASSERT_EQ(known_->entries.size(), 3u);
  EXPECT_NE(ino("a"), ino("b"));
  EXPECT_NE(ino("b"), ino("c"));
  EXPECT_THAT(superseded_, IsEmpty());
}

TEST_F(DirectoryTest, EntriesAreSortedByName) {
  list({file("b"), file("B"), directory("a"), file("\xc3\xa4")}, kNoon);
  std::vector<std::string> names;
  for (const auto& e : known_->entries) names.push_back(e.name);
  EXPECT_THAT(names, ElementsAre("B", "a", "b", "\xc3\xa4"));
}

TEST_F(DirectoryTest, AnEntryIsWhatTheListingSays) {
  list({file("a", 123, kLongAgo, 1)}, kNoon);
  EXPECT_EQ(entry("a").type, EntryType::kFile);
  EXPECT_EQ(entry("a").size, 123u);
  EXPECT_EQ(entry("a").mtime, kLongAgo);
  EXPECT_EQ(entry("a").mtime_granularity, 1);
  EXPECT_FALSE(entry("a").doubtful);
}

TEST_F(DirectoryTest, ASizeThatIsNotListedIsNotKnown) {
  list({file("a", std::nullopt)}, kNoon);
  EXPECT_EQ(entry("a").size, std::nullopt);
}

TEST_F(DirectoryTest, OnlyWhatIsInItIsFound) {
  list({file("b"), file("d")}, kNoon);
  for (const char* name : {"a", "c", "e", "", "bb"}) EXPECT_EQ(known_->find(name), nullptr) << name;
  EXPECT_NE(known_->find("b"), nullptr);
  EXPECT_EQ(Directory{}.find("a"), nullptr);
}

// --- the next listing ----------------------------------------------------------------------------------------------

TEST_F(DirectoryTest, AnUnchangedFileKeepsItsNumber) {
  list({file("a")}, kNoon);
  const Ino before = ino("a");
  list({file("a")}, kLater);
  EXPECT_EQ(ino("a"), before);
  EXPECT_FALSE(entry("a").doubtful);
  EXPECT_THAT(superseded_, IsEmpty());
  EXPECT_EQ(known_->fetched_at, kLater);
}

TEST_F(DirectoryTest, AnotherSizeIsANewVersionWithANewNumber) {
  list({file("a", 100)}, kNoon);
  const Ino before = ino("a");
  list({file("a", 101)}, kLater);
  EXPECT_NE(ino("a"), before);
  EXPECT_EQ(entry("a").size, 101u);
  EXPECT_THAT(superseded_, ElementsAre(before));
}

TEST_F(DirectoryTest, AnotherTimeIsANewVersionWithANewNumber) {
  list({file("a", 100, kLongAgo)}, kNoon);
  const Ino before = ino("a");
  list({file("a", 100, kLongAgo - 60)}, kLater);  // older is other, too
  EXPECT_NE(ino("a"), before);
  EXPECT_EQ(entry("a").mtime, kLongAgo - 60);
  EXPECT_THAT(superseded_, ElementsAre(before));
}

TEST_F(DirectoryTest, AFileThatIsGoneIsSuperseded) {
  list({file("a"), file("b")}, kNoon);
  const Ino gone = ino("a");
  list({file("b")}, kLater);
  EXPECT_EQ(known_->find("a"), nullptr);
  EXPECT_THAT(superseded_, ElementsAre(gone));
}

TEST_F(DirectoryTest, AFileThatComesBackHasANewNumber) {
  list({file("a")}, kNoon);
  const Ino before = ino("a");
  list({}, kLater);
  list({file("a")}, kLater + 60);
  EXPECT_NE(ino("a"), before);
}

TEST_F(DirectoryTest, ADirectoryKeepsItsNumberWhateverItsTime) {
  list({directory("d", kLongAgo)}, kNoon);
  const Ino before = ino("d");
  list({directory("d", kNoon)}, kLater);
  EXPECT_EQ(ino("d"), before);
  EXPECT_FALSE(entry("d").doubtful);
  EXPECT_THAT(superseded_, IsEmpty());
}

TEST_F(DirectoryTest, ADirectoryThatIsGoneHoldsNothingThatCouldBeDropped) {
  list({directory("d")}, kNoon);
  list({}, kLater);
  EXPECT_THAT(superseded_, IsEmpty());
}

TEST_F(DirectoryTest, AFileThatBecomesADirectoryIsSuperseded) {
  list({file("x")}, kNoon);
  const Ino before = ino("x");
  list({directory("x")}, kLater);
  EXPECT_NE(ino("x"), before);
  EXPECT_THAT(superseded_, ElementsAre(before));
  list({file("x")}, kLater + 60);
  EXPECT_NE(ino("x"), before);
}

TEST_F(DirectoryTest, ManyChangesAtOnceAreToldApart) {
  list({file("changed", 1), file("gone"), file("same")}, kNoon);
  const Ino changed = ino("changed");
  const Ino gone = ino("gone");
  const Ino same = ino("same");
  list({file("same"), file("new"), file("changed", 2)}, kLater);
  EXPECT_THAT(superseded_, UnorderedElementsAre(changed, gone));
  EXPECT_EQ(ino("same"), same);
  ASSERT_EQ(successions_.size(), 1u);
  EXPECT_EQ(successions_[0].from, changed);
  EXPECT_EQ(successions_[0].to, ino("changed"));
}

TEST_F(DirectoryTest, NoNumberIsGivenTwice) {
  std::set<Ino> given;
  for (uint64_t i = 0; i < 10; ++i) {
    list({file("a", i), file("b", 5), file(std::to_string(i))}, kNoon + static_cast<int64_t>(i) * 600);
    for (const auto& e : known_->entries) given.insert(e.ino);
  }
  EXPECT_EQ(given.size(), 10u + 1 + 10);
}

// --- what nobody can be sure of ------------------------------------------------------------------------------------

TEST_F(DirectoryTest, AFileThatMayHaveChangedInTheMinuteOfItsListingIsDoubtful) {
  list({file("a", 100, kNoon - 30, 60)}, kNoon);
  EXPECT_FALSE(entry("a").doubtful);
  const Ino before = ino("a");
  list({file("a", 100, kNoon - 30, 60)}, kLater);
  EXPECT_TRUE(entry("a").doubtful);
  EXPECT_EQ(ino("a"), before);
}

TEST_F(DirectoryTest, ATimeWellBeforeTheListingIsBelieved) {
  list({file("a", 100, kNoon - 61, 60), file("b", 100, kNoon - 2, 1)}, kNoon);
  list({file("a", 100, kNoon - 61, 60), file("b", 100, kNoon - 2, 1)}, kLater);
  EXPECT_FALSE(entry("a").doubtful);
  EXPECT_FALSE(entry("b").doubtful);
}

TEST_F(DirectoryTest, ATimeInTheFutureIsNotBelieved) {
  list({file("a", 100, kNoon + 86'400)}, kNoon);
  list({file("a", 100, kNoon + 86'400)}, kLater);
  EXPECT_TRUE(entry("a").doubtful);
}

TEST_F(DirectoryTest, AFileWithoutATimeIsDoubtfulAtEveryListing) {
  list({file("a", 100, std::nullopt)}, kNoon);
  list({file("a", 100, std::nullopt)}, kLater);
  EXPECT_TRUE(entry("a").doubtful);
  entry("a").doubtful = false;  // a HEAD has confirmed it
  list({file("a", 100, std::nullopt)}, kLater + 600);
  EXPECT_TRUE(entry("a").doubtful);
}

TEST_F(DirectoryTest, ADoubtStaysUntilAHeadHasResolvedIt) {
  list({file("a", 100, kNoon)}, kNoon);
  list({file("a", 100, kNoon)}, kLater);
  list({file("a", 100, kNoon)}, kLater + 3600);
  EXPECT_TRUE(entry("a").doubtful);
  entry("a").doubtful = false;
  list({file("a", 100, kNoon)}, kLater + 7200);
  EXPECT_FALSE(entry("a").doubtful);
}

// --- what a HEAD has found -----------------------------------------------------------------------------------------

TEST_F(DirectoryTest, WhatAHeadHasFoundOutSurvivesAListingThatDoesNotSayIt) {
  list({file("a", std::nullopt, kLongAgo)}, kNoon);
  entry("a").size = 4711;
  entry("a").mtime = kLongAgo + 17;
  const Ino before = ino("a");
  list({file("a", std::nullopt, kLongAgo)}, kLater);
  EXPECT_EQ(ino("a"), before);
  EXPECT_EQ(entry("a").size, 4711u);
  EXPECT_EQ(entry("a").mtime, kLongAgo + 17);
}

TEST_F(DirectoryTest, AVersionFoundByHeadKeepsItsNumberAtTheNextListingAndIsDoubtful) {
  list({file("a", 100, kLongAgo)}, kNoon);
  entry("a").ino = 999;  // as the catalog does when a HEAD shows another version
  entry("a").listed_mtime = DirectoryEntry::kNotListedYet;
  entry("a").mtime = kNoon + 5;
  list({file("a", 100, kNoon - kNoon % 60, 60)}, kLater);
  EXPECT_EQ(ino("a"), 999u);
  EXPECT_TRUE(entry("a").doubtful);
  EXPECT_EQ(entry("a").listed_mtime, kNoon - kNoon % 60);
  EXPECT_EQ(entry("a").mtime, kNoon + 5);  // better than the listing's
}

TEST_F(DirectoryTest, AVersionFoundByHeadOfAnotherSizeThanTheListingIsANewOne) {
  list({file("a", 100, kLongAgo)}, kNoon);
  entry("a").ino = 999;
  entry("a").listed_mtime = DirectoryEntry::kNotListedYet;
  list({file("a", 200, kNoon)}, kLater);
  EXPECT_NE(ino("a"), 999u);
  EXPECT_THAT(superseded_, ElementsAre(999u));
}

TEST_F(DirectoryTest, ListingsAreComparedWithListingsNotWithTheBetterTime) {
  list({file("a", 100, kLongAgo + 7200)}, kNoon);  // a server that prints its own time zone
  const Ino before = ino("a");
  entry("a").mtime = kLongAgo + 13;  // what HEAD says
  list({file("a", 100, kLongAgo + 7200)}, kLater);
  EXPECT_EQ(ino("a"), before);
}

TEST_F(DirectoryTest, AnUnchangedListingLeavesInDoubtWhatTheSameListingWould) {
  list({file("old"), file("young", 100, kNoon - 10), file("without time", 100, std::nullopt), directory("d")}, kNoon);
  const Directory unchanged = merge_unchanged(*known_, kLater);
  list({file("old"), file("young", 100, kNoon - 10), file("without time", 100, std::nullopt), directory("d")}, kLater);
  EXPECT_EQ(unchanged.fetched_at, kLater);
  EXPECT_EQ(unchanged.entries, known_->entries);
  EXPECT_TRUE(unchanged.find("young")->doubtful);
  EXPECT_FALSE(unchanged.find("old")->doubtful);
}

// --- the form in the index -----------------------------------------------------------------------------------------

TEST_F(DirectoryTest, ADirectoryIsReadBack) {
  list({file("a"), file("b", std::nullopt, std::nullopt), directory("c"), file(std::string(255, 'x')),
        file("\xff\x01 &\"")},
       kNoon);
  entry("a").doubtful = true;
  entry("b").listed_mtime = DirectoryEntry::kNotListedYet;
  known_->etag = "W/\"e1\"";
  const auto back = decode_directory(kDirectory, encode(*known_));
  ASSERT_THAT(back, test::Succeeds());
  EXPECT_EQ(back->ino, kDirectory);
  EXPECT_EQ(back->fetched_at, kNoon);
  EXPECT_EQ(back->etag, known_->etag);
  EXPECT_EQ(back->entries, known_->entries);
}

TEST_F(DirectoryTest, AnEmptyDirectoryIsReadBack) {
  list({}, kNoon);
  const auto back = decode_directory(kDirectory, encode(*known_));
  ASSERT_THAT(back, test::Succeeds());
  EXPECT_THAT(back->entries, IsEmpty());
}

TEST_F(DirectoryTest, CutBytesAreCorrupt) {
  list({file("a"), file("b")}, kNoon);
  const std::string bytes = encode(*known_);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_THAT(decode_directory(kDirectory, bytes.substr(0, n)), test::FailsWith(ErrorCode::kCorrupt)) << n;
  }
  EXPECT_THAT(decode_directory(kDirectory, bytes + "x"), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(DirectoryTest, RubbishIsCorrupt) {
  EXPECT_THAT(decode_directory(kDirectory, std::string(100, '\xff')), test::FailsWith(ErrorCode::kCorrupt));
  std::string many(40, '\0');
  many[8] = '\x7f';  // 127 entries, of which there is none
  EXPECT_THAT(decode_directory(kDirectory, many), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(DirectoryTest, EntriesThatAreNotInOrderAreCorrupt) {
  list({file("a"), file("b")}, kNoon);
  std::swap(known_->entries[0], known_->entries[1]);
  EXPECT_THAT(decode_directory(kDirectory, encode(*known_)), test::FailsWith(ErrorCode::kCorrupt));
  known_->entries[0].name = known_->entries[1].name;
  EXPECT_THAT(decode_directory(kDirectory, encode(*known_)), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(DirectoryTest, AnUnknownTypeIsCorrupt) {
  list({file("a")}, kNoon);
  std::string bytes = encode(*known_);
  bytes[40 + 38] = 4;  // the type, behind the header and 38 bytes of the entry
  EXPECT_THAT(decode_directory(kDirectory, bytes), test::FailsWith(ErrorCode::kCorrupt));
}

// --- of a manifest -----------------------------------------------------------------------------------------------------

ListedEntry verified(std::string name, char hash, int64_t mtime = kNoon) {
  ListedEntry e;
  e.name = std::move(name);
  e.size = 100;
  e.mtime = mtime;
  e.mode = 0640;
  e.mtime_ns = 123;
  Content content;
  content.hash.bytes.fill(static_cast<uint8_t>(hash));
  content.tree = 4711;
  content.trees = std::make_shared<TreesFile>(TreesFile{"http://x/pages", 99});
  e.content = std::make_shared<Content>(std::move(content));
  return e;
}

TEST_F(DirectoryTest, WhatAManifestSaysIsReadBack) {
  ListedEntry link;
  link.name = "link";
  link.type = EntryType::kSymlink;
  link.mode = 0777;
  link.target = "../elsewhere";
  list({verified("a", 1), link, file("plain")}, kNoon);
  const auto back = decode_directory(kDirectory, encode(*known_));
  ASSERT_THAT(back, test::Succeeds());
  const DirectoryEntry* a = back->find("a");
  EXPECT_EQ(*a->content, *verified("a", 1).content);
  EXPECT_EQ(*a->content->trees, *verified("a", 1).content->trees);
  EXPECT_EQ(a->mode, 0640);
  EXPECT_EQ(a->mtime_ns, 123);
  EXPECT_EQ(back->find("link")->target, "../elsewhere");
  EXPECT_EQ(back->find("plain")->content, nullptr);
}

TEST_F(DirectoryTest, TheContentIsTheVersion) {
  list({verified("a", 1)}, kNoon);
  const Ino ino = known_->find("a")->ino;
  list({verified("a", 1, kNoon + 1000)}, kNoon + 2000);
  EXPECT_EQ(known_->find("a")->ino, ino);
  EXPECT_EQ(known_->find("a")->mtime, kNoon + 1000);
  EXPECT_FALSE(known_->find("a")->doubtful);
  list({verified("a", 2, kNoon + 1000)}, kNoon + 3000);
  EXPECT_NE(known_->find("a")->ino, ino);
}

TEST_F(DirectoryTest, WithAHashOrWithoutAreTwoVersions) {
  list({file("a")}, kNoon);
  const Ino ino = known_->find("a")->ino;
  list({verified("a", 1)}, kNoon + 100);
  EXPECT_NE(known_->find("a")->ino, ino);
  const Ino checked = known_->find("a")->ino;
  list({file("a")}, kNoon + 200);
  EXPECT_NE(known_->find("a")->ino, checked);
}

}  // namespace
}  // namespace wormhole
