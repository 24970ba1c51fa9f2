#include "manifest/writer.h"

#include <gtest/gtest.h>

#include "manifest/hash_tree.h"
#include "manifest/reader.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

ManifestEntry entry(std::string name, ManifestEntry::Type type) {
  ManifestEntry e;
  e.name = std::move(name);
  e.type = type;
  e.mode = 0644;
  if (type == ManifestEntry::Type::kFile) e.hash = blake3(e.name);
  if (type == ManifestEntry::Type::kSymlink) e.target = "somewhere";
  return e;
}
ManifestEntry file(std::string name) { return entry(std::move(name), ManifestEntry::Type::kFile); }
ManifestEntry directory(std::string name) { return entry(std::move(name), ManifestEntry::Type::kDirectory); }

std::string numbered(int i) { return fmt::format("file-{:07}", i); }

// The pages in memory, and how often they were asked.
struct Pages {
  std::string bytes;
  ManifestHead head;
  int loaded = 0;
  PageSource source = [this](ByteRange range) -> Result<std::string> {
    ++loaded;
    if (range.end > bytes.size()) return fail(ErrorCode::kCorrupt, "cut short");
    return bytes.substr(range.begin, range.size());
  };

  explicit Pages(const std::function<void(ManifestWriter&)>& write) {
    ManifestWriter writer([this](std::string_view more) {
      bytes += more;
      return Status();
    });
    EXPECT_TRUE(writer.begin(directory("")));
    write(writer);
    EXPECT_TRUE(writer.end());
    head = *writer.finish();
  }

  std::vector<std::string> names() {
    std::vector<std::string> out;
    ManifestCursor cursor(source, head.root);
    for (auto at = cursor.peek(); at && *at != nullptr; at = cursor.peek()) {
      out.push_back((*at)->name);
      cursor.advance();
    }
    return out;
  }
};

Pages many(int count) {
  return Pages([count](ManifestWriter& writer) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(writer.add(file(numbered(i))));
  });
}

TEST(ManifestWriterTest, ATreeIsFoundAgain) {
  Pages pages([](ManifestWriter& w) {
    ASSERT_TRUE(w.add(file("a")));
    ASSERT_TRUE(w.begin(directory("b")));
    ASSERT_TRUE(w.begin(directory("deep")));
    ASSERT_TRUE(w.end());
    ASSERT_TRUE(w.add(file("x")));
    ASSERT_TRUE(w.end());
    ASSERT_TRUE(w.add(entry("c", ManifestEntry::Type::kSymlink)));
  });
  EXPECT_EQ(pages.head.files, 2u);
  EXPECT_EQ(pages.head.directories, 3u);
  EXPECT_EQ(pages.head.symlinks, 1u);
  EXPECT_EQ(pages.head.pages_bytes, pages.bytes.size());
  EXPECT_EQ(pages.head.pages, blake3(pages.bytes));
  EXPECT_EQ(pages.names(), (std::vector<std::string>{"a", "b", "c"}));
  const auto x = look_up_path(pages.source, pages.head, "b/x");
  ASSERT_THAT(x, test::Succeeds());
  EXPECT_EQ((*x)->hash, blake3("x"));
  EXPECT_EQ((**look_up_path(pages.source, pages.head, "b")).entries, 2u);
  EXPECT_FALSE(look_up_path(pages.source, pages.head, "b/y")->has_value());
  EXPECT_FALSE(look_up_path(pages.source, pages.head, "a/x")->has_value());
}

TEST(ManifestWriterTest, TheSameTreeMakesTheSameBytes) { EXPECT_EQ(many(3000).bytes, many(3000).bytes); }

