// What is remembered of a manifest is read as it was written, whatever stands beside it.
#include "fs/known_manifest.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

TEST(KnownManifest, ComesBackAsItWasWritten) {
  const KnownManifest known{1'700'000'000, 0750, -3, {"http://a/x/", "https://b/%20y/?"}};
  EXPECT_EQ(decode_known_manifest(encode(known)), known);
  EXPECT_EQ(decode_known_manifest(encode(KnownManifest{})), KnownManifest{});
}

TEST(KnownManifest, WhatIsNoUrlIsNotKept) {
  KnownManifest known;
  known.mirrors = {"http://a/ sequence=9"};
  EXPECT_EQ(decode_known_manifest(encode(known)), KnownManifest{});
}

TEST(KnownManifest, WhatCannotBeReadIsAsIfItWasNotThere) {
  EXPECT_EQ(decode_known_manifest("sequence=12"), (KnownManifest{12, 0, 0, {}}));
  EXPECT_EQ(decode_known_manifest("later=x sequence=7x mode=70000 = mtime= sequence=8 odd"),
            (KnownManifest{8, 0, 0, {}}));
  EXPECT_EQ(decode_known_manifest(""), KnownManifest{});
}

}  // namespace
}  // namespace wormhole
