// What comes from a network that may lie, piece by piece: the reader hears of right bytes only.
#include "fs/verified_fetches.h"

#include <gtest/gtest.h>

#include <random>

#include "manifest/blake3.h"
#include "tests/fs/held_network.h"
#include "tests/support/printing.h"

namespace wormhole {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(uint64_t size, uint32_t seed) {
  std::mt19937 chance(seed);
  Bytes out(size);
  for (std::byte& b : out) b = static_cast<std::byte>(chance());
  return out;
}

// Answers from `files`.
class Network final : public HeldNetwork {
 public:
  std::map<std::string, Bytes> files;

  // Bytes of the file into the request's buffer.
  void put(FetchId id, ByteRange range) {
    const FetchRequest& r = active.at(id);
    std::memcpy(r.buffer->data() + (range.begin - r.range.begin), files.at(r.url).data() + range.begin, range.size());
  }
};

// What the reader hears.
class Reader final : public FetchSink {
 public:
  void fetch_head(FetchId, ObjectHead) override {}
  void fetch_progress(FetchId id, uint64_t arrived) override { progress[id] = arrived; }
  void fetch_behind(FetchId, ByteRange there) override { behind.push_back(there); }
  void fetch_chunk(FetchId, ByteRange range, BufferRef) override { chunks.push_back(range); }
  void fetch_done(FetchId id, Status status) override { done.emplace(id, std::move(status)); }

  std::map<FetchId, uint64_t> progress;
  std::map<FetchId, Status> done;
  std::vector<ByteRange> behind, chunks;
};

constexpr uint64_t kObject = 7;
constexpr uint64_t kTreeAt = 1000;

class VerifiedFetchesTest : public testing::Test {
 protected:
  explicit VerifiedFetchesTest(uint64_t size = 200 * kBlockSize + 7)
      : size_(size),
        verified_(network_, buffers_, metrics_, all_, nullptr, [this](Task t) { posted_.push_back(std::move(t)); }) {
    Bytes content = random_bytes(size, 1);
    Bytes trees(kTreeAt);
    if (block_count(size) > 1) {
      HashTreeBuilder builder(size);
      for (BlockIndex b = 0; b < block_count(size); ++b) {
        const ByteRange range = block_range(b, size);
        builder.set(b, blake3_block(std::span(content).subspan(range.begin, range.size()), b));
      }
      EXPECT_EQ(builder.finish(&trees), blake3(content));
    }
    trees.resize(trees.size() + 100);
    const auto file = std::make_shared<TreesFile>(TreesFile{"trees", trees.size()});
    content_ = std::make_shared<Content>(Content{blake3(content), kTreeAt, file});
    verified_.set_reader(reader_);
    network_.files = {{"file", content}, {"trees", trees}};
  }

  FetchId fetch(ByteRange range, bool whole_body = false) {
    FetchRequest r;
    r.id = all_.next_fetch++;
    r.url = "file";
    r.object = kObject;
    r.range = range;
    r.object_size = size_;
    r.whole_body = whole_body;
    r.content = content_;
    if (!whole_body) r.buffer = buffers_.allocate(range.size());
    verified_.fetch(r);
    return r.id;
  }
  // The bytes [range.begin, end) are there.
  void arrive(FetchId id, uint64_t end) {
    const ByteRange range = network_.active.at(id).range;
    network_.put(id, {range.begin, end});
    verified_.fetch_progress(id, end - range.begin);
  }
  void complete(FetchId id) {
    network_.put(id, network_.active.at(id).range);
    network_.active.erase(id);
    verified_.fetch_done(id, {});
  }
  void complete_trees() {
    for (const auto& [id, request] : std::map(network_.active)) {
      if (request.url == "trees") complete(id);
    }
  }
  void run_posted() {
    for (Task& task : std::exchange(posted_, {})) task();
  }
  FetchId last() const { return network_.asked.back().id; }
  std::byte& byte_of(const std::string& file, uint64_t at) { return network_.files.at(file)[at]; }