// 100 000 entries: whoever looks for one of them fetches two pages.
TEST(ManifestWriterTest, ANameInAHugeDirectoryTakesTwoPages) {
  Pages pages = many(100'000);
  for (const int i : {0, 1, 49'999, 99'999}) {
    pages.loaded = 0;
    const auto found = look_up(pages.source, pages.head.root, numbered(i));
    ASSERT_THAT(found, test::Succeeds());
    EXPECT_EQ((*found)->name, numbered(i));
    EXPECT_EQ(pages.loaded, 2);
  }
  for (const char* name : {"", "a", "file-0000000x", "zzz"})
    EXPECT_FALSE(look_up(pages.source, pages.head.root, name)->has_value()) << name;
  const auto names = pages.names();
  ASSERT_EQ(names.size(), 100'000u);
  EXPECT_TRUE(std::ranges::is_sorted(names));
}

// So many pages that the page which names them would be too large.
TEST(ManifestWriterTest, AnEnormousDirectoryHasOneLevelMore) {
  const int count = 450'000;
  const auto name = [](int i) { return fmt::format("{:0>250}", i); };  // long names: few on a page
  Pages pages([&](ManifestWriter& w) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(w.add(file(name(i))));
  });
  pages.loaded = 0;
  const auto found = look_up(pages.source, pages.head.root, name(123'456));
  ASSERT_THAT(found, test::Succeeds());
  EXPECT_TRUE(found->has_value());
  EXPECT_EQ(pages.loaded, 3);
  EXPECT_EQ(pages.names().size(), static_cast<size_t>(count));
}

TEST(ManifestWriterTest, AHashTreeIsFoundByItsFile) {
  const uint64_t size = 3 * kBlockSize;
  HashTreeBuilder builder(size);
  for (BlockIndex b = 0; b < 3; ++b) builder.set(b, blake3(std::to_string(b)));
  std::vector<std::byte> tree;
  ManifestEntry large = file("large");
  large.size = size;
  large.hash = builder.finish(&tree);
  Pages pages([&](ManifestWriter& w) { ASSERT_TRUE(w.add(large, tree)); });
  const auto found = look_up(pages.source, pages.head.root, "large");
  ASSERT_THAT(found, test::Succeeds());
  const auto loaded = load_tree(pages.source, **found);
  ASSERT_THAT(loaded, test::Succeeds());
  EXPECT_EQ(*loaded, tree);
  pages.bytes[(*found)->tree + 5] ^= 1;
  EXPECT_THAT(load_tree(pages.source, **found), test::FailsWith(ErrorCode::kCorrupt));
}

TEST(ManifestWriterTest, ACursorSeeksForward) {
  Pages pages = many(5000);
  ManifestCursor cursor(pages.source, pages.head.root);
  EXPECT_EQ((*cursor.seek(numbered(10)))->name, numbered(10));
  EXPECT_EQ((*cursor.seek(numbered(10)))->name, numbered(10));
  EXPECT_EQ((*cursor.seek(numbered(4000) + "x"))->name, numbered(4001));
  EXPECT_EQ(*cursor.seek("zzz"), nullptr);
}

TEST(ManifestWriterTest, ADamagedPageIsAnErrorForCursorAndLookup) {
  Pages pages = many(5000);
  pages.bytes[pages.bytes.size() / 2] ^= 1;
  ManifestCursor cursor(pages.source, pages.head.root);
  Result<const ManifestEntry*> at = cursor.seek("zzz");
  EXPECT_THAT(at, test::FailsWith(ErrorCode::kCorrupt));
}

// Two pages that are each in order, but not with each other: signed by somebody who breaks the rules.
TEST(ManifestWriterTest, PagesOutOfOrderAreRefused) {
  std::string bytes(8, 'x');
  const auto put = [&](const DirectoryPage& page) {
    const StoredPage stored = store_page(page, bytes.size());
    bytes += stored.bytes;
    return stored.ref;
  };
  const PageRef one = put({.entries = {file("a"), file("m")}, .children = {}});
  const PageRef two = put({.entries = {file("l"), file("z")}, .children = {}});
  const PageRef lying = put({.entries = {}, .children = {{"a", one}, {"n", two}}});
  const PageRef overlapping = put({.entries = {}, .children = {{"a", one}, {"l", two}}});
  const PageSource source = [&](ByteRange range) -> Result<std::string> {
    return bytes.substr(range.begin, range.size());
  };
  for (const PageRef& root : {lying, overlapping}) {
    ManifestCursor cursor(source, root);
    EXPECT_THAT(cursor.seek("zzz"), test::FailsWith(ErrorCode::kCorrupt));
  }
}

}  // namespace
}  // namespace wormhole
