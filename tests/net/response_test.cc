// What a response means: its header lines, and whether its body may be taken for the bytes that were asked for.
#include "net/response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using ::testing::HasSubstr;

// --- header lines --------------------------------------------------------------------------------------------------

ResponseHeader header_of(const std::vector<std::string>& lines) {
  ResponseHeader h;
  for (const std::string& line : lines) h.take_line(line + "\r\n");
  return h;
}

TEST(ResponseHeader, TheFieldsThatMatterAreRead) {
  const ResponseHeader h =
      header_of({"HTTP/1.1 206 Partial Content", "ETag: \"abc\"", "Last-Modified: Mon, 05 Jan 2026 10:00:00 GMT",
                 "Content-Length: 100", "Content-Range: bytes 0-99/1234", "Content-Type: Text/HTML; charset=utf-8",
                 "Content-Encoding: GZip", "Accept-Ranges: bytes", "Retry-After: 7", ""});
  EXPECT_EQ(h.status, 206);
  EXPECT_EQ(h.validator, (Validator{"\"abc\"", "Mon, 05 Jan 2026 10:00:00 GMT"}));
  EXPECT_EQ(h.content_length, 100u);
  ASSERT_TRUE(h.content_range);
  EXPECT_EQ(h.content_range->range, (ByteRange{0, 100}));
  EXPECT_EQ(h.content_type, "text/html");
  EXPECT_EQ(h.content_encoding, "gzip");
  EXPECT_TRUE(h.accepts_ranges);
  EXPECT_EQ(h.retry_after, Duration(std::chrono::seconds(7)));
}

TEST(ResponseHeader, NamesAreReadInAnyCaseAndValuesWithoutTheSpaceAround) {
  const ResponseHeader h = header_of({"HTTP/2 200", "etag:\"a\"", "CONTENT-LENGTH:   5\t"});
  EXPECT_EQ(h.status, 200);
  EXPECT_EQ(h.validator.etag, "\"a\"");
  EXPECT_EQ(h.content_length, 5u);
}

TEST(ResponseHeader, ANewStatusLineBeginsAnew) {
  const ResponseHeader h = header_of({"HTTP/1.1 302 Found", "ETag: \"of the redirect\"", "Content-Length: 10", "",
                                      "HTTP/1.1 200 OK", "Content-Type: text/plain", ""});
  EXPECT_EQ(h.status, 200);
  EXPECT_TRUE(h.validator.empty());
  EXPECT_EQ(h.content_length, std::nullopt);
}

TEST(ResponseHeader, AMalformedContentRangeIsSeenAsSuch) {
  const ResponseHeader h = header_of({"HTTP/1.1 206 x", "Content-Range: bytes whatever"});
  EXPECT_TRUE(h.has_content_range);
  EXPECT_FALSE(h.content_range);
}

TEST(ResponseHeader, AcceptRangesNoneIsNo) {
  EXPECT_FALSE(header_of({"HTTP/1.1 200 OK", "Accept-Ranges: none"}).accepts_ranges);
}

TEST(ResponseHeader, RetryAfterIsANumberOrADate) {
  EXPECT_EQ(header_of({"Retry-After: 0"}).retry_after, Duration(0));
  EXPECT_EQ(header_of({"Retry-After: Mon, 05 Jan 2015 10:00:00 GMT"}).retry_after, Duration(0));  // long past
  EXPECT_EQ(header_of({"Retry-After: soon"}).retry_after, std::nullopt);
  const auto far = header_of({"Retry-After: 99999999999"}).retry_after;
  ASSERT_TRUE(far);
  EXPECT_EQ(*far, Duration(std::chrono::hours(1)));  // nobody is obeyed for longer
}

TEST(ResponseHeader, LinesThatAreNoneAreNothing) {
  const ResponseHeader h = header_of({"", ":", "HTTP/", "HTTP/1.1", "HTTP/1.1 abc", "no colon", "Content-Length: 12x",
                                      "Content-Length: -1", "Content-Length:"});
  EXPECT_EQ(h.status, 0);
  EXPECT_EQ(h.content_length, std::nullopt);
}

// --- statuses and failures -----------------------------------------------------------------------------------------

