// The fetcher against a server that misbehaves on order. What went over the wire is read from the server's log.
#include "net/curl_fetcher.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/block.h"
#include "tests/support/pattern.h"
#include "tests/support/printing.h"
#include "tests/support/range_server.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::Behaviour;
using test::FailsWith;
using test::first_mismatch;
using test::Succeeds;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSize = 8 * kMiB + 1234;
constexpr uint64_t kSeed = 5;
constexpr Duration kLong = 20s;

// Keeps what it is told, and checks the order that every sink may rely on: head, progress or chunks, the end.
class RecordingSink final : public FetchSink {
 public:
  struct Fetch {
    std::optional<ObjectHead> head;
    uint64_t arrived = 0;
    std::vector<ByteRange> behind;
    std::vector<ByteRange> chunks;
    std::vector<BufferRef> held;  // the buffers of the chunks
    std::optional<Status> end;
  };

  explicit RecordingSink(bool hold_chunks = false) : hold_chunks_(hold_chunks) {}

  void fetch_head(FetchId id, ObjectHead head) override {
    change(id, [&](Fetch& f) {
      EXPECT_FALSE(f.head) << "told twice";
      EXPECT_EQ(f.arrived, 0u) << "progress before the head";
      f.head = std::move(head);
    });
  }
  void fetch_progress(FetchId id, uint64_t arrived) override {
    change(id, [&](Fetch& f) {
      EXPECT_TRUE(f.head) << "progress before the head";
      EXPECT_GT(arrived, f.arrived);
      f.arrived = arrived;
    });
  }
  void fetch_behind(FetchId id, ByteRange there) override {
    change(id, [&](Fetch& f) {
      EXPECT_TRUE(f.head) << "bytes before the head";
      f.behind.push_back(there);
    });
  }
  void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override {
    change(id, [&](Fetch& f) {
      EXPECT_TRUE(f.head) << "a chunk before the head";
      EXPECT_EQ(range.begin, f.chunks.empty() ? 0 : f.chunks.back().end) << "chunks come in order, each once";
      EXPECT_EQ(range.begin % kBlockSize, 0u);
      EXPECT_EQ(first_mismatch(kSeed, range.begin, {bytes->data(), range.size()}), std::nullopt);
      f.chunks.push_back(range);
      if (hold_chunks_) f.held.push_back(std::move(bytes));
    });
  }
  void fetch_done(FetchId id, Status status) override {
    change(id, [&](Fetch& f) { f.end = std::move(status); });
  }

  Fetch get(FetchId id) {
    std::lock_guard lock(mutex_);
    return fetches_[id];
  }
  bool wait(FetchId id, const std::function<bool(const Fetch&)>& condition, Duration timeout = kLong) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return condition(fetches_[id]); });
  }
  Status end_of(FetchId id) {
    if (!wait(id, [](auto& f) { return f.end.has_value(); }))
      return fail(ErrorCode::kInvalid, "fetch {} did not end", id);
    return *get(id).end;
  }
  void let_go_of_chunks() {
    std::lock_guard lock(mutex_);
    hold_chunks_ = false;
    for (auto& [id, f] : fetches_) f.held.clear();
  }

 private:
  template <typename F>
  void change(FetchId id, F edit) {
    {
      std::lock_guard lock(mutex_);
      EXPECT_FALSE(fetches_[id].end) << "nothing follows the end";
      edit(fetches_[id]);
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<FetchId, Fetch> fetches_;
  bool hold_chunks_;
};

class CurlFetcherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.put("a", kSize, kSeed);
    options_.connections = 4;
    options_.retry = {.base = 5ms, .longest = 20ms, .attempts = 6};
  }

  CurlFetcher& fetcher() {
    if (fetcher_ == nullptr) fetcher_ = std::make_unique<CurlFetcher>(options_, buffers_, metrics_, clock_);
    return *fetcher_;
  }

  // A request for a range of "a", to be changed as the test needs.
  FetchRequest request(ByteRange range) {
    FetchRequest r;
    r.id = ++last_id_;
    r.url = server_.url("a");
    r.range = range;
    r.object_size = kSize;
    r.patience = kLong;
    r.sink = sink_;
    return r;
  }
  FetchId start(FetchRequest r) {
    const FetchId id = r.id;
    if (!r.whole_body) {
      r.buffer = buffers_.allocate(r.range.size());
      buffer_of_[id] = r.buffer;
      range_of_[id] = r.range;
    }
    fetcher().fetch(std::move(r));
    return id;
  }
  FetchId start(ByteRange range) { return start(request(range)); }
  FetchId start(ByteRange range, Lane lane) {
    FetchRequest r = request(range);
    r.lane = lane;
    return start(std::move(r));
  }
  FetchId start_whole_body(Validator validator = {}) {
    FetchRequest r = request({0, kSize});
    r.whole_body = true;
    r.validator = std::move(validator);
    return start(std::move(r));
  }

  // Waits for the end, and checks all bytes of a fetch that succeeded.
  Status end_of(FetchId id) {
    Status s = sink_->end_of(id);
    if (s && buffer_of_.contains(id)) {
      const ByteRange r = range_of_[id];
      EXPECT_EQ(sink_->get(id).arrived, r.size());
      EXPECT_EQ(first_mismatch(kSeed, r.begin, {buffer_of_[id]->data(), r.size()}), std::nullopt);
    }
    return s;
  }
  Status fetch(FetchRequest r) { return end_of(start(std::move(r))); }
  Status fetch(ByteRange range) { return fetch(request(range)); }
  Status fetch_with(Behaviour behaviour, ByteRange range = {1000, 201'000}) {
    server_.behave("a", std::move(behaviour));
    return fetch(range);
  }

  // As an earlier fetch has learnt it.
  Validator known_version() {
    const FetchId id = start({0, 10});
    EXPECT_THAT(end_of(id), Succeeds());
    return sink_->get(id).head.value_or(ObjectHead{}).validator;
  }

  std::vector<std::string> asked_ranges() {
    std::vector<std::string> out;
    for (const auto& r : server_.requests("a")) out.push_back(r.range);
    return out;
  }

  Result<Document> get(const std::string& path, bool head_only = false, uint64_t max_bytes = kMiB,
                       Duration patience = kLong) {
    return get_url(server_.url(path), head_only, max_bytes, patience);
  }
  Result<Document> get_url(const std::string& url, bool head_only = false, uint64_t max_bytes = kMiB,
                           Duration patience = kLong) {
    std::promise<Result<Document>> done;
    DocumentRequest r;
    r.url = url;
    r.head_only = head_only;
    r.max_bytes = max_bytes;
    r.patience = patience;
    r.done = [&](Result<Document> d) { done.set_value(std::move(d)); };
    fetcher().get(std::move(r));
    return done.get_future().get();
  }

  test::RangeServer server_;
  Metrics metrics_;
  BufferPool buffers_{64 * kMiB, metrics_};
  SystemClock clock_;
  CurlOptions options_;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::map<FetchId, BufferRef> buffer_of_;
  std::map<FetchId, ByteRange> range_of_;
  FetchId last_id_ = 0;
  std::unique_ptr<CurlFetcher> fetcher_;  // last: it ends first
};

