#include "manifest/signature.h"

#include <gtest/gtest.h>

#include "tests/support/printing.h"

namespace wormhole {
namespace {

// Made by minisign 0.11 (-G -W); nobody signs anything with it.
constexpr std::string_view kPublic =
    "untrusted comment: minisign public key 3E0D4E5CA97C9229\n"
    "RWQpknypXE4NPiDEOVIuo2rDbCxw18qojLLzl8nJeyAZv2SjIjhYEjz3\n";
constexpr std::string_view kSecret =
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKZJ8qVxODT5jrD9C1nt7EGWd2EjbTRAarmZvDJEN/"
    "1OO1grzmXaksiDEOVIuo2rDbCxw18qojLLzl8nJeyAZv2SjIjhYEjz3AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
// And its signature of "hello\n", and one of the kind of old (-l).
constexpr std::string_view kSignature =
    "untrusted comment: signature from minisign secret key\n"
    "RUQpknypXE4NPk/3Hp6TNT2b7+jgSxMNPdgqHm9q9Bo0mys2KOYGDlU9pU13opetqEHddvt5MHvmohkqVWRS9Rql2tZPfEq74Q8=\n"
    "trusted comment: a trusted comment\n"
    "ETU4ajhw0OatFsptBNFKKCC5o8mpobBt6GHP1ffXbhlnnu4/hzusa/F/zaFuA4+9tjVsGCWx9LgWLKdFcBeYBg==\n";
constexpr std::string_view kOldSignature =
    "untrusted comment: signature from minisign secret key\n"
    "RWQpknypXE4NPqEc/ay0R0Zxii44usdvHtKyDRf+RhvlweK0P1gHCkJjeMERvt3cc5CE/rId8Zn3b3o64S/2SMyl27hFMWuejAU=\n"
    "trusted comment: old\n"
    "FGzsPxOO/NzQI9V0yiLx5UmblsDKw9sXxnqYCoAXGg2J15BGDvikJQpFAaFBFAIrQ2JlxLOJwLPhOsJviR3VCQ==\n";

Result<std::string> no_password() { return fail(ErrorCode::kInvalid, "nobody should ask"); }

SecretKey secret() {
  auto key = SecretKey::parse(kSecret, no_password);
  EXPECT_THAT(key, test::Succeeds());
  return std::move(*key);
}
PublicKey public_key() { return *PublicKey::parse(kPublic); }

TEST(SignatureTest, MinisignsAreUnderstood) {
  EXPECT_EQ(*verify_signature(public_key(), "hello\n", kSignature), "a trusted comment");
  EXPECT_THAT(verify_signature(public_key(), "hello\n", kOldSignature), test::Succeeds());
  EXPECT_THAT(verify_signature(public_key(), "hello", kOldSignature), test::FailsWith(ErrorCode::kForbidden));
}

TEST(SignatureTest, OurOwnFitTheKey) {
  const std::string signature = secret().sign("message", "timestamp:1\tfile:manifest");
  EXPECT_EQ(*verify_signature(public_key(), "message", signature), "timestamp:1\tfile:manifest");
  EXPECT_THAT(verify_signature(public_key(), "messagf", signature), test::FailsWith(ErrorCode::kForbidden));
}

TEST(SignatureTest, TheLineOfAPublicKeyIsEnough) {
  const std::string_view line = kPublic.substr(kPublic.find('\n') + 1, 56);
  const auto key = PublicKey::parse(line);
  ASSERT_THAT(key, test::Succeeds());
  EXPECT_EQ(key->bytes(), public_key().bytes());
  EXPECT_EQ(key->id(), secret().id());
}

TEST(SignatureTest, AChangedCharacterAnywhereButInTheFreeCommentIsRefused) {
  const std::string signature = secret().sign("message", "comment");
  for (size_t at = signature.find('\n') + 1; at + 1 < signature.size(); ++at) {
    std::string wrong = signature;
    wrong[at] = wrong[at] == 'A' ? 'B' : 'A';
    if (at == signature.size() - 2 || signature[at + 1] == '=') continue;  // bits that base64 does not use
    EXPECT_FALSE(verify_signature(public_key(), "message", wrong)) << at;
  }
  for (size_t size = 0; size + 2 < signature.size(); ++size)
    EXPECT_FALSE(verify_signature(public_key(), "message", signature.substr(0, size))) << size;
}

TEST(SignatureTest, AnotherKeyIsNamed) {
  std::string other(kPublic.substr(kPublic.find('\n') + 1, 56));
  other[4] = other[4] == 'A' ? 'B' : 'A';  // within the key's id
  const auto key = PublicKey::parse(other);
  ASSERT_THAT(key, test::Succeeds());
  const auto checked = verify_signature(*key, "hello\n", kSignature);
  ASSERT_THAT(checked, test::FailsWith(ErrorCode::kForbidden));
  EXPECT_NE(checked.error().message.find(to_hex(key->id())), std::string::npos);
}

TEST(SignatureTest, WhatIsNoKeyIsRefused) {
  for (const char* text : {"", "RWQ", "untrusted comment: x\n", "untrusted comment: x\nRWQ=\n", "<html>"}) {
    EXPECT_THAT(PublicKey::parse(text), test::FailsWith(ErrorCode::kInvalid)) << text;
    EXPECT_THAT(SecretKey::parse(text, no_password), test::FailsWith(ErrorCode::kInvalid)) << text;
  }
  EXPECT_THAT(SecretKey::parse(kPublic, no_password), test::FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(PublicKey::parse(kSecret), test::FailsWith(ErrorCode::kInvalid));
  std::string damaged(kSecret);
  damaged[damaged.find('\n') + 120] ^= 1;
  EXPECT_THAT(SecretKey::parse(damaged, no_password), test::FailsWith(ErrorCode::kInvalid));
}

}  // namespace
}  // namespace wormhole
