// Which of the mirrors that somebody else names are asked.
#include "net/named_mirrors.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

std::vector<std::string> usable(const std::vector<std::string>& named, const char* origin = "http://origin/tree/") {
  std::vector<std::string> out;
  for (const Url& url : usable_mirrors(named, *Url::parse(origin))) out.push_back(url.str());
  return out;
}
using Urls = std::vector<std::string>;

TEST(NamedMirrors, AreDirectoriesAndEachIsAskedOnce) {
  EXPECT_EQ(usable({"http://a/x", "https://b/", "http://a/x/"}), (Urls{"http://a/x/", "https://b/"}));
}

TEST(NamedMirrors, TheOriginIsNone) {
  EXPECT_EQ(usable({"http://origin/tree"}), Urls{});
  EXPECT_EQ(usable({"http://origin/other/"}), Urls{"http://origin/other/"});
}

TEST(NamedMirrors, NoneIsAskedWithCredentials) { EXPECT_EQ(usable({"http://me:secret@a/", "http://me@a/"}), Urls{}); }

TEST(NamedMirrors, ATreeThatIsReadOverTlsIsNotAskedForWithout) {
  EXPECT_EQ(usable({"http://a/", "https://a/"}, "https://origin/"), Urls{"https://a/"});
}

TEST(NamedMirrors, WhatIsNoWebServerIsLeftOut) {
  EXPECT_EQ(usable({"file:///etc/", "a", "", "ftp://a/", "http://b/"}), Urls{"http://b/"});
}

TEST(NamedMirrors, TheFirstFewAreEnough) {
  Urls many;
  for (int i = 0; i < 100; ++i) many.push_back("http://m" + std::to_string(i) + "/");
  const Urls asked = usable(many);
  ASSERT_EQ(asked.size(), kMostNamedMirrors);
  EXPECT_EQ(asked.front(), many.front());
}

}  // namespace
}  // namespace wormhole
