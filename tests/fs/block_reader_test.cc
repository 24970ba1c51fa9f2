// One read, from a byte range to its bytes. Network, disk and time do only what each test orders.
#include "fs/block_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <set>

#include "base/file_descriptor.h"
#include "tests/support/printing.h"
#include "tests/support/reader_setup.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::Answer;
using test::AnswerRef;
using test::FakeFetcher;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr Ino kFile = 0x1234;
constexpr uint64_t kBlock = kBlockSize;
constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 8 * kMiB + 1000;
constexpr uint64_t kSeed = 7;

class BlockReaderTest : public ::testing::Test {
 protected:
  explicit BlockReaderTest(uint64_t memory = 64 * kMiB) : setup_(memory) {}

  void SetUp() override {
    setup_.start();
    open();
  }
  // Whatever a test did: at the end every read is answered, and no memory is left.
  void TearDown() override {
    setup_.stop();
    for (const AnswerRef& a : answers_) EXPECT_EQ(a->times, 1) << "a read was never answered";
    EXPECT_EQ(setup_.metrics.buffer_bytes, 0);
  }

  // --- verbs ---

  void open(Ino ino = kFile) { setup_.reader_of(ino).open(ino, kSize, "http://x/file"); }
  void close(Ino ino = kFile) { setup_.reader_of(ino).close(ino); }

  AnswerRef read(uint64_t offset, uint64_t length, Ino ino = kFile) {
    answers_.push_back(std::make_shared<Answer>());
    setup_.reader_of(ino).read(ino, ByteRange::of(offset, length), test::into(answers_.back()));
    expected_[answers_.back()] = offset;
    return answers_.back();
  }
  AnswerRef read_block(BlockIndex block) { return read(block * kBlock, kBlock); }

  FetchId fetch_of(ByteRange range) {
    for (const FetchRequest& r : setup_.fetcher.active()) {
      if (r.range == range) return r.id;
    }
    ADD_FAILURE() << "nothing fetches " << range.begin << "-" << range.end;
    return 0;
  }
  FetchRequest only_fetch() {
    const auto all = setup_.fetcher.active();
    EXPECT_THAT(all, SizeIs(1));
    return all.empty() ? FetchRequest{} : all.front();
  }
  std::vector<ByteRange> fetched_ranges() { return setup_.fetcher.active_ranges(); }

  void arrive(uint64_t upto) { setup_.fetcher.arrive(only_fetch().id, upto, version_); }
  void complete() { setup_.fetcher.complete(only_fetch().id, version_); }
  void complete(ByteRange range) { setup_.fetcher.complete(fetch_of(range), version_); }
  void complete_all_fetches() {
    for (auto all = setup_.fetcher.active(); !all.empty(); all = setup_.fetcher.active()) {
      for (const FetchRequest& r : all) setup_.fetcher.complete(r.id, version_);
      setup_.fetcher.end_cancelled();
    }
  }
  void fail(ErrorCode code) { setup_.fetcher.fail(only_fetch().id, code); }
  void settle() { setup_.settle(); }

  // The blocks are on disk, and nothing of them is in memory any more.
  void put_into_cache(BlockIndex first, uint64_t count = 1) {
    read(first * kBlock, count * kBlock);
    complete_all_fetches();
    settle();
    ASSERT_TRUE(setup_.cache->has(kFile, first));
  }
  void flip_byte_on_disk(uint64_t offset) {
    const FileDescriptor fd(::open(setup_.file_of(kFile).c_str(), O_RDWR | O_CLOEXEC));
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(~byte);
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
  }

  // --- what a test says of an answer ---

  bool is_waiting(const AnswerRef& a) { return !a->result.has_value(); }
  // Answered with the right bytes.
  bool is_right(const AnswerRef& a) {
    if (!a->result || !*a->result) return false;
    return !test::first_mismatch(version_.seed, expected_[a], **a->result);
  }
  bool failed_with(const AnswerRef& a, ErrorCode code) {
    return a->result && !*a->result && a->result->error().code == code;
  }

  test::ReaderSetup setup_;
  FakeFetcher::Version version_{kSeed, kSize, {"\"v1\"", "Mon, 05 Jan 2026 10:00:00 GMT"}};
  const FakeFetcher::Version other_version_{kSeed + 1, kSize, {"\"v2\"", ""}};
  std::vector<AnswerRef> answers_;
  std::map<AnswerRef, uint64_t> expected_;
};

constexpr ByteRange blocks(BlockIndex first, uint64_t count = 1) {
  return {first * kBlock, std::min((first + count) * kBlock, kSize)};
}

// --- a read --------------------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, AMissingBlockIsFetchedWhole) {
  const AnswerRef a = read(kBlock + 100, 50);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(1)));
  EXPECT_EQ(only_fetch().lane, Lane::kDemand);
  EXPECT_TRUE(is_waiting(a));
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AReadOfSeveralMissingBlocksIsOneFetch) {
  const AnswerRef a = read(kBlock / 2, 3 * kBlock);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(0, 4)));
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AReadIsCutAtTheEndOfTheFile) {
  const AnswerRef a = read(kSize - 10, 100);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(block_of(kSize))));
  complete();
  EXPECT_TRUE(is_right(a));
  EXPECT_THAT(**a->result, SizeIs(10));
}

TEST_F(BlockReaderTest, AReadBehindTheEndIsEmpty) {
  for (const uint64_t offset : {kSize, kSize + 1, UINT64_MAX / 2}) {
    const AnswerRef a = read(offset, 100);
    ASSERT_FALSE(is_waiting(a));
    EXPECT_THAT(**a->result, IsEmpty());
  }
  EXPECT_EQ(setup_.fetcher.asked(), 0u);
}

TEST_F(BlockReaderTest, TwoReadsOfAMissingBlockShareOneFetch) {
  const AnswerRef a = read_block(3);
  const AnswerRef b = read(3 * kBlock + 5, 10);
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
  complete();
  EXPECT_TRUE(is_right(a));
  EXPECT_TRUE(is_right(b));
}

TEST_F(BlockReaderTest, AReadOverAFetchAndTheGapBehindItFetchesOnlyTheGap) {
  const AnswerRef a = read_block(3);
  const AnswerRef b = read(3 * kBlock, 3 * kBlock);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(3), blocks(4, 2)));
  complete(blocks(4, 2));
  EXPECT_TRUE(is_waiting(b));
  complete(blocks(3));
  EXPECT_TRUE(is_right(a));
  EXPECT_TRUE(is_right(b));
}

TEST_F(BlockReaderTest, AReaderIsAnsweredBeforeThePartIsComplete) {
  const AnswerRef whole = read(0, 4 * kBlock);
  const AnswerRef first = read(100, 1000);
  arrive(1099);
  EXPECT_TRUE(is_waiting(first));
  arrive(1100);
  EXPECT_TRUE(is_right(first));
  EXPECT_TRUE(is_waiting(whole));
  complete();
  EXPECT_TRUE(is_right(whole));
}

