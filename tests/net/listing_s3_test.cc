// The documents in data/ come from a server; s3rver_page.xml is the first of several pages.
#include "net/listing_s3.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net/listing_formats.h"
#include "tests/support/fake_fetcher.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

using test::captured;
using test::entry;
using test::FailsWith;
using test::names;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Url url(std::string_view text) { return *Url::parse(text); }

// --- where ---------------------------------------------------------------------------------------------------------

std::string placed(std::string_view text, const std::string& endpoint = "", const std::string& region = "eu-west-1") {
  const auto place = s3_place(text, endpoint, region);
  return place ? place->url.str() : place.error().message;
}

TEST(S3Place, ABucketOfAmazonIsInTheHostName) {
  EXPECT_EQ(placed("s3://data"), "https://data.s3.eu-west-1.amazonaws.com/");
  EXPECT_EQ(placed("s3://data/a b/%/"), "https://data.s3.eu-west-1.amazonaws.com/a%20b/%25/");
  EXPECT_EQ(placed("s3://data/file"), "https://data.s3.eu-west-1.amazonaws.com/file");
  EXPECT_EQ(s3_place("s3://data", "", "x")->style, BucketStyle::kHost);
}

TEST(S3Place, ABucketWithADotIsInThePathSinceNoCertificateFitsIt) {
  EXPECT_EQ(placed("s3://my.data/x/"), "https://s3.eu-west-1.amazonaws.com/my.data/x/");
  EXPECT_EQ(s3_place("s3://my.data", "", "x")->style, BucketStyle::kPath);
}

TEST(S3Place, ABucketOfAnEndpointIsInThePathUnlessTheEndpointSaysWhere) {
  EXPECT_EQ(placed("s3://data/x/", "http://127.0.0.1:9000/"), "http://127.0.0.1:9000/data/x/");
  EXPECT_EQ(s3_place("s3://data", "http://host", "x")->style, BucketStyle::kPath);
  EXPECT_EQ(placed("s3://data/x/", "https://{bucket}.example.org"), "https://data.example.org/x/");
  EXPECT_EQ(s3_place("s3://data", "https://{bucket}.example.org", "x")->style, BucketStyle::kHost);
}

TEST(S3Place, WhatNamesNoBucketIsRefusedAndNotShown) {
  for (const char* text : {"s3://", "s3:///x", "s3:/x", "", "s3://id:secret@data/", "s3://a b/", "http://x/"}) {
    const auto place = s3_place(text, "", "x");
    ASSERT_THAT(place, FailsWith(ErrorCode::kInvalid)) << text;
    EXPECT_EQ(place.error().message.find("secret"), std::string::npos);
  }
}

TEST(S3Question, TheBucketIsInThePathOrInTheHost) {
  const auto path = s3_question(url("http://host:9000/data/a%20b/c/"), BucketStyle::kPath);
  EXPECT_EQ(path->bucket, "data");
  EXPECT_EQ(path->prefix, "a b/c/");
  EXPECT_EQ(s3_listing_url(*path, ""),
            "http://host:9000/data?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix=a%20b%2Fc%2F");
  const auto host = s3_question(url("http://data.host/a%20b/c/"), BucketStyle::kHost);
  EXPECT_EQ(host->bucket, "");
  EXPECT_EQ(s3_listing_url(*host, "t+/="),
            "http://data.host/?continuation-token=t%2B%2F%3D&delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000"
            "&prefix=a%20b%2Fc%2F");
  EXPECT_EQ(s3_question(url("http://host/data/"), BucketStyle::kPath)->prefix, "");
  EXPECT_THAT(s3_question(url("http://host/"), BucketStyle::kPath), FailsWith(ErrorCode::kInvalid));
}

// --- a page --------------------------------------------------------------------------------------------------------

constexpr const char* kRoot = "http://host/data/";

struct Read {
  Result<S3Page> page;
  Listing listing;
};

Read read(std::string_view document, const std::string& directory = kRoot) {
  EntryList entries;
  auto page = read_s3_page(document, *s3_question(url(directory), BucketStyle::kPath), entries);
  return {std::move(page), entries.take()};
}

std::string page(std::string_view inside) {
  return fmt::format("<ListBucketResult><Name>data</Name>{}</ListBucketResult>", inside);
}

std::string object(std::string_view key, std::string_view size = "3") {
  return fmt::format("<Contents><Key>{}</Key><Size>{}</Size></Contents>", key, size);
}

TEST(S3Listing, NamesSizesTimesAndEtagsAreTold) {
  const Read all = read(captured("s3rver.xml"), "http://host/data/the%20tree/");
  ASSERT_THAT(all.page, Succeeds());
  EXPECT_EQ(all.page->next_token, "");
  test::expect_tree(all.listing);
  const ListedEntry file = entry(all.listing, "100%");
  EXPECT_EQ(file.etag, "\"32c3e875085c4e21f3ba2732ca41ce25\"");
  EXPECT_TRUE(file.mtime.has_value());
}

