// What the table knows of a file comes back as it was given, and goes when the kernel has forgotten it.
#include "fs/inode_table.h"

#include <gtest/gtest.h>

#include <random>

namespace wormhole {
namespace {

NodeRef directory(Ino ino, const NodeRef& parent = nullptr, std::string name = {}) {
  auto node = std::make_shared<Node>();
  node->ino = ino;
  node->type = EntryType::kDirectory;
  node->parent = parent;
  node->name = std::move(name);
  return node;
}

void expect_same(const Node& a, const Node& b) {
  EXPECT_EQ(a.ino, b.ino);
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.size, b.size);
  EXPECT_EQ(a.mtime, b.mtime);
  EXPECT_EQ(a.mtime_ns, b.mtime_ns);
  EXPECT_EQ(a.mode, b.mode);
  EXPECT_EQ(a.target, b.target);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.parent->ino, b.parent->ino);
  ASSERT_EQ(a.content == nullptr, b.content == nullptr);
  if (a.content) {
    EXPECT_EQ(*a.content, *b.content);
    EXPECT_EQ(a.content->predecessor, b.content->predecessor);
  }
}

class InodeTableTest : public testing::Test {
 protected:
  static Node file(Ino ino, const NodeRef& parent) {
    Node node;
    node.ino = ino;
    node.size = ino * 1000;
    node.mtime = -5;
    node.name = "file " + std::to_string(ino);
    node.parent = parent;
    return node;
  }
  Node file_of_manifest(Ino ino, const NodeRef& parent) const {
    Node node = file(ino, parent);
    node.mode = 0640;
    node.mtime_ns = 999'999'999;
    Content content{{}, ino, trees_};
    content.hash.bytes.fill(static_cast<uint8_t>(ino));
    if (ino % 2 == 0) content.predecessor = Predecessor{{content.hash, ino}, ino + 1};
    node.content = std::make_shared<const Content>(std::move(content));
    return node;
  }
  void add(const Node& node) { table_.add_lookup(std::make_shared<const Node>(node)); }

  const NodeRef root_ = directory(7);
  std::shared_ptr<const TreesFile> trees_ = std::make_shared<const TreesFile>(TreesFile{"http://x/pages", 99});
  InodeTable table_{root_};
};

TEST_F(InodeTableTest, AFileComesBackAsItWasGiven) {
  const Node plain = file(10, root_), of_manifest = file_of_manifest(11, root_);
  Node long_name = file_of_manifest(12, root_);
  long_name.name = std::string(255, 'n');
  Node link = file(13, root_);
  link.type = EntryType::kSymlink;
  link.mode = 0777;
  link.target = std::string(4095, 't');
  link.size = link.target.size();
  Node without_trees = file_of_manifest(14, root_);
  without_trees.content = std::make_shared<const Content>(Content{{}, 5, nullptr});
  for (const Node& node : {plain, of_manifest, long_name, link, without_trees}) {
    add(node);
    ASSERT_NE(table_.find(node.ino), nullptr);
    expect_same(*table_.find(node.ino), node);
  }
  EXPECT_EQ(table_.size(), 6u);
}

TEST_F(InodeTableTest, WhatIsForgottenIsGone) {
  const NodeRef sub = directory(8, root_, "sub");
  table_.add_lookup(sub);
  add(file(10, sub));
  add(file(10, sub));
  table_.forget(10, 1);
  EXPECT_TRUE(table_.contains(10));
  table_.forget(10, 1);
  EXPECT_FALSE(table_.contains(10));
  EXPECT_EQ(table_.find(10), nullptr);
  table_.forget(8, 1);
  EXPECT_EQ(table_.find(8), nullptr);
  table_.forget(8, 1);
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(InodeTableTest, TheRootStays) {
  table_.forget(7, 1000);
  EXPECT_EQ(table_.find(7), root_);
  const NodeRef other = directory(7);
  table_.replace_root(other);
  EXPECT_EQ(table_.find(7), other);
}

TEST_F(InodeTableTest, ABetterKnownSizeReplacesTheOne) {
  add(file(10, root_));
  Node better = file_of_manifest(10, root_);
  better.size = 4242;
  add(better);
  expect_same(*table_.find(10), better);
  table_.forget(10, 1);
  EXPECT_TRUE(table_.contains(10));
}

// Its parent is needed for its URL.
TEST_F(InodeTableTest, AFileKeepsItsDirectory) {
  {
    const NodeRef sub = directory(8, root_, "sub");
    table_.add_lookup(sub);
    add(file(10, sub));
  }
  table_.forget(8, 1);
  EXPECT_EQ(table_.find(8), nullptr);
  EXPECT_EQ(table_.find(10)->parent->name, "sub");
}

TEST_F(InodeTableTest, FilesOfTwoManifestsHaveTheirOwnTrees) {
  const Node old = file_of_manifest(10, root_);
  add(old);
  trees_ = std::make_shared<const TreesFile>(TreesFile{"http://x/newer", 100});
  const Node fresh = file_of_manifest(11, root_);
  add(fresh);
  add(file_of_manifest(12, root_));
  expect_same(*table_.find(10), old);
  expect_same(*table_.find(11), fresh);
  table_.forget(10, 1);
  expect_same(*table_.find(11), fresh);
  table_.forget(11, 1);
  table_.forget(12, 1);
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(InodeTableTest, ManyComeAndGoInAnyOrder) {
  std::minstd_rand random(1);
  std::unordered_map<Ino, uint64_t> expected;
  for (int i = 0; i < 200'000; ++i) {
    const Ino ino = 100 + random() % 20'000 * (random() % 3 + 1);
    if (random() % 3 != 0) {
      add(file(ino, root_));
      ++expected[ino];
    } else if (const auto it = expected.find(ino); it != expected.end()) {
      const uint64_t count = 1 + random() % it->second;
      table_.forget(ino, count);
      if ((it->second -= count) == 0) expected.erase(it);
    }
  }
  EXPECT_EQ(table_.size(), expected.size() + 1);
  for (const auto& [ino, lookups] : expected) expect_same(*table_.find(ino), file(ino, root_));
  for (Ino ino = 100; ino < 60'100; ++ino) EXPECT_EQ(table_.contains(ino), expected.contains(ino));
}

}  // namespace
}  // namespace wormhole
