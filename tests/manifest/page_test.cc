#include "manifest/page.h"

#include <gtest/gtest.h>

#include "manifest/blake3.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

ManifestEntry file(std::string name, uint64_t size = 1000) {
  ManifestEntry e;
  e.name = std::move(name);
  e.mode = 0644;
  e.mtime = 1'700'000'000;
  e.mtime_ns = 999'999'999;
  e.size = size;
  e.hash = blake3(e.name);
  e.tree = size > 65536 ? 12345 : 0;
  return e;
}

DirectoryPage example() {
  DirectoryPage page;
  page.entries.push_back(file("a"));
  ManifestEntry directory;
  directory.name = "b";
  directory.type = ManifestEntry::Type::kDirectory;
  directory.mode = 02755;
  directory.mtime = -1;
  directory.page = {8, 2, 3, blake3("x")};
  directory.entries = 12;
  page.entries.push_back(directory);
  page.entries.push_back(file("c", 1 << 30));
  ManifestEntry link;
  link.name = "d";
  link.type = ManifestEntry::Type::kSymlink;
  link.mode = 0777;
  link.target = "../elsewhere";
  page.entries.push_back(link);
  ManifestEntry unknown = file("e");
  unknown.hash.reset();
  page.entries.push_back(unknown);
  return page;
}

TEST(ManifestPageTest, IsReadBackAsItWas) {
  const StoredPage stored = store_page(example(), 8);
  const auto back = load_page(stored.ref, stored.bytes);
  ASSERT_THAT(back, test::Succeeds());
  EXPECT_EQ(back->entries, example().entries);
  EXPECT_TRUE(back->children.empty());
}

TEST(ManifestPageTest, AnEmptyDirectoryIsAPage) {
  const StoredPage stored = store_page({}, 8);
  const auto back = load_page(stored.ref, stored.bytes);
  ASSERT_THAT(back, test::Succeeds());
  EXPECT_TRUE(back->entries.empty());
}

TEST(ManifestPageTest, APageOfPagesIsReadBack) {
  DirectoryPage page;
  page.children = {{"a", {8, 2, 3, blake3("1")}}, {"m", {10, 5, 6, blake3("2")}}};
  const StoredPage stored = store_page(page, 8);
  const auto back = load_page(stored.ref, stored.bytes);
  ASSERT_THAT(back, test::Succeeds());
  EXPECT_EQ(back->children, page.children);
}

TEST(ManifestPageTest, AWrongByteOrLengthIsRefused) {
  const StoredPage stored = store_page(example(), 8);
  for (size_t at = 0; at < stored.bytes.size(); ++at) {
    std::string wrong = stored.bytes;
    wrong[at] ^= 1;
    EXPECT_THAT(load_page(stored.ref, wrong), test::FailsWith(ErrorCode::kCorrupt));
  }
  EXPECT_THAT(load_page(stored.ref, stored.bytes.substr(1)), test::FailsWith(ErrorCode::kCorrupt));
}

// Somebody who signs is still not believed when he breaks a rule.
TEST(ManifestPageTest, NamesThatCannotBeAreRefused) {
  for (const std::string& name : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                                  std::string("a\0b", 3), std::string(256, 'x')}) {
    DirectoryPage page;
    page.entries = {file(name)};
    const StoredPage stored = store_page(page, 8);
    EXPECT_THAT(load_page(stored.ref, stored.bytes), test::FailsWith(ErrorCode::kCorrupt)) << name;
  }
}

TEST(ManifestPageTest, NamesOutOfOrderOrTwiceAreRefused) {
  for (const auto& names : {std::pair("b", "a"), std::pair("a", "a")}) {
    DirectoryPage page;
    page.entries = {file(names.first), file(names.second)};
    const StoredPage stored = store_page(page, 8);
    EXPECT_THAT(load_page(stored.ref, stored.bytes), test::FailsWith(ErrorCode::kCorrupt));
  }
}

TEST(ManifestPageTest, AnImpossibleLengthIsRefusedBeforeItIsTaken) {
  StoredPage stored = store_page(example(), 8);
  stored.ref.raw = UINT32_MAX;
  EXPECT_THAT(load_page(stored.ref, stored.bytes), test::FailsWith(ErrorCode::kCorrupt));
}

TEST(ManifestPageTest, ALinkWithoutTargetIsRefused) {
  DirectoryPage page = example();
  page.entries[3].target = "";
  const StoredPage stored = store_page(page, 8);
  EXPECT_THAT(load_page(stored.ref, stored.bytes), test::FailsWith(ErrorCode::kCorrupt));
}

}  // namespace
}  // namespace wormhole
