// How a server is found out: which requests, and what follows from their answers.
#include "net/listing_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/remote.h"
#include "tests/net/listing_formats.h"
#include "tests/support/fake_fetcher.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::names;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kDirectory = "http://host/data/";
constexpr const char* kHtml =
    "<html><head><title>Index of /data/</title></head><body><pre><a href=\"f\">f</a></pre></body></html>";
constexpr const char* kJson = R"([{"name":"f","type":"file"}])";
constexpr const char* kMultistatus =
    "<D:multistatus xmlns:D='DAV:'><D:response><D:href>/data/f</D:href></D:response></D:multistatus>";
constexpr const char* kBucket =
    "<ListBucketResult><Name>data</Name><Contents><Key>f</Key></Contents></ListBucketResult>";

class ListingSourceTest : public ::testing::Test {
 protected:
  void list() {
    result_.reset();
    ListingRequest request;
    request.directory = kDirectory;
    request.post = [](Task task) {
      task();
      return true;
    };
    request.done = [this](Result<Listing> listing) {
      EXPECT_FALSE(result_.has_value()) << "answered twice";
      result_ = std::move(listing);
    };
    source_->list(std::move(request));
  }
  // Answers what waits; what it was: method and URL.
  std::string answer(int status, const std::string& type, const std::string& body, bool is_s3 = false) {
    if (fetcher_.waiting_documents() == 0) return "nothing";
    auto request = fetcher_.take_document();
    headers_ = request->headers;
    Document d;
    d.status = status;
    d.url = request->url;
    d.content_type = type;
    d.body = body;
    d.is_s3 = is_s3;
    if (status > 299 && !request->take_refusals) {
      request->done(fail(status == 404 ? ErrorCode::kNotFound : ErrorCode::kForbidden, "status {}", status));
    } else {
      request->done(std::move(d));
    }
    return (request->method.empty() ? "GET" : request->method) + " " + request->url;
  }
  void expect_listed() {
    ASSERT_TRUE(result_.has_value());
    ASSERT_THAT(*result_, Succeeds());
    EXPECT_THAT(names(**result_), ElementsAre("f"));
    EXPECT_EQ(fetcher_.waiting_documents(), 0u);
  }
  std::string accepted() const { return headers_.empty() ? "" : headers_.front(); }

  test::FakeFetcher fetcher_;
  std::unique_ptr<ListingSource> source_ = make_listing_source({}, fetcher_);
  std::optional<Result<Listing>> result_;
  std::vector<std::string> headers_;  // of the last request
};

TEST_F(ListingSourceTest, HtmlAndJsonAreFoundWithOneRequest) {
  list();
  EXPECT_EQ(answer(200, "text/html", kHtml), "GET http://host/data/");
  EXPECT_THAT(accepted(), StartsWith("Accept: application/json, text/html"));
  expect_listed();
  list();
  answer(200, "application/json", kJson);
  expect_listed();
}

TEST_F(ListingSourceTest, OnceFoundNothingElseIsTried) {
  list();
  answer(200, "text/html", kHtml);
  list();
  answer(403, "text/html", "");
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kForbidden));
  EXPECT_EQ(fetcher_.waiting_documents(), 0u);
  list();
  answer(200, "text/html", "<html>Hello</html>");
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kBadResponse));
  EXPECT_EQ(fetcher_.waiting_documents(), 0u);
}

TEST_F(ListingSourceTest, AServerThatDoesNotListByGetIsAskedByWebdav) {
  const std::pair<int, const char*> first[] = {{403, "text/html"}, {404, "text/html"}, {405, "text/plain"},
                                               {501, ""},          {200, "text/html"}, {200, "text/plain"}};
  for (const auto& [status, type] : first) {
    source_ = make_listing_source({}, fetcher_);
    list();
    answer(status, type, "<html><body>It works!</body></html>");
    EXPECT_EQ(answer(207, "application/xml", kMultistatus), "PROPFIND http://host/data/") << status;
    EXPECT_THAT(headers_, ::testing::Contains("Depth: 1"));
    expect_listed();
    list();
    EXPECT_EQ(answer(207, "text/xml", kMultistatus), "PROPFIND http://host/data/");
    expect_listed();
  }
}

TEST_F(ListingSourceTest, IfNothingWorksTheFirstAnswerIsTold) {
  list();
  answer(404, "text/html", "");
  answer(403, "text/html", "");
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kNotFound));
  list();  // and nothing is remembered
  answer(200, "text/html", kHtml);
  expect_listed();
}