// --- ranges --------------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, ARangeArrivesAsItIsOnTheServer) {
  EXPECT_THAT(fetch({100'001, 200'003}), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=100001-200002"));
}

TEST_F(CurlFetcherTest, TheHeadSaysVersionAndSize) {
  const FetchId id = start({0, 1000});
  ASSERT_THAT(end_of(id), Succeeds());
  const ObjectHead head = *sink_->get(id).head;
  EXPECT_EQ(head.size, kSize);
  EXPECT_TRUE(head.validator.etag_is_strong());
  EXPECT_EQ(head.validator.last_modified, "Thu, 01 Jan 2026 00:01:00 GMT");
}

TEST_F(CurlFetcherTest, ManyRangesAtOnceAllArriveRight) {
  options_.hedge = false;
  std::vector<FetchId> all;
  for (const uint64_t part : {64 * 1024, 1 << 20}) {
    for (uint64_t at = 0; at < kSize; at += part) all.push_back(start({at, std::min(at + part, kSize)}));
  }
  for (const FetchId id : all) EXPECT_THAT(end_of(id), Succeeds());
  std::set<uint64_t> connections;
  for (const auto& r : server_.requests("a")) connections.insert(r.connection);
  EXPECT_LE(connections.size(), 4u);
  EXPECT_EQ(server_.requests("a").size(), all.size());
  EXPECT_EQ(metrics_.fetches_in_flight, 0);
}

TEST_F(CurlFetcherTest, AConnectionIsKeptForTheNextFetch) {
  for (int i = 0; i < 5; ++i) EXPECT_THAT(fetch({0, 1000}), Succeeds());
  for (const auto& r : server_.requests("a")) EXPECT_EQ(r.connection, 0u);
}

TEST_F(CurlFetcherTest, ABodyWithoutLengthIsTaken) {
  EXPECT_THAT(fetch_with({.chunked = true}), Succeeds());
  EXPECT_THAT(fetch_with({.http10 = true}), Succeeds());
}

