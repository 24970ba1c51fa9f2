#include "manifest/manifest_directory.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <vector>

#include "manifest/blake3.h"
#include "manifest/writer.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

class ManifestDirectoryTest : public ::testing::Test {
 protected:
  std::string path() const { return work_ / ".wormhole"; }
  std::set<std::string> files() const {
    std::set<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(path())) out.insert(e.path().filename());
    return out;
  }
  // A manifest of one file that is called `name`.
  ManifestHead publish(ManifestDirectory& directory, const std::string& name, uint64_t sequence,
                       const Retention& keep = {}, const std::function<std::string(std::string_view)>& sign = nullptr) {
    auto pages = directory.new_file();
    ManifestWriter writer([&](std::string_view bytes) { return pages->append(bytes); });
    EXPECT_TRUE(writer.begin({.type = ManifestEntry::Type::kDirectory}));
    EXPECT_TRUE(writer.add({.name = name}));
    EXPECT_TRUE(writer.end());
    ManifestHead head = *writer.finish();
    head.sequence = sequence;
    EXPECT_THAT(directory.publish(std::move(*pages), head, sign, keep), test::Succeeds());
    return head;
  }
  static std::string pinned(const ManifestHead& head) { return pinned_head_name(blake3(encode(head))); }

  test::TemporaryDirectory work_;
};

TEST_F(ManifestDirectoryTest, WhatIsPublishedIsFound) {
  auto directory = ManifestDirectory::open_to_write(path());
  ASSERT_THAT(directory, test::Succeeds());
  EXPECT_THAT(directory->current(), test::FailsWith(ErrorCode::kNotFound));
  const ManifestHead head = publish(*directory, "a", 1);
  EXPECT_EQ(files(), (std::set<std::string>{"manifest", pinned(head), pages_name(head.pages)}));
  const auto current = ManifestDirectory::open(path())->current();
  ASSERT_THAT(current, test::Succeeds());
  EXPECT_EQ(current->head, head);
  EXPECT_TRUE(look_up_path(current->pages, current->head, "a")->has_value());
}

TEST_F(ManifestDirectoryTest, AReaderOfTheOneBeforeStillFindsItsPages) {
  auto directory = ManifestDirectory::open_to_write(path());
  publish(*directory, "a", 1);
  const ManifestHead b = publish(*directory, "b", 2);
  const ManifestHead c = publish(*directory, "c", 3);
  EXPECT_EQ(files(),
            (std::set<std::string>{"manifest", pinned(b), pages_name(b.pages), pinned(c), pages_name(c.pages)}));
  const ManifestHead d = publish(*directory, "d", 4, {.count = 0});
  EXPECT_EQ(files(), (std::set<std::string>{"manifest", pinned(d), pages_name(d.pages)}));
}

// How long ago one was replaced is how old the next one is.
TEST_F(ManifestDirectoryTest, WhatWasCurrentLatelyStaysAsLongAsThereIsRoom) {
  constexpr std::chrono::minutes kAge(10);
  auto directory = ManifestDirectory::open_to_write(path());
  std::vector<ManifestHead> heads;
  for (uint64_t i = 0; i < 5; ++i) {
    heads.push_back(publish(*directory, std::string(1, static_cast<char>('a' + i)), i + 1,
                            {.count = 1, .age = kAge, .bytes = UINT64_MAX}));
  }
  EXPECT_EQ(files().size(), 11u) << "all of them";
  // The third came eleven minutes ago: so long nobody finds the two before it.
  const auto then = std::filesystem::file_time_type::clock::now() - std::chrono::minutes(11);
  std::filesystem::last_write_time(path() + "/" + pinned(heads[2]), then);
  heads.push_back(publish(*directory, "f", 6, {.count = 1, .age = kAge, .bytes = UINT64_MAX}));
  std::set<std::string> expected = {"manifest"};
  for (size_t i = 2; i < 6; ++i) expected.insert({pinned(heads[i]), pages_name(heads[i].pages)});
  EXPECT_EQ(files(), expected);
  // One is kept in any case, another has room.
  heads.push_back(publish(*directory, "g", 7, {.count = 1, .age = kAge, .bytes = heads[4].pages_bytes}));
  expected = {"manifest"};
  for (size_t i = 4; i < 7; ++i) expected.insert({pinned(heads[i]), pages_name(heads[i].pages)});
  EXPECT_EQ(files(), expected);
}

// The same tree again: two heads, one pages file.
TEST_F(ManifestDirectoryTest, PagesThatAreStillNamedStay) {
  auto directory = ManifestDirectory::open_to_write(path());
  const ManifestHead first = publish(*directory, "a", 1);
  const ManifestHead second = publish(*directory, "a", 2, {.count = 0});
  EXPECT_EQ(files(), (std::set<std::string>{"manifest", pinned(second), pages_name(first.pages)}));
  EXPECT_THAT(directory->current(), test::Succeeds());
}

TEST_F(ManifestDirectoryTest, ASignatureIsBesideItsHeadAndGoesWithIt) {
  auto directory = ManifestDirectory::open_to_write(path());
  const auto sign = [](std::string_view bytes) { return "signature of " + blake3(bytes).hex(); };
  const ManifestHead head = publish(*directory, "a", 1, {.count = 0}, sign);
  EXPECT_EQ(directory->current()->signature, "signature of " + blake3(encode(head)).hex());
  EXPECT_TRUE(files().contains("manifest.minisig"));
  const ManifestHead next = publish(*directory, "b", 2, {.count = 0});
  EXPECT_EQ(directory->current()->signature, "");
  EXPECT_EQ(files(), (std::set<std::string>{"manifest", pinned(next), pages_name(next.pages)}));
}

TEST_F(ManifestDirectoryTest, WhatWasLeftHalfWrittenIsRemoved) {
  {
    auto directory = ManifestDirectory::open_to_write(path());
    auto file = directory->new_file();
    ASSERT_TRUE(file->append("half"));
    EXPECT_EQ(files().size(), 1u);
  }
  EXPECT_FALSE(std::filesystem::exists(path())) << "made for nothing";
  std::filesystem::create_directory(path());
  test::write_text(path() + "/.new-3", "of a killed process");
  const auto directory = ManifestDirectory::open_to_write(path());
  EXPECT_TRUE(files().empty());
}

TEST_F(ManifestDirectoryTest, OneWriterAtATime) {
  const auto one = ManifestDirectory::open_to_write(path());
  EXPECT_THAT(ManifestDirectory::open_to_write(path()), test::FailsWith(ErrorCode::kBusy));
  EXPECT_THAT(ManifestDirectory::open(path()), test::Succeeds());
}

TEST_F(ManifestDirectoryTest, PagesThatAreGoneAreAnError) {
  auto directory = ManifestDirectory::open_to_write(path());
  const ManifestHead head = publish(*directory, "a", 1);
  std::filesystem::remove(path() + "/" + pages_name(head.pages));
  EXPECT_THAT(directory->current(), test::FailsWith(ErrorCode::kCorrupt));
  EXPECT_EQ(directory->greatest_sequence(), 1u);
}

}  // namespace
}  // namespace wormhole
