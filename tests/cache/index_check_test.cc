// What the look at an index promises: a sound one is left as it is, and of one that is found sound, however it was
// harmed, every record is what was put, or not there.
#include "cache/index_check.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "cache/index.h"
#include "cache/index_pages.h"
#include "tests/support/child_process.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using ::testing::HasSubstr;

constexpr Ino kObjects = 300;
constexpr Ino kFirst = 1000;

ObjectRecord object_record(Ino ino) {
  return {10 * kRegionSize + ino, {fmt::format("\"{}\"", ino), "Mon, 05 Jan 2026 10:00:00 GMT"}};
}
std::string listing(Ino ino) { return fmt::format("listing of {} ", ino) + std::string(ino % 9000, 'x'); }

class IndexCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(path_);
    const int fd = ::open((directory_ / "bytes").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    file_ = std::make_shared<FileDescriptor>(fd);
    auto index = open();
    for (Ino ino = kFirst; ino < kFirst + kObjects; ++ino) {
      index->put_object(ino, object_record(ino));
      index->put_directory(ino + kObjects, listing(ino));
      for (BlockIndex block = 0; block < 600; block += 1 + ino % 90) store(*index, ino, block);
    }
    index->pin({kFirst, kFirst + 5});
    index->flush();
    for (Ino ino = kFirst; ino < kFirst + kObjects; ino += 3)
      index->evict({{ino, 1}, {ino, 2}}, Index::EvictionFor::kRequest, [](bool, uint64_t) {});
  }

  std::unique_ptr<Index> open() {
    auto opened = Index::open(path_, metrics_);
    EXPECT_TRUE(opened.has_value()) << opened.error().message;
    return std::move(*opened);
  }
  void store(Index& index, Ino ino, BlockIndex block) {
    index.put_blocks({ino, file_, block, {ino * 1000 + block}, kBlockSize}, [](bool) {});
  }

  std::string data() const { return path_ + "/data.mdb"; }
  uint64_t size() const { return std::filesystem::file_size(data()); }
  void flip_a_bit() {
    std::fstream file(data(), std::ios::in | std::ios::out | std::ios::binary);
    const auto offset = static_cast<std::streamoff>(random_() % size());
    char byte = 0;
    file.seekg(offset).get(byte);
    file.seekp(offset).put(static_cast<char>(byte ^ (1 << random_() % 8)));
  }

  // In a process of its own: 0 when every record is what was put, or not there, and others can be written.
  int use() {
    test::ChildProcess child([this] {
      auto index = open();
      for (Ino ino = kFirst; ino < kFirst + kObjects; ++ino) {
        if (const auto o = index->object(ino); o && *o != object_record(ino)) return 3;
        if (const auto d = index->directory(ino + kObjects); d && *d != listing(ino)) return 4;
        for (uint64_t region = 0; region < 11; ++region) {
          const auto r = index->region({ino, region});
          for (unsigned i = 0; r && i < kBlocksPerRegion; ++i) {
            if (r->has(i) && r->checksum[i] != ino * 1000 + region * kBlocksPerRegion + i) return 5;
          }
        }
      }
      if (index->allocate_ino() < kFirst + 2 * kObjects) return 6;
      for (Ino ino = kFirst; ino < kFirst + kObjects; ++ino) {
        index->put_directory(ino + kObjects, listing(ino + 7));
        store(*index, ino, 1 + ino % 600);
      }
      index->flush();
      return 0;
    });
    return child.wait();
  }

  test::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "index";
  std::shared_ptr<FileDescriptor> file_;
  Metrics metrics_;
  std::mt19937_64 random_{1};
};

TEST_F(IndexCheckTest, ASoundOneIsCountedAndLeftAlone) {
  const auto report = check_index(path_);
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(report->objects, kObjects);
  EXPECT_EQ(report->bytes, static_cast<uint64_t>(metrics_.bytes_cached.load()));
  EXPECT_EQ(delete_if_damaged(path_, true), IndexFound::kSound);
  EXPECT_EQ(use(), 0);
}