TEST_F(CurlFetcherTest, ProgressIsToldWhileTheRestIsStillOnItsWay) {
  server_.behave("a", {.stall_after = 70'000});
  const FetchId id = start({0, 200'000});
  EXPECT_TRUE(sink_->wait(id, [](auto& f) { return f.arrived == 70'000; }));
  EXPECT_EQ(first_mismatch(kSeed, 0, {buffer_of_[id]->data(), 70'000}), std::nullopt);
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(CurlFetcherTest, ARedirectIsFollowed) {
  server_.behave("b", {.redirect = server_.url("a")});
  FetchRequest r = request({5, 5000});
  r.url = server_.url("b");
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
}

// --- attempts ------------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, AfterAResetItResumesBehindWhatHasArrived) {
  EXPECT_THAT(fetch_with({.times = 1, .reset_after = 100'000}), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=1000-200999", "bytes=101000-200999"));
  EXPECT_EQ(metrics_.fetches_retried, 1u);
}

TEST_F(CurlFetcherTest, AfterABodyThatEndsEarlyItResumesBehindWhatHasArrived) {
  EXPECT_THAT(fetch_with({.times = 1, .close_after = 100'000}), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=1000-200999", "bytes=101000-200999"));
}

TEST_F(CurlFetcherTest, AsLongAsSomethingArrivesItGoesOn) {
  EXPECT_THAT(fetch_with({.close_after = 10'000}, {0, 100'000}), Succeeds());  // more breaks than attempts
  EXPECT_EQ(server_.requests("a").size(), 10u);
}

TEST_F(CurlFetcherTest, ABurstOf503IsBridged) {
  EXPECT_THAT(fetch_with({.times = 4, .status = 503}), Succeeds());
  EXPECT_EQ(server_.requests("a").size(), 5u);
}

TEST_F(CurlFetcherTest, AServerThatStaysOverloadedIsGivenUpAfterTheLastAttempt) {
  EXPECT_THAT(fetch_with({.status = 503}), FailsWith(ErrorCode::kUnreachable));
  EXPECT_EQ(server_.requests("a").size(), 6u);
  EXPECT_EQ(metrics_.fetches_failed, 1u);
}

TEST_F(CurlFetcherTest, ABodyThatNeverBringsAByteIsGivenUpAfterTheLastAttempt) {
  EXPECT_THAT(fetch_with({.close_after = 0}), FailsWith(ErrorCode::kUnreachable));
  EXPECT_EQ(server_.requests("a").size(), 6u);
}

TEST_F(CurlFetcherTest, AttemptsEndWithThePatience) {
  options_.retry = {.base = 100ms, .longest = 100ms, .attempts = 1'000'000};
  FetchRequest r = request({0, 1000});
  r.patience = 500ms;
  server_.behave("a", {.status = 503});
  const TimePoint begin = std::chrono::steady_clock::now();
  EXPECT_THAT(fetch(std::move(r)), AnyOf(FailsWith(ErrorCode::kUnreachable), FailsWith(ErrorCode::kTimedOut)));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST_F(CurlFetcherTest, ATimeThatTheServerNamesIsWaitedFor) {
  const TimePoint begin = std::chrono::steady_clock::now();
  EXPECT_THAT(fetch_with({.times = 1, .status = 503, .retry_after = 1}), Succeeds());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 1s);
}

TEST_F(CurlFetcherTest, ATimeBeyondThePatienceIsNotWaitedFor) {
  server_.behave("a", {.status = 503, .retry_after = 60});
  FetchRequest r = request({0, 1000});
  r.patience = 2s;
  const TimePoint begin = std::chrono::steady_clock::now();
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kUnreachable));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  EXPECT_EQ(server_.requests("a").size(), 1u);
}

TEST_F(CurlFetcherTest, TheServersLastWordIsNotAskedForTwice) {
  EXPECT_THAT(fetch_with({.status = 404}), FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(fetch_with({.status = 403}), FailsWith(ErrorCode::kForbidden));
  EXPECT_THAT(fetch_with({.status = 401}), FailsWith(ErrorCode::kUnauthorized));
  EXPECT_EQ(server_.requests("a").size(), 3u);
}

TEST_F(CurlFetcherTest, AServerThatIsNotThereIsUnreachable) {
  FetchRequest r = request({0, 1000});
  {
    const test::RangeServer gone;
    r.url = gone.url("a");
  }
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kUnreachable));
}

TEST_F(CurlFetcherTest, AServerThatDoesNotAnswerIsGivenUpAfterThePatience) {
  server_.hold("a");
  FetchRequest r = request({0, 1000});
  r.patience = 300ms;
  const TimePoint begin = std::chrono::steady_clock::now();
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kTimedOut));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

TEST_F(CurlFetcherTest, ABodyThatStallsIsGivenUpAfterThePatienceAndWhatArrivedIsTold) {
  server_.behave("a", {.stall_after = 70'000});
  FetchRequest r = request({0, 200'000});
  r.patience = 300ms;
  const FetchId id = start(std::move(r));
  EXPECT_THAT(end_of(id), FailsWith(ErrorCode::kTimedOut));
  EXPECT_EQ(sink_->get(id).arrived, 70'000u);
}

TEST_F(CurlFetcherTest, ASlowBodyThatMovesIsNotGivenUp) {
  server_.behave("a", {.bytes_per_second = 50'000});
  FetchRequest r = request({0, 50'000});  // a second
  r.patience = 300ms;
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
}

TEST_F(CurlFetcherTest, AFetchThatNeverGetsAConnectionIsGivenUpAfterThePatience) {
  options_.connections = 1;
  server_.hold("a");
  const FetchId holds_it = start({0, 1000});
  FetchRequest r = request({1000, 2000});
  r.patience = 300ms;
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kTimedOut));
  server_.release("a");
  EXPECT_THAT(end_of(holds_it), Succeeds());
}

TEST_F(CurlFetcherTest, AFetchThatWaitsForConnectionsThatBringBytesIsNotGivenUp) {
  options_.connections = 1;
  server_.behave("a", {.times = 1, .bytes_per_second = 50'000});
  const FetchId holds_it = start({0, 50'000});  // a second
  FetchRequest r = request({50'000, 51'000});
  r.patience = 300ms;
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
  EXPECT_THAT(end_of(holds_it), Succeeds());
}

TEST_F(CurlFetcherTest, TheTurnOfOthersLeavesAFetchItsWholePatience) {
  options_.connections = 1;
  server_.behave("a", {.times = 1, .bytes_per_second = 50'000});
  server_.put_bytes("silent", std::string(1000, 'x'));
  const FetchId holds_it = start({0, 50'000});  // a second
  server_.hold("silent");
  const TimePoint begin = std::chrono::steady_clock::now();
  FetchRequest r = request({0, 1000});
  r.url = server_.url("silent");
  r.patience = 300ms;
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kTimedOut));
  EXPECT_EQ(server_.requests("silent").size(), 1u);
  EXPECT_GT(std::chrono::steady_clock::now() - begin, 1s);
  EXPECT_THAT(end_of(holds_it), Succeeds());
}

// --- versions ------------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, AKnownVersionGoesOutAsIfRange) {
  const Validator version = known_version();
  FetchRequest r = request({10, 20});
  r.validator = version;
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
  const auto log = server_.requests("a");
  EXPECT_EQ(log[0].if_range, "");
  EXPECT_EQ(log[1].if_range, version.etag);
}

TEST_F(CurlFetcherTest, AWeakEtagDoesNotGoOut) {
  server_.behave("a", {.validators = Behaviour::Validators::kWeakEtag});
  FetchRequest r = request({10, 20});
  r.validator = known_version();
  ASSERT_FALSE(r.validator.empty());
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
  EXPECT_EQ(server_.requests("a")[1].if_range, "");
}

TEST_F(CurlFetcherTest, ADateGoesOutWhereThereIsNoEtag) {
  server_.behave("a", {.validators = Behaviour::Validators::kLastModified});
  FetchRequest r = request({10, 20});
  r.validator = known_version();
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
  EXPECT_EQ(server_.requests("a")[1].if_range, "Thu, 01 Jan 2026 00:01:00 GMT");
}

TEST_F(CurlFetcherTest, AResumeCarriesTheVersionOfTheFirstResponse) {
  EXPECT_THAT(fetch_with({.times = 1, .close_after = 1000}), Succeeds());
  const auto log = server_.requests("a");
  EXPECT_EQ(log[0].if_range, "");
  EXPECT_EQ(log[1].if_range, sink_->get(last_id_).head->validator.etag);
}

TEST_F(CurlFetcherTest, AnotherVersionIsStale) {
  FetchRequest r = request({10, 20});
  r.validator = known_version();
  server_.put("a", kSize, kSeed + 1, 2);
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kStale));
}

TEST_F(CurlFetcherTest, AnotherVersionIsStaleWithWeakEtagsAndDatesToo) {
  for (const auto kind : {Behaviour::Validators::kWeakEtag, Behaviour::Validators::kLastModified}) {
    server_.put("a", kSize, kSeed);
    server_.behave("a", {.validators = kind});
    FetchRequest r = request({10, 20});
    r.validator = known_version();
    server_.put("a", kSize, kSeed + 1, 2);
    EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kStale));
  }
}

TEST_F(CurlFetcherTest, AnotherSizeIsStale) {
  server_.put("a", kSize + 1, kSeed, 2);
  EXPECT_THAT(fetch({0, 10}), FailsWith(ErrorCode::kStale));
  server_.put("a", 5, kSeed, 3);
  EXPECT_THAT(fetch({100, 110}), FailsWith(ErrorCode::kStale));  // 416
}

TEST_F(CurlFetcherTest, AVersionThatChangesBetweenBreakAndResumeIsStaleAndNeverMixed) {
  server_.behave("a", {.times = 1, .stall_after = 70'000});
  const FetchId id = start({0, 200'000});
  ASSERT_TRUE(sink_->wait(id, [](auto& f) { return f.arrived == 70'000; }));
  server_.put("a", kSize, kSeed + 1, 2);
  server_.behave("a", {});
  // The stalled response goes on with the old version; a reset in its stead is the server's end.
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());

  server_.put("a", kSize, kSeed);
  server_.hold("a");
  server_.behave("a", {.times = 1, .close_after = 70'000});
  const FetchId broken = start({0, 200'000});
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  server_.release("a", 1);
  ASSERT_TRUE(server_.wait_for_requests("a", 3));  // the resume
  server_.put("a", kSize, kSeed + 1, 2);
  server_.release("a");
  EXPECT_THAT(end_of(broken), FailsWith(ErrorCode::kStale));
  EXPECT_EQ(first_mismatch(kSeed, 0, {buffer_of_[broken]->data(), 70'000}), std::nullopt);
}

// --- servers that do it wrong --------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, AWholeBodyForAPartMeansNoRangesAndIsNotRead) {
  server_.put("a", 256 * kMiB, kSeed);
  server_.behave("a", {.ignore_range = true});
  FetchRequest r = request({1000, 2000});
  r.object_size = 256 * kMiB;
  EXPECT_THAT(fetch(std::move(r)), FailsWith(ErrorCode::kNoRanges));
  EXPECT_LT(server_.body_bytes("a"), 128 * kMiB);
  EXPECT_EQ(server_.requests("a").size(), 1u);
}

TEST_F(CurlFetcherTest, AWholeBodyForTheWholeIsTaken) {
  options_.connections = 1;  // a second request would be for a part
  EXPECT_THAT(fetch_with({.ignore_range = true}, {0, kSize}), Succeeds());
}

TEST_F(CurlFetcherTest, AContentRangeThatLiesOrIsMissingIsRefused) {
  options_.retry.attempts = 2;
  EXPECT_THAT(fetch_with({.content_range = Behaviour::ContentRange::kWrong}), FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT(fetch_with({.content_range = Behaviour::ContentRange::kMissing}), FailsWith(ErrorCode::kBadResponse));
}

TEST_F(CurlFetcherTest, AWrongAnswerMayBeFollowedByARightOne) {
  EXPECT_THAT(fetch_with({.times = 1, .content_range = Behaviour::ContentRange::kWrong}), Succeeds());
}

TEST_F(CurlFetcherTest, CompressedBytesAreRefused) {
  options_.retry.attempts = 2;
  const Status status = fetch_with({.gzip = true});
  EXPECT_THAT(status, FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT(status.error().message, HasSubstr("gzip"));
}

TEST_F(CurlFetcherTest, BytesBehindTheRangeAreNotTaken) {
  EXPECT_THAT(fetch_with({.extra = 10}), Succeeds());
  EXPECT_THAT(fetch_with({.http10 = true, .extra = 10}), Succeeds());
  EXPECT_THAT(fetch_with({.http10 = true, .extra = 10}, {0, 100}), Succeeds());
  EXPECT_EQ(server_.requests("a").size(), 3u);
}

TEST_F(CurlFetcherTest, AConnectionThatBreaksBehindTheLastByteIsNoFailure) {
  EXPECT_THAT(fetch_with({.reset_after = 200'000, .chunked = true}), Succeeds());
  EXPECT_EQ(server_.requests("a").size(), 1u);
}

// --- lanes ---------------------------------------------------------------------------------------------------------

class LanesTest : public CurlFetcherTest {
 protected:
  void SetUp() override {
    CurlFetcherTest::SetUp();
    server_.hold("a");
  }
  // Lets the requests through one by one; in which order they have come.
  std::vector<std::string> order_of_the_next(size_t count) {
    EXPECT_THAT(get(""), Succeeds());  // what was started before it waits in its lane now
    for (size_t i = 1; i <= count; ++i) {
      EXPECT_TRUE(server_.wait_for_requests("a", i));
      server_.release("a", 1);
    }
    return asked_ranges();
  }
};

TEST_F(LanesTest, DemandGoesBeforeSpeculation) {
  options_.connections = 1;
  start({0, 10}, Lane::kDemand);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  start({10, 20}, Lane::kSpeculative);
  start({20, 30}, Lane::kDemand);
  start({30, 40}, Lane::kSpeculative);
  start({40, 50}, Lane::kDemand);
  EXPECT_THAT(order_of_the_next(5),
              ElementsAre("bytes=0-9", "bytes=20-29", "bytes=40-49", "bytes=10-19", "bytes=30-39"));
  for (FetchId id = 1; id <= 5; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(LanesTest, SpeculationThatIsPromotedIsDemand) {
  options_.connections = 1;
  start({0, 10}, Lane::kDemand);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  start({10, 20}, Lane::kSpeculative);
  fetcher().promote(start({20, 30}, Lane::kSpeculative));
  EXPECT_THAT(order_of_the_next(3), ElementsAre("bytes=0-9", "bytes=20-29", "bytes=10-19"));
  for (FetchId id = 1; id <= 3; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(LanesTest, PromotingWhatIsUnderWayOrOverChangesNothing) {
  const FetchId id = start({0, 10}, Lane::kSpeculative);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  fetcher().promote(id);
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
  fetcher().promote(id);
  EXPECT_THAT(fetch({10, 20}), Succeeds());
}

TEST_F(LanesTest, SpeculationLeavesConnectionsToDemand) {
  options_.connections = 4;
  for (uint64_t i = 0; i < 4; ++i) start({i * 10, i * 10 + 10}, Lane::kSpeculative);
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  EXPECT_FALSE(server_.wait_for_requests("a", 3, 100ms));
  start({100, 110}, Lane::kDemand);
  start({110, 120}, Lane::kDemand);
  EXPECT_TRUE(server_.wait_for_requests("a", 4));
  EXPECT_THAT(asked_ranges(), ::testing::IsSupersetOf({"bytes=100-109", "bytes=110-119"}));
  server_.release("a");
  for (FetchId id = 1; id <= 6; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

// What one version's first answer says is of use to those who wait for the same version, and to nobody else.
TEST_F(LanesTest, RequestsForAnotherVersionOfAFileDoNotGetThisOnesValidator) {
  options_.connections = 1;
  start({0, 10}, Lane::kDemand);  // object 0
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  FetchRequest same = request({10, 20}), other = request({20, 30});
  other.object = 1;
  start(std::move(same));
  start(std::move(other));
  order_of_the_next(3);
  for (FetchId id = 1; id <= 3; ++id) EXPECT_THAT(end_of(id), Succeeds());
  const auto log = server_.requests("a");
  EXPECT_EQ(log[1].if_range, sink_->get(1).head->validator.etag);
  EXPECT_EQ(log[2].if_range, "");
}

TEST_F(LanesTest, DocumentsDoNotWaitForRanges) {
  options_.connections = 1;
  start({0, 10}, Lane::kDemand);
  start({10, 20}, Lane::kDemand);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  EXPECT_THAT(get(""), Succeeds());
}

// Of small requests twice as many may run as of large ones: 32, where the controller begins with 16.
TEST_F(LanesTest, ReadersWhoWaitForLatencyKeepNoOtherLaneWaiting) {
  options_.connections = 0;
  for (uint64_t i = 0; i < 33; ++i) start({i * 10, i * 10 + 10}, Lane::kDemand);
  ASSERT_TRUE(server_.wait_for_requests("a", 32));
  EXPECT_FALSE(server_.wait_for_requests("a", 33, 100ms));
  start({kMiB, 2 * kMiB}, Lane::kDemand);
  EXPECT_TRUE(server_.wait_for_requests("a", 33));
  for (uint64_t i = 0; i < 15; ++i) start({1000 + i * 10, 1010 + i * 10}, Lane::kIdle);
  EXPECT_TRUE(server_.wait_for_requests("a", 33 + 14));
  EXPECT_FALSE(server_.wait_for_requests("a", 33 + 15, 100ms));  // it leaves connections to demand, too
  server_.release("a");
  for (FetchId id = 1; id <= 49; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(LanesTest, AFixedNumberOfConnectionsIsNeverExceeded) {
  options_.connections = 4;
  for (uint64_t i = 0; i < 3; ++i) start({i * 10, i * 10 + 10}, Lane::kDemand);
  for (uint64_t i = 0; i < 3; ++i) start({100 + i * 10, 110 + i * 10}, Lane::kIdle);
  ASSERT_TRUE(server_.wait_for_requests("a", 3));
  start({200, 210}, Lane::kDemand);
  start({210, 220}, Lane::kDemand);
  EXPECT_TRUE(server_.wait_for_requests("a", 4));
  EXPECT_FALSE(server_.wait_for_requests("a", 5, 100ms));
  server_.release("a");
  for (FetchId id = 1; id <= 8; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

// --- bytes that come first -----------------------------------------------------------------------------------------

class WantedTest : public CurlFetcherTest {
 protected:
  static constexpr ByteRange kBlockOf{kBlockSize, 2 * kBlockSize};
  static constexpr ByteRange kWanted{kBlockSize + 40'000, kBlockSize + 44'096};
  // Connections that have carried so much; the log begins behind it.
  void fetch_some(uint64_t bytes) {
    EXPECT_THAT(fetch({0, bytes}), Succeeds());
    server_.forget_requests();
  }
  bool is_told_behind(FetchId id, ByteRange wanted) {
    return sink_->wait(id, [&](auto& f) { return std::count(f.behind.begin(), f.behind.end(), wanted) > 0; });
  }
};

TEST_F(WantedTest, TheyAreAskedForFirstAndTheFrontAfterwards) {
  fetch_some(200'000);
  FetchRequest r = request(kBlockOf);
  r.wanted = kWanted;
  const FetchId id = start(std::move(r));
  EXPECT_TRUE(is_told_behind(id, kWanted));
  EXPECT_THAT(end_of(id), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=105536-131071", "bytes=65536-105535"));
}

TEST_F(WantedTest, WhileConnectionsAreNewNoMoreThanComesAtOnce) {
  fetch_some(1000);
  FetchRequest r = request(kBlockOf);
  r.wanted = kWanted;
  EXPECT_THAT(end_of(start(std::move(r))), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=105536-118847", "bytes=65536-105535", "bytes=118848-131071"));
}

TEST_F(WantedTest, TheyAreAskedForAgainFromWhereTheyStopped) {
  fetch_some(200'000);
  server_.behave("a", {.times = 1, .stall_after = 1000});
  FetchRequest r = request(kBlockOf);
  r.wanted = kWanted;
  EXPECT_THAT(end_of(start(std::move(r))), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=105536-131071", "bytes=106536-131071", "bytes=65536-105535"));
}

TEST_F(WantedTest, OfAFetchThatWaitsTheyAreTakenOut) {
  options_.connections = 1;
  server_.hold("a");
  start({0, 10}, Lane::kDemand);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  const FetchId idle = start({kMiB, 3 * kMiB}, Lane::kIdle);
  start({10, 20}, Lane::kSpeculative);
  fetcher().want(idle, {2 * kMiB + 70'000, 2 * kMiB + 74'096});
  server_.release("a");
  EXPECT_TRUE(is_told_behind(idle, {2 * kMiB + 70'000, 2 * kMiB + 74'096}));
  for (FetchId id = 1; id <= 3; ++id) EXPECT_THAT(end_of(id), Succeeds());
  const auto asked = asked_ranges();
  EXPECT_THAT(asked[1], ::testing::StartsWith("bytes=2167152-"));
}

TEST_F(WantedTest, OfAFetchThatIsUnderWayTheyAreAskedForBeside) {
  fetch_some(1000);
  server_.behave("a", {.times = 1, .stall_after = 70'000});
  const FetchId id = start({0, 2 * kMiB}, Lane::kIdle);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  fetcher().want(id, {kMiB + 1000, kMiB + 2000});
  EXPECT_TRUE(is_told_behind(id, {kMiB + 1000, kMiB + 2000}));
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(WantedTest, SeveralReadersOfAGuessDoNotWaitForEachOther) {
  fetch_some(200'000);
  server_.behave("a", {.times = 1, .stall_after = 70'000});
  const FetchId id = start({0, 2 * kMiB}, Lane::kIdle);
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  server_.hold("a");
  fetcher().want(id, {kMiB, kMiB + 1000});
  fetcher().want(id, {kMiB + 500'000, kMiB + 501'000});
  fetcher().want(id, {kMiB + 100, kMiB + 900});  // the first brings it
  EXPECT_TRUE(server_.wait_for_requests("a", 3));
  EXPECT_FALSE(server_.wait_for_requests("a", 4, 100ms));
  server_.release("a", 2);
  EXPECT_TRUE(is_told_behind(id, {kMiB + 500'000, kMiB + 501'000}));
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(WantedTest, WhatIsThereAlreadyIsToldOfAtOnce) {
  const FetchId id = start({0, 10}, Lane::kIdle);
  EXPECT_THAT(end_of(id), Succeeds());
  fetcher().want(id, {0, 10});  // over: nothing happens
  EXPECT_THAT(fetch({10, 20}), Succeeds());
}

TEST_F(LanesTest, TheIdleLaneBeginsNothingWhileAnythingElseWaits) {
  options_.connections = 4;
  for (uint64_t i = 0; i < 3; ++i) start({i * 10, i * 10 + 10}, Lane::kSpeculative);
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  start({100, 110}, Lane::kIdle);
  EXPECT_FALSE(server_.wait_for_requests("a", 3, 100ms));
  server_.release("a");
  for (FetchId id = 1; id <= 4; ++id) EXPECT_THAT(end_of(id), Succeeds());
}

// --- second attempts -----------------------------------------------------------------------------------------------

class SecondAttemptTest : public CurlFetcherTest {
 protected:
  // What the round trip is, is known; then one request stalls after 70 000 bytes.
  FetchId start_one_that_stalls(Lane lane) {
    EXPECT_THAT(fetch({0, 1000}), Succeeds());
    server_.forget_requests();
    server_.behave("a", {.times = 1, .stall_after = 70'000});
    return start({0, 200'000}, lane);
  }
};

TEST_F(SecondAttemptTest, WhatFallsSilentIsAskedForAgainFromWhereItWas) {
  EXPECT_THAT(end_of(start_one_that_stalls(Lane::kDemand)), Succeeds());
  EXPECT_THAT(asked_ranges(), ElementsAre("bytes=0-199999", "bytes=70000-199999"));
  EXPECT_EQ(metrics_.fetches_hedged, 1u);
}

TEST_F(SecondAttemptTest, WhatNobodyWaitsForIsNot) {
  const FetchId id = start_one_that_stalls(Lane::kSpeculative);
  EXPECT_FALSE(server_.wait_for_requests("a", 2, 400ms));
  fetcher().promote(id);  // now somebody does
  EXPECT_THAT(end_of(id), Succeeds());
  EXPECT_EQ(metrics_.fetches_hedged, 1u);
}

TEST_F(SecondAttemptTest, NothingIsWhereItIsTurnedOff) {
  options_.hedge = false;
  const FetchId id = start_one_that_stalls(Lane::kDemand);
  EXPECT_FALSE(server_.wait_for_requests("a", 2, 400ms));
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(SecondAttemptTest, OneThatStallsTooIsNotAskedForAThirdTime) {
  EXPECT_THAT(fetch({0, 1000}), Succeeds());
  server_.forget_requests();
  server_.behave("a", {.times = 2, .stall_after = 70'000});
  const FetchId id = start({0, 200'000});
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  EXPECT_FALSE(server_.wait_for_requests("a", 3, 400ms));
  server_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

// --- mirrors -------------------------------------------------------------------------------------------------------

class MirrorTest : public CurlFetcherTest {
 protected:
  void SetUp() override {
    CurlFetcherTest::SetUp();
    mirror_.put("a", kSize, kSeed);
    options_.origin = server_.url();
    options_.mirrors = {mirror_.url()};
  }
  // A range of a version that is known.
  FetchRequest known(ByteRange range) {
    if (version_.empty()) version_ = known_version();
    FetchRequest r = request(range);
    r.validator = version_;
    return r;
  }

  test::RangeServer mirror_;
  Validator version_;
};

TEST_F(MirrorTest, WhoSaysWhatTheVersionIsIsTheOrigin) {
  for (uint64_t i = 0; i < 8; ++i) EXPECT_THAT(fetch({i * 1000, i * 1000 + 1000}), Succeeds());
  EXPECT_THAT(mirror_.requests("a"), ::testing::IsEmpty());
}

TEST_F(MirrorTest, RangesOfAKnownVersionComeFromBoth) {
  std::vector<FetchId> all;
  for (uint64_t at = 0; at + 65536 < kSize; at += 65536) all.push_back(start(known({at, at + 65536})));
  for (const FetchId id : all) EXPECT_THAT(end_of(id), Succeeds());
  EXPECT_THAT(mirror_.requests("a"), ::testing::Not(::testing::IsEmpty()));
  EXPECT_THAT(server_.requests("a"), ::testing::Not(::testing::IsEmpty()));
}

TEST_F(MirrorTest, WhatBreaksAtTheOriginGoesOnAtTheMirror) {
  FetchRequest r = known({0, 200'000});
  server_.behave("a", {.reset_after = 50'000});
  mirror_.hold("a");
  const FetchId id = start(std::move(r));
  ASSERT_TRUE(mirror_.wait_for_requests("a", 1));
  mirror_.release("a");
  EXPECT_THAT(end_of(id), Succeeds());
}

TEST_F(MirrorTest, WithoutAnOriginTheMirrorServesAlone) {
  FetchRequest r = known({0, 200'000});
  server_.behave("a", {.status = 503});
  EXPECT_THAT(fetch(std::move(r)), Succeeds());
}

TEST_F(MirrorTest, AMirrorWithAnotherVersionBringsNothing) {
  mirror_.put("a", kSize, kSeed + 1, 2);  // other bytes, as many, and a later date
  for (uint64_t at = 0; at + 500'000 < kSize; at += 500'000) EXPECT_THAT(fetch(known({at, at + 500'000})), Succeeds());
  EXPECT_LE(mirror_.requests("a").size(), 1u);  // once is enough to know
}

TEST_F(MirrorTest, AMirrorThatDoesNotHaveItBringsNothing) {
  mirror_.remove("a");
  for (uint64_t at = 0; at + 500'000 < kSize; at += 500'000) EXPECT_THAT(fetch(known({at, at + 500'000})), Succeeds());
  EXPECT_LE(mirror_.requests("a").size(), 1u);
}

TEST_F(MirrorTest, AMirrorThatIsNotThereCostsAFewAttempts) {
  options_.mirrors = {"http://127.0.0.1:1/"};
  for (uint64_t at = 0; at + 500'000 < kSize; at += 500'000) EXPECT_THAT(fetch(known({at, at + 500'000})), Succeeds());
  EXPECT_LE(metrics_.fetches_retried, 3u);
}

// --- cancelling ----------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, AFetchThatIsCancelledUnderWayEndsAtOnce) {
  server_.behave("a", {.stall_after = 70'000});
  const FetchId id = start({0, 200'000});
  ASSERT_TRUE(sink_->wait(id, [](auto& f) { return f.arrived == 70'000; }));
  const TimePoint begin = std::chrono::steady_clock::now();
  fetcher().cancel(id);
  EXPECT_THAT(end_of(id), FailsWith(ErrorCode::kCancelled));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 400ms);
  EXPECT_EQ(metrics_.fetches_failed, 0u);
}

TEST_F(CurlFetcherTest, AfterTheEndOfACancelledFetchNobodyWritesItsBuffer) {
  server_.behave("a", {.bytes_per_second = 1'000'000});
  const FetchId id = start({0, 4'000'000});
  ASSERT_TRUE(sink_->wait(id, [](auto& f) { return f.arrived > 0; }));
  fetcher().cancel(id);
  ASSERT_THAT(end_of(id), FailsWith(ErrorCode::kCancelled));
  const uint64_t arrived = sink_->get(id).arrived;
  std::byte* behind = buffer_of_[id]->data() + arrived;
  std::fill(behind, behind + 100'000, std::byte{0x55});
  std::this_thread::sleep_for(60ms);
  EXPECT_TRUE(std::all_of(behind, behind + 100'000, [](std::byte b) { return b == std::byte{0x55}; }));
}

TEST_F(CurlFetcherTest, AFetchThatIsCancelledInTheQueueIsNeverAskedFor) {
  options_.connections = 1;
  server_.hold("a");
  const FetchId first = start({0, 10});
  const FetchId queued = start({10, 20});
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  fetcher().cancel(queued);
  EXPECT_THAT(end_of(queued), FailsWith(ErrorCode::kCancelled));
  server_.release("a");
  EXPECT_THAT(end_of(first), Succeeds());
  EXPECT_EQ(server_.requests("a").size(), 1u);
}

TEST_F(CurlFetcherTest, AFetchThatIsCancelledBeforeItsNextAttemptIsNotAskedForAgain) {
  server_.behave("a", {.status = 503, .retry_after = 10});
  const FetchId id = start({0, 10});
  while (metrics_.fetches_retried == 0) std::this_thread::sleep_for(1ms);
  fetcher().cancel(id);
  EXPECT_THAT(end_of(id), FailsWith(ErrorCode::kCancelled));
  EXPECT_THAT(fetch_with({}, {0, 10}), Succeeds());
  EXPECT_EQ(server_.requests("a").size(), 2u);
}

TEST_F(CurlFetcherTest, CancellingWhatIsOverChangesNothing) {
  const FetchId id = start({0, 10});
  ASSERT_THAT(end_of(id), Succeeds());
  fetcher().cancel(id);
  fetcher().cancel(999);
  EXPECT_THAT(fetch({10, 20}), Succeeds());
}

// --- a whole body --------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, AWholeBodyArrivesInChunksInOrder) {
  server_.behave("a", {.ignore_range = true});
  const FetchId id = start_whole_body();
  EXPECT_THAT(end_of(id), Succeeds());
  const auto f = sink_->get(id);
  EXPECT_EQ(f.chunks.back().end, kSize);
  EXPECT_EQ(f.head->size, kSize);
  EXPECT_THAT(asked_ranges(), ElementsAre(""));
}

TEST_F(CurlFetcherTest, AWholeBodyWithoutLengthIsTakenToo) {
  for (const Behaviour& b :
       {Behaviour{.ignore_range = true, .chunked = true}, Behaviour{.ignore_range = true, .http10 = true}}) {
    server_.behave("a", b);
    const FetchId id = start_whole_body();
    EXPECT_THAT(end_of(id), Succeeds());
    EXPECT_EQ(sink_->get(id).chunks.back().end, kSize);
  }
}

TEST_F(CurlFetcherTest, AWholeBodyThatBreaksBeginsAnewAndNoChunkComesTwice) {
  server_.behave("a", {.times = 1, .ignore_range = true, .close_after = 3 * kMiB + 500});
  const FetchId id = start_whole_body();
  EXPECT_THAT(end_of(id), Succeeds());
  EXPECT_EQ(sink_->get(id).chunks.back().end, kSize);
  EXPECT_THAT(asked_ranges(), ElementsAre("", ""));
}

TEST_F(CurlFetcherTest, AWholeBodyThatAlwaysBreaksAtTheSamePlaceIsGivenUp) {
  server_.behave("a", {.ignore_range = true, .close_after = 3 * kMiB + 500});
  const FetchId id = start_whole_body();
  ASSERT_TRUE(sink_->wait(
      id, [](auto& f) { return f.end.has_value(); }, 10s))
      << "it is tried for ever";
  EXPECT_THAT(end_of(id), FailsWith(ErrorCode::kUnreachable));
  EXPECT_EQ(sink_->get(id).chunks.back().end, 3 * kMiB);
  EXPECT_LE(server_.requests("a").size(), 7u);
}

TEST_F(CurlFetcherTest, AWholeBodyThatChangesBetweenTwoAttemptsIsStale) {
  server_.hold("a");
  server_.behave("a", {.times = 1, .ignore_range = true, .close_after = 3 * kMiB});
  const FetchId id = start_whole_body();
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  server_.release("a", 1);
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  server_.put("a", kSize, kSeed + 1, 2);
  server_.release("a");
  EXPECT_THAT(end_of(id), FailsWith(ErrorCode::kStale));
}

TEST_F(CurlFetcherTest, AWholeBodyLongerThanTheFileIsAnotherVersion) {
  server_.behave("a", {.ignore_range = true, .http10 = true, .extra = 10});
  EXPECT_THAT(end_of(start_whole_body()), FailsWith(ErrorCode::kStale));
}

TEST_F(CurlFetcherTest, AWholeBodyWaitsForMemory) {
  Metrics metrics;
  BufferPool tiny(2 * kMiB, metrics);
  const auto sink = std::make_shared<RecordingSink>(/*hold_chunks=*/true);
  const auto fetcher = std::make_unique<CurlFetcher>(options_, tiny, metrics, clock_);
  server_.behave("a", {.ignore_range = true});
  FetchRequest r = request({0, kSize});
  r.whole_body = true;
  r.sink = sink;
  r.patience = 300ms;  // waiting for memory is not the server's fault
  const FetchId id = r.id;
  fetcher->fetch(std::move(r));
  ASSERT_TRUE(sink->wait(id, [](auto& f) { return f.chunks.size() >= 2; }));
  EXPECT_FALSE(sink->wait(
      id, [](auto& f) { return f.chunks.size() > 3 || f.end; }, 500ms));
  EXPECT_LE(tiny.outstanding(), 3 * kMiB);
  sink->let_go_of_chunks();
  EXPECT_THAT(sink->end_of(id), Succeeds());
  EXPECT_EQ(sink->get(id).chunks.back().end, kSize);
}

TEST_F(CurlFetcherTest, AWholeBodyThatWaitsForMemoryCanBeCancelled) {
  Metrics metrics;
  BufferPool tiny(kMiB, metrics);
  const auto sink = std::make_shared<RecordingSink>(/*hold_chunks=*/true);
  const auto fetcher = std::make_unique<CurlFetcher>(options_, tiny, metrics, clock_);
  FetchRequest r = request({0, kSize});
  r.whole_body = true;
  r.sink = sink;
  const FetchId id = r.id;
  fetcher->fetch(std::move(r));
  ASSERT_TRUE(sink->wait(id, [](auto& f) { return !f.chunks.empty(); }));
  fetcher->cancel(id);
  EXPECT_THAT(sink->end_of(id), FailsWith(ErrorCode::kCancelled));
  sink->let_go_of_chunks();
}

// --- documents -----------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, ADocumentArrivesWithWhatItsHeaderSays) {
  server_.put_bytes("d/", "<html>hello</html>");
  const auto d = get("d/");
  ASSERT_THAT(d, Succeeds());
  EXPECT_EQ(d->status, 200);
  EXPECT_EQ(d->body, "<html>hello</html>");
  EXPECT_EQ(d->content_type, "text/html");
  EXPECT_EQ(d->url, server_.url("d/"));
  EXPECT_EQ(d->head.size, 18u);
  EXPECT_EQ(d->last_modified, 1767225660);
  EXPECT_TRUE(d->accepts_ranges);
}

TEST_F(CurlFetcherTest, ADocumentSaysWhereItCameFromInTheEnd) {
  server_.put_bytes("d/x", "text");
  const auto d = get("d");
  ASSERT_THAT(d, Succeeds());
  EXPECT_EQ(d->url, server_.url("d/"));
}

TEST_F(CurlFetcherTest, AHeadHasNoBodyButASize) {
  const auto d = get("a", /*head_only=*/true);
  ASSERT_THAT(d, Succeeds());
  EXPECT_EQ(d->head.size, kSize);
  EXPECT_TRUE(d->head.validator.etag_is_strong());
  EXPECT_EQ(d->body, "");
  EXPECT_EQ(server_.requests("a")[0].method, "HEAD");
  EXPECT_EQ(server_.body_bytes("a"), 0u);
}

TEST_F(CurlFetcherTest, AGetAfterAHeadOnTheSameConnectionIsAGet) {
  ASSERT_THAT(get("a", /*head_only=*/true), Succeeds());
  EXPECT_THAT(fetch({0, 1000}), Succeeds());
  ASSERT_THAT(get("a", /*head_only=*/false, 16 * kMiB), Succeeds());
  EXPECT_EQ(server_.requests("a")[2].method, "GET");
  EXPECT_EQ(server_.requests("a")[2].range, "");
}

TEST_F(CurlFetcherTest, ADocumentThatIsTooLongIsRefused) {
  EXPECT_THAT(get("a", false, kMiB), FailsWith(ErrorCode::kBadResponse));
  EXPECT_THAT(get("a", false, kSize), Succeeds());
}

TEST_F(CurlFetcherTest, WhatTheServerRefusesIsAnErrorAndNotADocument) {
  EXPECT_THAT(get("none"), FailsWith(ErrorCode::kNotFound));
  server_.behave("d", {.status = 403});
  EXPECT_THAT(get("d"), FailsWith(ErrorCode::kForbidden));
  server_.behave("d", {.status = 401});
  EXPECT_THAT(get("d"), FailsWith(ErrorCode::kUnauthorized));
  EXPECT_EQ(server_.requests("d").size(), 2u);
  EXPECT_EQ(server_.requests("none").size(), 1u);
}

TEST_F(CurlFetcherTest, ADocumentIsTriedThreeTimes) {
  server_.put_bytes("d", "text");
  server_.behave("d", {.times = 2, .status = 503});
  EXPECT_THAT(get("d"), Succeeds());
  server_.forget_requests();
  server_.behave("d", {.status = 503});
  EXPECT_THAT(get("d"), FailsWith(ErrorCode::kUnreachable));
  EXPECT_EQ(server_.requests("d").size(), 3u);
}

TEST_F(CurlFetcherTest, ADocumentThatBreaksIsReadFromItsBeginning) {
  server_.put_bytes("d", std::string(100'000, 'x') + "end");
  server_.behave("d", {.times = 1, .close_after = 50'000});
  const auto d = get("d");
  ASSERT_THAT(d, Succeeds());
  EXPECT_EQ(d->body, std::string(100'000, 'x') + "end");
}

TEST_F(CurlFetcherTest, ARedirectThatNeverEndsIsAnError) {
  server_.behave("d", {.redirect = server_.url("d")});
  EXPECT_THAT(get("d"), FailsWith(ErrorCode::kBadResponse));
}

TEST_F(CurlFetcherTest, ADocumentThatDoesNotComeIsGivenUpAfterThePatience) {
  server_.hold("d");
  EXPECT_THAT(get("d", false, kMiB, 300ms), FailsWith(ErrorCode::kTimedOut));
}

TEST_F(CurlFetcherTest, ASlowDocumentThatMovesIsNotGivenUp) {
  server_.put_bytes("d", std::string(50'000, 'x'));
  server_.behave("d", {.bytes_per_second = 50'000});  // a second
  EXPECT_THAT(get("d", false, kMiB, 300ms), Succeeds());
}

// --- the end -------------------------------------------------------------------------------------------------------

TEST_F(CurlFetcherTest, TheEndAnswersEverythingWithCancelled) {
  options_.connections = 2;
  server_.hold("a");
  server_.behave("late", {.status = 503, .retry_after = 10});
  std::vector<FetchId> ids;
  FetchRequest late = request({0, 10});
  late.url = server_.url("late");
  ids.push_back(start(std::move(late)));
  while (metrics_.fetches_retried == 0) std::this_thread::sleep_for(1ms);  // it waits for its next attempt
  for (uint64_t i = 0; i < 5; ++i) ids.push_back(start({i * 10, i * 10 + 10}));
  ids.push_back(start({100, 110}, Lane::kSpeculative));
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  std::promise<Result<Document>> document;
  DocumentRequest r;
  r.url = server_.url("a");
  r.patience = kLong;
  r.done = [&](Result<Document> d) { document.set_value(std::move(d)); };
  fetcher().get(std::move(r));

  const TimePoint begin = std::chrono::steady_clock::now();
  fetcher_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  for (const FetchId id : ids) {
    ASSERT_TRUE(sink_->get(id).end.has_value()) << id;
    EXPECT_THAT(*sink_->get(id).end, FailsWith(ErrorCode::kCancelled));
  }
  EXPECT_THAT(document.get_future().get(), FailsWith(ErrorCode::kCancelled));
  EXPECT_EQ(metrics_.fetches_in_flight, 0);
}

TEST_F(CurlFetcherTest, WhatIsAskedWhileItEndsIsAnsweredToo) {
  server_.hold("a");
  std::promise<ErrorCode> second;
  CurlFetcher* ending = &fetcher();
  DocumentRequest r;
  r.url = server_.url("a");
  r.patience = kLong;
  r.done = [&, ending](Result<Document>) {
    DocumentRequest next;
    next.url = server_.url("a");
    next.patience = kLong;
    next.done = [&](Result<Document> d) { second.set_value(d.error().code); };
    ending->get(std::move(next));
  };
  fetcher().get(std::move(r));
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  fetcher_.reset();
  auto answer = second.get_future();
  ASSERT_EQ(answer.wait_for(1s), std::future_status::ready) << "never answered";
  EXPECT_EQ(answer.get(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace wormhole
