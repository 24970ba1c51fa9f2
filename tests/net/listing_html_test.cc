// The pages in data/ come from the servers themselves, each serving one tree of names that are awkward in some way.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "net/listing.h"
#include "net/listing_names.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kTouched = 1795143421;  // 2026-11-20 02:57:01 UTC, every file of the tree

std::string captured(const std::string& page) {
  std::ifstream file(std::string(WORMHOLE_TEST_DATA) + "/" + page + ".html", std::ios::binary);
  EXPECT_TRUE(file.is_open()) << page;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Result<Listing> parse(std::string_view page, std::string_view url = "http://example.org/pub/",
                      size_t piece = 16 * 1024) {
  const auto parser = make_html_listing_parser(*Url::parse(url));
  for (size_t at = 0; at < page.size(); at += piece) {
    if (Status fed = parser->feed(page.substr(at, piece)); !fed) return fail(fed.error());
  }
  return parser->finish();
}

Result<Listing> parse_captured(const std::string& page, const std::string& directory = "the%20tree/") {
  const bool apache = page.starts_with("apache_");
  const std::string prefix = apache ? page.substr(7, page.find('_', 7) - 7) + "/" : "";
  return parse(captured(page), "http://example.org/" + prefix + directory);
}

std::vector<std::string> names(const Result<Listing>& listing) {
  EXPECT_TRUE(listing.has_value()) << listing.error().message;
  std::vector<std::string> names;
  if (listing) {
    for (const ListedEntry& entry : listing->entries) names.push_back(entry.name);
  }
  return names;
}

ListedEntry entry(const Result<Listing>& listing, std::string_view name) {
  if (listing) {
    for (const ListedEntry& e : listing->entries) {
      if (e.name == name) return e;
    }
  }
  ADD_FAILURE() << "no entry " << name;
  return {};
}

std::string refusal(std::string_view page) {
  const Result<Listing> listing = parse(page);
  EXPECT_FALSE(listing.has_value());
  if (listing) return "";
  EXPECT_EQ(listing.error().code, ErrorCode::kBadResponse);
  return listing.error().message;
}

// A page as nginx writes it, with these lines between "../" and the end.
std::string nginx_page(std::string_view lines) {
  return fmt::format(
      "<html>\r\n<head><title>Index of /pub/</title></head>\r\n<body>\r\n<h1>Index of /pub/</h1><hr><pre>"
      "<a href=\"../\">../</a>\r\n{}</pre><hr></body>\r\n</html>\r\n",
      lines);
}

std::string nginx_line(std::string_view href, std::string_view facts = "21-Nov-2026 02:57   1") {
  return fmt::format("<a href=\"{}\">text</a>     {}\r\n", href, facts);
}

// --- names ------------------------------------------------------------------------------------------

const std::vector<std::string> kTree = {
    " lead",
    "#hash",
    "%41.txt",
    "100%.txt",
    "<tag>.txt",
    "[x](y)",
    "a&b.txt",
    "a=b",
    "back\\slash",
    "big.bin",
    "colon:name",
    "it's.txt",
    "latin1-\xE9.txt",
    "na\xC3\xAFve-\xE5\x90\x8D\xE5\x89\x8D.txt",
    "new\nline",
    "plain.txt",
    "plus+plus",
    "q?C=N;O=D",
    "quote\"d.txt",
    "semi;colon",
    "this-is-a-very-long-file-name-that-nginx-will-truncate-in-its-display-column.tar.gz",
    "trail ",
    "what?.txt",
    "with space.dat",
    "~tilde"};

class HtmlListingOf : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Servers, HtmlListingOf,
                         ::testing::Values("nginx", "nginx_inexact", "apache_plain", "apache_fancy", "apache_table",
                                           "lighttpd", "caddy", "python"),
                         [](const auto& server) { return std::string(server.param); });

TEST_P(HtmlListingOf, HasEveryNameAndItsType) {
  const std::string server = GetParam();
  std::map<std::string, EntryType> expected;
  for (std::string name : kTree) {
    if (server == "python" && name.starts_with("latin1")) name = "latin1-\xED\xB3\xA9.txt";  // Python's own mistake
    expected[name] = EntryType::kFile;
  }
  for (const char* name : {"dir&amp;", "empty", "sub dir"}) expected[name] = EntryType::kDirectory;
  if (!server.starts_with("nginx")) expected[".hidden"] = EntryType::kFile;  // nginx never lists these

  const Result<Listing> listing = parse_captured(server);
  ASSERT_TRUE(listing.has_value()) << listing.error().message;
  std::map<std::string, EntryType> seen;
  for (const ListedEntry& e : listing->entries) seen[e.name] = e.type;
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(seen.size(), listing->entries.size());
}

