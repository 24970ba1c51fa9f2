#include "manifest/head.h"

#include <gtest/gtest.h>

#include "manifest/blake3.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

ManifestHead example() {
  ManifestHead h;
  h.sequence = 7;
  h.created = 1'700'000'000'123'456'789;
  h.files = 3;
  h.directories = 2;
  h.symlinks = 1;
  h.bytes = 1 << 20;
  h.pages = blake3("pages");
  h.pages_bytes = 1000;
  h.root_mode = 0755;
  h.root_mtime = -5;
  h.root = {10, 20, 30, blake3("root")};
  h.mirrors = {"https://a.example/x/", "https://b.example/"};
  return h;
}

TEST(ManifestHeadTest, IsReadBackAsItWas) {
  const auto back = decode_head(encode(example()));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, example());
}

TEST(ManifestHeadTest, CutShortAnywhereItIsRefused) {
  const std::string bytes = encode(example());
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decode_head(std::string_view(bytes).substr(0, size)));
  EXPECT_FALSE(decode_head(bytes + "x"));
}

TEST(ManifestHeadTest, AFlippedBitAnywhereIsRefused) {
  const std::string bytes = encode(example());
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string wrong = bytes;
    wrong[at] ^= 1;
    EXPECT_FALSE(decode_head(wrong)) << at;
  }
}

TEST(ManifestHeadTest, OneFromTheFutureSaysSo) {
  std::string bytes = encode(example());
  bytes[8] = 2;
  EXPECT_THAT(decode_head(bytes), test::FailsWith(ErrorCode::kFormat));
  EXPECT_THAT(decode_head("<html>"), test::FailsWith(ErrorCode::kCorrupt));
}

}  // namespace
}  // namespace wormhole
