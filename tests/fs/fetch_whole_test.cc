// Small files that the block reader fetches before anybody reads them. Network, disk and time do only what each test
// orders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fs/block_reader.h"
#include "tests/support/printing.h"
#include "tests/support/reader_setup.h"

namespace wormhole {
namespace {

using test::Answer;
using test::AnswerRef;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Ino kFile = 0x77;
constexpr uint64_t kSize = 10'000;

class FetchWholeTest : public ::testing::Test {
 protected:
  explicit FetchWholeTest(uint64_t memory = 64 << 20) : setup_(memory) {}
  void SetUp() override { setup_.start(); }
  void TearDown() override {
    setup_.stop();
    EXPECT_EQ(setup_.metrics.buffer_bytes, 0);
  }

  // What became of it; nothing yet.
  using Outcome = std::shared_ptr<std::optional<Result<bool>>>;
  Outcome fetch(Ino ino = kFile, uint64_t size = kSize, Lane lane = Lane::kSpeculative) {
    auto outcome = std::make_shared<std::optional<Result<bool>>>();
    setup_.reader->fetch_whole(ino, size, "http://x/file", nullptr, lane,
                               [outcome](Result<bool> r) { outcome->emplace(std::move(r)); });
    return outcome;
  }
  AnswerRef open_and_read(uint64_t size = kSize) {
    setup_.reader->open(kFile, size, "http://x/file");
    auto answer = std::make_shared<Answer>();
    setup_.reader->read(kFile, {0, size}, test::into(answer));
    return answer;
  }
  bool is_right(const AnswerRef& a) {
    return a->result && *a->result && !test::first_mismatch(version_.seed, 0, **a->result);
  }
  FetchRequest only_fetch() {
    const auto all = setup_.fetcher.active();
    EXPECT_THAT(all, SizeIs(1));
    return all.empty() ? FetchRequest{} : all.front();
  }
  void complete() { setup_.fetcher.complete(only_fetch().id, version_); }
  static bool is(const Outcome& o, bool fetched) { return *o && **o && ***o == fetched; }
  static bool failed(const Outcome& o, ErrorCode code) { return *o && !**o && (*o)->error().code == code; }

  test::ReaderSetup setup_;
  test::FakeFetcher::Version version_{5, kSize, {"\"v1\"", ""}};
};

TEST_F(FetchWholeTest, ThenAReaderNeedsNoRequest) {
  const Outcome o = fetch();
  EXPECT_EQ(only_fetch().lane, Lane::kSpeculative);
  EXPECT_EQ(only_fetch().range, (ByteRange{0, kSize}));
  EXPECT_FALSE(*o);
  complete();
  EXPECT_TRUE(is(o, true));
  setup_.settle();
  EXPECT_EQ(setup_.metrics.buffer_bytes, 0) << "it waits on disk, not in memory";
  const AnswerRef a = open_and_read();
  setup_.settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(FetchWholeTest, TheResponseFixesTheVersion) {
  fetch();
  complete();
  setup_.settle();
  ASSERT_TRUE(setup_.index->object(kFile));
  EXPECT_EQ(setup_.index->object(kFile)->validator.etag, "\"v1\"");
}

TEST_F(FetchWholeTest, AReaderWhoComesMeanwhileWaitsForTheSameFetchWhichNowIsDemand) {
  fetch();
  const AnswerRef a = open_and_read();
  EXPECT_EQ(only_fetch().lane, Lane::kDemand);
  complete();
  EXPECT_TRUE(is_right(a));
  setup_.settle();
}

TEST_F(FetchWholeTest, WhatIsThereOrOnItsWayIsNotFetchedAgain) {
  fetch();
  EXPECT_TRUE(is(fetch(), false));
  complete();
  setup_.settle();
  EXPECT_TRUE(is(fetch(), false));
  EXPECT_THAT(setup_.fetcher.active(), IsEmpty());
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(FetchWholeTest, AnotherVersionIsToldAndNothingIsKept) {
  const Outcome o = fetch();
  setup_.fetcher.fail(only_fetch().id, ErrorCode::kStale);
  EXPECT_TRUE(failed(o, ErrorCode::kStale));
  setup_.settle();
  const AnswerRef a = open_and_read();  // as a new reader of the same number
  complete();
  EXPECT_TRUE(is_right(a));
  setup_.settle();
}

TEST_F(FetchWholeTest, AFailureIsNoReadersFailure) {
  fetch();
  setup_.clock.advance(std::chrono::seconds(1));
  const AnswerRef a = open_and_read();
  setup_.fetcher.fail(only_fetch().id, ErrorCode::kUnreachable);
  complete();  // his own
  EXPECT_TRUE(is_right(a));
  setup_.settle();
}

TEST_F(FetchWholeTest, EveryoneIsAnsweredAtTheEnd) {
  const Outcome o = fetch();
  setup_.reader->shut_down();
  EXPECT_TRUE(failed(o, ErrorCode::kCancelled));
  EXPECT_TRUE(failed(fetch(), ErrorCode::kCancelled));
}

TEST_F(FetchWholeTest, WhatNobodyOpensIsCounted) {
  fetch(1);
  fetch(kFile);
  for (const FetchRequest& r : setup_.fetcher.active()) setup_.fetcher.complete(r.id, version_);
  setup_.settle();
  EXPECT_EQ(setup_.metrics.files_ahead, 2u);
  EXPECT_EQ(setup_.metrics.bytes_ahead_unread, static_cast<int64_t>(2 * kSize));
  open_and_read();
  setup_.settle();
  EXPECT_EQ(setup_.metrics.bytes_ahead_unread, static_cast<int64_t>(kSize));
}

TEST_F(FetchWholeTest, WhatSomebodyWaitsForIsDemandAndNotCounted) {
  fetch(kFile, kSize, Lane::kDemand);
  EXPECT_EQ(only_fetch().lane, Lane::kDemand);
  EXPECT_EQ(setup_.metrics.files_ahead, 0u);
  complete();
  setup_.settle();
}

TEST_F(FetchWholeTest, AServerWithoutRangesIsNotAskedAhead) {
  setup_.reader->open(kFile, kSize, "http://x/file");
  const Outcome first = fetch();
  setup_.fetcher.fail(only_fetch().id, ErrorCode::kNoRanges);
  EXPECT_TRUE(failed(first, ErrorCode::kNoRanges));
  EXPECT_TRUE(failed(fetch(), ErrorCode::kNoRanges));
  EXPECT_THAT(setup_.fetcher.active(), IsEmpty());
}

class FetchWholeWithLittleMemoryTest : public FetchWholeTest {
 protected:
  FetchWholeWithLittleMemoryTest() : FetchWholeTest(64 << 10) {}
};

TEST_F(FetchWholeWithLittleMemoryTest, TheBudgetHolds) {
  std::vector<Outcome> all;
  for (Ino ino = 1; ino <= 20; ++ino) all.push_back(fetch(ino));
  EXPECT_LE(setup_.buffers.outstanding(), setup_.buffers.budget());
  EXPECT_TRUE(failed(all.back(), ErrorCode::kNoSpace));
  for (const FetchRequest& r : setup_.fetcher.active()) setup_.fetcher.complete(r.id, version_);
  EXPECT_TRUE(is(all.front(), true));
  setup_.settle();
}

}  // namespace
}  // namespace wormhole