TEST_F(BlockReaderTest, ABlockBeingStoredIsServedFromMemory) {
  read_block(3);
  complete();
  EXPECT_EQ(setup_.disk.waiting(), 1u);  // the write
  const AnswerRef a = read_block(3);
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.disk.reads(), 0u);
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(BlockReaderTest, AReaderIsAnsweredBeforeTheDiskWrite) {
  const AnswerRef a = read_block(3);
  complete();
  EXPECT_EQ(setup_.disk.waiting(), 1u);
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AStoredBlockIsReadFromDisk) {
  put_into_cache(3);
  const AnswerRef a = read(3 * kBlock + 7, 1000);
  EXPECT_EQ(setup_.disk.reads(), 1u);
  settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(BlockReaderTest, APartThatWasNotReadToItsEndWaitsInMemoryForTheNextReader) {
  read(0, 4 * kBlock - 1);
  complete();
  settle();
  const AnswerRef a = read_block(2);
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.disk.reads(), 0u);
  EXPECT_TRUE(is_right(read(4 * kBlock - 1, 1)));  // the last byte: now it may go
  EXPECT_EQ(setup_.metrics.buffer_bytes, 0);
  const AnswerRef b = read_block(2);
  settle();
  EXPECT_TRUE(is_right(b));
  EXPECT_EQ(setup_.disk.reads(), 1u);
}

TEST_F(BlockReaderTest, OnlyWhatIsNotOnDiskIsFetched) {
  put_into_cache(1, 2);
  const AnswerRef a = read(0, 5 * kBlock);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(0), blocks(3, 2)));
  settle();
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AReadMayBeMadeOfEverythingAtOnce) {
  put_into_cache(1);
  read(3 * kBlock, 2 * kBlock - 1);  // stays in memory
  complete();
  settle();
  const AnswerRef fetched = read_block(6);
  arrive(kBlock / 2);
  const AnswerRef a = read(100, 8 * kBlock);
  settle();
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
  EXPECT_TRUE(is_right(fetched));
}

TEST_F(BlockReaderTest, AfterARestartNothingThatWasReadIsFetchedAgain) {
  put_into_cache(0, 10);
  const size_t asked = setup_.fetcher.asked();
  setup_.restart();
  open();
  const AnswerRef a = read(0, 10 * kBlock);
  settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.fetcher.asked(), asked);
}

TEST_F(BlockReaderTest, WhereBytesCameFromIsCounted) {
  put_into_cache(1);
  EXPECT_EQ(setup_.metrics.bytes_from_network, kBlock);
  read(kBlock, 100);
  settle();
  EXPECT_EQ(setup_.metrics.bytes_from_cache, 100u);
  read(kBlock, 2 * kBlock);
  settle();
  complete_all_fetches();
  EXPECT_EQ(setup_.metrics.bytes_from_cache, kBlock + 100);
  EXPECT_EQ(setup_.metrics.bytes_from_network, 2 * kBlock);
  EXPECT_EQ(setup_.metrics.read_requests, 3u);
}

TEST_F(BlockReaderTest, TwoFilesDoNotMeet) {
  open(kFile + 1);
  const AnswerRef a = read(0, 10, kFile);
  const AnswerRef b = read(0, 10, kFile + 1);
  EXPECT_EQ(setup_.fetcher.asked(), 2u);
  const auto fetches = setup_.fetcher.active();
  setup_.fetcher.complete(fetches[0].id, version_);
  setup_.fetcher.complete(fetches[1].id, other_version_);
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(test::first_mismatch(other_version_.seed, 0, **b->result), std::nullopt);
}

TEST_F(BlockReaderTest, OfflineWhatIsNotCachedIsAnErrorAndAsksNobody) {
  put_into_cache(1);
  setup_.stop();
  setup_.reader_options.offline = true;
  setup_.start();
  open();
  const size_t asked = setup_.fetcher.asked();
  const AnswerRef here = read_block(1);
  const AnswerRef missing = read_block(2);
  const AnswerRef both = read(kBlock, 2 * kBlock);
  settle();
  EXPECT_TRUE(is_right(here));
  EXPECT_TRUE(failed_with(missing, ErrorCode::kUnreachable));
  EXPECT_TRUE(failed_with(both, ErrorCode::kUnreachable));
  EXPECT_EQ(setup_.fetcher.asked(), asked);
}

// --- fetches that fail ---------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, AFailedFetchIsTheErrorOfAllWhoWaitForIt) {
  const AnswerRef a = read_block(3);
  const AnswerRef b = read_block(3);
  fail(ErrorCode::kUnreachable);
  EXPECT_TRUE(failed_with(a, ErrorCode::kUnreachable));
  EXPECT_TRUE(failed_with(b, ErrorCode::kUnreachable));
}

TEST_F(BlockReaderTest, AfterAFailureTheNextReadAsksAgain) {
  read_block(3);
  fail(ErrorCode::kTimedOut);
  const AnswerRef a = read_block(3);
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, WholeBlocksThatArrivedBeforeAFailureAreKept) {
  const AnswerRef a = read(0, 4 * kBlock);
  arrive(2 * kBlock + 100);
  fail(ErrorCode::kUnreachable);
  EXPECT_TRUE(failed_with(a, ErrorCode::kUnreachable));
  settle();
  const AnswerRef b = read(0, 3 * kBlock);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(2)));
  complete();
  settle();
  EXPECT_TRUE(is_right(b));
}

TEST_F(BlockReaderTest, AReaderWhoseBytesHaveArrivedDoesNotSeeTheFailure) {
  const AnswerRef whole = read(0, 4 * kBlock);
  const AnswerRef early = read(0, 100);
  arrive(kBlock);
  fail(ErrorCode::kUnreachable);
  EXPECT_TRUE(is_right(early));
  EXPECT_TRUE(failed_with(whole, ErrorCode::kUnreachable));
}

TEST_F(BlockReaderTest, AReaderWhoJoinedAFetchThatWasUnderWayGetsHisOwnWhenItFails) {
  const AnswerRef first = read_block(3);
  setup_.clock.advance(1s);
  const AnswerRef joined = read_block(3);
  fail(ErrorCode::kTimedOut);
  EXPECT_TRUE(failed_with(first, ErrorCode::kTimedOut));
  EXPECT_TRUE(is_waiting(joined));
  complete();
  EXPECT_TRUE(is_right(joined));
}

TEST_F(BlockReaderTest, AReadOfTwoFetchesThatBothFailIsAnsweredOnce) {
  read_block(3);
  const AnswerRef a = read(3 * kBlock, 2 * kBlock);
  for (const FetchRequest& r : setup_.fetcher.active()) setup_.fetcher.fail(r.id, ErrorCode::kUnreachable);
  EXPECT_TRUE(failed_with(a, ErrorCode::kUnreachable));
}

