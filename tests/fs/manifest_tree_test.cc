// Directories out of pages that come from a network that may lie.
#include "fs/manifest_tree.h"

#include <gtest/gtest.h>

#include <cstring>

#include "manifest/blake3.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

class Network final : public Fetcher {
 public:
  std::string pages{kPagesMagic};
  std::vector<FetchRequest> asked;
  size_t answered = 0;
  std::vector<FetchId> cancelled;

  void fetch(FetchRequest request) override { asked.push_back(std::move(request)); }
  void cancel(FetchId id) override { cancelled.push_back(id); }
  void promote(FetchId) override {}
  void want(FetchId, ByteRange) override {}
  void get(DocumentRequest) override {}
  LinkEstimate link() const override { return {}; }

  // Everything that was asked for; and what that leads to.
  void answer_all() {
    while (answered < asked.size()) {
      const FetchRequest r = asked[answered++];
      std::memcpy(r.buffer->data(), pages.data() + r.range.begin, r.range.size());
      r.sink->fetch_head(r.id, {{}, r.object_size, "http://server/"});
      r.sink->fetch_done(r.id, {});
    }
  }
  void fail_next(ErrorCode code) {
    const FetchRequest r = asked[answered++];
    r.sink->fetch_done(r.id, fail(code, "by order of the test"));
  }
};

using Type = ManifestEntry::Type;

ManifestEntry entry(std::string name, Type type, PageRef page = {}) {
  ManifestEntry e;
  e.name = std::move(name);
  e.type = type;
  e.mode = 0644;
  e.page = page;
  if (type == Type::kSymlink) e.target = "x";
  return e;
}

class ManifestTreeTest : public testing::Test {
 protected:
  PageRef put(const DirectoryPage& page) {
    const StoredPage stored = store_page(page, network_.pages.size());
    network_.pages += stored.bytes;
    return stored.ref;
  }
  PageRef put_entries(std::vector<ManifestEntry> entries) { return put({std::move(entries), {}}); }

  // a/, a/b/, a/b/file, empty/, file, link
  void small_tree() {
    const PageRef b = put_entries({entry("file", Type::kFile)});
    const PageRef a = put_entries({entry("b", Type::kDirectory, b), entry("other", Type::kFile)});
    const PageRef empty = put_entries({});
    start(put_entries({entry("a", Type::kDirectory, a), entry("empty", Type::kDirectory, empty),
                       entry("file", Type::kFile), entry("link", Type::kSymlink)}));
  }
  void start(PageRef root) {
    ManifestHead head;
    head.root = root;
    head.pages_bytes = network_.pages.size();
    tree_ = std::make_shared<ManifestTree>(head, "http://x/pages", network_, buffers_, metrics_, all_,
                                           std::chrono::seconds(1), [](Task task) { task(); });
  }
  // Not answered yet: nothing.
  std::optional<Result<std::vector<ManifestEntry>>> list(std::vector<std::string> path, bool answer = true) {
    const auto result = std::make_shared<std::optional<Result<std::vector<ManifestEntry>>>>();
    tree_->list(std::move(path), [result](auto listed) { *result = std::move(listed); });
    if (answer) network_.answer_all();
    return *result;
  }
  static std::vector<std::string> names(const Result<std::vector<ManifestEntry>>& entries) {
    if (!entries) return {entries.error().message};
    std::vector<std::string> out;
    for (const ManifestEntry& e : *entries) out.push_back(e.name);
    return out;
  }

  Metrics metrics_;
  BufferPool buffers_{64 << 20, metrics_};
  AllReaders all_{1};
  Network network_;
  std::shared_ptr<ManifestTree> tree_;
};

TEST_F(ManifestTreeTest, DirectoriesAreListedByPath) {
  small_tree();
  EXPECT_EQ(names(*list({})), (std::vector<std::string>{"a", "empty", "file", "link"}));
  EXPECT_EQ(names(*list({"a"})), (std::vector<std::string>{"b", "other"}));
  EXPECT_EQ(names(*list({"a", "b"})), (std::vector<std::string>{"file"}));
  EXPECT_TRUE(names(*list({"empty"})).empty());
}

TEST_F(ManifestTreeTest, WhatLiesTogetherIsFetchedOnce) {
  small_tree();
  list({});
  list({"a", "b"});
  EXPECT_EQ(network_.asked.size(), 1u);
}

