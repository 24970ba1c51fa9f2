// A new version is read: what the old one's file has of it is taken, the rest is fetched, and whatever goes wrong with
// the old one costs no more than a fetch.
#include "fs/inherited_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

#include "cache/block_cache.h"
#include "manifest/blake3.h"
#include "tests/fs/held_network.h"
#include "tests/support/manual_disk.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kBlocks = 100;
constexpr uint64_t kSize = (kBlocks - 1) * kBlockSize + 5;
constexpr Ino kNew = 5000;

class Reader final : public FetchSink {
 public:
  void fetch_head(FetchId, ObjectHead) override { ++heads; }
  void fetch_progress(FetchId, uint64_t bytes) override {
    EXPECT_EQ(heads, 1) << "the head comes first";
    arrived = bytes;
  }
  void fetch_behind(FetchId, ByteRange there) override {
    EXPECT_EQ(heads, 1) << "the head comes first";
    behind.push_back(there);
  }
  void fetch_copied(FetchId, ByteRange there, const std::shared_ptr<FileDescriptor>& file) override {
    EXPECT_TRUE(*file);
    copied.push_back(there);
  }
  void fetch_chunk(FetchId, ByteRange, BufferRef) override {}
  void fetch_done(FetchId, Status status) override {
    EXPECT_FALSE(done) << "once";
    done = std::move(status);
  }

  int heads = 0;
  uint64_t arrived = 0;
  std::vector<ByteRange> behind, copied;
  std::optional<Status> done;
};

class InheritedBlocksTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(directory_ / "index");
    auto opened = Index::open(directory_ / "index", metrics_);
    ASSERT_TRUE(opened.has_value());
    index_ = std::move(*opened);
    old_ = index_->allocate_ino();
    std::mt19937 chance(1);
    for (std::byte& b : new_bytes_) b = static_cast<std::byte>(chance());
    HashTreeBuilder builder(kSize);
    for (BlockIndex b = 0; b < kBlocks; ++b) builder.set(b, blake3_block(block(new_bytes_, b), b));
    const Hash256 hash = builder.finish(&trees_);
    content_ = std::make_shared<Content>(Content{
        hash, 0, std::make_shared<TreesFile>(TreesFile{"trees", trees_.size()}), Predecessor{old_content_, old_}});
    verified_ = std::make_unique<VerifiedFetches>(network_, buffers_, metrics_, all_, nullptr, post());
    inherited_ =
        std::make_unique<InheritedBlocks>(directory_ / "objects", *verified_, *index_, disk_, metrics_, all_, post());
    verified_->set_reader(*inherited_);
    inherited_->set_reader(reader_);
  }
  std::function<void(Task)> post() {
    return [this](Task task) { posted_.push_back(std::move(task)); };
  }
  static std::span<std::byte> block(Bytes& bytes, BlockIndex b) {
    const ByteRange range = block_range(b, bytes.size());
    return std::span(bytes).subspan(range.begin, range.size());
  }

  // The old version, of which the cache has these blocks; it is the new one but for `changed`.
  void cache_old(const std::set<BlockIndex>& changed, const std::vector<ByteRange>& present) {
    Bytes old = new_bytes_;
    for (const BlockIndex b : changed) block(old, b)[1] ^= std::byte{1};
    index_->share(old_content_, old_);
    index_->put_object(old_, ObjectRecord{kSize, {}});
    const std::string path = object_path(directory_ / "objects", old_);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(old.data()), static_cast<std::streamsize>(old.size()));
    file.close();
    const auto fd = std::make_shared<FileDescriptor>(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    for (const ByteRange& r : present)
      index_->put_blocks({old_, fd, r.begin, std::vector<uint64_t>(r.size()), r.size() * kBlockSize}, {});
  }
  static ByteRange blocks(BlockIndex begin, BlockIndex end) {
    return {begin * kBlockSize, std::min(end * kBlockSize, kSize)};
  }

  FetchId fetch(ByteRange range, ByteRange wanted = {}) {
    FetchRequest r;
    r.id = all_.next_fetch++;
    r.url = "file";
    r.object = kNew;
    r.range = range;
    r.wanted = wanted;
    r.object_size = kSize;
    r.content = content_;
    r.buffer = buffer_ = buffers_.allocate(range.size());
    range_ = range;
    inherited_->fetch(r);
    return r.id;
  }
  // The network brings what was asked for: of the trees, or of the file.
  void bring(const std::string& url) {
    for (const auto& [id, r] : std::map(network_.active)) {
      if (r.url != url) continue;
      network_.active.erase(id);
      std::memcpy(r.buffer->data(), (url == "trees" ? trees_ : new_bytes_).data() + r.range.begin, r.range.size());
      verified_->fetch_head(id, {});
      verified_->fetch_done(id, {});
    }
  }
  void run_posted() {
    for (Task& task : std::exchange(posted_, {})) task();
  }
  std::vector<ByteRange> asked_of_the_file() const {
    std::vector<ByteRange> out;
    for (const FetchRequest& r : network_.asked) {
      if (r.url == "file") out.push_back(r.range);
    }
    return out;
  }
  void expect_right_bytes() {
    ASSERT_TRUE(reader_.done);
    ASSERT_TRUE(*reader_.done) << reader_.done->error().message;
    EXPECT_EQ(std::memcmp(buffer_->data(), new_bytes_.data() + range_.begin, range_.size()), 0);
  }

  test::TemporaryDirectory directory_;
  Metrics metrics_;
  BufferPool buffers_{64 << 20, metrics_};
  AllReaders all_{1};
  HeldNetwork network_;
  Reader reader_;
  test::ManualDisk disk_;
  std::vector<Task> posted_;
  std::unique_ptr<Index> index_;
  Ino old_ = 0;
  const ContentKey old_content_{Hash256{{42}}, kSize};
  Bytes new_bytes_ = Bytes(kSize), trees_;
  std::shared_ptr<const Content> content_;
  std::unique_ptr<VerifiedFetches> verified_;
  std::unique_ptr<InheritedBlocks> inherited_;
  BufferRef buffer_;
  ByteRange range_;
};