TEST_P(HtmlListingOf, HasRightSizesOrNone) {
  const std::map<std::string, uint64_t> sizes = {{"big.bin", 1234567}, {"plain.txt", 3}, {"with space.dat", 2500}};
  const Result<Listing> listing = parse_captured(GetParam());
  for (const auto& [name, size] : sizes) EXPECT_EQ(entry(listing, name).size.value_or(size), size) << name;
  EXPECT_EQ(entry(listing, "sub dir").size, std::nullopt);
}

TEST_P(HtmlListingOf, HasRightDatesOrNone) {
  const Result<Listing> listing = parse_captured(GetParam());
  ASSERT_TRUE(listing.has_value());
  for (const ListedEntry& e : listing->entries) {
    EXPECT_EQ(e.mtime.value_or(kTouched) / e.mtime_granularity, kTouched / e.mtime_granularity) << e.name;
  }
}

TEST_P(HtmlListingOf, IsEmptyForAnEmptyDirectory) {
  std::string server = GetParam();
  if (server == "nginx_inexact") server = "nginx";  // the same page
  const Result<Listing> listing = parse_captured(server + "_empty", "the%20tree/empty/");
  EXPECT_THAT(names(listing), IsEmpty());
}

TEST_P(HtmlListingOf, IsTheSameHoweverThePiecesAreCut) {
  const std::string page = captured(GetParam());
  const std::string url = "http://example.org/pub/";
  const std::vector<std::string> whole = names(parse(page, url, page.size()));
  for (const size_t piece : {1, 2, 3, 7, 61, 1021}) EXPECT_EQ(names(parse(page, url, piece)), whole) << piece;
}

TEST_P(HtmlListingOf, IsRefusedWhenCutShort) {
  const std::string page = captured(GetParam());
  const std::vector<std::string> whole = names(parse(page));
  for (size_t length = 0; length < page.size(); length += std::max<size_t>(1, page.size() / 500)) {
    const Result<Listing> cut = parse(std::string_view(page).substr(0, length));
    if (cut) {
      EXPECT_EQ(names(cut), whole) << "cut at " << length;
    }
  }
}

TEST(HtmlListing, SaysWhichFactsEachServerGives) {
  for (const char* server : {"nginx", "caddy"}) {
    EXPECT_EQ(entry(parse_captured(server), "big.bin").size, 1234567) << server;
  }
  for (const char* server : {"nginx_inexact", "apache_plain", "apache_fancy", "apache_table", "lighttpd", "python"}) {
    EXPECT_EQ(entry(parse_captured(server), "big.bin").size, std::nullopt) << server;
  }
  for (const char* server : {"nginx", "apache_fancy", "apache_table"}) {
    EXPECT_EQ(entry(parse_captured(server), "plain.txt").mtime, kTouched - 1) << server;
    EXPECT_EQ(entry(parse_captured(server), "plain.txt").size, 3) << server;
  }
  for (const char* server : {"lighttpd", "caddy"}) {
    EXPECT_EQ(entry(parse_captured(server), "plain.txt").mtime, kTouched) << server;
    EXPECT_EQ(entry(parse_captured(server), "plain.txt").mtime_granularity, 1) << server;
  }
}

TEST(HtmlListing, TakesTheNameFromTheHrefNotFromTheText) {
  EXPECT_THAT(names(parse(nginx_page("<a href=\"a-long-name\">a-lo..&gt;</a> 21-Nov-2026 02:57 1\r\n"))),
              ElementsAre("a-long-name"));
}

TEST(HtmlListing, SkipsLinksThatLeadElsewhere) {
  std::string lines;
  for (const char* href : {"?C=N;O=D",
                           "/pub/",
                           "./",
                           ".",
                           "..",
                           "../",
                           "/",
                           "/other/x",
                           "a/b",
                           "a/b/",
                           "https://example.org/pub/x",
                           "http://example.org:81/pub/x",
                           "http://elsewhere.org/pub/x",
                           "//elsewhere.org/pub/x",
                           "javascript:void(0)",
                           "mailto:a@b.c",
                           "#top",
                           "x?download",
                           "%2e%2e/",
                           "a%2Fb",
                           "a%00b",
                           "100%",
                           "%zz",
                           "http://[",
                           ""}) {
    lines += nginx_line(href);
  }
  const Result<Listing> listing = parse(nginx_page(lines + nginx_line("good")));
  EXPECT_THAT(names(listing), ElementsAre("good"));
  EXPECT_EQ(listing->skipped, 25) << "\"../\" of the page, and all but the empty one";
}

