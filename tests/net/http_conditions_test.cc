#include "net/http_conditions.h"

#include <gtest/gtest.h>

#include <ostream>

#include "net/range_header.h"

namespace wormhole {

void PrintTo(const FileAnswer& answer, std::ostream* out) {
  *out << answer.status << " [" << answer.body.begin << ", " << answer.body.end << ")";
}
bool operator==(const FileAnswer& a, const FileAnswer& b) { return a.status == b.status && a.body == b.body; }

namespace {

constexpr uint64_t kSize = 1000;
const Validator kValidator = {"\"abc\"", "Sat, 21 Nov 2026 02:57:01 GMT"};
constexpr const char* kEarlier = "Sat, 21 Nov 2026 02:57:00 GMT";
constexpr const char* kLater = "Sat, 21 Nov 2026 02:57:02 GMT";
const FileAnswer kWhole = {200, {0, kSize}};
const FileAnswer kUnmodified = {304, {}};
const FileAnswer kFailed = {412, {}};
const FileAnswer kUnsatisfiable = {416, {}};

FileAnswer part(uint64_t begin, uint64_t end) { return {206, {begin, end}}; }

FileAnswer ask(const RequestConditions& request, uint64_t size = kSize) {
  return answer_file_request(request, kValidator, size);
}
FileAnswer ask_range(std::string_view range, uint64_t size = kSize) { return ask({.range = range}, size); }

TEST(FileAnswer, IsTheWholeFileWhenNothingIsAsked) { EXPECT_EQ(ask({}), kWhole); }

TEST(FileAnswer, IsTheRangeThatIsAsked) {
  EXPECT_EQ(ask_range("bytes=0-0"), part(0, 1));
  EXPECT_EQ(ask_range("bytes=10-19"), part(10, 20));
  EXPECT_EQ(ask_range("bytes=990-"), part(990, 1000));
  EXPECT_EQ(ask_range("bytes=-10"), part(990, 1000));
}

TEST(FileAnswer, EndsWithTheFile) {
  EXPECT_EQ(ask_range("bytes=990-2000"), part(990, 1000));
  EXPECT_EQ(ask_range("bytes=0-18446744073709551615"), part(0, 1000));
  EXPECT_EQ(ask_range("bytes=-2000"), part(0, 1000));
}

TEST(FileAnswer, RefusesARangeOutsideTheFile) {
  EXPECT_EQ(ask_range("bytes=1000-"), kUnsatisfiable);
  EXPECT_EQ(ask_range("bytes=1000-1001"), kUnsatisfiable);
  EXPECT_EQ(ask_range("bytes=-0"), kUnsatisfiable);
  EXPECT_EQ(ask_range("bytes=0-", 0), kUnsatisfiable);
  EXPECT_EQ(ask_range("bytes=-1", 0), kUnsatisfiable);
}

TEST(FileAnswer, IgnoresRangesThatAreMalformedOrMany) {
  for (const char* range : {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=1", "bytes=+1-2",
                            "bytes=0-1,3-4", "bytes=0-1 ", "bytes= 0-1", "items=0-1", "bytes=--1", "bytes=0x1-2",
                            "bytes=18446744073709551616-", "bytes=0-18446744073709551616"}) {
    EXPECT_EQ(ask_range(range), kWhole) << range;
  }
}

TEST(FileAnswer, IsARangeOnlyIfTheVersionIsTheOneThatIsMeant) {
  EXPECT_EQ(ask({.range = "bytes=0-9", .if_range = "\"abc\""}), part(0, 10));
  EXPECT_EQ(ask({.range = "bytes=0-9", .if_range = kValidator.last_modified}), part(0, 10));
  for (const char* other : {"\"xyz\"", "W/\"abc\"", "abc", kEarlier, kLater}) {
    EXPECT_EQ(ask({.range = "bytes=0-9", .if_range = other}), kWhole) << other;
  }
  EXPECT_EQ(ask({.range = "bytes=5000-", .if_range = "\"xyz\""}), kWhole) << "of a file that was longer once";
}

TEST(FileAnswer, IsNotModifiedForOneWhoHasIt) {
  for (const char* list : {"\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\"", "\"x\",W/\"abc\" ,\"y\""}) {
    EXPECT_EQ(ask({.if_none_match = list}), kUnmodified) << list;
  }
  EXPECT_EQ(ask({.if_none_match = "\"x\", \"y\""}), kWhole);
  EXPECT_EQ(ask({.if_modified_since = kValidator.last_modified}), kUnmodified);
  EXPECT_EQ(ask({.if_modified_since = kLater}), kUnmodified);
  EXPECT_EQ(ask({.if_modified_since = kEarlier}), kWhole);
  EXPECT_EQ(ask({.if_modified_since = "yesterday"}), kWhole);
  EXPECT_EQ(ask({.if_none_match = "\"x\"", .if_modified_since = kLater}), kWhole) << "the ETag goes first";
}

TEST(FileAnswer, FailsForOneWhoWantsAnotherVersion) {
  EXPECT_EQ(ask({.if_match = "\"abc\""}), kWhole);
  EXPECT_EQ(ask({.if_match = "*"}), kWhole);
  EXPECT_EQ(ask({.if_match = "\"xyz\""}), kFailed);
  EXPECT_EQ(ask({.if_match = "W/\"abc\""}), kFailed) << "a weak ETag does not say that the bytes are equal";
  EXPECT_EQ(ask({.if_unmodified_since = kEarlier}), kFailed);
  EXPECT_EQ(ask({.if_unmodified_since = kValidator.last_modified}), kWhole);
  EXPECT_EQ(ask({.range = "bytes=0-9", .if_match = "\"abc\""}), part(0, 10));
}

// RFC 9110, section 13.2.2.
TEST(FileAnswer, LooksAtConditionsInTheOrderOfTheStandard) {
  EXPECT_EQ(ask({.if_match = "\"abc\"", .if_unmodified_since = kEarlier}), kWhole) << "If-Match goes first";
  EXPECT_EQ(ask({.if_match = "\"xyz\"", .if_none_match = "\"abc\""}), kFailed) << "then what asks for another version";
  EXPECT_EQ(ask({.range = "bytes=0-9", .if_none_match = "\"abc\""}), kUnmodified) << "ranges come last";
  EXPECT_EQ(ask({.range = "bytes=5000-", .if_match = "\"xyz\""}), kFailed);
  EXPECT_EQ(ask({.range = "bytes=0-9", .if_range = "\"xyz\"", .if_match = "\"abc\""}), kWhole);
  EXPECT_EQ(ask({.if_range = "\"xyz\""}), kWhole) << "without a range it says nothing";
}

TEST(ContentRange, ReadsWhatItWrites) {
  const auto parsed = parse_content_range(content_range_header({10, 20}, 1000));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->range, (ByteRange{10, 20}));
  EXPECT_EQ(parsed->total, 1000);
}

}  // namespace
}  // namespace wormhole