TEST_F(InheritedBlocksTest, WhatIsTheSameIsNotFetched) {
  cache_old({}, {{0, kBlocks}});
  fetch(blocks(0, 20));
  EXPECT_THAT(asked_of_the_file(), IsEmpty());
  bring("trees");
  disk_.complete_all();
  EXPECT_THAT(asked_of_the_file(), IsEmpty());
  expect_right_bytes();
  EXPECT_THAT(reader_.copied, ElementsAre(blocks(0, 20)));
  EXPECT_EQ(metrics_.blocks_inherited, 20u);
}

TEST_F(InheritedBlocksTest, WhatHasChangedIsFetched) {
  cache_old({3, 4, 9, 99}, {{0, kBlocks}});
  fetch(blocks(0, 100));
  bring("trees");
  disk_.complete_all();
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(3, 5), blocks(9, 10), blocks(99, 100)));
  EXPECT_EQ(reader_.arrived, 3 * kBlockSize);
  EXPECT_THAT(reader_.behind, ElementsAre(blocks(5, 9), blocks(10, 99)));
  EXPECT_FALSE(reader_.done);
  bring("file");
  expect_right_bytes();
}

TEST_F(InheritedBlocksTest, WhatTheCacheDoesNotHaveIsFetched) {
  cache_old({}, {{10, 12}});
  fetch(blocks(8, 16));
  bring("trees");
  disk_.complete_all();
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(8, 10), blocks(12, 16)));
  bring("file");
  expect_right_bytes();
}

TEST_F(InheritedBlocksTest, WhereNothingCanBeInheritedNobodyWaitsForATree) {
  cache_old({}, {{10, 12}});
  fetch(blocks(20, 30));
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(20, 30)));
}

TEST_F(InheritedBlocksTest, AHoleOrAFileThatIsCutIsFetched) {
  cache_old({}, {{0, kBlocks}});
  const std::string path = object_path(directory_ / "objects", old_);
  fetch(blocks(0, 10));
  bring("trees");
  // Between the look at the index and the read it is evicted, and cut.
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * kBlockSize), 0);
  ASSERT_EQ(::ftruncate(file.get(), 7 * kBlockSize + 100), 0);
  disk_.complete_all();
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(0, 2), blocks(7, 10)));
  bring("file");
  expect_right_bytes();
}

