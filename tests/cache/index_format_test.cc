#include "cache/index_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace wormhole {
namespace {

const ObjectRecord kObject{123'456'789'012, {"\"an-etag\"", "Mon, 05 Jan 2026 10:00:00 GMT"}};
const RootRecord kRoot{77, true, "https://example.org/a%20b/"};

RegionRecord region_with(const std::vector<unsigned>& blocks) {
  RegionRecord r;
  for (const unsigned b : blocks) {
    r.present |= uint64_t{1} << b;
    r.checksum[b] = 0x1111'0000'0000'0000 + b;
  }
  return r;
}

// --- keys ----------------------------------------------------------------------------------------------------------

TEST(IndexFormat, KeysSortAsTheirNumbersDo) {
  std::vector<std::string> keys;
  for (const uint64_t ino : {1ull, 255ull, 256ull, 65'536ull, 1ull << 40}) {
    for (const uint64_t region : {0ull, 1ull, 255ull, 256ull}) keys.push_back(encode_key(RegionKey{ino, region}));
  }
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
}

TEST(IndexFormat, TheRegionsOfAnObjectBeginWithItsKey) {
  EXPECT_TRUE(encode_key(RegionKey{77, 3}).starts_with(encode_key(77)));
}

TEST(IndexFormat, ARegionKeyIsReadBack) {
  const RegionKey key{0x0102030405060708, 0x1112131415161718};
  EXPECT_EQ(decode_region_key(encode_key(key)), key);
}

TEST(IndexFormat, ARegionKeyOfAnotherLengthIsNone) {
  const std::string key = encode_key(RegionKey{1, 2});
  EXPECT_EQ(decode_region_key(""), std::nullopt);
  EXPECT_EQ(decode_region_key(key.substr(1)), std::nullopt);
  EXPECT_EQ(decode_region_key(key + "x"), std::nullopt);
}

// --- objects -------------------------------------------------------------------------------------------------------

TEST(IndexFormat, AnObjectIsReadBack) {
  EXPECT_EQ(decode_object(encode(kObject)), kObject);
  EXPECT_EQ(decode_object(encode(ObjectRecord{})), ObjectRecord{});
  const ObjectRecord weak{5, {"W/\"x\"", ""}};
  EXPECT_EQ(decode_object(encode(weak)), weak);
}

TEST(IndexFormat, ACutObjectIsNone) {
  const std::string bytes = encode(kObject);
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_EQ(decode_object(bytes.substr(0, n)), std::nullopt) << n;
}

TEST(IndexFormat, AnObjectWithMoreBehindItIsNone) { EXPECT_EQ(decode_object(encode(kObject) + "x"), std::nullopt); }

TEST(IndexFormat, AnEtagTooLongForItsLengthFieldDoesNotComeBackAsAnother) {
  const ObjectRecord record{5, {std::string(65'536 + 3, 'e'), ""}};
  EXPECT_EQ(decode_object(encode(record)), std::nullopt);
}

// --- roots ---------------------------------------------------------------------------------------------------------

TEST(IndexFormat, ARootIsReadBack) {
  EXPECT_EQ(decode_root(encode(kRoot)), kRoot);
  EXPECT_EQ(decode_root(encode(RootRecord{})), RootRecord{});
}

TEST(IndexFormat, ACutRootHasNoNumber) {
  const std::string bytes = encode(kRoot);
  for (size_t n = 0; n < 9; ++n) EXPECT_EQ(decode_root(bytes.substr(0, n)), std::nullopt) << n;
}

// --- regions -------------------------------------------------------------------------------------------------------

TEST(IndexFormat, ARegionIsReadBack) {
  for (const auto& blocks : {std::vector<unsigned>{}, {0}, {63}, {0, 63}, {5, 6, 7}}) {
    const RegionRecord in = region_with(blocks);
    const auto out = decode_region(encode(in));
    ASSERT_TRUE(out);
    EXPECT_EQ(out->present, in.present);
    for (const unsigned b : blocks) {
      EXPECT_TRUE(out->has(b));
      EXPECT_EQ(out->checksum[b], in.checksum[b]);
    }
  }
}

TEST(IndexFormat, ASmallFileCosts32BytesAndAFullRegion536) {
  EXPECT_EQ(encode(region_with({0})).size(), 32u);
  RegionRecord full;
  full.present = ~uint64_t{0};
  EXPECT_EQ(encode(full).size(), 536u);
}

TEST(IndexFormat, ACutRegionIsNone) {
  const std::string bytes = encode(region_with({0, 5}));
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_EQ(decode_region(bytes.substr(0, n)), std::nullopt) << n;
}

TEST(IndexFormat, ARegionWithMoreBehindItIsNone) {
  EXPECT_EQ(decode_region(encode(region_with({0})) + "x"), std::nullopt);
  EXPECT_EQ(decode_region(encode(region_with({0})) + std::string(8, 'x')), std::nullopt);
}

TEST(IndexFormat, ASealedValueIsThereUnderItsKeyAndUnchanged) {
  const std::string sealed = seal("key", "value");
  EXPECT_EQ(unseal("key", sealed), "value");
  EXPECT_EQ(unseal("another", sealed), std::nullopt);
  for (size_t bit = 0; bit < sealed.size() * 8; ++bit) {
    std::string flipped = sealed;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(unseal("key", flipped), std::nullopt) << bit;
  }
  for (size_t n = 0; n < sealed.size(); ++n) EXPECT_EQ(unseal("key", sealed.substr(0, n)), std::nullopt) << n;
}

TEST(IndexFormat, RubbishIsNone) {
  const std::string rubbish(40, '\xff');
  EXPECT_EQ(decode_object(rubbish), std::nullopt);
  EXPECT_EQ(decode_region(rubbish), std::nullopt);
  EXPECT_EQ(decode_region_key(rubbish), std::nullopt);
}

}  // namespace
}  // namespace wormhole
