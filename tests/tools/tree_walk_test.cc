#include "tools/tree_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class TreeWalkTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) {
    std::string path = top() + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << content;
    return path;
  }
  std::string top() const { return directory_.path(); }
  std::vector<std::string> walk(const std::string& from, Walk::Sizes sizes = Walk::Sizes::kUnknown) {
    std::vector<std::string> paths;
    Walk walk;
    walk.sizes = sizes;
    walk.file = [&](const WalkedFile& file) {
      files_[file.path] = file;
      paths.push_back(file.path);
      return paths.size() < most_;
    };
    walk.failed = [&](const std::string& path, int error) { failed_[path] = error; };
    ended_ = !walk.run(from);
    return paths;
  }

  test::TemporaryDirectory directory_;
  std::map<std::string, WalkedFile> files_;
  std::map<std::string, int> failed_;
  size_t most_ = 1000;
  bool ended_ = false;
};

TEST_F(TreeWalkTest, EveryFileBelowIsMetWithItsNumberAndSize) {
  const std::string a = write("a", "1"), b = write("d/b", "22"), c = write("d/e/c", "");
  fs::create_directory(top() + "/empty");
  EXPECT_THAT(walk(top(), Walk::Sizes::kExact), UnorderedElementsAre(a, b, c));
  struct stat s {};
  ASSERT_EQ(::stat(b.c_str(), &s), 0);
  EXPECT_EQ(files_[b].ino, s.st_ino);
  EXPECT_EQ(files_[b].size, 2u);
  EXPECT_TRUE(failed_.empty());
  EXPECT_FALSE(ended_);
}

TEST_F(TreeWalkTest, AFileIsATreeOfOne) {
  const std::string a = write("a", "123");
  EXPECT_THAT(walk(a), ElementsAre(a));
  EXPECT_EQ(files_[a].size, 3u);
}

TEST_F(TreeWalkTest, ItEndsWhenItIsTold) {
  for (int i = 0; i < 10; ++i) write("d/" + std::to_string(i), "");
  most_ = 3;
  EXPECT_EQ(walk(top()).size(), 3u);
  EXPECT_TRUE(ended_);
}

TEST_F(TreeWalkTest, WhatIsNotThereIsTold) {
  EXPECT_TRUE(walk(top() + "/nothing").empty());
  EXPECT_EQ(failed_[top() + "/nothing"], ENOENT);
}

TEST_F(TreeWalkTest, BatchesHoldAllAndNoneIsEmpty) {
  constexpr size_t kFiles = 1100;
  for (size_t i = 0; i < kFiles; ++i) write(std::to_string(i), "");
  size_t files = 0, batches = 0;
  EXPECT_TRUE(walk_in_batches(
      Walk::Sizes::kUnknown, top(),
      [&](const std::vector<WalkedFile>& batch) {
        EXPECT_FALSE(batch.empty());
        files += batch.size();
        ++batches;
        return true;
      },
      [](const std::string& path, int) { ADD_FAILURE() << path; }));
  EXPECT_EQ(files, kFiles);
  EXPECT_EQ(batches, 2u);
}

}  // namespace
}  // namespace wormhole
