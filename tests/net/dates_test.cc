#include "net/dates.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr int64_t kInstant = 1795229821;  // 2026-11-21 02:57:01 UTC
constexpr int64_t kMinute = kInstant - 1;

std::optional<ListedDate> listed(std::string_view text) { return take_listed_date(text); }

TEST(HttpDate, IsReadInItsThreeForms) {
  EXPECT_EQ(parse_http_date("Sat, 21 Nov 2026 02:57:01 GMT"), kInstant);
  EXPECT_EQ(parse_http_date("Saturday, 21-Nov-26 02:57:01 GMT"), kInstant);
  EXPECT_EQ(parse_http_date("Sat Nov 21 02:57:01 2026"), kInstant);
  EXPECT_EQ(parse_http_date("Sun Nov  6 08:49:37 1994"), 784111777);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), 784111777);
}

TEST(HttpDate, IsNotReadWhenMalformed) {
  for (const char* text :
       {"", "now", "Sat, 21 Nov 2026 02:57:01", "Sat, 31 Feb 2026 02:57:01 GMT", "Sat, 21 Nov 2026 24:00:00 GMT",
        "Sat, 21 Xyz 2026 02:57:01 GMT", "Sat, 21 Nov 2026 02:57:01 GMT ", "Sat, -1 Nov 2026 02:57:01 GMT"}) {
    EXPECT_EQ(parse_http_date(text), std::nullopt) << text;
  }
}

TEST(HttpDate, ReadsWhatItWrites) {
  EXPECT_EQ(format_http_date(kInstant), "Sat, 21 Nov 2026 02:57:01 GMT");
  EXPECT_EQ(format_http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(format_http_date(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
  for (int64_t t = -5'000'000'000; t < 20'000'000'000; t += 86'399'999) {
    EXPECT_EQ(parse_http_date(format_http_date(t)), t);
  }
}

TEST(ListedDate, IsReadInTheFormsOfTheServers) {
  for (const char* text : {"21-Nov-2026 02:57", "2026-11-21 02:57", "2026-Nov-21 02:57"}) {
    EXPECT_EQ(listed(text).value_or(ListedDate()).seconds, kMinute) << text;
    EXPECT_EQ(listed(text).value_or(ListedDate()).granularity, 60) << text;
  }
  for (const char* text :
       {"2026-Nov-21 02:57:01", "2026-11-21T02:57:01Z", "2026-11-21T03:57:01+01:00", "2026-11-20T21:27:01-05:30"}) {
    EXPECT_EQ(listed(text).value_or(ListedDate()).seconds, kInstant) << text;
    EXPECT_EQ(listed(text).value_or(ListedDate()).granularity, 1) << text;
  }
}

TEST(ListedDate, LeavesWhatFollows) {
  std::string_view text = "21-Nov-2026 02:57      1234";
  ASSERT_TRUE(take_listed_date(text));
  EXPECT_EQ(text, "      1234");
}

TEST(ListedDate, LeavesTheTextWhenThereIsNoDate) {
  for (const char* none :
       {"", "1234", "2026-11-21", "21-Foo-2026 02:57", "2026-13-21 02:57", "2026-11-31 02:57", "-"}) {
    std::string_view text = none;
    EXPECT_FALSE(take_listed_date(text)) << none;
    EXPECT_EQ(text, none);
  }
}

TEST(ListedDate, IsWrittenAsNginxDoes) { EXPECT_EQ(format_listed_date(kInstant), "21-Nov-2026 02:57"); }

}  // namespace
}  // namespace wormhole