TEST(S3Listing, APageThatIsNotTheLastSaysHowToGoOn) {
  const Read first = read(captured("s3rver_page.xml"), "http://host/data/the%20tree/");
  ASSERT_THAT(first.page, Succeeds());
  EXPECT_EQ(first.page->next_token, "1GNjMn+tNWU9bigN93Aj/sO9411NdBSulh7BLj//FfGtCrsb8m+w3g==");
  EXPECT_EQ(first.page->listed, 6u);  // a directory, too
  EXPECT_THAT(read(page("<IsTruncated>true</IsTruncated>")).page, FailsWith(ErrorCode::kBadResponse));
}

TEST(S3Listing, EncodedKeysAreDecodedWhereverThePageSaysSo) {
  const std::string encoded = object("a+b%2Bc%C3%A9") + "<CommonPrefixes><Prefix>d%25/</Prefix></CommonPrefixes>";
  EXPECT_THAT(names(read(page(encoded + "<EncodingType>url</EncodingType>")).listing),
              ElementsAre("a b+c\u00e9", "d%"));
  EXPECT_THAT(names(read(page(encoded)).listing), ElementsAre("a+b%2Bc%C3%A9", "d%25"));
}

TEST(S3Listing, TheKeyOfTheDirectoryItselfIsNoEntry) {
  const Read all = read(page(object("x/", "0") + object("x/a")), "http://host/data/x/");
  EXPECT_THAT(names(all.listing), ElementsAre("a"));
  EXPECT_EQ(all.listing.first_refused, "");
  EXPECT_EQ(all.page->listed, 2u);
}

TEST(S3Listing, KeysThatNoFileSystemHasAreLeftOut) {
  std::string keys = object("x/good");
  for (const char* key : {"x/..", "x/.", "x/a/b", "other", "y/z", "/x/a", "", "x/good"}) keys += object(key);
  keys += object("x/" + std::string(256, 'n'));
  for (const char* prefix : {"x//", "x/../", "x/a", "y/", ""})
    keys += fmt::format("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", prefix);
  keys += "<CommonPrefixes><Prefix>x/d/</Prefix></CommonPrefixes>";
  const Read all = read(page(keys), "http://host/data/x/");
  EXPECT_THAT(names(all.listing), ElementsAre("good", "d"));
  EXPECT_EQ(all.listing.skipped, 14u);
  const Read nul = read(page(object("n%00") + object("bad%zz") + "<EncodingType>url</EncodingType>"));
  EXPECT_THAT(nul.listing.entries, IsEmpty());
}

TEST(S3Listing, SizesThatNoFileHasAreNone) {
  for (const char* size : {"-1", "18446744073709551615", "1e3", "", "x"})
    EXPECT_EQ(read(page(object("f", size))).listing.entries.at(0).size, std::nullopt) << size;
}

TEST(S3Listing, APageOfSomethingElseIsRefused) {
  for (const std::string& document :
       {std::string("<Error><Code>NoSuchBucket</Code></Error>"), std::string("<html><p>x</html>"), std::string(),
        std::string("<ListBucketResult><Name>data</Name>"),
        std::string("<ListBucketResult><Name>b</Name></ListBucketResult>"), page("<Prefix>other/</Prefix>")}) {
    const Read all = read(document);
    EXPECT_THAT(all.page, FailsWith(ErrorCode::kBadResponse)) << document;
    EXPECT_THAT(all.listing.entries, IsEmpty());
  }
}

// --- a directory ---------------------------------------------------------------------------------------------------

class S3SourceTest : public ::testing::Test {
 protected:
  void list(const std::string& directory, BucketStyle style = BucketStyle::kPath) {
    source_ = make_s3_source(style, fetcher_);
    again(directory);
  }
  void again(const std::string& directory) {
    result_.reset();
    ListingRequest request;
    request.directory = directory;
    request.patience = std::chrono::seconds(7);
    request.post = [](Task task) {
      task();
      return true;
    };
    request.arrived = [this](const std::vector<ListedEntry>& entries) { arrived_.push_back(entries.size()); };
    request.done = [this](Result<Listing> listing) {
      EXPECT_FALSE(result_.has_value()) << "answered twice";
      result_ = std::move(listing);
    };
    source_->list(std::move(request));
  }
  // Answers what waits; the URL that was asked for.
  std::string answer(Result<Document> document) {
    if (fetcher_.waiting_documents() == 0) return "nothing was asked";
    auto request = fetcher_.take_document();
    EXPECT_EQ(request->patience, std::chrono::seconds(7));
    request->done(std::move(document));
    return request->url;
  }
  std::string answer(const std::string& body) {
    Document d;
    d.status = 200;
    d.content_type = "application/xml";
    d.body = body;
    return answer(std::move(d));
  }
  std::string refuse(ErrorCode code) { return answer(fail(code, "by order of the test")); }
  static std::string more(std::string_view token) {
    return fmt::format("<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", token);
  }
  std::string message() const { return result_ && !*result_ ? result_->error().message : "no error"; }

