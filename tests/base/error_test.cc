#include "base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace wormhole {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Error, EveryCodeHasAWordOfItsOwn) {
  std::set<std::string> words;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kCancelled); ++code) {
    const std::string word = to_string(static_cast<ErrorCode>(code));
    EXPECT_NE(word, "unknown") << code;
    EXPECT_TRUE(words.insert(word).second) << word;
  }
}

TEST(Error, FailMakesTheErrorOfAnyResult) {
  const auto number = [](bool good) -> Result<int> {
    if (!good) return fail(ErrorCode::kNotFound, "{}: {} tries", "x", 3);
    return 1;
  };
  EXPECT_EQ(number(true).value(), 1);
  EXPECT_EQ(number(false).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(number(false).error().message, "x: 3 tries");
  const Status passed_on = fail(number(false).error());
  EXPECT_EQ(passed_on.error().message, "x: 3 tries");
}

TEST(Error, AnErrnoBecomesWhatItMeansForTheCache) {
  const auto code = [](int e) { return error_from_errno(e, "open x").code; };
  EXPECT_EQ(code(ENOSPC), ErrorCode::kNoSpace);
  EXPECT_EQ(code(EDQUOT), ErrorCode::kNoSpace);
  EXPECT_EQ(code(EACCES), ErrorCode::kForbidden);
  EXPECT_EQ(code(EPERM), ErrorCode::kForbidden);
  EXPECT_EQ(code(EROFS), ErrorCode::kForbidden);
  EXPECT_EQ(code(ENOENT), ErrorCode::kNotFound);
  EXPECT_EQ(code(EIO), ErrorCode::kIo);
  EXPECT_EQ(code(ENOTDIR), ErrorCode::kIo);
}

TEST(Error, TheMessageSaysWhatWasTriedAndWhatCameBack) {
  const std::string message = error_from_errno(ENOSPC, "write /cache/x").message;
  EXPECT_THAT(message, StartsWith("write /cache/x: "));
  EXPECT_THAT(message, HasSubstr("No space left"));
}

}  // namespace
}  // namespace wormhole