TEST(HtmlListing, TakesAbsoluteLinksToItsChildren) {
  EXPECT_THAT(names(parse(nginx_page(nginx_line("/pub/a") + nginx_line("http://EXAMPLE.org:80/pub/b/") +
                                     nginx_line("//example.org/pub/c") + nginx_line("./d") + nginx_line(" e ") +
                                     nginx_line("/p%75b/f")))),
              ElementsAre("a", "b", "c", "d", "e", "f"));
}

TEST(HtmlListing, ReadsLinksWithSpacesAndUnicodeInThem) {
  EXPECT_THAT(
      names(parse(nginx_page(nginx_line("a b") + nginx_line("na\xC3\xAFve") + nginx_line("&amp;&quot;&#x4e2d;")))),
      ElementsAre("a b", "na\xC3\xAFve", "&\"\xE4\xB8\xAD"));
}

TEST(HtmlListing, SurvivesNamesThatAreNotUtf8) {
  const std::string line = "<a href=\"x%E9\">x\xE9\xFF</a>   21-Nov-2026 02:57  7\r\n";
  const Result<Listing> listing = parse(nginx_page(line + nginx_line("after", "21-Nov-2026 02:57  8")));
  EXPECT_THAT(names(listing), ElementsAre("x\xE9", "after"));
  EXPECT_EQ(entry(listing, "x\xE9").size, 7);
  EXPECT_EQ(entry(listing, "after").size, 8);
}

TEST(HtmlListing, KeepsTheFirstOfTwoEqualNames) {
  const Result<Listing> listing = parse(nginx_page(nginx_line("x", "21-Nov-2026 02:57  1") + nginx_line("y") +
                                                   nginx_line("x", "21-Nov-2026 02:57  2") + nginx_line("x/")));
  EXPECT_THAT(names(listing), ElementsAre("x", "y"));
  EXPECT_EQ(entry(listing, "x").size, 1);
}

TEST(HtmlListing, TakesTwoLinksOfOneLineAsOne) {
  const Result<Listing> listing =
      parse(nginx_page("<a href=\"x\"><img src=\"i\"></a> <a href=\"x\">x</a>  2026-11-21 02:57  12\n"));
  EXPECT_THAT(names(listing), ElementsAre("x"));
  EXPECT_EQ(entry(listing, "x").size, 12);
  EXPECT_EQ(listing->skipped, 1);
}

TEST(HtmlListing, RefusesNamesThatNoFileCanHave) {
  const std::string longest(kMaxNameLength, 'n');
  EXPECT_THAT(names(parse(nginx_page(nginx_line(longest) + nginx_line(longest + "n")))), ElementsAre(longest));
}

// --- facts ------------------------------------------------------------------------------------------

TEST(HtmlListing, TakesFactsFromTheLinksOwnLineOnly) {
  const std::string before = "2026-11-21 02:57  11 <a href=\"x\">x</a>\n2026-11-21 02:57  22 <a href=\"y\">y</a>\n";
  EXPECT_EQ(entry(parse(nginx_page(before)), "x").size, std::nullopt) << "22 is the size of y";
}

TEST(HtmlListing, BelievesNumbersInAttributesOfCaddyAlone) {
  const std::string row = "<tr><td><a href=\"x\">x</a></td><td data-order=\"1795229821\">yesterday</td></tr>";
  const std::string page = "<html><h1>Index of /pub/</h1><table>" + row + "</table></html>";
  EXPECT_EQ(entry(parse(page), "x").size, std::nullopt);
}

