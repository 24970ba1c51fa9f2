// Secrets from files: what is taken, what is refused, and that no message tells them.
#include "net/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CredentialsTest : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::string path = directory_.path() + "/secret";
    std::ofstream(path) << text;
    return path;
  }

  test::TemporaryDirectory directory_;
};

TEST_F(CredentialsTest, ATokenIsTheFileWithoutTheLineEnd) {
  Credentials c({.token_file = write("abc.def\n")});
  ASSERT_THAT(c.load(), Succeeds());
  EXPECT_EQ(c.token(), "abc.def");
}

TEST_F(CredentialsTest, HeadersAreLinesWithoutCommentsAndBlanks) {
  Credentials c({.header_file = write("# keys\n\nX-Key: 1 2\n  Cookie: a=b  \n")});
  ASSERT_THAT(c.load(), Succeeds());
  EXPECT_THAT(c.headers(), ElementsAre("X-Key: 1 2", "Cookie: a=b"));
}

TEST_F(CredentialsTest, AFileIsReadAgainAfterARefusal) {
  Credentials c({.token_file = write("old")});
  ASSERT_THAT(c.load(), Succeeds());
  write("new");
  EXPECT_TRUE(c.reload());
  EXPECT_EQ(c.token(), "new");
}

TEST_F(CredentialsTest, WithoutFilesThereIsNothingToReadAgain) {
  Credentials c({.user = "u", .password = "p"});
  EXPECT_TRUE(c.any());
  EXPECT_FALSE(c.reload());
}

TEST_F(CredentialsTest, AFileThatIsGoneLeavesTheOldOnes) {
  const std::string path = write("old");
  Credentials c({.token_file = path});
  ASSERT_THAT(c.load(), Succeeds());
  std::remove(path.c_str());
  EXPECT_FALSE(c.reload());
  EXPECT_EQ(c.token(), "old");
}

TEST_F(CredentialsTest, AwsKeysAreThoseOfTheSection) {
  const std::string text =
      "[default]\naws_access_key_id = A\naws_secret_access_key = b/c+d=\n\n# mine\n[work]\n  aws_access_key_id=W\n"
      "aws_secret_access_key=x\naws_session_token = t/=\nregion = eu\n";
  Credentials first({.aws_keys = {"of", "the environment", ""}, .aws_file = write(text)});
  EXPECT_EQ(first.aws().id, "of");
  ASSERT_THAT(first.load(), Succeeds());
  EXPECT_EQ(first.aws().id, "A");
  EXPECT_EQ(first.aws().secret, "b/c+d=");
  EXPECT_EQ(first.aws().session_token, "");
  Credentials work({.aws_file = write(text), .aws_profile = "work"});
  ASSERT_THAT(work.load(), Succeeds());
  EXPECT_EQ(work.aws().id, "W");
  EXPECT_EQ(work.aws().session_token, "t/=");
  Credentials none({.aws_file = write("[default]\naws_access_key_id = A\n[x]\naws_secret_access_key = hidden\n")});
  const Status s = none.load();
  ASSERT_THAT(s, FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(s.error().message, Not(HasSubstr("hidden")));
}

TEST_F(CredentialsTest, WhatIsNoneIsRefusedWithoutBeingTold) {
  for (const char* text : {"", "\n", "secret secret", "secret\nsecret"}) {
    Credentials c({.token_file = write(text)});
    const Status s = c.load();
    ASSERT_THAT(s, FailsWith(ErrorCode::kInvalid)) << text;
    EXPECT_THAT(s.error().message, Not(HasSubstr("secret secret")));
  }
  for (const char* text : {"secret", ": secret", "Bad Name: secret", "X: a\rY: b"}) {
    Credentials c({.header_file = write(text)});
    const Status s = c.load();
    ASSERT_THAT(s, FailsWith(ErrorCode::kInvalid)) << text;
    EXPECT_THAT(s.error().message, HasSubstr("line 1"));
    EXPECT_THAT(s.error().message, Not(HasSubstr("secret\"")));
  }
}

TEST_F(CredentialsTest, AMissingFileIsNamed) {
  Credentials c({.token_file = "/nowhere/token"});
  const Status s = c.load();
  ASSERT_FALSE(s);
  EXPECT_THAT(s.error().message, HasSubstr("token-file=/nowhere/token"));
}

}  // namespace
}  // namespace wormhole