  const uint64_t size_;
  Metrics metrics_;
  BufferPool buffers_{64 << 20, metrics_};
  AllReaders all_{1};
  Network network_;
  Reader reader_;
  std::vector<Task> posted_;
  std::shared_ptr<const Content> content_;
  VerifiedFetches verified_;
};

TEST_F(VerifiedFetchesTest, TheTreeIsFetchedBesideTheBytes) {
  const FetchId id = fetch({0, 4 * kBlockSize});
  ASSERT_EQ(network_.asked.size(), 2u);
  EXPECT_EQ(network_.asked[1].url, "trees");
  EXPECT_EQ(network_.asked[1].range.begin, kTreeAt);
  complete(id);
  EXPECT_TRUE(reader_.done.empty()) << "nothing can be checked yet";
  complete_trees();
  ASSERT_TRUE(reader_.done.contains(id));
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
}

TEST_F(VerifiedFetchesTest, ProgressIsToldInWholeBlocks) {
  const FetchId id = fetch({0, 4 * kBlockSize});
  complete_trees();
  arrive(id, kBlockSize - 1);
  EXPECT_FALSE(reader_.progress.contains(id));
  arrive(id, 2 * kBlockSize + 5);
  EXPECT_EQ(reader_.progress[id], 2 * kBlockSize);
  complete(id);
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
}

TEST_F(VerifiedFetchesTest, TheTreeIsFetchedOnce) {
  for (int i = 0; i < 3; ++i) fetch(ByteRange::of(static_cast<uint64_t>(i) * kBlockSize, kBlockSize));
  EXPECT_EQ(network_.asked.size(), 4u);
  complete_trees();
  fetch(ByteRange::of(100 * kBlockSize, kBlockSize));
  EXPECT_EQ(network_.asked.size(), 5u);
}

TEST_F(VerifiedFetchesTest, TheShortLastBlockIsChecked) {
  const FetchId id = fetch({199 * kBlockSize, size_});
  complete_trees();
  complete(id);
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
}

TEST_F(VerifiedFetchesTest, AWrongBlockIsFetchedAgainAndNeverSeen) {
  const FetchId id = fetch({0, 4 * kBlockSize});
  complete_trees();
  byte_of("file", kBlockSize + 3) ^= std::byte{1};
  arrive(id, 3 * kBlockSize);
  EXPECT_EQ(reader_.progress[id], kBlockSize);
  byte_of("file", kBlockSize + 3) ^= std::byte{1};
  EXPECT_EQ(network_.asked.back().range, ByteRange::of(kBlockSize, kBlockSize));
  complete(last());
  EXPECT_EQ(reader_.progress[id], 3 * kBlockSize);
  complete(id);
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
  EXPECT_EQ(metrics_.blocks_refused, 1u);
}

TEST_F(VerifiedFetchesTest, TheServerOfAWrongBlockIsAvoided) {
  const FetchId id = fetch({0, kBlockSize});
  complete_trees();
  verified_.fetch_head(id, {{}, size_, "http://liar/"});
  byte_of("file", 0) ^= std::byte{1};
  complete(id);
  EXPECT_EQ(network_.asked.back().avoid, "http://liar/");
}

TEST_F(VerifiedFetchesTest, ABlockThatStaysWrongIsAnError) {
  const FetchId id = fetch({0, 4 * kBlockSize});
  complete_trees();
  byte_of("file", 2 * kBlockSize) ^= std::byte{1};
  complete(id);
  EXPECT_EQ(reader_.progress[id], 2 * kBlockSize);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(reader_.done.empty());
    complete(last());
  }
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCorrupt));
  EXPECT_EQ(metrics_.blocks_refused, 3u);
}

TEST_F(VerifiedFetchesTest, AWrongTreeIsFetchedAgainAndThenAnError) {
  const FetchId id = fetch({0, kBlockSize});
  byte_of("trees", kTreeAt + 40) ^= std::byte{1};
  complete(id);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(reader_.done.empty());
    complete_trees();
  }
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(VerifiedFetchesTest, ATreeThatComesRightTheSecondTimeIsTaken) {
  const FetchId id = fetch({0, kBlockSize});
  byte_of("trees", kTreeAt + 40) ^= std::byte{1};
  complete(id);
  complete_trees();
  byte_of("trees", kTreeAt + 40) ^= std::byte{1};
  complete_trees();
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
}

TEST_F(VerifiedFetchesTest, ATreeThatDoesNotComeIsTheFetchsError) {
  const FetchId id = fetch({0, kBlockSize});
  complete(id);
  const FetchId tree = network_.active.begin()->first;
  verified_.fetch_done(tree, fail(ErrorCode::kTimedOut, "by order of the test"));
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kTimedOut));
}

TEST_F(VerifiedFetchesTest, ATreeOutsideOfItsFileIsAnError) {
  FetchRequest r;
  r.id = all_.next_fetch++;
  r.url = "file";
  r.object = 8;
  r.range = {0, kBlockSize};
  r.object_size = size_;
  r.buffer = buffers_.allocate(kBlockSize);
  const auto trees = std::make_shared<TreesFile>(TreesFile{"trees", 10});
  r.content = std::make_shared<Content>(Content{blake3("x"), uint64_t{1} << 60, trees});
  verified_.fetch(r);
  run_posted();
  EXPECT_THAT(reader_.done.at(r.id), test::FailsWith(ErrorCode::kCorrupt));
}