TEST_F(ManifestTreeTest, WhatIsNoDirectoryIsAnError) {
  small_tree();
  EXPECT_THAT(*list({"nothing"}), test::FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(*list({"a", "b", "c"}), test::FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(*list({"file"}), test::FailsWith(ErrorCode::kNotDirectory));
  EXPECT_THAT(*list({"link", "x"}), test::FailsWith(ErrorCode::kNotDirectory));
}

// 100 000 files in pages that are named by another page.
class LargeDirectoryTest : public ManifestTreeTest {
 protected:
  static constexpr int kFiles = 100'000, kInAPage = 500;

  static std::string name(int i) { return fmt::format("file-{:06}", i); }
  void SetUp() override {
    const PageRef below = put_entries({entry("deep", Type::kFile)});
    DirectoryPage pages;
    for (int first = 0; first < kFiles; first += kInAPage) {
      std::vector<ManifestEntry> entries;
      for (int i = first; i < first + kInAPage; ++i) {
        entries.push_back(
            entry(name(i), i == 77'777 ? Type::kDirectory : Type::kFile, i == 77'777 ? below : PageRef{}));
        entries.back().hash = i == 77'777 ? std::nullopt : std::optional(blake3(name(i)));
      }
      pages.children.push_back({name(first), put_entries(std::move(entries))});
    }
    start(put(pages));
  }
};

TEST_F(LargeDirectoryTest, IsListedInOrder) {
  const auto all = list({});
  ASSERT_TRUE(all && all->has_value());
  ASSERT_EQ((*all)->size(), static_cast<size_t>(kFiles));
  for (int i = 0; i < kFiles; ++i) ASSERT_EQ((**all)[static_cast<size_t>(i)].name, name(i));
}

TEST_F(LargeDirectoryTest, ANameInItIsFoundByTwoPages) {
  EXPECT_EQ(names(*list({name(77'777)})), (std::vector<std::string>{"deep"}));
  EXPECT_LE(network_.asked.size(), 3u);
  EXPECT_THAT(*list({"aaa"}), test::FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(*list({"file-077777x"}), test::FailsWith(ErrorCode::kNotFound));
}

TEST_F(LargeDirectoryTest, ItsPagesAreAskedForTogether) {
  list({}, false);
  network_.answer_all();
  size_t most = 0;
  for (const FetchRequest& r : network_.asked) most += r.range.size();
  EXPECT_LE(most, network_.pages.size() * 5 / 4) << "hardly anything twice";
}

TEST_F(ManifestTreeTest, AWrongPageIsFetchedAgainFromElsewhere) {
  small_tree();
  network_.pages[network_.pages.size() - 3] ^= 1;
  list({}, false);
  const auto result = std::make_shared<bool>(false);
  tree_->list({}, [result](auto listed) { *result = listed.has_value(); });
  const FetchRequest first = network_.asked[0];
  std::memcpy(first.buffer->data(), network_.pages.data() + first.range.begin, first.range.size());
  first.sink->fetch_head(first.id, {{}, 1, "http://liar/"});
  network_.answered = 1;
  first.sink->fetch_done(first.id, {});
  ASSERT_EQ(network_.asked.size(), 2u);
  EXPECT_EQ(network_.asked[1].avoid, "http://liar/");
  network_.pages[network_.pages.size() - 3] ^= 1;
  network_.answer_all();
  EXPECT_TRUE(*result);
  EXPECT_EQ(metrics_.blocks_refused, 1u);
}

TEST_F(ManifestTreeTest, APageThatStaysWrongIsAnErrorForAllWhoWait) {
  small_tree();
  network_.pages[network_.pages.size() - 3] ^= 1;
  int failed = 0;
  for (int i = 0; i < 3; ++i) {
    tree_->list({}, [&failed](const auto& listed) { failed += !listed && listed.error().code == ErrorCode::kCorrupt; });
  }
  network_.answer_all();
  EXPECT_EQ(failed, 3);
}

TEST_F(ManifestTreeTest, AServerThatIsSilentIsAnErrorAndIsAskedAgain) {
  small_tree();
  const auto result = std::make_shared<std::optional<ErrorCode>>();
  tree_->list({}, [result](const auto& listed) { *result = listed ? ErrorCode::kInvalid : listed.error().code; });
  network_.fail_next(ErrorCode::kTimedOut);
  EXPECT_EQ(*result, ErrorCode::kTimedOut);
  EXPECT_THAT(*list({}), test::Succeeds());
}

TEST_F(ManifestTreeTest, APageOutsideOfTheFileIsAnError) {
  PageRef root = put_entries({entry("x", Type::kFile)});
  root.offset += 1'000'000;
  start(root);
  EXPECT_THAT(*list({}), test::FailsWith(ErrorCode::kCorrupt));
  EXPECT_TRUE(network_.asked.empty());
}

TEST_F(ManifestTreeTest, PagesThatNameEachOtherForEverAreAnError) {
  PageRef ref = put_entries({entry("x", Type::kFile)});
  for (int i = 0; i < 20; ++i) ref = put({{}, {{"x", ref}}});
  start(ref);
  EXPECT_THAT(*list({}), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(ManifestTreeTest, WhatComesAfterItsEndIsDropped) {
  small_tree();
  list({}, false);
  tree_.reset();
  network_.answer_all();
}

}  // namespace
}  // namespace wormhole