  test::FakeFetcher fetcher_;
  std::unique_ptr<ListingSource> source_;
  std::vector<size_t> arrived_;
  std::optional<Result<Listing>> result_;
};

TEST_F(S3SourceTest, PagesAreToldAsTheyComeAndAllTogetherInTheEnd) {
  list("http://host/data/");
  answer(page(object("a") + object("b") + more("t1")));
  EXPECT_THAT(arrived_, ElementsAre(2));
  EXPECT_FALSE(result_.has_value());
  EXPECT_THAT(answer(page(object("b") + object("c") + more("t2"))), HasSubstr("continuation-token=t1&"));
  EXPECT_THAT(answer(page(object("d"))), HasSubstr("continuation-token=t2&"));
  EXPECT_THAT(arrived_, ElementsAre(2, 1)) << "the last page is told with all the others";
  ASSERT_TRUE(result_.has_value());
  EXPECT_THAT(names(**result_), ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ((*result_)->skipped, 1u);
}

TEST_F(S3SourceTest, AnErrorOfAnyPageIsTheEnd) {
  list("http://host/data/");
  answer(page(object("a") + more("t1")));
  refuse(ErrorCode::kUnreachable);
  ASSERT_THAT(*result_, FailsWith(ErrorCode::kUnreachable));
  list("http://host/data/");
  answer(page(object("a") + more("t1")));
  answer("<Error/>");
  ASSERT_THAT(*result_, FailsWith(ErrorCode::kBadResponse));
}

TEST_F(S3SourceTest, TokensThatComeAgainAndPagesWithoutAnythingEndIt) {
  list("http://host/data/");
  answer(page(object("a") + more("t1")));
  answer(page(object("b") + more("t2")));
  answer(page(object("c") + more("t1")));
  EXPECT_THAT(message(), HasSubstr("a token came twice"));
  list("http://host/data/");
  int pages = 0;
  for (; pages < 100 && !result_; ++pages) answer(page(more(std::to_string(pages))));
  EXPECT_THAT(message(), HasSubstr("one empty page after the other"));
  EXPECT_LT(pages, 20);
}

TEST_F(S3SourceTest, APrefixWithoutKeysIsNotThereAndAnEmptyBucketIsEmpty) {
  list("http://host/data/x/");
  answer(page(""));
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kNotFound));
  list("http://host/data/");
  answer(page(""));
  EXPECT_THAT(*result_, Succeeds());
}

TEST_F(S3SourceTest, WhereTheBucketIsIsTriedAndRemembered) {
  list("http://host/x/y/", BucketStyle::kAuto);
  EXPECT_THAT(refuse(ErrorCode::kNotFound), HasSubstr("http://host/x?"));
  EXPECT_THAT(answer(page("<Prefix>x/y/</Prefix>" + object("x/y/f"))), HasSubstr("http://host/?"));
  EXPECT_THAT(names(**result_), ElementsAre("f"));
  again("http://host/x/z/");
  EXPECT_THAT(refuse(ErrorCode::kForbidden), HasSubstr("http://host/?"));
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kForbidden));
  EXPECT_EQ(fetcher_.waiting_documents(), 0u);
}

TEST_F(S3SourceTest, IfNeitherPlaceWorksTheFirstAnswerIsTold) {
  list("http://host/x/", BucketStyle::kAuto);
  refuse(ErrorCode::kForbidden);
  refuse(ErrorCode::kNotFound);
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kForbidden));
  list("http://host/x/", BucketStyle::kAuto);
  refuse(ErrorCode::kTimedOut);  // says nothing about where the bucket is
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kTimedOut));
}

TEST_F(S3SourceTest, AmazonsHostsSayWhereTheBucketIs) {
  list("https://data.s3.eu-west-1.amazonaws.com/x/", BucketStyle::kAuto);
  EXPECT_THAT(refuse(ErrorCode::kNotFound), HasSubstr("amazonaws.com/?"));
  EXPECT_TRUE(result_.has_value());
  list("https://s3.eu-west-1.amazonaws.com/data/x/", BucketStyle::kAuto);
  EXPECT_THAT(refuse(ErrorCode::kNotFound), HasSubstr("amazonaws.com/data?"));
  EXPECT_TRUE(result_.has_value());
}

}  // namespace
}  // namespace wormhole
