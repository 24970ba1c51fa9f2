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

Result<Listing> parse(std::string_view document) {
  const auto parser = make_json_listing_parser(*Url::parse("http://example.org/pub/"));
  return test::read_listing(*parser, document);
}

Listing listed(std::string_view document) {
  auto listing = parse(document);
  EXPECT_THAT(listing, Succeeds());
  return listing ? std::move(*listing) : Listing{};
}

TEST(JsonListing, NginxTellsNamesSizesAndTimesExactly) {
  const Listing listing = listed(captured("nginx.json"));
  test::expect_tree(listing);
  EXPECT_EQ(entry(listing, "a b").mtime, kTouched);
  EXPECT_EQ(entry(listing, "sub").mtime, kTouched);
}

TEST(JsonListing, CaddyTellsNamesSizesAndTimesExactly) {
  const Listing listing = listed(captured("caddy.json"));
  test::expect_tree(listing);
  EXPECT_EQ(entry(listing, "a b").mtime, kTouched);
}

TEST(JsonListing, AnEmptyDirectoryIsEmpty) {
  EXPECT_THAT(listed(captured("nginx_empty.json")).entries, IsEmpty());
  EXPECT_THAT(listed(captured("caddy_empty.json")).entries, IsEmpty());
}

TEST(JsonListing, ANameThatIsNoUtf8KeepsItsBytes) {
  EXPECT_THAT(names(listed(captured("nginx_latin1.json"))), ElementsAre("caf\xE9"));
  // Beside well-formed ones, and where a sequence is cut short, overlong, or a surrogate.
  EXPECT_THAT(names(listed("[{\"name\":\"\xC3\xA9 \xFF \xC3\",\"type\":\"file\"},"
                           "{\"name\":\"\xC0\x80 \xED\xA0\x80 \xF0\x9F\x98\x80 \xF5\",\"type\":\"file\"}]")),
              ElementsAre("\xC3\xA9 \xFF \xC3", "\xC0\x80 \xED\xA0\x80 \xF0\x9F\x98\x80 \xF5"));
}

TEST(JsonListing, FractionsAndZonesOfTimesAreUnderstood) {
  const Listing listing = listed(
      R"([{"name":"a","is_dir":false,"mod_time":"2026-11-20T03:57:01.123456789+01:00"},
          {"name":"b","is_dir":false,"mod_time":"2026-11-20T02:57:01.5Z"},
          {"name":"c","is_dir":false,"mod_time":"yesterday"}])");
  EXPECT_EQ(entry(listing, "a").mtime, kTouched);
  EXPECT_EQ(entry(listing, "b").mtime, kTouched);
  EXPECT_EQ(entry(listing, "c").mtime, std::nullopt);
}

TEST(JsonListing, TheSizeOfALinkIsNotBelieved) {
  const Listing listing = listed(R"([{"name":"a","is_dir":false,"size":5,"is_symlink":true}])");
  EXPECT_EQ(entry(listing, "a").size, std::nullopt);
}

TEST(JsonListing, SizesThatNoFileHasAreNone) {
  for (const char* size : {"-1", "1.5", "1e3", "18446744073709551615", "99999999999999999999999", "\"5\"", "null"}) {
    const Listing listing = listed(fmt::format(R"([{{"name":"a","type":"file","size":{}}}])", size));
    EXPECT_EQ(entry(listing, "a").size, std::nullopt) << size;
  }
}

TEST(JsonListing, NamesThatNoEntryCanHaveAreLeftOut) {
  const std::string names_of[] = {"..", ".", "", "a/b", "/", "nul\\u0000", std::string(256, 'n'), "good", "good"};
  std::string document = "[";
  for (const std::string& name : names_of) {
    document += fmt::format(R"({}{{"name":"{}","type":"file"}})", document.size() > 1 ? "," : "", name);
  }
  const Listing listing = listed(document + "]");
  EXPECT_THAT(names(listing), ElementsAre("good"));
  EXPECT_EQ(listing.skipped, 8u);
  EXPECT_EQ(listing.first_refused, "\"..\"");
}

TEST(JsonListing, WhatIsLeftOutIsToldInPrintableCharacters) {
  EXPECT_EQ(listed("[{\"name\":\"/\xE1\xE1\\n\",\"type\":\"file\"}]").first_refused, "\"/\\xe1\\xe1\\x0a\"");
  EXPECT_LT(listed(R"([{"name":")" + std::string(100'000, '\xE1') + R"(","type":"file"}])").first_refused.size(),
            1300u);
}

TEST(JsonListing, WhatIsNeitherFileNorDirectoryIsLeftOut) {
  const Listing listing = listed(R"([{"name":"socket","type":"other"},{"name":"f","type":"file"}])");
  EXPECT_THAT(names(listing), ElementsAre("f"));
  EXPECT_EQ(listing.skipped, 1u);
}

TEST(JsonListing, FactsOfOtherThingsInsideAnEntryAreNotTheEntrys) {
  const Listing listing =
      listed(R"([{"name":"f","type":"file","size":5,"x":{"size":7,"name":"g"},"y":[8,{"type":"directory"}]}])");
  EXPECT_EQ(entry(listing, "f").size, 5u);
}

TEST(JsonListing, OtherJsonIsNoListing) {
  for (const char* document :
       {"", "{}", "null", "1", "\"x\"", "[1]x", "[", "[{]", R"({"files":[]})", R"([{"a":1}])", R"([{"name":"x"}])",
        R"([{"name":"x","type":"file"})", R"([{"name":1,"type":"file"}])"}) {
    EXPECT_THAT(parse(document), FailsWith(ErrorCode::kBadResponse)) << document;
  }
  EXPECT_THAT(parse(R"({"error":"no"})").error().message, HasSubstr("http://example.org/pub/"));
}

TEST(JsonListing, DeepNestingIsRefusedAndNotFollowed) {
  EXPECT_THAT(parse(std::string(1'000'000, '[')), FailsWith(ErrorCode::kBadResponse));
  std::string deep = R"([{"name":"x","type":"file","y":)" + std::string(1000, '[') + std::string(1000, ']') + "}]";
  EXPECT_THAT(parse(deep), FailsWith(ErrorCode::kBadResponse));
}

}  // namespace
}  // namespace wormhole