TEST_F(BlockReaderTest, AReadGetsThePatienceOfTheOptions) {
  read_block(3);
  EXPECT_EQ(only_fetch().patience, setup_.reader_options.patience);
}

TEST_F(BlockReaderTest, AfterASilentServerTheNextReadsHaveLessPatienceForAWhile) {
  read_block(3);
  fail(ErrorCode::kTimedOut);
  read_block(3);
  EXPECT_EQ(only_fetch().patience, 1s);
  fail(ErrorCode::kTimedOut);
  setup_.clock.advance(6s);
  read_block(3);
  EXPECT_EQ(only_fetch().patience, setup_.reader_options.patience);
}

TEST_F(BlockReaderTest, AServerThatSpeaksAgainIsWaitedForAgain) {
  read_block(3);
  fail(ErrorCode::kTimedOut);
  read_block(3);
  complete();
  read_block(4);
  EXPECT_EQ(only_fetch().patience, setup_.reader_options.patience);
}

// --- a cache that fails --------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, ABlockWithABadChecksumIsFetchedAgain) {
  put_into_cache(3);
  setup_.restart_after_a_kill([&] { flip_byte_on_disk(3 * kBlock + 9); });
  open();
  const AnswerRef a = read_block(3);
  settle();
  EXPECT_TRUE(is_waiting(a));
  complete();
  EXPECT_TRUE(is_right(a));
  settle();
  const AnswerRef b = read_block(3);
  settle();
  EXPECT_TRUE(is_right(b));
}

TEST_F(BlockReaderTest, ABlockThatCannotBeReadIsFetchedAgain) {
  put_into_cache(3);
  const AnswerRef a = read_block(3);
  setup_.disk.fail(0, EIO);
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AnObjectFileThatIsGoneIsFetchedAgain) {
  put_into_cache(3);
  setup_.restart();
  std::filesystem::remove(setup_.file_of(kFile));
  open();
  const AnswerRef a = read_block(3);
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AFullDiskMakesReadsSlowAndNotFailed) {
  setup_.disk.break_writes(ENOSPC);
  for (int i = 0; i < 3; ++i) {
    const AnswerRef a = read(0, 3 * kBlock);
    complete_all_fetches();
    settle();
    EXPECT_TRUE(is_right(a));
  }
  EXPECT_EQ(setup_.metrics.blocks_stored, 0u);
}

TEST_F(BlockReaderTest, ACacheWithoutRoomMakesReadsSlowAndNotFailed) {
  setup_.stop();
  setup_.space_options.limit = 0;
  setup_.start();
  open();
  for (int i = 0; i < 3; ++i) {
    const AnswerRef a = read(0, 3 * kBlock);
    complete_all_fetches();
    EXPECT_TRUE(is_right(a));
  }
}

TEST_F(BlockReaderTest, ADiskThatNeverReadsMakesReadsSlowAndNotFailed) {
  for (BlockIndex b = 0; b < 16; b += 2) put_into_cache(b);
  const AnswerRef a = read(0, 16 * kBlock);
  // The latest first: each restart of the read finds another block that is still believed to be there.
  while (setup_.disk.waiting() > 0) setup_.disk.fail(setup_.disk.waiting() - 1, EIO);
  complete_all_fetches();
  EXPECT_TRUE(is_right(a)) << (a->result && !*a->result ? a->result->error().message : "not answered");
}

// --- versions ------------------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, TheFirstResponseFixesTheVersion) {
  read_block(3);
  EXPECT_TRUE(only_fetch().validator.empty());
  complete();
  EXPECT_EQ(setup_.index->object(kFile), (ObjectRecord{kSize, version_.validator}));
  read_block(4);
  EXPECT_EQ(only_fetch().validator, version_.validator);
}

TEST_F(BlockReaderTest, AVersionThatIsKnownFromBeforeGoesOutWithTheFirstFetch) {
  put_into_cache(3);
  setup_.restart();
  open();
  read_block(4);
  EXPECT_EQ(only_fetch().validator, version_.validator);
}

TEST_F(BlockReaderTest, AChangedRemoteObjectIsStaleForAllWhoWaitAndForLaterReads) {
  put_into_cache(0);
  const AnswerRef a = read_block(3);
  const AnswerRef b = read_block(5);
  const AnswerRef joined = read_block(5);
  setup_.fetcher.fail(fetch_of(blocks(3)), ErrorCode::kStale);
  EXPECT_TRUE(failed_with(a, ErrorCode::kStale));
  EXPECT_TRUE(failed_with(b, ErrorCode::kStale));
  EXPECT_TRUE(failed_with(joined, ErrorCode::kStale));
  EXPECT_TRUE(failed_with(read_block(3), ErrorCode::kStale));
  EXPECT_TRUE(failed_with(read_block(0), ErrorCode::kStale));  // even what is cached: no reader gets half of a version
  EXPECT_THAT(setup_.stale, ElementsAre(kFile));
  EXPECT_TRUE(setup_.fetcher.is_cancelled(fetch_of(blocks(5))));
}

TEST_F(BlockReaderTest, TwoFirstResponsesThatContradictAreStale) {
  const AnswerRef a = read_block(3);
  const AnswerRef b = read_block(5);
  setup_.fetcher.arrive(fetch_of(blocks(3)), 100, version_);
  setup_.fetcher.arrive(fetch_of(blocks(5)), kBlock, other_version_);
  EXPECT_TRUE(failed_with(a, ErrorCode::kStale));
  EXPECT_TRUE(failed_with(b, ErrorCode::kStale));
}

TEST_F(BlockReaderTest, AFileThatIsGoneFromTheServerIsStale) {
  const AnswerRef a = read_block(3);
  fail(ErrorCode::kNotFound);
  EXPECT_TRUE(failed_with(a, ErrorCode::kStale));
}

TEST_F(BlockReaderTest, WhatIsCachedOfAStaleVersionGoesAtTheLastClose) {
  put_into_cache(0);
  open();
  read_block(3);
  fail(ErrorCode::kStale);
  close();
  EXPECT_NE(setup_.index->object(kFile), std::nullopt);
  close();
  EXPECT_EQ(setup_.index->object(kFile), std::nullopt);
  EXPECT_FALSE(setup_.index->region({kFile, 0}).has_value());
}

TEST_F(BlockReaderTest, AStoreThatIsUnderWayWhenTheVersionTurnsStaleDoesNoHarm) {
  read_block(3);
  complete();
  read_block(4);
  fail(ErrorCode::kStale);
  close();
  settle();
  EXPECT_FALSE(setup_.index->region({kFile, 0}).has_value());
}

TEST_F(BlockReaderTest, AReadOfTheDiskThatIsUnderWayWhenTheVersionTurnsStaleIsAnswered) {
  put_into_cache(0);
  const AnswerRef a = read_block(0);
  read_block(3);
  fail(ErrorCode::kStale);
  settle();
  EXPECT_FALSE(is_waiting(a));
}

// --- read-ahead ----------------------------------------------------------------------------------------------------

