#include "net/sha256.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

std::string sha256(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return to_hex(hash.digest());
}

// FIPS 180-4, appendix B.
constexpr const char* kOfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256, AgreesWithTheStandard) {
  EXPECT_EQ(sha256("abc"), kOfAbc);
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameInPiecesAndBeginsAnew) {
  Sha256 hash;
  for (const char* piece : {"a", "", "bc"}) hash.update(std::as_bytes(std::span(std::string_view(piece))));
  EXPECT_EQ(to_hex(hash.digest()), kOfAbc);
  hash.update(std::as_bytes(std::span(std::string_view("abc"))));
  EXPECT_EQ(to_hex(hash.digest()), kOfAbc);
}

TEST(Sha256, ReadsDigestsInEitherCase) {
  std::string upper = kOfAbc;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(to_hex(parse_sha256(kOfAbc).value()), kOfAbc);
  EXPECT_EQ(to_hex(parse_sha256(upper).value()), kOfAbc);
}

TEST(Sha256, RefusesOtherText) {
  const std::string digits(64, '0');
  EXPECT_TRUE(parse_sha256(digits));
  for (const std::string& text : {std::string(), digits + "0", digits.substr(1), "g" + digits.substr(1),
                                  "-1" + digits.substr(2), " " + digits.substr(1)}) {
    EXPECT_FALSE(parse_sha256(text)) << text;
  }
}

}  // namespace
}  // namespace wormhole
