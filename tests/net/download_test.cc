// Against the misbehaving server, through libcurl: what is on the wire is what counts.
#include "net/download.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "net/curl_fetcher.h"
#include "net/range_header.h"
#include "tests/support/pattern.h"
#include "tests/support/printing.h"
#include "tests/support/range_server.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::LoggedRequest;
using test::RangeServer;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using namespace std::chrono_literals;

constexpr uint64_t kMiB = 1 << 20;

class Observer final : public DownloadObserver {
 public:
  void begins(uint64_t size, uint64_t there) override { begun.emplace_back(size, there); }
  void progress(uint64_t done) override {
    last_done = done;
    if (on_progress) on_progress(done);
  }
  void note(const std::string& text) override { notes.push_back(text); }
  bool stop_requested() override { return stop; }

  std::vector<std::pair<uint64_t, uint64_t>> begun;
  std::vector<std::string> notes;
  uint64_t last_done = 0;
  std::function<void(uint64_t)> on_progress;
  std::atomic<bool> stop = false;
};

class DownloadTest : public ::testing::Test {
 protected:
  DownloadTest() { options_.file = directory_ / "file"; }

  Result<DownloadResult> run() {
    Metrics metrics;
    BufferPool buffers(Download::memory_for(options_.connections), metrics);
    CurlOptions curl;
    curl.connections = options_.connections;
    curl.hedge = false;  // on a busy machine it asks for much again
    curl.retry.base = 1ms;
    CurlFetcher fetcher(curl, buffers, metrics, clock_);
    return Download(fetcher, buffers, clock_, options_, observer_).run(*Url::parse(server_.url("f")));
  }

  // The file that has arrived is the object of this seed, whole.
  void expect_file(uint64_t size, uint64_t seed) {
    const std::string bytes = test::read_text(options_.file);
    ASSERT_EQ(bytes.size(), size);
    EXPECT_EQ(test::first_mismatch(seed, 0, std::as_bytes(std::span(bytes))), std::nullopt);
    EXPECT_THAT(files(), ElementsAre("file"));
  }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  // Bytes that came over the wire for this object.
  uint64_t sent() const { return server_.body_bytes("f"); }

  // Of these, what may have come twice: the rear of a slow part is asked of another connection, and the first may have
  // sent it by then.
  uint64_t shared() const {
    uint64_t bytes = 0;
    std::vector<ByteRange> earlier;
    for (const LoggedRequest& r : server_.requests("f")) {
      const RequestedRange asked = parse_range_header(r.range, UINT64_MAX);
      if (asked.kind != RequestedRange::Kind::kPart) continue;
      const bool is_rear = std::any_of(earlier.begin(), earlier.end(), [&](const ByteRange& e) {
        return e.begin < asked.range.begin && asked.range.end <= e.end;
      });
      if (is_rear) bytes += asked.range.size();
      earlier.push_back(asked.range);
    }
    return bytes;
  }

  // A run that is stopped when this much has arrived; the rest waits at the server meanwhile.
  void interrupted_run(uint64_t enough) {
    observer_.on_progress = [this, enough](uint64_t done) { observer_.stop = done >= enough; };
    EXPECT_THAT(run(), FailsWith(ErrorCode::kCancelled));
    observer_.on_progress = nullptr;
    observer_.stop = false;
  }

  const test::TemporaryDirectory directory_;
  const SystemClock clock_;
  RangeServer server_;
  Observer observer_;
  DownloadOptions options_;
};

TEST_F(DownloadTest, FetchesRangesInParallelAndNoByteTwice) {
  server_.put("f", 20 * kMiB + 321, 7);
  options_.connections = 4;
  const auto result = run();
  ASSERT_THAT(result, Succeeds());
  EXPECT_EQ(result->size, 20 * kMiB + 321);
  EXPECT_EQ(result->fetched, result->size);
  expect_file(20 * kMiB + 321, 7);
  EXPECT_GE(sent(), 20 * kMiB + 321);
  EXPECT_LE(sent(), 20 * kMiB + 321 + shared());
  std::set<uint64_t> connections;
  for (const LoggedRequest& r : server_.requests("f")) connections.insert(r.connection);
  EXPECT_GE(connections.size(), 4);
}

TEST_F(DownloadTest, UsesEveryConnectionForASmallFileToo) {
  server_.put("f", 4 * kMiB, 7);
  options_.connections = 8;
  ASSERT_THAT(run(), Succeeds());
  EXPECT_EQ(server_.requests("f").size(), 1 + 8) << "a HEAD, and a part for each connection";
  expect_file(4 * kMiB, 7);
}

TEST_F(DownloadTest, TakesFilesOfAnySize) {
  for (const uint64_t size : std::initializer_list<uint64_t>{0, 1, 65535, 65536, 262145, 5 * kMiB + 1}) {
    server_.put("f", size, size);
    options_.replace = true;
    ASSERT_THAT(run(), Succeeds()) << size;
    expect_file(size, size);
  }
}

TEST_F(DownloadTest, AsksForTheVersionThatItSawFirst) {
  server_.put("f", kMiB, 7);
  ASSERT_THAT(run(), Succeeds());
  for (const LoggedRequest& r : server_.requests("f")) {
    if (r.method == "GET") {
      EXPECT_THAT(r.if_range, Not(IsEmpty()));
    }
  }
}