// A reader gets by without most of it; the next writer would end the process.
TEST_F(IndexCheckTest, EveryBitOfThePageHeadsThatAWriterNeedsCounts) {
  constexpr uint64_t kPage = 4096;
  std::fstream file(data(), std::ios::in | std::ios::out | std::ios::binary);
  std::vector<char> bytes(size());
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  std::vector<bool> used;
  for (uint64_t transaction = 0; transaction < 1000; ++transaction) {  // whichever was the last
    if (auto found = check_pages(data(), kPage, transaction)) used = std::move(*found);
  }
  ASSERT_EQ(used.size(), bytes.size() / kPage);
  std::map<uint16_t, int> kinds;
  for (uint64_t page = 2; page < used.size(); ++page) {
    uint16_t flags = 0;
    std::memcpy(&flags, bytes.data() + page * kPage + 10, sizeof(flags));
    // A few of each kind: branch, leaf, overflow.
    if (!used[page] || ++kinds[flags] > 3) continue;
    for (unsigned bit = 0; bit < 112; ++bit) {     // number, pad, flags, lower
      if (bit / 8 == 8 || bit / 8 == 9) continue;  // pad: nobody needs it
      const auto at = static_cast<std::streamoff>(page * kPage + bit / 8);
      const char before = bytes[static_cast<size_t>(at)];
      file.seekp(at).put(static_cast<char>(before ^ (1 << bit % 8))).flush();
      EXPECT_FALSE(check_index_apart(path_).has_value()) << "page " << page << " kind " << flags << " bit " << bit;
      file.seekp(at).put(before).flush();
    }
  }
  EXPECT_GE(kinds[1], 1) << "branches";
  EXPECT_GE(kinds[2], 3) << "leaves";
  EXPECT_GE(kinds[4], 1) << "overflow";
  EXPECT_TRUE(check_index(path_).has_value());
}

TEST_F(IndexCheckTest, NoneIsNoDamage) {
  std::filesystem::resize_file(data(), 0);
  EXPECT_EQ(delete_if_damaged(path_, true), IndexFound::kNone);
  std::filesystem::remove(data());
  EXPECT_EQ(delete_if_damaged(path_, true), IndexFound::kNone);
}

TEST_F(IndexCheckTest, WhatIsFoundSoundIsRight) {
  const std::string sound = directory_ / "sound";
  std::filesystem::copy_file(data(), sound);
  int kept = 0;
  for (int i = 0; i < 200; ++i) {
    std::filesystem::copy_file(sound, data(), std::filesystem::copy_options::overwrite_existing);
    for (uint64_t n = 1 + random_() % 4; n > 0; --n) flip_a_bit();
    const auto found = delete_if_damaged(path_, false);
    ASSERT_TRUE(found.has_value()) << found.error().message;
    if (*found == IndexFound::kDamaged) {
      EXPECT_FALSE(std::filesystem::exists(data()));
      continue;
    }
    ++kept;
    EXPECT_EQ(use(), 0) << "round " << i;
  }
  EXPECT_GT(kept, 0) << "no bit fell where nothing is";
}

TEST_F(IndexCheckTest, OneThatIsCutOrRubbishIsDeleted) {
  const std::string sound = directory_ / "sound";
  std::filesystem::copy_file(data(), sound);
  for (int i = 0; i < 10; ++i) {
    std::filesystem::copy_file(sound, data(), std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(data(), 1 + random_() % (size() / 2));
    EXPECT_EQ(delete_if_damaged(path_, false), IndexFound::kDamaged);
  }
  std::ofstream(data(), std::ios::binary) << std::string(100'000, 'r');
  EXPECT_EQ(delete_if_damaged(path_, false), IndexFound::kDamaged);
}

TEST_F(IndexCheckTest, WhatLmdbDoesNotSeeIsSeen) {
  // A checksum of a block, in the middle of a record: nobody but the record's own checksum knows better.
  std::string bytes(size(), '\0');
  std::fstream file(data(), std::ios::in | std::ios::out | std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const uint64_t sum = (kFirst + 1) * 1000;
  for (size_t at = 0; (at = bytes.find({reinterpret_cast<const char*>(&sum), 8}, at)) != std::string::npos; ++at) {
    file.seekp(static_cast<std::streamoff>(at)).put(bytes[at] ^ 1);
  }
  file.close();
  const auto report = check_index(path_);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(report.error().message, HasSubstr("checksum"));
}

}  // namespace
}  // namespace wormhole
