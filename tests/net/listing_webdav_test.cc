// The documents in data/ come from the servers themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net/listing_formats.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

using test::captured;
using test::entry;
using test::FailsWith;
using test::kTouched;
using test::names;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Result<Listing> parse(std::string_view document, std::string_view url = "http://example.org/pub/") {
  const auto parser = make_webdav_listing_parser(*Url::parse(url));
  return test::read_listing(*parser, document);
}

Listing listed(std::string_view document, std::string_view url = "http://example.org/pub/") {
  auto listing = parse(document, url);
  EXPECT_THAT(listing, Succeeds());
  return listing ? std::move(*listing) : Listing{};
}

std::string multistatus(std::string_view responses) {
  return fmt::format(R"(<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{}</D:multistatus>)", responses);
}

std::string response(std::string_view href, std::string_view properties = "", std::string_view status = "200 OK") {
  return fmt::format(
      "<D:response><D:href>{}</D:href><D:propstat><D:prop>{}</D:prop><D:status>HTTP/1.1 {}</D:status></D:propstat>"
      "</D:response>",
      href, properties, status);
}

constexpr std::string_view kCollection = "<D:resourcetype><D:collection/></D:resourcetype>";

TEST(WebdavListing, ApacheTellsNamesSizesTimesAndEtags) {
  const Listing listing = listed(captured("apache_dav.xml"), "http://example.org/the%20tree/");
  test::expect_tree(listing);
  EXPECT_EQ(entry(listing, "a b").mtime, kTouched);
  EXPECT_EQ(entry(listing, "100%").etag, "\"7d1-660ac65edf940\"");
}

TEST(WebdavListing, RcloneTellsNamesSizesAndTimes) {
  const Listing listing = listed(captured("rclone_dav.xml"), "http://example.org/the%20tree/");
  test::expect_tree(listing);
  EXPECT_EQ(entry(listing, "a b").mtime, kTouched);
}

TEST(WebdavListing, AnEmptyDirectoryIsEmpty) {
  EXPECT_THAT(listed(captured("apache_dav_empty.xml"), "http://example.org/empty/").entries, IsEmpty());
}

TEST(WebdavListing, AFileIsNoDirectory) {
  EXPECT_THAT(parse(captured("apache_dav_file.xml"), "http://example.org/the%20tree/plain.txt"),
              FailsWith(ErrorCode::kNotDirectory));
}

TEST(WebdavListing, KindsComeFromTheResourceTypeAndNotFromTheSlash) {
  const Listing listing = listed(multistatus(response("/pub", kCollection) + response("/pub/d", kCollection) +
                                             response("http://example.org/pub/e/", kCollection) +
                                             response("/pub/f/", "<D:getcontentlength> 5 </D:getcontentlength>")));
  EXPECT_THAT(names(listing), ElementsAre("d", "e", "f"));
  EXPECT_EQ(entry(listing, "d").type, EntryType::kDirectory);
  EXPECT_EQ(entry(listing, "f").type, EntryType::kFile);
  EXPECT_EQ(entry(listing, "f").size, 5u);
}

TEST(WebdavListing, WhatDidNotSucceedIsNoFact) {
  const Listing listing = listed(
      multistatus(response("/pub/f", "<D:getcontentlength>5</D:getcontentlength>", "404 Not Found") +
                  "<D:response><D:href>/pub/g</D:href><D:status>HTTP/1.1 403 Forbidden</D:status></D:response>"));
  EXPECT_THAT(names(listing), ElementsAre("f"));
  EXPECT_EQ(entry(listing, "f").size, std::nullopt);
}

TEST(WebdavListing, ElementsOfOtherNamespacesAreNotMeant) {
  const Listing listing = listed(multistatus(
      response("/pub/f", "<getcontentlength xmlns='urn:x'>5</getcontentlength><x:href xmlns:x='urn:x'>/y</x:href>")));
  EXPECT_EQ(entry(listing, "f").size, std::nullopt);
  EXPECT_THAT(parse("<multistatus/>"), FailsWith(ErrorCode::kBadResponse));
}

TEST(WebdavListing, NothingOutsideTheDirectoryIsAnEntry) {
  std::string responses = response("/pub/", kCollection);
  for (const char* href :
       {"/pub/..", "/pub/%2e%2e", "/pub/a%2Fb", "/pub/a/b", "/other", "http://example.com/pub/x", "//example.com/pub/x",
        "https://example.org/pub/x", "/pub/nul%00", "/pub/%zz", "", "/pub/?x", "javascript:x"}) {
    responses += response(href);
  }
  responses += response("/pub/" + std::string(256, 'n')) + response("/pub/good") + response("/pub/good");
  const Listing listing = listed(multistatus(responses));
  EXPECT_THAT(names(listing), ElementsAre("good"));
  EXPECT_FALSE(listing.first_refused.empty());
}

TEST(WebdavListing, SizesThatNoFileHasAreNone) {
  for (const char* size : {"-1", "18446744073709551615", "99999999999999999999999", "5 bytes", "0x5", ""}) {
    const Listing listing =
        listed(multistatus(response("/pub/f", fmt::format("<D:getcontentlength>{}</D:getcontentlength>", size))));
    EXPECT_EQ(entry(listing, "f").size, std::nullopt) << size;
  }
}

TEST(WebdavListing, WhatIsCutShortOrNoXmlIsNoListing) {
  const std::string whole = captured("rclone_dav.xml");
  for (const size_t length : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 5}) {
    EXPECT_THAT(parse(whole.substr(0, length)), FailsWith(ErrorCode::kBadResponse)) << length;
  }
  EXPECT_THAT(parse("<html><body>Hello</body></html>"), FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT(parse(std::string("\0\xFF\xFE", 3)), FailsWith(ErrorCode::kBadResponse));
}

TEST(WebdavListing, NoEntitiesAreDefinedAndNoDepthIsFollowed) {
  const auto bomb = parse(R"(<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>)" + multistatus("&b;"));
  ASSERT_THAT(bomb, FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT(bomb.error().message, HasSubstr("document type"));
  EXPECT_THAT(parse(R"(<!DOCTYPE x SYSTEM "file:///etc/passwd">)" + multistatus("")),
              FailsWith(ErrorCode::kBadResponse));
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "<a>";
  EXPECT_THAT(parse(deep), FailsWith(ErrorCode::kBadResponse));
}

}  // namespace
}  // namespace wormhole
