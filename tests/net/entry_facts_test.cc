#include "net/entry_facts.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

std::optional<uint64_t> size_in(std::string_view text) { return read_entry_facts(text).size; }

TEST(EntryFacts, HaveAnExactSizeBehindTheDate) {
  EXPECT_EQ(size_in("   21-Nov-2026 02:57                   6\r\n"), 6);
  EXPECT_EQ(size_in("21-Nov-2026 02:57 18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(size_in("2026-11-21 02:57    0   "), 0);
  EXPECT_EQ(size_in("2026-11-21 02:57  123  a description"), 123);
  EXPECT_EQ(size_in("2026-11-21 02:57  123 B"), 123);
  EXPECT_EQ(size_in("2026-11-21 02:57  123 bytes"), 123);
}

TEST(EntryFacts, HaveAnExactSizeBeforeTheDateWhenNothingIsBehindIt) {
  EXPECT_EQ(size_in(" 1234 2026-Nov-21 02:57 "), 1234);
  EXPECT_EQ(size_in(" 1.2 KiB 2026-Nov-21 02:57"), std::nullopt);
}

TEST(EntryFacts, HaveNoSizeWhenItIsRounded) {
  for (const char* size : {"12K", "1.2M", "1.0", "12 K", "12 kB", "12 KiB", "1 GB", "3 t", "-", "- 12", "1,234", "0.1K",
                           "99999999999999999999999", "+5", "-5"}) {
    EXPECT_EQ(size_in(std::string("2026-11-21 02:57 ") + size), std::nullopt) << size;
  }
}

TEST(EntryFacts, HaveNothingWithoutADate) {
  EXPECT_EQ(size_in(" 1234 "), std::nullopt);
  EXPECT_EQ(size_in(""), std::nullopt);
  EXPECT_FALSE(read_entry_facts("not a date 12-34").date);
}

}  // namespace
}  // namespace wormhole