TEST_F(InheritedBlocksTest, ADiskThatFailsIsAFetch) {
  cache_old({}, {{0, kBlocks}});
  disk_.break_reads(EIO);
  fetch(blocks(0, 10));
  bring("trees");
  disk_.complete_all();
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(0, 10)));
  bring("file");
  expect_right_bytes();
}

TEST_F(InheritedBlocksTest, WithoutATreeTheFetchSaysWhy) {
  cache_old({}, {{0, kBlocks}});
  fetch(blocks(0, 10));
  const auto [id, request] = *network_.active.begin();
  ASSERT_EQ(request.url, "trees");
  network_.active.erase(id);
  verified_->fetch_done(id, fail(ErrorCode::kUnreachable, "no route"));
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(0, 10)));
}

TEST_F(InheritedBlocksTest, APartThatFailsEndsIt) {
  cache_old({1, 5}, {{0, kBlocks}});
  fetch(blocks(0, 10));
  bring("trees");
  disk_.complete_all();
  ASSERT_EQ(asked_of_the_file().size(), 2u);
  const FetchId first = network_.asked[network_.asked.size() - 2].id, second = network_.asked.back().id;
  verified_->fetch_done(first, fail(ErrorCode::kTimedOut, "slow"));
  EXPECT_THAT(network_.cancelled, ElementsAre(second));
  EXPECT_FALSE(reader_.done) << "the other may still write into the buffer";
  verified_->fetch_done(second, fail(ErrorCode::kCancelled, "cancelled"));
  ASSERT_TRUE(reader_.done);
  EXPECT_EQ(reader_.done->error().code, ErrorCode::kTimedOut);
}

TEST_F(InheritedBlocksTest, CancelledWhileTheTreeComes) {
  cache_old({}, {{0, kBlocks}});
  const FetchId id = fetch(blocks(0, 10));
  inherited_->cancel(id);
  EXPECT_FALSE(reader_.done) << "not from within the call";
  run_posted();
  ASSERT_TRUE(reader_.done);
  EXPECT_EQ(reader_.done->error().code, ErrorCode::kCancelled);
  bring("trees");
  EXPECT_EQ(disk_.waiting(), 0u);
}

TEST_F(InheritedBlocksTest, CancelledWhileTheOldFileIsRead) {
  cache_old({}, {{0, kBlocks}});
  const FetchId id = fetch(blocks(0, 10));
  bring("trees");
  ASSERT_EQ(disk_.waiting(), 1u);
  inherited_->cancel(id);
  run_posted();
  EXPECT_FALSE(reader_.done) << "the disk may still write into the buffer";
  disk_.complete_all();
  ASSERT_TRUE(reader_.done);
  EXPECT_EQ(reader_.done->error().code, ErrorCode::kCancelled);
}

TEST_F(InheritedBlocksTest, PartsGoFirstWhenSomebodyWaits) {
  cache_old({1, 5}, {{0, kBlocks}});
  const FetchId id = fetch(blocks(0, 10));
  bring("trees");
  disk_.complete_all();
  const FetchId first = network_.asked[network_.asked.size() - 2].id, second = network_.asked.back().id;
  inherited_->promote(id);
  EXPECT_THAT(network_.promoted, ElementsAre(first, second));
  inherited_->want(id, blocks(5, 6));
  ASSERT_EQ(network_.wanted.size(), 1u);
  EXPECT_EQ(network_.wanted[0].first, second);
}

TEST_F(InheritedBlocksTest, AnotherFileIsLeftAlone) {
  cache_old({}, {{0, kBlocks}});
  auto other = std::make_shared<Content>(*content_);
  other->predecessor.reset();
  content_ = other;
  fetch(blocks(0, 10));
  EXPECT_THAT(asked_of_the_file(), ElementsAre(blocks(0, 10)));
}

}  // namespace
}  // namespace wormhole