TEST_F(VerifiedFetchesTest, WhatIsCancelledWhileItWaitsForTheTreeEndsOnce) {
  const FetchId id = fetch({0, kBlockSize});
  complete(id);
  verified_.cancel(id);
  EXPECT_TRUE(reader_.done.empty()) << "not from within the call";
  run_posted();
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCancelled));
  complete_trees();
  EXPECT_EQ(reader_.done.size(), 1u);
}

TEST_F(VerifiedFetchesTest, WhatIsCancelledWhileABlockComesAgainEndsOnce) {
  const FetchId id = fetch({0, 2 * kBlockSize});
  complete_trees();
  byte_of("file", 0) ^= std::byte{1};
  arrive(id, kBlockSize);
  const FetchId again = last();
  verified_.cancel(id);
  EXPECT_EQ(network_.cancelled, (std::vector<FetchId>{again, id}));
  verified_.fetch_done(again, fail(ErrorCode::kCancelled, "x"));
  verified_.fetch_done(id, fail(ErrorCode::kCancelled, "x"));
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCancelled));
  EXPECT_EQ(reader_.done.size(), 1u);
}

TEST_F(VerifiedFetchesTest, WhatIsWantedIsWidenedToWholeBlocksAndChecked) {
  const FetchId id = fetch({0, 8 * kBlockSize});
  complete_trees();
  verified_.want(id, {3 * kBlockSize + 100, 3 * kBlockSize + 200});
  ASSERT_EQ(network_.wanted.back().second, ByteRange::of(3 * kBlockSize, kBlockSize));
  network_.put(id, ByteRange::of(3 * kBlockSize, kBlockSize));
  verified_.fetch_behind(id, ByteRange::of(3 * kBlockSize, kBlockSize));
  EXPECT_EQ(reader_.behind, (std::vector<ByteRange>{ByteRange::of(3 * kBlockSize, kBlockSize)}));
}

TEST_F(VerifiedFetchesTest, AWrongBlockBehindAGapIsNotTold) {
  const FetchId id = fetch({0, 8 * kBlockSize});
  complete_trees();
  byte_of("file", 3 * kBlockSize) ^= std::byte{1};
  network_.put(id, ByteRange::of(3 * kBlockSize, kBlockSize));
  verified_.fetch_behind(id, ByteRange::of(3 * kBlockSize, kBlockSize));
  EXPECT_TRUE(reader_.behind.empty());
}

TEST_F(VerifiedFetchesTest, OfAWholeBodyOnlyRightChunksAreHandedOn) {
  const FetchId id = fetch({0, size_}, true);
  const auto chunk = [&](uint64_t first, uint64_t count) {
    const ByteRange range{first * kBlockSize, std::min((first + count) * kBlockSize, size_)};
    BufferRef bytes = buffers_.allocate(range.size());
    std::memcpy(bytes->data(), network_.files.at("file").data() + range.begin, range.size());
    verified_.fetch_chunk(id, range, bytes);
  };
  chunk(0, 16);
  EXPECT_TRUE(reader_.chunks.empty());
  complete_trees();
  EXPECT_EQ(reader_.chunks.size(), 1u);
  byte_of("file", 20 * kBlockSize) ^= std::byte{1};
  chunk(16, 16);
  EXPECT_EQ(reader_.chunks.size(), 1u);
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCorrupt));
  EXPECT_EQ(network_.cancelled, std::vector<FetchId>{id});
}

TEST_F(VerifiedFetchesTest, AFileOfNoKnownContentPassesThrough) {
  FetchRequest r;
  r.id = all_.next_fetch++;
  r.url = "other";
  r.object = 99;
  r.range = {0, 100};
  verified_.fetch(r);
  verified_.fetch_progress(r.id, 50);
  EXPECT_EQ(reader_.progress[r.id], 50u);
  verified_.fetch_done(r.id, {});
  EXPECT_THAT(reader_.done.at(r.id), test::Succeeds());
  EXPECT_EQ(network_.asked.size(), 1u);
}

class VerifiedSmallFileTest : public VerifiedFetchesTest {
 protected:
  VerifiedSmallFileTest() : VerifiedFetchesTest(1000) {}
};

TEST_F(VerifiedSmallFileTest, NeedsNoTree) {
  const FetchId id = fetch({0, 1000});
  EXPECT_EQ(network_.asked.size(), 1u);
  complete(id);
  EXPECT_THAT(reader_.done.at(id), test::Succeeds());
}

TEST_F(VerifiedSmallFileTest, IsRefusedWhenItIsWrong) {
  const FetchId id = fetch({0, 1000});
  byte_of("file", 999) ^= std::byte{1};
  complete(id);
  complete(last());
  complete(last());
  EXPECT_THAT(reader_.done.at(id), test::FailsWith(ErrorCode::kCorrupt));
}

}  // namespace
}  // namespace wormhole