TEST_F(DownloadTest, GoesOnWhereItWasInterrupted) {
  server_.put("f", 24 * kMiB, 7);
  server_.behave("f", {.bytes_per_second = 8 * kMiB});
  options_.connections = 4;
  interrupted_run(6 * kMiB);
  EXPECT_FALSE(std::filesystem::exists(options_.file));

  server_.behave("f", {});
  server_.forget_requests();
  const auto result = run();
  ASSERT_THAT(result, Succeeds());
  expect_file(24 * kMiB, 7);
  EXPECT_GE(observer_.begun.back().second, 6 * kMiB);
  EXPECT_LE(sent(), 24 * kMiB - observer_.begun.back().second + shared()) << "what was there is not fetched again";
}

TEST_F(DownloadTest, StartsOverWhenTheServerHasAnotherVersion) {
  server_.put("f", 24 * kMiB, 7, /*version=*/1);
  server_.behave("f", {.bytes_per_second = 8 * kMiB});
  interrupted_run(6 * kMiB);
  server_.behave("f", {});
  server_.put("f", 24 * kMiB, 8, /*version=*/2);
  ASSERT_THAT(run(), Succeeds());
  expect_file(24 * kMiB, 8);
  EXPECT_THAT(observer_.notes, ElementsAre(HasSubstr("starts over")));
}

TEST_F(DownloadTest, StartsOverWhenTheFileChangesUnderWay) {
  server_.put("f", 24 * kMiB, 7, /*version=*/1);
  server_.behave("f", {.bytes_per_second = 8 * kMiB});
  options_.connections = 2;
  observer_.on_progress = [this](uint64_t done) {
    if (done < 2 * kMiB) return;
    server_.behave("f", {});
    server_.put("f", 20 * kMiB, 8, /*version=*/2);
    observer_.on_progress = nullptr;
  };
  ASSERT_THAT(run(), Succeeds());
  expect_file(20 * kMiB, 8);
  EXPECT_THAT(observer_.notes, ElementsAre(HasSubstr("has changed on the server")));
}

TEST_F(DownloadTest, ReadsAServerWithoutRangesOnceInOrder) {
  server_.put("f", 10 * kMiB + 5, 7);
  server_.behave("f", {.ignore_range = true});
  ASSERT_THAT(run(), Succeeds());
  expect_file(10 * kMiB + 5, 7);
}

TEST_F(DownloadTest, SurvivesConnectionsThatBreak) {
  server_.put("f", 10 * kMiB, 7);
  server_.behave("f", {.times = 5, .reset_after = 100'000});
  options_.connections = 4;
  ASSERT_THAT(run(), Succeeds());
  expect_file(10 * kMiB, 7);
}

TEST_F(DownloadTest, DoesWithoutAValidator) {
  server_.put("f", 10 * kMiB, 7);
  server_.behave("f", {.validators = test::Behaviour::Validators::kNone});
  ASSERT_THAT(run(), Succeeds());
  expect_file(10 * kMiB, 7);
}

TEST_F(DownloadTest, KeepsNothingThatCannotBeResumed) {
  server_.put("f", 24 * kMiB, 7);
  server_.behave("f", {.validators = test::Behaviour::Validators::kNone, .bytes_per_second = 8 * kMiB});
  interrupted_run(4 * kMiB);
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(DownloadTest, ChecksTheWholeFile) {
  server_.put_bytes("f", "abc");
  options_.sha256 = parse_sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_THAT(run(), Succeeds());
  EXPECT_EQ(test::read_text(options_.file), "abc");
}

TEST_F(DownloadTest, ThrowsAwayWhatHasAWrongChecksum) {
  server_.put_bytes("f", "abd");
  options_.sha256 = parse_sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const auto result = run();
  EXPECT_THAT(result, FailsWith(ErrorCode::kCorrupt));
  EXPECT_THAT(result.error().message, HasSubstr("a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"));
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(DownloadTest, RefusesToReplaceAFileBeforeItAsksTheServer) {
  test::write_text(options_.file, "mine");
  EXPECT_THAT(run(), FailsWith(ErrorCode::kInvalid));
  EXPECT_THAT(server_.requests(), IsEmpty());
  EXPECT_EQ(test::read_text(options_.file), "mine");
  options_.file = directory_.path();
  options_.replace = true;
  EXPECT_THAT(run(), FailsWith(ErrorCode::kInvalid)) << "a directory";
}

TEST_F(DownloadTest, TellsWhatTheServerSaid) {
  const auto missing = run();
  EXPECT_THAT(missing, FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(missing.error().message, HasSubstr("404"));
  server_.put("f", 100, 7);
  server_.behave("f", {.status = 403});
  EXPECT_THAT(run(), FailsWith(ErrorCode::kForbidden));
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(DownloadTest, SaysThatItCanGoOn) {
  server_.put("f", 24 * kMiB, 7);
  server_.behave("f", {.bytes_per_second = 8 * kMiB});
  observer_.on_progress = [this](uint64_t done) { observer_.stop = done >= 4 * kMiB; };
  EXPECT_THAT(run().error().message, HasSubstr("the same command goes on from there"));
  EXPECT_THAT(files(), ::testing::UnorderedElementsAre("file.wormhole-part", "file.wormhole-part.json"));
}

TEST_F(DownloadTest, CanBeStoppedWhileTheServerIsSilent) {
  server_.put("f", kMiB, 7);
  server_.hold("f");
  std::thread later([this] {
    server_.wait_for_requests("f", 1);
    observer_.stop = true;
  });
  EXPECT_THAT(run(), FailsWith(ErrorCode::kCancelled));
  later.join();
  server_.release("f");
}

}  // namespace
}  // namespace wormhole