TEST_F(ListingSourceTest, AnAnswerToPropfindThatIsNoMultistatusIsNoListing) {
  list();
  answer(405, "", "");
  answer(200, "text/html", kHtml);
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT((*result_).error().message, HasSubstr("405"));
}

TEST_F(ListingSourceTest, ABucketIsKnownByItsListingItsHeaderOrAnErrorInXml) {
  const std::tuple<int, const char*, const char*, bool> first[] = {{200, "application/xml", kBucket, false},
                                                                   {404, "application/xml", "", false},
                                                                   {403, "application/xml", "", false},
                                                                   {403, "text/plain", "", true}};
  for (const auto& [status, type, body, is_s3] : first) {
    source_ = make_listing_source({}, fetcher_);
    list();
    answer(status, type, body, is_s3);
    EXPECT_THAT(answer(200, "application/xml", kBucket), StartsWith("GET http://host/data?delimiter=")) << status;
    expect_listed();
    list();
    EXPECT_THAT(answer(200, "application/xml", kBucket), StartsWith("GET http://host/data?delimiter="));
    expect_listed();
  }
}

TEST_F(ListingSourceTest, AnErrorInXmlOfAWebdavServerLeadsToWebdav) {
  list();
  answer(403, "application/xml", "");
  answer(404, "text/html", "");  // S3, in the path
  answer(404, "text/html", "");  // S3, in the host
  EXPECT_EQ(answer(207, "application/xml", kMultistatus), "PROPFIND http://host/data/");
  expect_listed();
}

TEST_F(ListingSourceTest, JsonThatIsNoListingIsAskedForAgainAsHtml) {
  list();
  answer(200, "application/json", R"({"api":1})");
  EXPECT_EQ(answer(200, "text/html", kHtml), "GET http://host/data/");
  EXPECT_EQ(accepted().find("json"), std::string::npos);
  expect_listed();
  list();
  answer(200, "text/html", kHtml);
  EXPECT_EQ(accepted().find("json"), std::string::npos);
  expect_listed();
}

TEST_F(ListingSourceTest, AServerThatSaysNothingIsNotAskedOtherwise) {
  list();
  fetcher_.take_document()->done(fail(ErrorCode::kUnreachable, "by order of the test"));
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kUnreachable));
  EXPECT_EQ(fetcher_.waiting_documents(), 0u);
}

TEST_F(ListingSourceTest, AKindThatIsNamedIsTheOnlyOne) {
  source_ = make_listing_source({.kind = ListingKind::kJson}, fetcher_);
  list();
  answer(200, "text/html", kHtml);
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kBadResponse));
  source_ = make_listing_source({.kind = ListingKind::kHtml}, fetcher_);
  list();
  answer(200, "application/json", kJson);
  EXPECT_THAT(*result_, FailsWith(ErrorCode::kBadResponse));
  source_ = make_listing_source({.kind = ListingKind::kWebdav}, fetcher_);
  list();
  EXPECT_EQ(answer(207, "application/xml", kMultistatus), "PROPFIND http://host/data/");
  expect_listed();
}

// --- a file --------------------------------------------------------------------------------------------------------

TEST(AskAboutFile, AHeadWithoutALengthIsAnEmptyFileIfAGetSaysSo) {
  // The length of the GET's answer; nothing when it was broken off.
  for (const auto& [length, size] : {std::pair(std::optional<uint64_t>(0), std::optional<uint64_t>(0)),
                                     std::pair(std::optional<uint64_t>(), std::optional<uint64_t>())}) {
    test::FakeFetcher fetcher;
    std::optional<Result<Document>> told;
    ask_about_file(fetcher, "http://host/f", std::chrono::seconds(1), [&](Result<Document> d) { told = std::move(d); });
    auto head = fetcher.take_document();
    EXPECT_TRUE(head->head_only);
    head->done(Document{.status = 200, .last_modified = 5});
    auto whole = fetcher.take_document();
    EXPECT_FALSE(whole->head_only);
    EXPECT_EQ(whole->max_bytes, 0u);
    Document empty{.status = 200};
    empty.head.size = length;
    whole->done(length ? Result<Document>(std::move(empty)) : fail(ErrorCode::kBadResponse, "longer than 0 bytes"));
    ASSERT_THAT(*told, Succeeds());
    EXPECT_EQ((*told)->head.size, size);
    EXPECT_EQ((*told)->last_modified, 5);
  }
}

}  // namespace
}  // namespace wormhole