TEST(ErrorOfStatus, ARefusalIsTheServersLastWordAndAnOverloadPasses) {
  const auto code = [](int status) { return error_of_status(status, "http://x/").code; };
  EXPECT_EQ(code(404), ErrorCode::kNotFound);
  EXPECT_EQ(code(410), ErrorCode::kNotFound);
  EXPECT_EQ(code(403), ErrorCode::kForbidden);
  EXPECT_EQ(code(401), ErrorCode::kUnauthorized);
  EXPECT_EQ(code(407), ErrorCode::kUnauthorized);
  for (const int status : {408, 425, 429, 500, 502, 503, 504})
    EXPECT_EQ(code(status), ErrorCode::kUnreachable) << status;
  for (const int status : {0, 100, 304, 400, 405, 418}) EXPECT_EQ(code(status), ErrorCode::kBadResponse) << status;
}

TEST(ErrorOfStatus, TheMessageNamesUrlAndStatus) {
  EXPECT_EQ(error_of_status(503, "http://x/a").message, "http://x/a: the server answered 503");
}

TEST(ErrorOfCurl, WhatRetryingCannotHelpIsToldApart) {
  const auto code = [](CURLcode c) { return error_of_curl(c, "", "http://x/").code; };
  EXPECT_EQ(code(CURLE_COULDNT_CONNECT), ErrorCode::kUnreachable);
  EXPECT_EQ(code(CURLE_COULDNT_RESOLVE_HOST), ErrorCode::kUnreachable);
  EXPECT_EQ(code(CURLE_RECV_ERROR), ErrorCode::kUnreachable);
  EXPECT_EQ(code(CURLE_PARTIAL_FILE), ErrorCode::kUnreachable);
  EXPECT_EQ(code(CURLE_OPERATION_TIMEDOUT), ErrorCode::kTimedOut);
  EXPECT_EQ(code(CURLE_PEER_FAILED_VERIFICATION), ErrorCode::kTls);
  EXPECT_EQ(code(CURLE_TOO_MANY_REDIRECTS), ErrorCode::kBadResponse);
  EXPECT_EQ(code(CURLE_UNSUPPORTED_PROTOCOL), ErrorCode::kInvalid);
}

TEST(ErrorOfCurl, TheMessageHasTheDetailOrElseTheKind) {
  EXPECT_EQ(error_of_curl(CURLE_COULDNT_CONNECT, "nobody there", "http://x/").message, "http://x/: nobody there");
  EXPECT_THAT(error_of_curl(CURLE_COULDNT_CONNECT, "", "http://x/").message, HasSubstr("connect"));
  EXPECT_THAT(error_of_curl(CURLE_COULDNT_CONNECT, nullptr, "http://x/").message, HasSubstr("connect"));
}

// --- may the body be taken? ----------------------------------------------------------------------------------------

const Validator kKnown{"\"v1\"", "Mon, 05 Jan 2026 10:00:00 GMT"};
constexpr uint64_t kSize = 1000;

struct Case {
  const char* name;
  std::vector<std::string> lines;
  std::optional<ErrorCode> expected;  // nothing: the body may be taken
  ByteRange asked = {100, 200};       // what is still missing
  bool whole_body = false;
  Validator known = kKnown;
};

// The name is what a list of tests shows.
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class RangeResponseTest : public ::testing::TestWithParam<Case> {};

TEST_P(RangeResponseTest, Means) {
  const Case& c = GetParam();
  FetchRequest request;
  request.url = "http://x/file";
  request.range = c.asked;
  request.object_size = kSize;
  request.whole_body = c.whole_body;
  const Status status = check_range_response(header_of(c.lines), request, c.known, c.asked);
  if (c.expected) {
    EXPECT_THAT(status, test::FailsWith(*c.expected));
    EXPECT_THAT(status.error().message, HasSubstr("http://x/file"));
  } else {
    EXPECT_THAT(status, test::Succeeds());
  }
}

const std::string k206 = "HTTP/1.1 206 Partial Content";
const std::string k200 = "HTTP/1.1 200 OK";
const std::string kRight = "Content-Range: bytes 100-199/1000";
const std::string kSameEtag = "ETag: \"v1\"";
constexpr ByteRange kWhole{0, kSize};
constexpr auto kStale = ErrorCode::kStale;
constexpr auto kBad = ErrorCode::kBadResponse;

