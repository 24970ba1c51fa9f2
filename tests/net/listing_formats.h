// What the tests of all kinds of listings look at.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "net/listing.h"

namespace wormhole::test {

// 2026-11-20 02:57:01 UTC, every file of the tree that the servers showed.
inline constexpr int64_t kTouched = 1795143421;

// What a server has sent: a file of data/.
inline std::string captured(const std::string& name) {
  std::ifstream file(std::string(WORMHOLE_TEST_DATA) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline Result<Listing> read_listing(ListingParser& parser, std::string_view document, size_t piece = 1000) {
  for (size_t at = 0; at < document.size(); at += piece) {
    if (Status fed = parser.feed(document.substr(at, piece)); !fed) return fail(fed.error());
  }
  return parser.finish();
}

inline std::vector<std::string> names(const Listing& listing) {
  std::vector<std::string> names;
  for (const ListedEntry& entry : listing.entries) names.push_back(entry.name);
  return names;
}

inline ListedEntry entry(const Listing& listing, std::string_view name) {
  for (const ListedEntry& e : listing.entries) {
    if (e.name == name) return e;
  }
  ADD_FAILURE() << "no entry " << name;
  return {};
}

// The tree as the servers of data/ show it.
inline std::vector<std::string> tree_files() {
  return {"plain.txt", "a b",   "100%",  "plus+and&",          "quo\"te", "semi;colon", "caf\u00e9",
          "hash#",     "ques?", "<tag>", std::string(200, 'x')};
}

// The sizes are 1, 1001, 2001 and so on, in the order of tree_files().
inline void expect_tree(const Listing& listing) {
  const std::vector<std::string> files = tree_files();
  EXPECT_EQ(listing.entries.size(), files.size() + 2);
  for (size_t i = 0; i < files.size(); ++i) {
    const ListedEntry file = entry(listing, files[i]);
    EXPECT_EQ(file.type, EntryType::kFile) << files[i];
    EXPECT_EQ(file.size, 1000 * i + 1) << files[i];
    EXPECT_EQ(file.mtime_granularity, 1) << files[i];
  }
  for (const char* directory : {"sub", "dir with space"}) {
    EXPECT_EQ(entry(listing, directory).type, EntryType::kDirectory) << directory;
    EXPECT_EQ(entry(listing, directory).size, std::nullopt) << directory;
  }
  EXPECT_EQ(listing.first_refused, "");
}

}  // namespace wormhole::test