class ReadaheadingTest : public BlockReaderTest {
 protected:
  explicit ReadaheadingTest(uint64_t memory = 64 * kMiB) : BlockReaderTest(memory) {
    setup_.reader_options.readahead = {.first_window = kMiB};
  }
};

TEST_F(ReadaheadingTest, AFirstReadAtTheBeginFetchesWhatFollows) {
  read(0, 2 * kBlock);
  const auto all = setup_.fetcher.active();
  ASSERT_THAT(all, Not(IsEmpty()));
  EXPECT_EQ(all[0].range, blocks(0, 2));
  EXPECT_EQ(all[0].lane, Lane::kDemand);
  uint64_t end = all[0].range.end;
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(all[i].range.begin, end) << "without gaps";
    EXPECT_EQ(all[i].lane, Lane::kSpeculative);
    end = all[i].range.end;
  }
  EXPECT_EQ(end, kMiB);
  complete_all_fetches();
}

TEST_F(ReadaheadingTest, ARandomReadFetchesItsOwnBlockOnly) {
  read(5 * kMiB, 10);
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(ReadaheadingTest, WhatIsReadAheadIsServedFromMemory) {
  read(0, 2 * kBlock);
  complete_all_fetches();
  settle();
  const size_t asked = setup_.fetcher.asked();
  const AnswerRef a = read(2 * kBlock, 2 * kBlock);
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.disk.reads(), 0u);
  EXPECT_LE(setup_.fetcher.asked(), asked + 1);
}

TEST_F(ReadaheadingTest, WhatIsThereAlreadyIsNotReadAhead) {
  put_into_cache(4, 2);  // a random read
  read(0, 2 * kBlock);
  for (const ByteRange r : fetched_ranges()) EXPECT_FALSE(r.overlaps(blocks(4, 2)));
}

TEST_F(ReadaheadingTest, AReaderPromotesTheSpeculationHeJoins) {
  read(0, 2 * kBlock);
  const FetchRequest speculative = setup_.fetcher.active()[1];
  ASSERT_EQ(speculative.lane, Lane::kSpeculative);
  const AnswerRef a = read(speculative.range.begin, 10);
  EXPECT_EQ(setup_.fetcher.active()[1].lane, Lane::kDemand);
  setup_.fetcher.complete(speculative.id, version_);
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, AFailedSpeculationThatAReaderJoinedIsFetchedAgainForHim) {
  read(0, 2 * kBlock);
  const FetchRequest speculative = setup_.fetcher.active()[1];
  setup_.clock.advance(1s);
  const AnswerRef a = read(speculative.range.begin, 10);
  setup_.fetcher.fail(speculative.id, ErrorCode::kTimedOut);
  EXPECT_TRUE(is_waiting(a));
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, AFailedSpeculationThatNobodyJoinedIsNobodysError) {
  const AnswerRef a = read(0, 2 * kBlock);
  for (const FetchRequest& r : setup_.fetcher.active()) {
    if (r.lane == Lane::kSpeculative) setup_.fetcher.fail(r.id, ErrorCode::kUnreachable);
  }
  EXPECT_TRUE(is_waiting(a));
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, AWholeFileIsReadInSequenceWithEveryByteFetchedOnce) {
  for (uint64_t at = 0; at < kSize; at += 2 * kBlock) {
    const AnswerRef a = read(at, 2 * kBlock);
    complete_all_fetches();
    settle();
    ASSERT_TRUE(is_right(a)) << at;
  }
  EXPECT_TRUE(setup_.complete(kFile));
  EXPECT_EQ(setup_.metrics.blocks_stored, block_count(kSize));
}

TEST_F(ReadaheadingTest, ALookAtTheBeginIsOneRequest) {
  read(0, 4096);
  EXPECT_THAT(fetched_ranges(), ElementsAre(blocks(0, 2)));
  EXPECT_EQ(only_fetch().lane, Lane::kDemand);
  complete_all_fetches();
}

TEST_F(ReadaheadingTest, AFileThatNobodyReadsGivesItsMemoryBack) {
  read(0, 2 * kBlock);
  const FetchId speculative = setup_.fetcher.active().back().id;
  const uint64_t offset = setup_.fetcher.active().back().range.begin;
  setup_.fetcher.complete(setup_.fetcher.active().front().id, version_);
  setup_.fetcher.complete(speculative, version_);
  settle();
  ASSERT_GT(setup_.metrics.buffer_bytes, 0);
  setup_.clock.advance(11s);
  setup_.reader->tick();
  setup_.fetcher.end_cancelled();
  settle();
  EXPECT_EQ(setup_.metrics.buffer_bytes, 0);
  const AnswerRef a = read(offset, 10);  // it was stored
  settle();
  EXPECT_TRUE(is_right(a));
}

// --- guesses -------------------------------------------------------------------------------------------------------

// --- a reader who jumps ---------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, AJumpIntoABlockHasItsOwnBytesFetchedFirst) {
  const ByteRange wanted = ByteRange::of(20 * kBlock + 40'000, 4096);
  const AnswerRef a = read(wanted.begin, wanted.size());
  EXPECT_EQ(only_fetch().range, (ByteRange{20 * kBlock, 21 * kBlock}));
  EXPECT_EQ(only_fetch().wanted, wanted);
  EXPECT_THAT(setup_.fetcher.wanted(), IsEmpty());  // the request has said so
  setup_.fetcher.arrive_behind(only_fetch().id, wanted, version_);
  EXPECT_TRUE(is_right(a));
  EXPECT_FALSE(setup_.cache->has(kFile, 20));
  complete();
  settle();
  EXPECT_TRUE(setup_.cache->has(kFile, 20));
}