INSTANTIATE_TEST_SUITE_P(
    Responses, RangeResponseTest,
    ::testing::Values(
        // 206
        Case{"TheRangeThatWasAskedForIsTaken", {k206, kRight, kSameEtag}, {}},
        Case{"AValidatorMayBeLeftOut", {k206, kRight}, {}},
        Case{"ATotalMayBeUnknown", {k206, "Content-Range: bytes 100-199/*", kSameEtag}, {}},
        Case{"LessThanWasAskedForIsTaken", {k206, "Content-Range: bytes 100-150/1000"}, {}},
        Case{"ARangeThatBeginsElsewhereIsRefused", {k206, "Content-Range: bytes 101-199/1000"}, kBad},
        Case{"MoreThanWasAskedForIsRefused", {k206, "Content-Range: bytes 100-200/1000"}, kBad},
        Case{"A206WithoutARangeIsRefused", {k206, kSameEtag}, kBad},
        Case{"A206WithAMalformedRangeIsRefused", {k206, "Content-Range: bytes 100-x/1000"}, kBad},
        Case{"AnotherTotalIsAnotherVersion", {k206, "Content-Range: bytes 100-199/1001", kSameEtag}, kStale},
        Case{"AnotherEtagIsAnotherVersion", {k206, kRight, "ETag: \"v2\""}, kStale},
        Case{"AWeakEtagIsNotTheStrongOne", {k206, kRight, "ETag: W/\"v1\""}, kStale},
        Case{"AnotherDateIsAnotherVersionWithoutEtag",
             {k206, kRight, "Last-Modified: Tue, 06 Jan 2026 10:00:00 GMT"},
             kStale},
        Case{"WithNothingKnownAnyVersionIsTaken", {k206, kRight, "ETag: \"v2\""}, {}, {100, 200}, false, {}},
        Case{"AnEncodedRangeIsRefused", {k206, kRight, "Content-Encoding: gzip"}, kBad},
        Case{"IdentityIsNoEncoding", {k206, kRight, "Content-Encoding: identity"}, {}},
        // 200
        Case{"AWholeBodyForAPartMeansNoRanges", {k200, "Content-Length: 1000", kSameEtag}, ErrorCode::kNoRanges},
        Case{"AWholeBodyForAPartMeansNoRangesAlsoWithoutLength", {k200, kSameEtag}, ErrorCode::kNoRanges},
        Case{"AWholeBodyForTheWholeIsTaken", {k200, "Content-Length: 1000", kSameEtag}, {}, kWhole},
        Case{"AWholeBodyOfAnotherSizeIsAnotherVersion", {k200, "Content-Length: 1001"}, kStale},
        Case{"AWholeBodyOfAnotherEtagIsAnotherVersion", {k200, "Content-Length: 1000", "ETag: \"v2\""}, kStale},
        Case{
            "AnEncodedWholeBodyIsRefused", {k200, "Content-Length: 500", "Content-Encoding: gzip"}, kBad, kWhole, true},
        Case{"AWholeBodyThatWasAskedForIsTaken", {k200, "Content-Length: 1000", kSameEtag}, {}, kWhole, true},
        Case{"AWholeBodyWithoutLengthIsTaken", {k200, kSameEtag}, {}, kWhole, true},
        Case{"APartThatNobodyAskedForIsRefused", {k206, "Content-Range: bytes 0-999/1000"}, kBad, kWhole, true},
        // the rest
        Case{"ARangeThatDoesNotExistAnyMoreIsAnotherVersion", {"HTTP/1.1 416 x", "Content-Range: bytes */50"}, kStale},
        Case{"AFailedPreconditionIsAnotherVersion", {"HTTP/1.1 412 x"}, kStale},
        Case{"AMissingFileIsMissing", {"HTTP/1.1 404 x"}, ErrorCode::kNotFound},
        Case{"AForbiddenFileIsForbidden", {"HTTP/1.1 403 x"}, ErrorCode::kForbidden},
        Case{"AnOverloadPasses", {"HTTP/1.1 503 x", "Retry-After: 1"}, ErrorCode::kUnreachable},
        Case{"ASuccessThatIsNoneIsRefused", {"HTTP/1.1 204 x"}, kBad}, Case{"NoStatusIsRefused", {}, kBad}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace wormhole
