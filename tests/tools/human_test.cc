#include "tools/human.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

using std::chrono::seconds;

TEST(HumanBytes, ChangesUnitWithTheSize) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(460ull << 20), "460 MiB");
  EXPECT_EQ(human_bytes(1ull << 30), "1.0 GiB");
  EXPECT_EQ(human_bytes(UINT64_MAX), "16 EiB");
}

TEST(HumanBytes, RoundsIntoTheNextUnit) {
  EXPECT_EQ(human_bytes((1ull << 20) - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes((10ull << 20) - 1), "10 MiB");
  EXPECT_EQ(human_bytes((99ull << 10) / 10), "9.9 KiB");
}

TEST(HumanRate, IsDecimal) {
  EXPECT_EQ(human_rate(0), "0 B/s");
  EXPECT_EQ(human_rate(999), "999 B/s");
  EXPECT_EQ(human_rate(93.2e6), "93.2 MB/s");
  EXPECT_EQ(human_rate(99.96e6), "100 MB/s");
  EXPECT_EQ(human_rate(105.4e6), "105 MB/s");
  EXPECT_EQ(human_rate(999.7e6), "1.0 GB/s");
}

TEST(HumanDuration, HasTheDigitsThatMatter) {
  EXPECT_EQ(human_duration(seconds(0)), "0:00");
  EXPECT_EQ(human_duration(seconds(6)), "0:06");
  EXPECT_EQ(human_duration(seconds(754)), "12:34");
  EXPECT_EQ(human_duration(seconds(3723)), "1:02:03");
  EXPECT_EQ(human_duration(seconds(2 * 86400 + 3 * 3600 + 59)), "2d 03h");
}

}  // namespace
}  // namespace wormhole
