#include "base/version.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr const char* kMonday = "Mon, 05 Jan 2026 10:00:00 GMT";
constexpr const char* kTuesday = "Tue, 06 Jan 2026 10:00:00 GMT";

TEST(Validator, AStrongEtagGoesIntoIfRange) {
  const Validator v{"\"a\"", kMonday};
  EXPECT_TRUE(v.etag_is_strong());
  EXPECT_EQ(v.if_range(), "\"a\"");
}

TEST(Validator, AWeakEtagMustNotGoIntoIfRange) {
  const Validator v{"W/\"a\"", ""};
  EXPECT_FALSE(v.etag_is_strong());
  EXPECT_EQ(v.if_range(), "");
}

TEST(Validator, WithoutAStrongEtagTheDateGoesIntoIfRange) {
  EXPECT_EQ((Validator{"W/\"a\"", kMonday}).if_range(), kMonday);
  EXPECT_EQ((Validator{"", kMonday}).if_range(), kMonday);
}

TEST(Validator, OneWithoutFieldsIsEmptyAndHasNoIfRange) {
  EXPECT_TRUE(Validator{}.empty());
  EXPECT_FALSE(Validator{}.etag_is_strong());
  EXPECT_EQ(Validator{}.if_range(), "");
  EXPECT_FALSE((Validator{"W/\"a\"", ""}).empty());
  EXPECT_FALSE((Validator{"", kMonday}).empty());
}

TEST(Validator, AnotherEtagIsAnotherVersion) {
  EXPECT_TRUE((Validator{"\"a\"", ""}).contradicts({"\"b\"", ""}));
  EXPECT_FALSE((Validator{"\"a\"", ""}).contradicts({"\"a\"", ""}));
}

TEST(Validator, WeakEtagsAreComparedAsWell) {
  EXPECT_TRUE((Validator{"W/\"a\"", ""}).contradicts({"W/\"b\"", ""}));
  EXPECT_FALSE((Validator{"W/\"a\"", ""}).contradicts({"W/\"a\"", ""}));
}

TEST(Validator, AnEtagHasTheLastWordOverTheDate) {
  EXPECT_FALSE((Validator{"\"a\"", kMonday}).contradicts({"\"a\"", kTuesday}));  // touched, the bytes are the same
  EXPECT_TRUE((Validator{"\"a\"", kMonday}).contradicts({"\"b\"", kMonday}));
}

TEST(Validator, AnotherDateIsAnotherVersionWhereThereIsNoEtag) {
  EXPECT_TRUE((Validator{"", kMonday}).contradicts({"", kTuesday}));
  EXPECT_TRUE((Validator{"", kMonday}).contradicts({"\"a\"", kTuesday}));
  EXPECT_FALSE((Validator{"", kMonday}).contradicts({"", kMonday}));
}

TEST(Validator, AFieldThatOneSideLeavesOutSaysNothing) {
  const Validator whole{"\"a\"", kMonday};
  EXPECT_FALSE(whole.contradicts({}));
  EXPECT_FALSE(Validator{}.contradicts(whole));
  EXPECT_FALSE((Validator{"\"a\"", ""}).contradicts({"", kMonday}));
}

}  // namespace
}  // namespace wormhole
