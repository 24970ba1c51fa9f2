#include "net/url.h"

#include <gtest/gtest.h>

#include <string>

namespace wormhole {
namespace {

Url url(std::string_view text) {
  Result<Url> parsed = Url::parse(text);
  EXPECT_TRUE(parsed.has_value()) << text << ": " << (parsed ? "" : parsed.error().message);
  return parsed.value_or(Url());
}

// The message of the error that parsing gives.
std::string refusal(std::string_view text) {
  const Result<Url> parsed = Url::parse(text);
  EXPECT_FALSE(parsed.has_value()) << text;
  if (parsed) return "";
  EXPECT_EQ(parsed.error().code, ErrorCode::kInvalid);
  return parsed.error().message;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST(Url, HasItsParts) {
  const Url u = url("https://example.org/a/b.txt?x=1#top");
  EXPECT_EQ(u.scheme(), "https");
  EXPECT_EQ(u.host(), "example.org");
  EXPECT_EQ(u.path(), "/a/b.txt");
  EXPECT_EQ(u.query(), "x=1");
  EXPECT_EQ(u.file_name(), "b.txt");
  EXPECT_FALSE(u.is_directory());
  EXPECT_EQ(u.str(), "https://example.org/a/b.txt?x=1") << "a fragment is never sent";
}

TEST(Url, IsNormalised) {
  EXPECT_EQ(url("HTTP://Example.ORG").str(), "http://example.org/");
  EXPECT_EQ(url("http://example.org:80/x").str(), "http://example.org/x");
  EXPECT_EQ(url("http://example.org:8080/x").str(), "http://example.org:8080/x");
  EXPECT_EQ(url("http://example.org/a/./b/../c").str(), "http://example.org/a/c");
  EXPECT_EQ(url("http://[::1]:8080/x").str(), "http://[::1]:8080/x");
  EXPECT_EQ(url("http://example.org/x?").str(), "http://example.org/x");
}

TEST(Url, EncodesWhatPeopleType) {
  EXPECT_EQ(url("http://example.org/my file").path(), "/my%20file");
  EXPECT_EQ(url("http://example.org/na\xC3\xAFve").path(), "/na%c3%afve");
  EXPECT_EQ(url("http://example.org/100%25").path(), "/100%25") << "what is encoded already stays";
}

TEST(Url, ProposesASchemeWhenThereIsNone) {
  EXPECT_TRUE(contains(refusal("example.org/x"), "did you mean https://example.org/x ?"));
  EXPECT_TRUE(contains(refusal("localhost:8080/x"), "did you mean https://localhost:8080/x ?"));
  EXPECT_TRUE(contains(refusal("/srv/data"), "\"/srv/data\" is not a URL: expected http://"));
  EXPECT_TRUE(contains(refusal("./data"), "expected http://"));
  EXPECT_TRUE(contains(refusal(""), "empty"));
}

TEST(Url, SaysWhichSchemesItSupports) {
  EXPECT_EQ(refusal("s3://bucket/x"), "s3:// is not supported: only http:// and https:// URLs are");
  EXPECT_TRUE(contains(refusal("ftp://example.org/x"), "ftp:// is not supported"));
  EXPECT_TRUE(contains(refusal("file:///etc/passwd"), "file:// is not supported"));
}

TEST(Url, NamesThePartThatIsWrong) {
  EXPECT_TRUE(contains(refusal("http://example.org:99999/x"), "Port number"));
  EXPECT_TRUE(contains(refusal("http://exa mple.org/x"), "hostname")) << refusal("http://exa mple.org/x");
  EXPECT_TRUE(contains(refusal("http://:80/x"), "o host"));
  EXPECT_TRUE(contains(refusal(std::string_view("http://a/\0b", 11)), "not a URL"));
}

TEST(Url, ShowsNoCredentials) {
  const Url u = url("https://me:secret@example.org/x");
  EXPECT_EQ(u.str(), "https://me:secret@example.org/x");
  EXPECT_EQ(u.display(), "https://example.org/x");
  EXPECT_EQ(u.child("y", false).display(), "https://example.org/x/y");
  EXPECT_EQ(u.child("y", false).str(), "https://me:secret@example.org/x/y");
  EXPECT_FALSE(contains(refusal("https://me:secret@exa mple.org/x"), "secret"));
  EXPECT_FALSE(contains(refusal("me:secret@example.org/x"), "secret"));
  EXPECT_FALSE(contains(refusal("https://me:p@ss:secret@example.org:99999/x"), "secret"));
}

TEST(Url, BecomesADirectory) {
  EXPECT_EQ(url("http://h/a").as_directory().str(), "http://h/a/");
  EXPECT_EQ(url("http://h/a/").as_directory().str(), "http://h/a/");
  EXPECT_EQ(url("http://h/a?x#y").as_directory().str(), "http://h/a/");
  EXPECT_TRUE(url("http://h").is_directory());
}

TEST(Url, HasAParent) {
  EXPECT_EQ(url("http://h/a/b").parent().str(), "http://h/a/");
  EXPECT_EQ(url("http://h/a/b/").parent().str(), "http://h/a/");
  EXPECT_EQ(url("http://h/a").parent().str(), "http://h/");
  EXPECT_EQ(url("http://h/").parent().str(), "http://h/");
  EXPECT_EQ(url("http://h/?q").parent().str(), "http://h/");
}

TEST(Url, MakesAChildOfAnyName) {
  const Url dir = url("http://h/d/");
  EXPECT_EQ(dir.child("x", false).str(), "http://h/d/x");
  EXPECT_EQ(dir.child("x", true).str(), "http://h/d/x/");
  EXPECT_EQ(dir.child("a b%&?#;+\"'", false).path(), "/d/a%20b%25%26%3F%23%3B%2B%22%27");
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/') continue;
    const std::string name = std::string("x") + static_cast<char>(byte) + "y";
    EXPECT_EQ(dir.child(name, false).file_name(), name) << byte;
    EXPECT_EQ(url(dir.child(name, false).str()).file_name(), name) << byte;
  }
}

TEST(Url, ResolvesReferences) {
  const Url page = url("http://h:8080/a/b/index.html?x");
  const auto resolved = [&](std::string_view reference) { return page.resolve(reference).value_or(Url()).str(); };
  EXPECT_EQ(resolved("c"), "http://h:8080/a/b/c");
  EXPECT_EQ(resolved("./c/"), "http://h:8080/a/b/c/");
  EXPECT_EQ(resolved("../"), "http://h:8080/a/");
  EXPECT_EQ(resolved("/c"), "http://h:8080/c");
  EXPECT_EQ(resolved("//other/c"), "http://other/c");
  EXPECT_EQ(resolved("https://other/c"), "https://other/c");
  EXPECT_EQ(resolved("?C=N;O=D"), "http://h:8080/a/b/index.html?C=N;O=D");
  EXPECT_EQ(resolved("with space"), "http://h:8080/a/b/with%20space");
  EXPECT_EQ(resolved("#top"), "http://h:8080/a/b/index.html?x");
  for (const char* elsewhere : {"javascript:void(0)", "mailto:a@b.c", "ftp://h/x", "http://"}) {
    EXPECT_EQ(page.resolve(elsewhere).has_value(), false) << elsewhere;
  }
}

TEST(Url, HasAnOrigin) {
  EXPECT_TRUE(url("http://h/a").same_origin(url("http://H:80/b")));
  EXPECT_TRUE(url("https://h:443/").same_origin(url("https://u:p@h/")));
  EXPECT_FALSE(url("http://h/").same_origin(url("https://h/")));
  EXPECT_FALSE(url("http://h/").same_origin(url("http://h:81/")));
  EXPECT_FALSE(url("http://h/").same_origin(url("http://g/")));
}

TEST(Segment, DecodesWhatItEncodes) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(decode_segment(encode_segment(all)), all);
  EXPECT_EQ(encode_segment("aZ9-._~"), "aZ9-._~");
}

TEST(Segment, RefusesMalformedEscapes) {
  for (const char* segment : {"%", "%4", "%4g", "100%", "%%41"}) {
    EXPECT_FALSE(decode_segment(segment).has_value()) << segment;
  }
  EXPECT_EQ(decode_segment("%41%2f+"), "A/+") << "'+' is no space in a path";
}

}  // namespace
}  // namespace wormhole