TEST(HtmlListing, ReadsTheTemplateOfLaterCaddies) {
  const std::string page =
      "<!DOCTYPE html><html><head><title>pub/</title></head><body><table aria-describedby=\"summary\"><tr "
      "class=\"file\">"
      "<td></td><td><a href=\"./x\"><svg></svg><span class=\"name\">x</span></a></td>"
      "<td class=\"size\" data-size=\"2500\"><div class=\"sizebar\"><div class=\"sizebar-text\">2.4 "
      "KiB</div></div></td>"
      "<td class=\"timestamp hideable\"><time datetime=\"2026-11-20T02:57:01Z\">11/20/2026</time></td></tr></table>"
      "</body></html>";
  EXPECT_EQ(entry(parse(page), "x").size, 2500);
  EXPECT_EQ(entry(parse(page), "x").mtime, kTouched);
}

// --- what is a listing ------------------------------------------------------------------------------

TEST(HtmlListing, RefusesAnOrdinaryPage) {
  for (const char* page :
       {"", "<html></html>", "hello", "<html><body><h1>It works!</h1></body></html>",
        "<html><title>Welcome to nginx!</title><p><a href=\"docs\">docs</a></html>",
        "<html><title>Index of economic freedom</title><ul><li><a href=\"1999\">1999</a></ul></html>",
        "<html><body><p>see <a href=\"x\">x</a></p><pre>code</pre></body></html>", "\177ELF\001\002"}) {
    EXPECT_THAT(refusal(page), HasSubstr("no directory listing: http://example.org/pub/")) << page;
  }
}

TEST(HtmlListing, StopsReadingAnOrdinaryPageEarly) {
  const auto parser = make_html_listing_parser(*Url::parse("http://example.org/pub/"));
  const std::string text = "<p>" + std::string(64 * 1024, 'x') + "</p>";
  int fed = 0;
  while (fed < 100 && parser->feed(text)) ++fed;
  EXPECT_LT(fed, 10);
}

TEST(HtmlListing, TakesAPageOfBareLinks) {
  const std::string go =
      "<!doctype html>\n<meta name=\"viewport\">\n<pre>\n<a href=\"a\">a</a>\n<a href=\"b/\">b/</a>\n</pre>\n";
  EXPECT_THAT(names(parse(go)), ElementsAre("a", "b"));
  EXPECT_THAT(names(parse("<pre>\n</pre>\n")), IsEmpty());
  EXPECT_THAT(refusal(go.substr(0, go.size() - 8)), HasSubstr("cut short"));
}

TEST(HtmlListing, TakesAFooterThatForgetsToCloseThePage) {
  const std::string page =
      "<html><title>Index of /pub</title><pre><a href=\"x\">x</a> 2026-11-21 02:57  1\n</pre><p>Thanks, sponsors!";
  EXPECT_THAT(names(parse(page)), ElementsAre("x"));
}

TEST(HtmlListing, RefusesAListingThatIsCutShort) {
  const std::string page = nginx_page(nginx_line("x", "21-Nov-2026 02:57  1234"));
  EXPECT_THAT(refusal(page.substr(0, page.find("1234") + 2)), HasSubstr("cut short"));
  EXPECT_THAT(refusal(page.substr(0, page.find("<pre>"))), HasSubstr("cut short"));
  EXPECT_THAT(names(parse(page.substr(0, page.find("</html>")))), ElementsAre("x")) << "the list was closed";
}

TEST(HtmlListing, RefusesElementsNestedTooDeep) {
  std::string page = "<html><title>Index of /pub/</title>";
  for (int i = 0; i < 100'000; ++i) page += "<b>";
  EXPECT_THAT(refusal(page), HasSubstr("no directory listing"));
}

// --- size -------------------------------------------------------------------------------------------

TEST(HtmlListing, TakesTenThousandEntriesInAnyPieces) {
  std::string lines;
  for (int i = 0; i < 10'000; ++i) {
    lines += nginx_line(fmt::format("file%20{:05}%26.txt", i), fmt::format("21-Nov-2026 02:57  {}", i));
  }
  const std::string page = nginx_page(lines);
  for (const size_t piece : {size_t{1}, size_t{1021}, size_t{16384}, page.size()}) {
    const Result<Listing> listing = parse(page, "http://example.org/pub/", piece);
    ASSERT_TRUE(listing.has_value()) << listing.error().message;
    ASSERT_EQ(listing->entries.size(), 10'000);
    for (size_t i = 0; i < 10'000; i += 37) {
      EXPECT_EQ(listing->entries[i].name, fmt::format("file {:05}&.txt", i));
      EXPECT_EQ(listing->entries[i].size, i);
    }
  }
}

}  // namespace
}  // namespace wormhole
