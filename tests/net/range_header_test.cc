#include "net/range_header.h"

#include <gtest/gtest.h>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

using Kind = RequestedRange::Kind;

// --- what we ask ---------------------------------------------------------------------------------------------------

TEST(RangeHeader, TheLastByteOfHttpIsInclusive) {
  EXPECT_EQ(range_header({0, 100}), "0-99");
  EXPECT_EQ(range_header({99, 100}), "99-99");
  EXPECT_EQ(range_header({UINT64_MAX - 1, UINT64_MAX}), "18446744073709551614-18446744073709551614");
}

// --- what a server answers -----------------------------------------------------------------------------------------

TEST(ContentRange, IsReadAsAHalfOpenRange) {
  const auto r = parse_content_range("bytes 100-199/1234");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->range, (ByteRange{100, 200}));
  EXPECT_EQ(r->total, 1234u);
}

TEST(ContentRange, ATotalThatTheServerDoesNotKnowIsNone) {
  const auto r = parse_content_range("bytes 0-0/*");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->range, (ByteRange{0, 1}));
  EXPECT_EQ(r->total, std::nullopt);
}

TEST(ContentRange, AnythingElseIsNone) {
  for (const char* value : {"", "bytes", "bytes ", "bytes 0-99", "bytes 0-99/", "bytes 99-0/100", "bytes */100",
                            "bytes -99/100", "bytes 0-/100", "bytes 0-99/100x", "bytes 0-99/ 100", "bytes  0-99/100",
                            "bytes=0-99/100", "items 0-99/100", "bytes 0-99/-1", "bytes +0-99/100", "bytes 0x0-99/100",
                            "bytes 0-99/99999999999999999999", "bytes 0-18446744073709551615/*"}) {
    EXPECT_FALSE(parse_content_range(value)) << value;
  }
}

TEST(ContentRange, ARangeBehindItsTotalIsNone) {
  EXPECT_FALSE(parse_content_range("bytes 0-100/100"));
  EXPECT_TRUE(parse_content_range("bytes 0-99/100"));
}

TEST(ContentRange, WhatWeWriteWeRead) {
  const auto r = parse_content_range(content_range_header({100, 200}, 1234));
  ASSERT_TRUE(r);
  EXPECT_EQ(r->range, (ByteRange{100, 200}));
  EXPECT_EQ(r->total, 1234u);
}

// --- what a client asks of us --------------------------------------------------------------------------------------

TEST(RequestedRange, APartIsCutAtTheEnd) {
  for (const auto& [value, range] :
       std::initializer_list<std::pair<const char*, ByteRange>>{{"bytes=0-99", {0, 100}},
                                                                {"bytes=100-", {100, 1000}},
                                                                {"bytes=-100", {900, 1000}},
                                                                {"bytes=999-999", {999, 1000}},
                                                                {"bytes=0-5000", {0, 1000}},
                                                                {"bytes=-5000", {0, 1000}},
                                                                {"bytes=0-18446744073709551615", {0, 1000}}}) {
    const RequestedRange r = parse_range_header(value, 1000);
    EXPECT_EQ(r.kind, Kind::kPart) << value;
    EXPECT_EQ(r.range, range) << value;
  }
}

TEST(RequestedRange, OneBehindTheEndCannotBeSatisfied) {
  EXPECT_EQ(parse_range_header("bytes=1000-", 1000).kind, Kind::kUnsatisfiable);
  EXPECT_EQ(parse_range_header("bytes=1000-2000", 1000).kind, Kind::kUnsatisfiable);
  EXPECT_EQ(parse_range_header("bytes=-0", 1000).kind, Kind::kUnsatisfiable);
  EXPECT_EQ(parse_range_header("bytes=0-", 0).kind, Kind::kUnsatisfiable);
  EXPECT_EQ(parse_range_header("bytes=-1", 0).kind, Kind::kUnsatisfiable);
}

TEST(RequestedRange, WhatIsMalformedOrManyMeansTheWhole) {
  for (const char* value : {"", "bytes", "bytes=", "bytes=-", "bytes=x-y", "bytes=5-4", "bytes=0-1,5-6", "items=0-1",
                            "bytes 0-1", "bytes=0-1 ", "bytes= 0-1", "bytes=99999999999999999999-"}) {
    EXPECT_EQ(parse_range_header(value, 1000).kind, Kind::kWhole) << value;
  }
}

}  // namespace
}  // namespace wormhole