TEST_F(BlockReaderTest, AnotherReaderOfSuchABlockSaysWhatHeWaitsFor) {
  read(20 * kBlock + 40'000, 4096);
  const FetchId id = only_fetch().id;
  const AnswerRef front = read(20 * kBlock, 4096);
  const AnswerRef same = read(20 * kBlock + 41'000, 10);
  EXPECT_THAT(setup_.fetcher.wanted(), ElementsAre(std::pair(id, ByteRange::of(20 * kBlock, 4096)),
                                                   std::pair(id, ByteRange::of(20 * kBlock + 41'000, 10))));
  setup_.fetcher.arrive_behind(id, ByteRange::of(20 * kBlock + 40'000, 4096), version_);
  EXPECT_TRUE(is_right(same));
  EXPECT_TRUE(is_waiting(front));
  complete();
  EXPECT_TRUE(is_right(front));
}

TEST_F(ReadaheadingTest, AtTheBeginOfABlockAndInASequenceBytesComeInOrder) {
  read(20 * kBlock + 100, 4096);
  EXPECT_TRUE(only_fetch().wanted.empty());
  complete();
  read(21 * kBlock + 40'000, 4096);  // reads on
  for (const FetchRequest& r : setup_.fetcher.active()) EXPECT_TRUE(r.wanted.empty());
  complete_all_fetches();
}

class GuessingTest : public BlockReaderTest {
 protected:
  void SetUp() override {
    setup_.fetcher.set_link({.rate = 100'000'000, .round_trip = 50ms, .connections = 2, .part_size = kMiB});
    BlockReaderTest::SetUp();
  }
  // Places in no order, and each block fetched.
  void read_here_and_there(int reads) {
    for (int i = 0; i < reads; ++i) {
      const BlockIndex b = static_cast<BlockIndex>(i * i * 7 + 3) % 127;
      const AnswerRef a = read_block(b);
      for (const FetchRequest& r : setup_.fetcher.active()) {
        if (r.lane == Lane::kDemand) setup_.fetcher.complete(r.id, version_);
      }
      settle();
      EXPECT_TRUE(is_right(a));
    }
  }
  std::vector<FetchRequest> guesses() {
    std::vector<FetchRequest> out;
    for (const FetchRequest& r : setup_.fetcher.active()) {
      if (r.lane == Lane::kIdle) out.push_back(r);
    }
    return out;
  }
};

TEST_F(GuessingTest, AFewReadsGuessNothing) {
  read_here_and_there(15);
  EXPECT_THAT(guesses(), IsEmpty());
}

TEST_F(GuessingTest, WhoGoesOnHasTheRestFetchedInTheIdleLane) {
  read_here_and_there(16);
  EXPECT_THAT(guesses(), Not(IsEmpty()));
  // Eight small ones for each connection, and the last of them may be in pieces, around what is there already.
  EXPECT_LE(guesses().size(), 16u + 8u);
  complete_all_fetches();
  settle();
  EXPECT_TRUE(setup_.complete(kFile));
}

TEST_F(GuessingTest, OfAGuessThatIsReadTheReadersBytesComeFirst) {
  read_here_and_there(16);
  const FetchRequest guess = guesses().front();
  const ByteRange wanted = ByteRange::of(guess.range.begin + 1000, 10);
  const AnswerRef a = read(wanted.begin, wanted.size());
  EXPECT_THAT(setup_.fetcher.wanted(), ElementsAre(std::pair(guess.id, wanted)));
  setup_.fetcher.arrive_behind(guess.id, wanted, version_);
  EXPECT_TRUE(is_right(a));
  setup_.fetcher.complete(guess.id, version_);
}

TEST_F(GuessingTest, AGuessThatArrivesAnswersItsReadersWithoutMore) {
  read_here_and_there(16);
  const FetchRequest guess = guesses().front();
  const AnswerRef a = read(guess.range.begin, 10);
  setup_.fetcher.complete(guess.id, version_);
  EXPECT_TRUE(is_right(a));
}

TEST_F(GuessingTest, AGuessIsNotKeptInMemory) {
  read_here_and_there(16);
  const int64_t before = setup_.metrics.buffer_bytes;
  complete_all_fetches();
  settle();
  EXPECT_LE(setup_.metrics.buffer_bytes, before);
}

TEST_F(GuessingTest, TheLastCloseEndsIt) {
  read_here_and_there(16);
  const auto all = guesses();
  close();
  for (const FetchRequest& r : all) EXPECT_TRUE(setup_.fetcher.is_cancelled(r.id));
  complete_all_fetches();
}

class NotGuessingTest : public GuessingTest {
 protected:
  NotGuessingTest() { setup_.reader_options.speculate = false; }
};

TEST_F(NotGuessingTest, NothingIsGuessed) {
  read_here_and_there(50);
  EXPECT_THAT(guesses(), IsEmpty());
}

// --- memory --------------------------------------------------------------------------------------------------------

class LittleMemoryTest : public ReadaheadingTest {
 protected:
  LittleMemoryTest() : ReadaheadingTest(kMiB) {}
};

TEST_F(LittleMemoryTest, WithoutMemoryNothingIsReadAheadAndDemandGoesOn) {
  read(0, 2 * kBlock);
  EXPECT_LE(setup_.buffers.outstanding(), setup_.buffers.budget());
  std::vector<AnswerRef> demand;
  for (uint64_t at = 2 * kMiB; at < 6 * kMiB; at += kMiB) demand.push_back(read(at, kMiB / 2));
  complete_all_fetches();
  for (const AnswerRef& a : demand) EXPECT_TRUE(is_right(a));
}

TEST_F(LittleMemoryTest, WhatWasNotReadAheadForWantOfMemoryIsReadAheadLater) {
  for (uint64_t at = 0; at < kSize; at += 2 * kBlock) {
    const AnswerRef a = read(at, 2 * kBlock);
    complete_all_fetches();
    settle();
    ASSERT_TRUE(is_right(a)) << at;
    EXPECT_LE(setup_.buffers.outstanding(), setup_.buffers.budget());
  }
  EXPECT_TRUE(setup_.complete(kFile));
}

TEST_F(LittleMemoryTest, PartsThatWaitForAReaderKeepAQuarterOfTheMemoryAtMost) {
  for (uint64_t at = 4 * kMiB; at < 8 * kMiB; at += kMiB / 2) {
    read(at, 3 * kBlock - 1);  // not to the end: each would wait for the rest to be read
    complete_all_fetches();
    settle();
  }
  EXPECT_LE(setup_.buffers.outstanding(), setup_.buffers.budget() / 4);
}

// --- small files ahead of their readers ----------------------------------------------------------------------------

// In front of a cache that has no room.
class AheadOfAFullCacheTest : public BlockReaderTest {
 protected:
  static constexpr uint64_t kSmall = 10'000;
  static constexpr Ino kNext = kFile + 1;

  AheadOfAFullCacheTest() : BlockReaderTest(16 * kBlock) {
    version_.size = kSmall;
    setup_.space_options.limit = 0;
  }

  void fetch_ahead(Ino ino) {
    setup_.reader->fetch_whole(ino, kSmall, "http://x/small", nullptr, Lane::kSpeculative,
                               [this](Result<bool> fetched) { fetched_.push_back(fetched && *fetched); });
  }
  void bring(Ino ino) {
    fetch_ahead(ino);
    complete_all_fetches();
    settle();
  }
  AnswerRef open_and_read(Ino ino) {
    setup_.reader->open(ino, kSmall, "http://x/small");
    AnswerRef answer = read(0, kSmall, ino);
    return answer;
  }

  std::vector<bool> fetched_;
};

TEST_F(AheadOfAFullCacheTest, AFileWaitsInMemoryForItsReader) {
  bring(kNext);
  EXPECT_THAT(fetched_, ElementsAre(true));
  EXPECT_FALSE(setup_.cache->has(kNext, 0));
  EXPECT_GT(setup_.buffers.outstanding(), 0u);
  fetch_ahead(kNext);
  EXPECT_THAT(fetched_, ElementsAre(true, false)) << "it is there already";
  const AnswerRef answer = open_and_read(kNext);
  EXPECT_TRUE(is_right(answer));
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
  close(kNext);
  settle();
  EXPECT_EQ(setup_.buffers.outstanding(), 0u) << "it has been read";
}

TEST_F(AheadOfAFullCacheTest, AReaderWhoDoesNotComeIsNotWaitedForForLong) {
  bring(kNext);
  setup_.clock.advance(9s);
  setup_.reader->tick();
  EXPECT_GT(setup_.buffers.outstanding(), 0u);
  setup_.clock.advance(1s);
  setup_.reader->tick();
  EXPECT_EQ(setup_.buffers.outstanding(), 0u);
  const AnswerRef answer = open_and_read(kNext);
  complete();
  EXPECT_TRUE(is_right(answer));
  close(kNext);
}

TEST_F(AheadOfAFullCacheTest, WhatWaitsKeepsAQuarterOfTheMemoryAtMost) {
  for (Ino ino = kNext; ino < kNext + 20; ++ino) bring(ino);
  EXPECT_LE(setup_.buffers.outstanding(), setup_.buffers.budget() / 4);
  setup_.reader->tick();
  const AnswerRef last = open_and_read(kNext + 19);
  EXPECT_TRUE(is_right(last));
  const AnswerRef first = open_and_read(kNext);
  EXPECT_TRUE(is_waiting(first));
  complete();
  EXPECT_TRUE(is_right(first));
}

TEST_F(AheadOfAFullCacheTest, AFileThatWasOpenedIsNotKeptWhenItIsClosed) {
  bring(kNext);
  setup_.reader->open(kNext, kSmall, "http://x/small");
  close(kNext);
  EXPECT_EQ(setup_.buffers.outstanding(), 0u);
}

// --- several engines ---------------------------------------------------------------------------------------------

class TwoEnginesTest : public BlockReaderTest {
 protected:
  static constexpr Ino kOther = kFile + 1;       // of the other engine
  static constexpr uint64_t kKept = 4 * kBlock;  // the buffer of a part that keep() leaves in memory

  TwoEnginesTest() : BlockReaderTest(16 * kKept) { setup_.engines = 2; }  // a quarter of it are four such parts

  void SetUp() override {
    BlockReaderTest::SetUp();
    open(kOther);
  }
  // A part that is stored and stays in memory, because nobody has read its last byte.
  void keep(Ino ino, uint64_t number) {
    read(number * kKept, 3 * kBlock - 1, ino);
    complete_all_fetches();
    setup_.disk.complete_all();
  }
  // Those of keep().
  bool is_kept(Ino ino, uint64_t number) {
    const size_t before = setup_.disk.reads();
    const AnswerRef a = read(number * kKept, kBlock, ino);
    settle();
    EXPECT_TRUE(is_right(a));
    return setup_.disk.reads() == before;
  }
};

TEST_F(TwoEnginesTest, FetchesHaveNumbersOfTheirOwn) {
  for (uint64_t block = 0; block < 40; block += 2) {
    read_block(block);
    read(block * kBlock, kBlock, kOther);
  }
  std::set<FetchId> ids;
  for (const FetchRequest& r : setup_.fetcher.active()) ids.insert(r.id);
  EXPECT_THAT(ids, SizeIs(40));
  complete_all_fetches();
  for (const AnswerRef& a : answers_) EXPECT_TRUE(is_right(a));
}

TEST_F(TwoEnginesTest, WhatOneKeepsIsGivenBackWhenTheOtherNeedsMemory) {
  for (uint64_t i = 0; i < 4; ++i) keep(kFile, i);
  ASSERT_EQ(setup_.buffers.outstanding(), 4 * kKept);
  for (uint64_t i = 0; i < 12; ++i) read(i * kKept, kKept, kOther);
  EXPECT_THAT(setup_.messages, IsEmpty()) << "there was room";
  read(12 * kKept, kKept, kOther);
  EXPECT_EQ(setup_.buffers.outstanding(), 17 * kKept) << "who waits has a buffer at once";
  setup_.deliver_messages();
  EXPECT_EQ(setup_.buffers.outstanding(), 15 * kKept) << "until there is room for another, and not more";
  complete_all_fetches();
  settle();
  EXPECT_FALSE(is_kept(kFile, 0)) << "the oldest goes first";
  EXPECT_TRUE(is_kept(kFile, 3));
}

TEST_F(TwoEnginesTest, AllTogetherKeepAQuarterOfTheMemoryAndEachHasAnEqualShareOfIt) {
  for (uint64_t i = 0; i < 6; ++i) keep(kFile, i);
  EXPECT_EQ(setup_.all->resident_bytes, 4 * kKept) << "all of it while the other keeps nothing";
  for (uint64_t i = 0; i < 6; ++i) {
    keep(kOther, i);
    setup_.deliver_messages();
    EXPECT_EQ(setup_.all->resident_bytes, 4 * kKept);
  }
  for (const Ino ino : {kFile, kOther}) {
    EXPECT_FALSE(is_kept(ino, 3));
    EXPECT_TRUE(is_kept(ino, 4));
    EXPECT_TRUE(is_kept(ino, 5));
  }
}

TEST_F(TwoEnginesTest, AServerThatWasSilentForOneGetsLittlePatienceFromTheOther) {
  read_block(0);
  fail(ErrorCode::kTimedOut);
  read(0, kBlock, kOther);
  EXPECT_EQ(only_fetch().patience, 1s);
  setup_.fetcher.arrive(only_fetch().id, kBlock / 2, version_);
  complete();
  read_block(0);
  EXPECT_EQ(only_fetch().patience, setup_.reader_options.patience) << "it speaks again";
}

class TwoReadaheadingEnginesTest : public TwoEnginesTest {
 protected:
  TwoReadaheadingEnginesTest() { setup_.reader_options.readahead = {8 * kBlock}; }

  void tick() {
    for (auto& reader : setup_.readers) reader->tick();
  }
};

TEST_F(TwoReadaheadingEnginesTest, FilesThatAreReadInSequenceShareTheMemory) {
  setup_.clock.advance(1s);
  for (const Ino ino : {kFile, kOther}) {
    for (uint64_t block = 0; block < 4; ++block) read(block * kBlock, kBlock, ino);
  }
  tick();
  EXPECT_EQ(setup_.all->files_in_sequence, 2u);
  setup_.clock.advance(4s);
  tick();
  EXPECT_EQ(setup_.all->files_in_sequence, 0u);
  complete_all_fetches();
}

// --- closing -------------------------------------------------------------------------------------------------------

TEST_F(ReadaheadingTest, AtTheLastCloseWhatNobodyWaitsForIsCancelledAndWholeBlocksAreKept) {
  read(0, 2 * kBlock);
  complete(blocks(0, 2));
  const FetchRequest speculative = setup_.fetcher.active()[0];
  setup_.fetcher.arrive(speculative.id, kBlock + 10, version_);
  close();
  EXPECT_TRUE(setup_.fetcher.is_cancelled(speculative.id));
  settle();
  EXPECT_THAT(setup_.fetcher.active(), IsEmpty());
  open();
  EXPECT_TRUE(setup_.cache->has(kFile, 2));
  EXPECT_FALSE(setup_.cache->has(kFile, 3));
  const AnswerRef a = read(2 * kBlock, 10);
  settle();
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, ACloseThatIsNotTheLastCancelsNothing) {
  open();
  read(0, 2 * kBlock);
  close();
  for (const FetchRequest& r : setup_.fetcher.active()) EXPECT_FALSE(setup_.fetcher.is_cancelled(r.id));
}

TEST_F(BlockReaderTest, WhatSomebodyWaitsForIsNotCancelledByAClose) {
  const AnswerRef a = read_block(3);
  close();
  EXPECT_FALSE(setup_.fetcher.is_cancelled(only_fetch().id));
  complete();
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, AReaderWhoJoinsAFetchThatIsBeingCancelledGetsHisOwn) {
  read(0, 2 * kBlock);
  complete(blocks(0, 2));
  const FetchRequest speculative = setup_.fetcher.active()[0];
  close();
  open();
  const AnswerRef a = read(speculative.range.begin, 10);
  setup_.fetcher.end_cancelled();
  EXPECT_TRUE(is_waiting(a));
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
}

TEST_F(ReadaheadingTest, AReaderWhoJoinsManyFetchesThatAreBeingCancelledIsNotGivenUp) {
  read(0, 2 * kBlock);
  complete(blocks(0, 2));
  ASSERT_GE(setup_.fetcher.active().size(), 4u);
  close();
  open();
  const AnswerRef a = read(2 * kBlock, kMiB);
  setup_.fetcher.end_cancelled();
  EXPECT_TRUE(is_waiting(a));
  complete_all_fetches();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AFileThatIsClosedAndOpenedAgainIsReadOn) {
  put_into_cache(3);
  close();
  open();
  const AnswerRef a = read_block(3);
  settle();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, ACloseWhileBytesAreStoredLosesNothing) {
  read_block(3);
  complete();
  close();
  settle();
  open();
  const AnswerRef a = read_block(3);
  settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.fetcher.asked(), 1u);
}

TEST_F(BlockReaderTest, ReadingWhatIsNotOpenIsAnError) {
  EXPECT_TRUE(failed_with(read(0, 10, kFile + 1), ErrorCode::kCancelled));
}

// --- servers without ranges ----------------------------------------------------------------------------------------

class WholeBodyTest : public BlockReaderTest {
 protected:
  explicit WholeBodyTest(uint64_t memory = 64 * kMiB) : BlockReaderTest(memory) {}

  // The server answers the first range with the whole body.
  void refuse_ranges() { fail(ErrorCode::kNoRanges); }
  FetchRequest stream() {
    FetchRequest r = only_fetch();
    EXPECT_TRUE(r.whole_body);
    return r;
  }
  void chunk(uint64_t bytes = kMiB) { setup_.fetcher.arrive_chunk(stream().id, bytes, setup_.buffers, version_); }
  void rest_of_the_stream() {
    const FetchRequest r = stream();
    while (setup_.fetcher.arrived(r.id) < kSize) {
      setup_.fetcher.arrive_chunk(r.id, kMiB, setup_.buffers, version_);
      settle();
    }
    setup_.fetcher.complete(r.id, version_);
  }
};

TEST_F(WholeBodyTest, AServerWithoutRangesIsReadWholeAndInOrder) {
  const AnswerRef late = read(2 * kMiB, 10);
  refuse_ranges();
  EXPECT_EQ(stream().range, (ByteRange{0, kSize}));
  const AnswerRef early = read(100, 10);
  chunk();
  EXPECT_TRUE(is_right(early));
  EXPECT_TRUE(is_waiting(late));
  chunk();
  chunk();
  EXPECT_TRUE(is_right(late));
  rest_of_the_stream();
  EXPECT_TRUE(setup_.complete(kFile));
}

TEST_F(WholeBodyTest, AllReadersWaitForTheSameBody) {
  read(0, 10);
  refuse_ranges();
  std::vector<AnswerRef> all;
  for (uint64_t at = 0; at < kSize; at += kMiB) all.push_back(read(at, 1000));
  EXPECT_EQ(setup_.fetcher.asked(), 2u);
  rest_of_the_stream();
  for (const AnswerRef& a : all) EXPECT_TRUE(is_right(a));
}

TEST_F(WholeBodyTest, WhatHasGoneByIsReadFromTheCache) {
  read(0, 10);
  refuse_ranges();
  chunk();
  settle();
  const AnswerRef a = read(kBlock, kBlock);
  settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_EQ(setup_.fetcher.asked(), 2u);
}

TEST_F(WholeBodyTest, ReadersOfRangesThatWereUnderWayWaitForTheBodyToo) {
  const AnswerRef a = read(0, 10);
  const AnswerRef b = read(kMiB, 10);
  setup_.fetcher.fail(setup_.fetcher.active()[0].id, ErrorCode::kNoRanges);
  settle();  // the other range is cancelled
  rest_of_the_stream();
  EXPECT_TRUE(is_right(a));
  EXPECT_TRUE(is_right(b));
}

TEST_F(WholeBodyTest, ABodyThatFailsIsTheErrorOfWhoWaitsAndTheNextReadBeginsAnother) {
  const AnswerRef a = read(2 * kMiB, 10);
  refuse_ranges();
  chunk();
  settle();
  fail(ErrorCode::kUnreachable);
  EXPECT_TRUE(failed_with(a, ErrorCode::kUnreachable));
  const AnswerRef b = read(2 * kMiB, 10);
  rest_of_the_stream();
  EXPECT_TRUE(is_right(b));
  EXPECT_TRUE(setup_.complete(kFile));
}

TEST_F(WholeBodyTest, AChunkOfWhichABlockIsThereIsStoredWhereItIsMissing) {
  put_into_cache(3);  // from the time when the server had ranges
  const AnswerRef a = read(5 * kBlock, 10);
  refuse_ranges();
  const AnswerRef b = read(0, 8 * kBlock);
  chunk();
  settle();
  EXPECT_TRUE(is_right(a));
  EXPECT_TRUE(is_right(b));
  for (BlockIndex block = 0; block < 16; ++block) EXPECT_TRUE(setup_.cache->has(kFile, block)) << block;
}

TEST_F(WholeBodyTest, AReaderOfWhatHasGoneByAndCouldNotBeKeptWaitsForTheNextBody) {
  put_into_cache(0);
  const AnswerRef far = read(7 * kMiB, 10);
  refuse_ranges();
  chunk();
  settle();
  const AnswerRef a = read_block(0);
  setup_.disk.fail(0, EIO);  // now it is missing, and it has gone by
  for (int i = 0; i < 5; ++i) chunk();
  settle();
  EXPECT_TRUE(is_waiting(a));
  rest_of_the_stream();
  EXPECT_TRUE(is_right(far));
  EXPECT_TRUE(is_waiting(a));
  chunk();
  EXPECT_TRUE(is_right(a));
}

TEST_F(WholeBodyTest, AnotherVersionIsStale) {
  const AnswerRef a = read(2 * kMiB, 10);
  refuse_ranges();
  chunk();
  fail(ErrorCode::kStale);
  EXPECT_TRUE(failed_with(a, ErrorCode::kStale));
  EXPECT_THAT(setup_.stale, ElementsAre(kFile));
}

TEST_F(WholeBodyTest, ABodyThatBringsNothingAnyMoreIsNotWaitedForLongerThanThePatience) {
  const AnswerRef a = read(2 * kMiB, 10);
  refuse_ranges();
  chunk();
  setup_.clock.advance(setup_.reader_options.patience - 1s);
  setup_.reader->tick();
  EXPECT_TRUE(is_waiting(a));
  setup_.clock.advance(1s);
  setup_.reader->tick();
  EXPECT_TRUE(failed_with(a, ErrorCode::kTimedOut));
}

TEST_F(WholeBodyTest, ABodyThatMovesIsWaitedFor) {
  const AnswerRef a = read(7 * kMiB, 10);
  refuse_ranges();
  for (int i = 0; i < 8; ++i) {
    setup_.clock.advance(setup_.reader_options.patience - 1s);
    setup_.reader->tick();
    EXPECT_TRUE(is_waiting(a));
    chunk();
  }
  EXPECT_TRUE(is_right(a));
}

TEST_F(WholeBodyTest, ABodyThatNobodyWaitsForIsCancelledAtTheLastClose) {
  read(0, 10);
  refuse_ranges();
  chunk();
  close();
  EXPECT_TRUE(setup_.fetcher.is_cancelled(stream().id));
}

TEST_F(WholeBodyTest, AReaderWhoJoinsABodyThatIsBeingCancelledGetsAnother) {
  read(0, 10);
  refuse_ranges();
  chunk();
  settle();
  close();
  open();
  const AnswerRef a = read(2 * kMiB, 10);
  setup_.fetcher.end_cancelled();
  ASSERT_TRUE(is_waiting(a)) << a->result->error().message;
  rest_of_the_stream();
  EXPECT_TRUE(is_right(a));
}

TEST_F(WholeBodyTest, WithoutACacheABodyIsStillReadInOrder) {
  setup_.disk.break_writes(ENOSPC);
  read(0, 10);
  refuse_ranges();
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    const AnswerRef a = read(at, kMiB);
    chunk();
    settle();
    EXPECT_TRUE(is_right(a)) << at;
  }
}

TEST_F(WholeBodyTest, WithoutACacheWhatHasGoneByIsFetchedAgain) {
  setup_.stop();
  setup_.space_options.limit = 0;
  setup_.start();
  open();
  read(0, kBlock);
  refuse_ranges();
  rest_of_the_stream();
  const AnswerRef first = read(0, kMiB);  // used up
  if (is_waiting(first)) rest_of_the_stream();
  const AnswerRef again = read(0, kMiB);
  if (is_waiting(again)) rest_of_the_stream();
  EXPECT_TRUE(is_right(first));
  EXPECT_TRUE(is_right(again));
}

class WholeBodyWithLittleMemoryTest : public WholeBodyTest {
 protected:
  WholeBodyWithLittleMemoryTest() : WholeBodyTest(kMiB) {}
};

TEST_F(WholeBodyWithLittleMemoryTest, WithoutACacheReadersAreAnsweredFromTheChunkThatArrives) {
  setup_.stop();
  setup_.space_options.limit = 0;
  setup_.start();
  open();
  const AnswerRef a = read(100, 10);
  refuse_ranges();
  const AnswerRef b = read(kMiB + 100, kBlock);
  chunk();
  EXPECT_TRUE(is_right(a));
  chunk();
  EXPECT_TRUE(is_right(b));
}

// --- the end -------------------------------------------------------------------------------------------------------

TEST_F(BlockReaderTest, ShuttingDownAnswersEveryReadThatWaits) {
  const AnswerRef a = read_block(3);
  const AnswerRef b = read_block(3);
  const AnswerRef c = read(0, 10 * kBlock);
  setup_.reader->shut_down();
  EXPECT_TRUE(failed_with(a, ErrorCode::kCancelled));
  EXPECT_TRUE(failed_with(b, ErrorCode::kCancelled));
  EXPECT_TRUE(failed_with(c, ErrorCode::kCancelled));
  for (const FetchRequest& r : setup_.fetcher.active()) EXPECT_TRUE(setup_.fetcher.is_cancelled(r.id));
}

TEST_F(WholeBodyTest, ShuttingDownAnswersThoseWhoWaitForABody) {
  const AnswerRef a = read(2 * kMiB, 10);
  refuse_ranges();
  setup_.reader->shut_down();
  EXPECT_TRUE(failed_with(a, ErrorCode::kCancelled));
  EXPECT_TRUE(setup_.fetcher.is_cancelled(stream().id));
}

TEST_F(BlockReaderTest, AfterShuttingDownNothingIsRead) {
  put_into_cache(3);
  setup_.reader->shut_down();
  EXPECT_TRUE(failed_with(read_block(3), ErrorCode::kCancelled));
  EXPECT_EQ(setup_.disk.waiting(), 0u);
}

TEST_F(BlockReaderTest, AReadOfTheDiskThatIsUnderWayWhenItShutsDownIsAnsweredByTheDisk) {
  put_into_cache(3);
  const AnswerRef a = read_block(3);
  setup_.reader->shut_down();
  settle();
  EXPECT_TRUE(is_right(a));
}

TEST_F(BlockReaderTest, AReadOfTheDiskThatFailsAfterItShutDownIsCancelledAndNotFetched) {
  put_into_cache(3);
  const AnswerRef a = read_block(3);
  setup_.reader->shut_down();
  setup_.disk.fail(0, EIO);
  EXPECT_TRUE(failed_with(a, ErrorCode::kCancelled));
  EXPECT_THAT(setup_.fetcher.active(), IsEmpty());
}

TEST_F(BlockReaderTest, ClosingAfterItShutDownDoesNoHarm) {
  read_block(3);
  setup_.reader->shut_down();
  close();
  close();
}

TEST_F(BlockReaderTest, WhatWasArrivingWhenItShutDownIsNotStoredAndNotLost) {
  const AnswerRef a = read(0, 4 * kBlock);
  arrive(2 * kBlock);
  setup_.reader->shut_down();
  EXPECT_TRUE(failed_with(a, ErrorCode::kCancelled));
  settle();
  setup_.restart();
  open();
  const AnswerRef b = read(0, 4 * kBlock);
  complete_all_fetches();
  settle();
  EXPECT_TRUE(is_right(b));
}

}  // namespace
}  // namespace wormhole
