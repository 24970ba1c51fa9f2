// The tree of names, over a real index, a clock that stands still and a server that answers when the test says so.
#include "fs/catalog.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "net/dates.h"
#include "tests/support/fake_fetcher.h"
#include "tests/support/manual_clock.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::FailsWith;
using test::Succeeds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kNow = test::ManualClock::kStartSeconds;
constexpr int64_t kLongAgo = kNow - 86'400;
constexpr int64_t kTtl = 60;

// A question that is answered later, on whatever thread.
template <typename T>
class Asked {
 public:
  // What the answer goes into.
  UniqueFunction<void(Result<T>)> reply() {
    return [state = state_](Result<T> result) { state->set_value(std::move(result)); };
  }
  bool is_answered(std::chrono::milliseconds within = 0ms) {
    return future_.wait_for(within) == std::future_status::ready;
  }
  Result<T> get() {
    if (!is_answered(10s)) return fail(ErrorCode::kInvalid, "never answered");
    return future_.get();
  }

 private:
  std::shared_ptr<std::promise<Result<T>>> state_ = std::make_shared<std::promise<Result<T>>>();
  std::shared_future<Result<T>> future_ = state_->get_future().share();
};

class CatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(directory_ / "index");
    index_ = std::move(*Index::open(directory_ / "index", metrics_));
    root_ino_ = index_->allocate_ino();
    start();
  }
  void TearDown() override { stop(); }

  void start() {
    catalog_ = std::make_unique<Catalog>(options_, root_, root_ino_, *index_, fetcher_, *listings_, metrics_, clock_,
                                         [this](const std::vector<Ino>& inos) {
                                           std::lock_guard lock(mutex_);
                                           superseded_.insert(superseded_.end(), inos.begin(), inos.end());
                                         });
  }
  void stop() {
    if (catalog_) catalog_->stop();
    while (fetcher_.waiting_documents() > 0) answer_document(fail(ErrorCode::kCancelled, "the end"));
    catalog_.reset();
  }
  void restart() {
    stop();
    start();
  }
  void restart_with(OfflineMode offline) {
    options_.offline = offline;
    restart();
  }

  // --- what readers ask ---

  Asked<DirectoryRef> list(const NodeRef& node = nullptr) {
    Asked<DirectoryRef> asked;
    catalog_->directory(node ? node : catalog_->root(), asked.reply());
    return asked;
  }
  Asked<DirectoryEntry> stat(const std::string& name, const NodeRef& parent = nullptr) {
    Asked<DirectoryEntry> asked;
    catalog_->entry(parent ? parent : catalog_->root(), name, asked.reply());
    return asked;
  }
  Asked<int> confirm(const DirectoryEntry& file) {
    Asked<int> asked;
    catalog_->confirm(node_of(file),
                      [reply = std::make_shared<UniqueFunction<void(Result<int>)>>(asked.reply())](Status s) {
                        if (s) return (*reply)(0);
                        (*reply)(fail(s.error()));
                      });
    return asked;
  }
  // 1: confirmed, 0: its bytes will tell.
  Asked<int> confirm_if_read(const DirectoryEntry& file) {
    Asked<int> asked;
    catalog_->confirm_if_read(
        node_of(file), [reply = std::make_shared<UniqueFunction<void(Result<int>)>>(asked.reply())](Result<bool> r) {
          if (r) return (*reply)(*r ? 1 : 0);
          (*reply)(fail(r.error()));
        });
    return asked;
  }
  NodeRef node_of(const DirectoryEntry& e, const NodeRef& parent = nullptr) {
    auto node = std::make_shared<Node>();
    node->ino = e.ino;
    node->type = e.type;
    node->name = e.name;
    node->parent = parent ? parent : catalog_->root();
    return node;
  }
  // What follows an answer, or answers nobody, happens on the tree thread a moment later.
  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  // A read has found another version.
  void distrust(const DirectoryEntry& file) {
    catalog_->distrust(node_of(file));
    EXPECT_TRUE(
        eventually([&] { return decode_directory(root_ino_, *index_->directory(root_ino_))->find(file.name)->gone; }));
  }

  // --- what the server answers ---

  struct File {
    std::string name;
    std::optional<uint64_t> size = 100;
    int64_t mtime = kLongAgo;
  };
  static Document page(const std::vector<File>& files, const std::vector<std::string>& directories = {}) {
    Document d;
    d.status = 200;
    d.url = "http://x/top/";
    d.content_type = "text/html";
    d.body =
        "<html><head><title>Index of /top/</title></head><body><h1>Index of /top/</h1><hr><pre><a "
        "href=\"../\">../</a>\r\n";
    for (const std::string& name : directories)
      d.body += fmt::format("<a href=\"{0}/\">{0}/</a> 01-Jan-2026 00:00  -\r\n", name);
    for (const File& f : files) {
      d.body += fmt::format("<a href=\"{0}\">{0}</a> {1} {2:>19}\r\n", f.name, format_listed_date(f.mtime),
                            f.size ? std::to_string(*f.size) : "-");
    }
    d.body += "</pre><hr></body></html>";
    return d;
  }
  static Document head(uint64_t size, const std::string& etag = "\"v1\"", int64_t mtime = kLongAgo) {
    Document d;
    d.status = 200;
    d.url = "http://x/top/file";
    d.content_type = "application/octet-stream";
    d.head = {{etag, format_http_date(mtime)}, size};
    d.last_modified = mtime;
    return d;
  }
  // Answers the oldest request; what it was.
  DocumentRequest answer_document(Result<Document> answer) {
    auto request = fetcher_.take_document();
    EXPECT_TRUE(request.has_value()) << "nothing was asked of the server";
    if (!request) return {};
    request->done(std::move(answer));
    return std::move(*request);
  }
  void serve(const std::vector<File>& files, const std::vector<std::string>& directories = {}) {
    EXPECT_FALSE(answer_document(page(files, directories)).head_only);
  }
  void serve_head(const Document& document) { EXPECT_TRUE(answer_document(document).head_only); }
  void refuse(ErrorCode code) { answer_document(fail(code, "by order of the test")); }

  // The root has been listed with these files, just now.
  void know(const std::vector<File>& files, const std::vector<std::string>& directories = {}) {
    auto asked = list();
    serve(files, directories);
    ASSERT_THAT(asked.get(), Succeeds());
  }
  void become_old() { clock_.advance(std::chrono::seconds(kTtl)); }
  DirectoryEntry known(const std::string& name) {
    auto asked = stat(name);
    const auto e = asked.get();
    EXPECT_THAT(e, Succeeds());
    return e.value_or(DirectoryEntry{});
  }
  void expect_no_request() { EXPECT_EQ(fetcher_.waiting_documents(), 0u); }
  // One of them is told after the answer; so `count` of them are waited for.
  std::vector<Ino> superseded(size_t count = 0) {
    EXPECT_TRUE(eventually([&] {
      std::lock_guard lock(mutex_);
      return superseded_.size() >= count;
    }));
    std::lock_guard lock(mutex_);
    return superseded_;
  }

  test::TemporaryDirectory directory_;
  Metrics metrics_;
  test::ManualClock clock_;
  test::FakeFetcher fetcher_;
  CatalogOptions options_{.ttl = kTtl};
  RemoteRoot root_{*Url::parse("http://x/top/"), std::nullopt};
  std::unique_ptr<Index> index_;
  Ino root_ino_ = 0;
  std::unique_ptr<ListingSource> listings_ = make_listing_source({}, fetcher_);
  std::unique_ptr<Catalog> catalog_;
  std::mutex mutex_;
  std::vector<Ino> superseded_;
};

// --- listings ------------------------------------------------------------------------------------------------------

TEST_F(CatalogTest, ADirectoryThatIsNotKnownIsFetched) {
  auto asked = list();
  const DocumentRequest request = answer_document(page({{"a"}, {"b", 5}}, {"d"}));
  EXPECT_EQ(request.url, "http://x/top/");
  EXPECT_FALSE(request.head_only);
  EXPECT_EQ(request.patience, options_.patience);
  const auto listing = asked.get();
  ASSERT_THAT(listing, Succeeds());
  ASSERT_EQ((*listing)->entries.size(), 3u);
  EXPECT_EQ((*listing)->find("b")->size, 5u);
  EXPECT_EQ((*listing)->find("d")->type, EntryType::kDirectory);
}

TEST_F(CatalogTest, AFreshListingNeedsNoRequest) {
  know({{"a"}});
  clock_.advance(std::chrono::seconds(kTtl - 1));
  auto asked = list();
  EXPECT_TRUE(asked.is_answered());  // on the caller's thread
  EXPECT_THAT(stat("a").get(), Succeeds());
  expect_no_request();
}

TEST_F(CatalogTest, AListingAsOldAsTheTtlIsFetchedAgain) {
  know({{"a"}});
  become_old();
  auto asked = list();
  serve({{"a"}, {"b"}});
  EXPECT_EQ((*asked.get())->entries.size(), 2u);
}

TEST_F(CatalogTest, ManyWhoAskAtOnceShareOneFetch) {
  std::vector<Asked<DirectoryRef>> all;
  for (int i = 0; i < 10; ++i) all.push_back(list());
  auto entry = stat("a");
  serve({{"a"}});
  for (auto& asked : all) EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_THAT(entry.get(), Succeeds());
  expect_no_request();
  EXPECT_EQ(metrics_.listings_fetched, 1u);
}

TEST_F(CatalogTest, AListingOfTheLastDaemonIsBelievedAsLong) {
  know({{"a"}});
  restart();
  EXPECT_THAT(stat("a").get(), Succeeds());
  expect_no_request();
  become_old();
  auto asked = list();
  serve({{"b"}});
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(CatalogTest, NumbersStayOverARestart) {
  know({{"a"}});
  const Ino before = known("a").ino;
  restart();
  EXPECT_EQ(known("a").ino, before);
}

TEST_F(CatalogTest, AClockThatWasSetBackMakesAListingOld) {
  know({{"a"}});
  auto bytes = index_->directory(root_ino_);
  auto future = decode_directory(root_ino_, *bytes);
  future->fetched_at += 1000;
  index_->put_directory(root_ino_, encode(*future));
  restart();
  auto asked = list();
  serve({{"a"}});
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(CatalogTest, ARecordThatIsCorruptIsFetchedAgain) {
  index_->put_directory(root_ino_, "rubbish");
  auto asked = list();
  serve({{"a"}});
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(CatalogTest, ADirectoryInADirectoryHasTheUrlOfItsPath) {
  know({}, {"d"});
  const NodeRef d = node_of(known("d"));
  auto asked = list(d);
  EXPECT_EQ(answer_document(page({{"x y"}})).url, "http://x/top/d/");
  EXPECT_THAT(asked.get(), Succeeds());
  Node file;
  file.type = EntryType::kFile;
  file.name = "100% & more";
  file.parent = d;
  EXPECT_EQ(catalog_->url_of(file), "http://x/top/d/100%25%20%26%20more");
}

// --- a server that is away -----------------------------------------------------------------------------------------

TEST_F(CatalogTest, WhenNothingIsKnownAnErrorIsAnError) {
  for (const ErrorCode code :
       {ErrorCode::kUnreachable, ErrorCode::kTimedOut, ErrorCode::kNotFound, ErrorCode::kForbidden}) {
    auto asked = list();
    refuse(code);
    EXPECT_THAT(asked.get(), FailsWith(code));
  }
}

TEST_F(CatalogTest, AServerThatCannotBeReachedLeavesTheOldListingValid) {
  know({{"a"}});
  become_old();
  auto asked = list();
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_FALSE(catalog_->reachable());
}

TEST_F(CatalogTest, AServerThatCannotBeReachedIsNotAskedForFiveSeconds) {
  know({{"a"}});
  become_old();
  auto first = list();
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(first.get(), Succeeds());
  clock_.advance(4900ms);
  EXPECT_THAT(list().get(), Succeeds());
  EXPECT_THAT(stat("a").get(), Succeeds());
  expect_no_request();
  clock_.advance(100ms);
  auto again = list();
  serve({{"a"}, {"b"}});
  EXPECT_EQ((*again.get())->entries.size(), 2u);
  EXPECT_TRUE(catalog_->reachable());
}

TEST_F(CatalogTest, WhatIsNotKnownIsAskedForAlsoOfAServerThatWasAway) {
  know({}, {"d"});
  become_old();
  auto old = list();
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(old.get(), Succeeds());
  auto asked = list(node_of(known("d")));
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kUnreachable));
}

TEST_F(CatalogTest, ADirectoryThatTheServerSaysIsGoneIsGone) {
  know({{"a"}});
  become_old();
  auto asked = list();
  refuse(ErrorCode::kNotFound);
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kNotFound));
}

TEST_F(CatalogTest, AServerThatRefusesIsThereAllTheSame) {
  know({{"a"}, {"size unknown", std::nullopt}});
  become_old();
  auto away = list();
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(away.get(), Succeeds());
  clock_.advance(5s);
  auto refused = list();
  refuse(ErrorCode::kForbidden);
  EXPECT_THAT(refused.get(), FailsWith(ErrorCode::kForbidden));
  EXPECT_TRUE(catalog_->reachable());
}

TEST_F(CatalogTest, APageThatIsNoListingLeavesTheOldOneValid) {
  know({{"a"}});
  become_old();
  auto asked = list();
  Document d = page({});
  d.content_type = "application/json";
  answer_document(std::move(d));
  EXPECT_EQ((*asked.get())->entries.size(), 1u);
}

TEST_F(CatalogTest, ASlowServerIsWaitedForAMomentWhereAnOldListingIsAtHand) {
  know({{"a"}});
  become_old();
  auto asked = list();
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  EXPECT_FALSE(asked.is_answered(20ms));
  clock_.advance(1s);
  auto later = list();
  EXPECT_EQ((*later.get())->entries.size(), 1u);
  EXPECT_EQ((*asked.get())->entries.size(), 1u);
  expect_no_request();
  request->done(page({{"a"}, {"b"}}));  // it comes all the same, and counts
  EXPECT_TRUE(eventually([&] { return (*list().get())->entries.size() == 2; }));
}

TEST_F(CatalogTest, ASlowServerIsWaitedForOnce) {
  know({{"a"}}, {"d", "e"});
  const NodeRef d = node_of(known("d")), e = node_of(known("e"));
  for (const NodeRef& below : {d, e}) {
    auto asked = list(below);
    serve({{"old"}});
    ASSERT_THAT(asked.get(), Succeeds());
  }
  become_old();
  auto root = list();
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  clock_.advance(1s);
  auto first = list(d);  // wakes the tree thread
  ASSERT_TRUE(eventually([&] { return root.is_answered(); }));
  auto request_of_d = fetcher_.take_document();
  auto second = list(e);
  EXPECT_TRUE(second.is_answered(10s)) << "without another second";
  auto request_of_e = fetcher_.take_document();
  ASSERT_TRUE(request_of_d && request_of_e) << "each of them is on its way all the same";
  request_of_e->done(page({{"new"}}));
  EXPECT_TRUE(eventually([&] { return (*list(e).get())->find("new") != nullptr; }));
  request_of_d->done(page({{"new"}}));
  become_old();
  auto patient = list(e);
  auto soon = fetcher_.take_document();
  ASSERT_TRUE(soon);
  EXPECT_FALSE(patient.is_answered(20ms)) << "it was quick again";
  soon->done(page({{"newer"}}));
  EXPECT_NE((*patient.get())->find("newer"), nullptr);
  request->done(page({{"a"}}, {"d", "e"}));
}

TEST_F(CatalogTest, ASlowServerIsWaitedForWhereNothingElseIsAtHand) {
  auto asked = list();
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  clock_.advance(10s);
  EXPECT_FALSE(asked.is_answered(20ms));
  request->done(page({{"a"}}));
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(CatalogTest, OfflineOnNobodyIsEverAsked) {
  know({{"a"}, {"unknown size", std::nullopt}}, {"d"});
  restart_with(OfflineMode::kOn);
  clock_.advance(24h);
  EXPECT_THAT(list().get(), Succeeds());
  EXPECT_THAT(stat("a").get(), Succeeds());
  EXPECT_THAT(confirm(known("a")).get(), Succeeds());
  EXPECT_THAT(list(node_of(known("d"))).get(), FailsWith(ErrorCode::kUnreachable));
  expect_no_request();
}

TEST_F(CatalogTest, OfflineOffAnOldListingIsNoAnswer) {
  know({{"a"}});
  restart_with(OfflineMode::kOff);
  become_old();
  for (int i = 0; i < 2; ++i) {  // and it is asked every time
    auto asked = list();
    refuse(ErrorCode::kUnreachable);
    EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kUnreachable));
  }
}

// --- one entry -----------------------------------------------------------------------------------------------------

TEST_F(CatalogTest, ANameThatIsNotListedIsNotFoundWithoutARequest) {
  know({{"a"}});
  EXPECT_THAT(stat("b").get(), FailsWith(ErrorCode::kNotFound));
  expect_no_request();
}

TEST_F(CatalogTest, AnEntryIsWhatTheListingSays) {
  know({{"a", 123, kLongAgo}}, {"d"});
  EXPECT_EQ(known("a").size, 123u);
  EXPECT_EQ(known("a").mtime, kLongAgo - kLongAgo % 60);
  EXPECT_EQ(known("d").type, EntryType::kDirectory);
  expect_no_request();
}

TEST_F(CatalogTest, ASizeThatTheListingDoesNotTellIsAskedForOnceAndKept) {
  know({{"a", std::nullopt}});
  auto first = stat("a");
  auto second = stat("a");
  const DocumentRequest request = answer_document(head(4711, "\"v1\"", kLongAgo + 7));
  EXPECT_TRUE(request.head_only);
  EXPECT_EQ(request.url, "http://x/top/a");
  EXPECT_EQ(first.get()->size, 4711u);
  EXPECT_EQ(second.get()->size, 4711u);
  EXPECT_EQ(known("a").mtime, kLongAgo + 7);
  expect_no_request();
  restart();
  EXPECT_EQ(known("a").size, 4711u);
  expect_no_request();
}

TEST_F(CatalogTest, ASizeThatCannotBeHadIsAnError) {
  know({{"a", std::nullopt}});
  auto asked = stat("a");
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kUnreachable));
  auto refused = stat("a");
  refuse(ErrorCode::kForbidden);
  EXPECT_THAT(refused.get(), FailsWith(ErrorCode::kForbidden));
  auto without = stat("a");
  Document d = head(0);
  d.head.size.reset();
  serve_head(d);
  refuse(ErrorCode::kBadResponse);  // a GET that was to bring nothing: it is no empty file
  EXPECT_THAT(without.get(), FailsWith(ErrorCode::kBadResponse));
}

TEST_F(CatalogTest, TheEntriesOfADirectoryAreAskedAboutOneByOne) {
  know({{"a", std::nullopt}, {"b", std::nullopt}});
  auto a = stat("a");
  auto b = stat("b");
  EXPECT_EQ(answer_document(head(1)).url, "http://x/top/a");
  EXPECT_EQ(answer_document(head(2)).url, "http://x/top/b");
  EXPECT_EQ(a.get()->size, 1u);
  EXPECT_EQ(b.get()->size, 2u);
  EXPECT_EQ(known("a").size, 1u);  // the second answer has not undone the first
}

// --- is it still this version? -------------------------------------------------------------------------------------

TEST_F(CatalogTest, AFileOfAFreshListingIsConfirmedWithoutARequest) {
  know({{"a"}});
  EXPECT_THAT(confirm(known("a")).get(), Succeeds());
  expect_no_request();
}

TEST_F(CatalogTest, AFileThatIsUnchangedInTheNextListingIsConfirmed) {
  know({{"a"}});
  const DirectoryEntry a = known("a");
  become_old();
  auto asked = confirm(a);
  serve({{"a"}});
  EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_THAT(superseded(), IsEmpty());
}

TEST_F(CatalogTest, AFileThatHasChangedIsStaleAndItsOldVersionIsOfNoUse) {
  know({{"a", 100}});
  const DirectoryEntry a = known("a");
  become_old();
  auto asked = confirm(a);
  serve({{"a", 101}});
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kStale));
  EXPECT_NE(known("a").ino, a.ino);
  EXPECT_THAT(superseded(1), ElementsAre(a.ino));
}

TEST_F(CatalogTest, APinGoesOverToTheNewVersion) {
  know({{"a", 100}, {"b", 100}, {"c", 100}});
  const Ino a = known("a").ino, b = known("b").ino, c = known("c").ino;
  index_->pin({a, b});
  become_old();
  auto asked = list();
  serve({{"a", 101}, {"c", 101}});
  ASSERT_THAT(asked.get(), Succeeds());
  ASSERT_THAT(superseded(3), ::testing::UnorderedElementsAre(a, b, c));
  EXPECT_THAT(index_->pinned().all(), ElementsAre(known("a").ino)) << "b is gone, and c was not pinned";
}

TEST_F(CatalogTest, AFileThatIsGoneIsStale) {
  know({{"a"}});
  const DirectoryEntry a = known("a");
  become_old();
  auto asked = confirm(a);
  serve({});
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kStale));
  EXPECT_THAT(stat("a").get(), FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(superseded(1), ElementsAre(a.ino));
}

class DoubtfulTest : public CatalogTest {
 protected:
  // "a" was changed in the minute of its listing: the next listing leaves it in doubt.
  void SetUp() override {
    CatalogTest::SetUp();
    know({{"a", 100, kNow}});
    a_ = known("a");
    become_old();
    auto again = list();
    serve({{"a", 100, kNow}});
    ASSERT_THAT(again.get(), Succeeds());
  }

  DirectoryEntry a_;
};

TEST_F(DoubtfulTest, AStatIsAnsweredByTheListing) {
  EXPECT_EQ(known("a").ino, a_.ino);
  expect_no_request();
}

TEST_F(DoubtfulTest, AnOpenAsksAndTheSameVersionIsConfirmed) {
  index_->put_object(a_.ino, {100, {"\"v1\"", ""}});  // read before
  auto asked = confirm(a_);
  serve_head(head(100, "\"v1\""));
  EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_THAT(confirm(a_).get(), Succeeds());  // and there is no doubt any more
  expect_no_request();
}

TEST_F(DoubtfulTest, AnOpenAsksAndAnotherVersionIsStale) {
  index_->put_object(a_.ino, {100, {"\"v1\"", ""}});
  auto asked = confirm(a_);
  serve_head(head(100, "\"v2\""));
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kStale));
  const DirectoryEntry now = known("a");
  EXPECT_NE(now.ino, a_.ino);
  EXPECT_THAT(superseded(1), ElementsAre(a_.ino));
  EXPECT_THAT(confirm(now).get(), Succeeds());
  expect_no_request();
}

TEST_F(DoubtfulTest, OneThatWasNeverReadIsWhateverTheServerHasNow) {
  auto asked = confirm(a_);
  serve_head(head(100, "\"v9\""));
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(DoubtfulTest, AServerThatIsAwayLeavesItAsItWas) {
  auto asked = confirm(a_);
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_FALSE(catalog_->reachable());
}

TEST_F(DoubtfulTest, AnAnswerIsWaitedForAMomentOnly) {
  auto asked = confirm(a_);
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  EXPECT_LE(request->patience, 1s);
  request->done(fail(ErrorCode::kTimedOut, "too late"));
  EXPECT_THAT(asked.get(), Succeeds());
}

TEST_F(DoubtfulTest, OneThatWasNeverReadNeedsNoHeadBeforeItsBytes) {
  auto asked = confirm_if_read(a_);
  EXPECT_TRUE(asked.is_answered());
  EXPECT_THAT(asked.get(), Succeeds());
  EXPECT_EQ(asked.get().value_or(1), 0);
  expect_no_request();
}

TEST_F(DoubtfulTest, OneThatWasReadIsAskedAbout) {
  index_->put_object(a_.ino, {100, {"\"v1\"", ""}});
  auto asked = confirm_if_read(a_);
  serve_head(head(100, "\"v1\""));
  EXPECT_EQ(asked.get().value_or(0), 1);
}

TEST_F(DoubtfulTest, BytesOfThisVersionEndTheDoubt) {
  index_->put_object(a_.ino, {100, {"\"v1\"", ""}});
  catalog_->confirmed(node_of(a_));
  auto asked = confirm_if_read(a_);
  EXPECT_EQ(asked.get().value_or(0), 1);
  expect_no_request();
}

TEST_F(DoubtfulTest, BytesOfAnotherVersionDoNot) {
  index_->put_object(a_.ino, {100, {"\"v1\"", ""}});
  DirectoryEntry other = a_;
  other.ino += 1000;
  catalog_->confirmed(node_of(other));
  auto asked = confirm(a_);
  serve_head(head(100, "\"v1\""));
  EXPECT_THAT(asked.get(), Succeeds());
}

// --- ahead of a reader ---------------------------------------------------------------------------------------------

TEST_F(CatalogTest, SizesAreAskedForAllAtOnceAndKept) {
  know({{"a", std::nullopt}, {"b", std::nullopt}, {"c", 5}, {"d", std::nullopt}});
  catalog_->ask_ahead(catalog_->root(), {"a", "b", "c", "d", "gone"});
  ASSERT_TRUE(eventually([&] { return fetcher_.waiting_documents() == 3; })) << "c has a size";
  auto waits = stat("b");  // shares the request that is under way
  for (uint64_t size : {1, 2, 4}) serve_head(head(size));
  EXPECT_EQ(waits.get()->size, 2u);
  EXPECT_EQ(known("a").size, 1u);
  EXPECT_EQ(known("d").size, 4u);
  expect_no_request();
  restart();
  EXPECT_EQ(known("d").size, 4u);
  expect_no_request();
}

TEST_F(CatalogTest, ManySizesOfALargeDirectoryAreNotOneSnapshotEach) {
  std::vector<File> files;
  for (int i = 0; i < 5000; ++i) files.push_back({fmt::format("{:05}", i), std::nullopt});
  know(files);
  const DirectoryRef before = *list().get();
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i) names.push_back(files[i].name);
  catalog_->ask_ahead(catalog_->root(), names);
  for (int i = 0; i < 1000; ++i) serve_head(head(i + 1));
  EXPECT_EQ(known("00999").size, 1000u);
  EXPECT_EQ(*list().get(), before) << "with a clock that stands still none is due";
  clock_.advance(1s);
  EXPECT_EQ(known("00500").size, 501u);  // wakes the tree thread
  EXPECT_TRUE(eventually([&] { return (*list().get())->find("00999")->size == 1000u; }));
  EXPECT_EQ((*list().get())->find("00000")->size, 1u);
  expect_no_request();
}

TEST_F(CatalogTest, WhatWasLearntOutlivesTheNextListing) {
  std::vector<File> files;
  for (int i = 0; i < 500; ++i) files.push_back({fmt::format("{:05}", i), std::nullopt});
  know(files);
  catalog_->ask_ahead(catalog_->root(), {"00007"});
  serve_head(head(77));
  EXPECT_EQ(known("00007").size, 77u);
  become_old();
  auto again = list();
  serve(files);
  ASSERT_THAT(again.get(), Succeeds());
  EXPECT_EQ(known("00007").size, 77u);
  expect_no_request();
}

TEST_F(CatalogTest, AnotherVersionIsSeenAtOnceAlsoInALargeDirectory) {
  std::vector<File> files;
  for (int i = 0; i < 500; ++i) files.push_back({fmt::format("{:05}", i)});
  know(files);
  const DirectoryEntry old = known("00003");
  distrust(old);
  catalog_->ask_ahead(catalog_->root(), {"00003"});
  serve_head(head(100, "\"v2\""));
  EXPECT_THAT(superseded(1), ElementsAre(old.ino));
  EXPECT_NE((*list().get())->find("00003")->ino, old.ino);
}

TEST_F(CatalogTest, AListingAheadIsThereForTheNextReader) {
  know({}, {"d"});
  const NodeRef d = node_of(known("d"));
  std::atomic<int> told = 0;
  catalog_->list_ahead(d, [&] { ++told; });
  serve({{"a"}});
  EXPECT_TRUE(eventually([&] { return told == 1; }));
  EXPECT_TRUE(catalog_->known(d->ino).fresh);
  EXPECT_TRUE(list(d).is_answered());
  expect_no_request();
}

TEST_F(CatalogTest, NothingIsAskedAheadWhileTheServerIsAway) {
  know({{"a", std::nullopt}}, {"d"});
  auto asked = stat("a");
  refuse(ErrorCode::kUnreachable);
  EXPECT_FALSE(asked.get());
  catalog_->ask_ahead(catalog_->root(), {"a"});
  catalog_->list_ahead(node_of(known("d")), [] {});
  EXPECT_EQ(known("d").type, EntryType::kDirectory);
  std::this_thread::sleep_for(50ms);
  expect_no_request();
}

// --- a version that a read has found to be gone --------------------------------------------------------------------

class DistrustTest : public CatalogTest {
 protected:
  void SetUp() override {
    CatalogTest::SetUp();
    know({{"a", 100}});
    a_ = known("a");
    index_->put_object(a_.ino, {100, {"\"v1\"", ""}});
    distrust(a_);
  }

  DirectoryEntry a_;
};

TEST_F(DistrustTest, APinGoesOverToTheVersionThatIsFound) {
  index_->pin({a_.ino});
  auto asked = stat("a");
  serve_head(head(100, "\"v2\""));
  const auto now = asked.get();
  ASSERT_THAT(now, Succeeds());
  EXPECT_THAT(superseded(1), ElementsAre(a_.ino));
  EXPECT_THAT(index_->pinned().all(), ElementsAre(now->ino));
}

TEST_F(CatalogTest, WhoOpensAgainRightAfterAStaleReadIsNotGivenTheSameVersion) {
  std::vector<File> files;
  for (int i = 0; i < 20'000; ++i) files.push_back({fmt::format("{:05}", i)});
  know(files);  // so many that noting it takes a moment
  const DirectoryEntry a = known("00007");
  index_->put_object(a.ino, {100, {"\"v1\"", ""}});
  catalog_->distrust(node_of(a));
  auto asked = confirm(a);
  EXPECT_FALSE(asked.is_answered());
  serve_head(head(100, "\"v2\""));
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kStale));
}

TEST_F(DistrustTest, TheNextStatAsksAndHasANewNumber) {
  auto asked = stat("a");
  serve_head(head(100, "\"v2\"", kLongAgo + 5));
  const auto now = asked.get();
  ASSERT_THAT(now, Succeeds());
  EXPECT_NE(now->ino, a_.ino);
  EXPECT_EQ(now->mtime, kLongAgo + 5);
  EXPECT_THAT(superseded(1), ElementsAre(a_.ino));
  EXPECT_EQ(known("a").ino, now->ino);
  expect_no_request();
}

TEST_F(DistrustTest, TheNextOpenAsksAndIsStale) {
  auto asked = confirm(a_);
  serve_head(head(100, "\"v2\""));
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kStale));
}

TEST_F(DistrustTest, AVersionThatCameBackIsANewOneAllTheSame) {
  auto asked = stat("a");
  serve_head(head(100, "\"v1\""));
  EXPECT_NE(asked.get()->ino, a_.ino);
}

TEST_F(DistrustTest, WithoutAServerItIsAnErrorAndNotTheOldVersion) {
  auto asked = stat("a");
  refuse(ErrorCode::kUnreachable);
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kUnreachable));
}

TEST_F(DistrustTest, ItIsKeptOverARestart) {
  restart();
  auto asked = stat("a");
  serve_head(head(100, "\"v2\""));
  EXPECT_NE(asked.get()->ino, a_.ino);
}

TEST_F(DistrustTest, TheNewVersionKeepsItsNumberInTheNextListing) {
  auto asked = stat("a");
  serve_head(head(100, "\"v2\"", kNow));
  const Ino now = asked.get()->ino;
  become_old();
  auto again = list();
  serve({{"a", 100, kNow}});
  EXPECT_EQ((*again.get())->find("a")->ino, now);
}

TEST_F(DistrustTest, AnotherFileOfThatNameIsNotTouched) {
  DirectoryEntry other = a_;
  other.ino = a_.ino + 1000;
  auto asked = stat("a");
  serve_head(head(100, "\"v2\""));
  const DirectoryEntry now = *asked.get();
  catalog_->distrust(node_of(a_));  // a late reader of the old version
  catalog_->distrust(node_of(other));
  become_old();
  auto again = list();  // behind the two
  serve({{"a", 100}});
  EXPECT_EQ((*again.get())->find("a")->ino, now.ino);
  EXPECT_FALSE((*again.get())->find("a")->gone);
  expect_no_request();
}

// What is learnt while a listing is under way is newer than what the listing is merged into.

TEST_F(CatalogTest, AVersionThatAHeadFindsWhileAListingIsUnderWayKeepsItsNumber) {
  know({{"a", 100}});
  const DirectoryEntry a = known("a");
  distrust(a);
  become_old();
  auto listing = list();
  auto page_request = fetcher_.take_document();
  ASSERT_TRUE(page_request);
  clock_.advance(1s);  // from now on the old listing is used
  auto asked = stat("a");
  serve_head(head(100, "\"v2\"", kNow));
  const auto now = asked.get();
  ASSERT_THAT(now, Succeeds());
  ASSERT_NE(now->ino, a.ino);
  page_request->done(page({{"a", 100, kNow}}));
  EXPECT_TRUE(eventually([&] { return (*list().get())->fetched_at > kNow; }));
  EXPECT_EQ((*list().get())->find("a")->ino, now->ino);
}

TEST_F(CatalogTest, ADistrustWhileAListingIsUnderWayIsNotForgotten) {
  know({{"a", 100}});
  const DirectoryEntry a = known("a");
  become_old();
  auto listing = list();
  auto page_request = fetcher_.take_document();
  ASSERT_TRUE(page_request);
  distrust(a);
  page_request->done(page({{"a", 100}}));
  EXPECT_THAT(listing.get(), Succeeds());
  EXPECT_TRUE((*list().get())->find("a")->gone);
}

// --- a listing that is unchanged -----------------------------------------------------------------------------------

class UnchangedTest : public CatalogTest {
 protected:
  static Document named(Document document, const std::string& etag) {
    document.head.validator.etag = etag;
    return document;
  }
  static Document unchanged() {
    Document d;
    d.status = 304;
    d.url = "http://x/top/";
    return d;
  }
  static bool asks_for_news_since(const DocumentRequest& request, const std::string& etag) {
    return std::count(request.headers.begin(), request.headers.end(), "If-None-Match: " + etag) == 1;
  }
  // "a" was listed, as "e1", and its listing is old now.
  void know_as_e1(int64_t mtime = kLongAgo) {
    auto first = list();
    EXPECT_FALSE(asks_for_news_since(answer_document(named(page({{"a", 100, mtime}}), "\"e1\"")), "\"e1\""));
    ASSERT_THAT(first.get(), Succeeds());
    become_old();
  }
};

TEST_F(UnchangedTest, AListingThatIsUnchangedIsFreshAgain) {
  know_as_e1();
  const Ino a = (*index_->directory(root_ino_)).empty()
                    ? 0
                    : decode_directory(root_ino_, *index_->directory(root_ino_))->find("a")->ino;
  auto asked = list();
  EXPECT_TRUE(asks_for_news_since(answer_document(unchanged()), "\"e1\""));
  ASSERT_THAT(asked.get(), Succeeds());
  EXPECT_EQ((*asked.get())->find("a")->ino, a);
  EXPECT_FALSE((*asked.get())->find("a")->doubtful);
  EXPECT_TRUE(list().is_answered());
  expect_no_request();
}

TEST_F(UnchangedTest, ItsNameIsKeptOverARestart) {
  know_as_e1();
  restart();
  auto asked = list();
  EXPECT_TRUE(asks_for_news_since(answer_document(unchanged()), "\"e1\""));
  ASSERT_THAT(asked.get(), Succeeds());
  become_old();
  auto again = list();
  EXPECT_TRUE(asks_for_news_since(answer_document(named(page({{"a"}, {"b"}}), "\"e2\"")), "\"e1\""));
  EXPECT_EQ((*again.get())->entries.size(), 2u);
  become_old();
  auto third = list();
  EXPECT_TRUE(asks_for_news_since(answer_document(unchanged()), "\"e2\""));
  EXPECT_EQ((*third.get())->entries.size(), 2u);
}

TEST_F(UnchangedTest, AFileThatMayHaveChangedUnseenIsInDoubtAllTheSame) {
  know_as_e1(kNow);
  auto asked = list();
  answer_document(unchanged());
  ASSERT_THAT(asked.get(), Succeeds());
  EXPECT_TRUE((*asked.get())->find("a")->doubtful);
}

TEST_F(UnchangedTest, AfterAnotherVersionWasFoundTheListingIsFetchedAsAWhole) {
  know_as_e1();
  auto asked = list();
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  distrust(*decode_directory(root_ino_, *index_->directory(root_ino_))->find("a"));
  request->done(unchanged());
  auto whole = fetcher_.take_document();
  ASSERT_TRUE(whole);
  EXPECT_FALSE(asks_for_news_since(*whole, "\"e1\""));
  whole->done(page({{"a", 200}}));
  EXPECT_EQ((*asked.get())->find("a")->size, 200u);
}

TEST_F(UnchangedTest, AnAnswerThatNobodyAskedForIsAnError) {
  auto asked = list();
  answer_document(unchanged());  // GET
  answer_document(fail(ErrorCode::kBadResponse, "no PROPFIND"));
  EXPECT_FALSE(asked.get());
}

// --- a listing that comes in pages ---------------------------------------------------------------------------------

// Sends pages when the test says so.
class PagedSource final : public ListingSource {
 public:
  void list(ListingRequest request) override {
    std::lock_guard lock(mutex_);
    request_ = std::make_shared<ListingRequest>(std::move(request));
  }
  static std::vector<ListedEntry> entries(const std::vector<std::string>& names) {
    std::vector<ListedEntry> out;
    for (const std::string& name : names) {
      out.emplace_back();
      out.back().name = name;
      out.back().size = 100;
      out.back().mtime = kLongAgo;
    }
    return out;
  }
  void page(const std::vector<std::string>& names) {
    const auto request = taken();
    for (ListedEntry& e : entries(names)) all_.push_back(std::move(e));
    request->post([request, page = entries(names)] { request->arrived(page); });
  }
  void last_page(const std::vector<std::string>& names) {
    const auto request = taken();
    for (ListedEntry& e : entries(names)) all_.push_back(std::move(e));
    request->post([request, all = std::exchange(all_, {})] {
      Listing listing;
      listing.entries = all;
      request->done(std::move(listing));
    });
  }
  void break_off() {
    const auto request = taken();
    all_.clear();
    request->post([request] { request->done(fail(ErrorCode::kUnreachable, "by order of the test")); });
  }

 private:
  std::shared_ptr<ListingRequest> taken() {
    for (int i = 0; i < 2000; ++i) {
      {
        std::lock_guard lock(mutex_);
        if (request_) return request_;
      }
      std::this_thread::sleep_for(5ms);
    }
    return nullptr;
  }
  std::mutex mutex_;
  std::shared_ptr<ListingRequest> request_;
  std::vector<ListedEntry> all_;
};

class PagedTest : public CatalogTest {
 protected:
  void SetUp() override {
    auto source = std::make_unique<PagedSource>();
    source_ = source.get();
    listings_ = std::move(source);
    CatalogTest::SetUp();
  }
  Asked<Catalog::OpenedDirectory> open() {
    Asked<Catalog::OpenedDirectory> asked;
    catalog_->open_directory(catalog_->root(), asked.reply());
    return asked;
  }
  // Opened, with "b" and "d" on the first page.
  ArrivingRef open_first_page() {
    auto opener = open();
    source_->page({"b", "d"});
    const auto opened = opener.get();
    return opened ? opened->arriving : nullptr;
  }
  static Asked<int> when_there(const ArrivingRef& arriving, size_t place) {
    Asked<int> asked;
    arriving->when_there(place, [reply = std::make_shared<UniqueFunction<void(Result<int>)>>(asked.reply())](
                                    const Status& s) { s ? (*reply)(0) : (*reply)(fail(s.error())); });
    return asked;
  }
  static std::vector<std::string> names(const ArrivingRef& arriving) {
    std::vector<std::string> out;
    for (size_t i = 0; const DirectoryEntry* e = arriving->at(i); ++i) out.push_back(e->name);
    return out;
  }

  PagedSource* source_ = nullptr;
};

TEST_F(PagedTest, TheFirstPageOpensTheDirectory) {
  const ArrivingRef arriving = open_first_page();
  ASSERT_TRUE(arriving);
  EXPECT_THAT(names(arriving), ElementsAre("b", "d"));
  EXPECT_TRUE(when_there(arriving, 1).is_answered());
  auto third = when_there(arriving, 2);
  EXPECT_FALSE(third.is_answered(20ms));
  source_->page({"a", "c"});
  EXPECT_THAT(third.get(), Succeeds());
  auto end = when_there(arriving, 5);
  source_->last_page({"e"});
  EXPECT_THAT(end.get(), Succeeds());
  EXPECT_EQ(arriving->at(5), nullptr);
  EXPECT_THAT(names(arriving), ElementsAre("b", "d", "a", "c", "e"));
}

TEST_F(PagedTest, WhoComesLaterSharesWhatHasArrived) {
  const ArrivingRef arriving = open_first_page();
  auto second = open();
  ASSERT_THAT(second.get(), Succeeds());
  EXPECT_EQ(second.get()->arriving, arriving);
  source_->last_page({"a"});
  EXPECT_THAT(when_there(arriving, ArrivingDirectory::kEnd).get(), Succeeds());
  auto third = open();
  ASSERT_THAT(third.get(), Succeeds());
  ASSERT_TRUE(third.get()->snapshot);
  EXPECT_EQ(metrics_.listings_fetched, 1u);
}

TEST_F(PagedTest, TheSnapshotHasTheNumbersThatWereShown) {
  const ArrivingRef arriving = open_first_page();
  const Ino b = arriving->at(0)->ino, d = arriving->at(1)->ino;
  auto whole = list();
  EXPECT_FALSE(whole.is_answered(20ms)) << "a snapshot is all of it";
  source_->last_page({"a"});
  const DirectoryRef snapshot = *whole.get();
  EXPECT_EQ(snapshot->find("b")->ino, b);
  EXPECT_EQ(snapshot->find("d")->ino, d);
  EXPECT_NE(snapshot->find("a")->ino, 0u);
  EXPECT_EQ(arriving->at(2)->ino, snapshot->find("a")->ino);
}

TEST_F(PagedTest, AnEntryThatHasArrivedCanBeUsed) {
  const ArrivingRef arriving = open_first_page();
  EXPECT_EQ(stat("d").get()->ino, arriving->at(1)->ino);
  EXPECT_THAT(confirm(*arriving->at(1)).get(), Succeeds());
  auto later = stat("a");
  EXPECT_FALSE(later.is_answered(20ms));
  source_->last_page({"a"});
  EXPECT_THAT(later.get(), Succeeds());
}

TEST_F(PagedTest, AVersionThatAReaderFoundToBeGoneStaysGone) {
  const ArrivingRef arriving = open_first_page();
  catalog_->distrust(node_of(*arriving->at(0)));
  auto again = stat("b");
  EXPECT_FALSE(again.is_answered(20ms));
  source_->last_page({"a"});
  serve_head(head(100, "\"v2\""));
  EXPECT_NE(again.get()->ino, arriving->at(0)->ino);
}

TEST_F(PagedTest, AListingThatBreaksOffIsAnErrorAndNoneOfItsNumbersIsUsedAgain) {
  const ArrivingRef arriving = open_first_page();
  const Ino b = arriving->at(0)->ino, d = arriving->at(1)->ino;
  auto more = when_there(arriving, 2);
  source_->break_off();
  EXPECT_THAT(more.get(), FailsWith(ErrorCode::kUnreachable));
  EXPECT_THAT(when_there(arriving, 2).get(), FailsWith(ErrorCode::kUnreachable));
  EXPECT_TRUE(when_there(arriving, 1).is_answered()) << "what has come has come";
  EXPECT_THAT(superseded(2), ::testing::UnorderedElementsAre(b, d));
  auto again = list();
  while (metrics_.listings_fetched < 2) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(10ms);
  source_->last_page({"b"});
  EXPECT_NE((*again.get())->find("b")->ino, b);
}

TEST_F(PagedTest, WhereAnOldListingIsKnownPagesAreNotShown) {
  auto first = list();
  source_->last_page({"a"});
  ASSERT_THAT(first.get(), Succeeds());
  become_old();
  auto opener = open();
  while (metrics_.listings_fetched < 2) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(10ms);
  source_->page({"a", "b"});
  EXPECT_FALSE(opener.is_answered(20ms));
  source_->last_page({"c"});
  ASSERT_THAT(opener.get(), Succeeds());
  EXPECT_EQ(opener.get()->snapshot->entries.size(), 3u);
}

TEST_F(PagedTest, AtTheEndWhoWaitsForMoreIsAnswered) {
  const ArrivingRef arriving = open_first_page();
  auto more = when_there(arriving, 2);
  catalog_->stop();
  EXPECT_THAT(more.get(), FailsWith(ErrorCode::kCancelled));
}

// --- the URL of a single file --------------------------------------------------------------------------------------

class SingleFileTest : public CatalogTest {
 protected:
  void SetUp() override {
    root_ = RemoteRoot{*Url::parse("http://x/dir/big%20file.bin"), RemoteFile{}};
    CatalogTest::SetUp();
  }
};

TEST_F(SingleFileTest, IsADirectoryWithThatFile) {
  auto asked = list();
  const DocumentRequest request = answer_document(head(5000, "\"v1\"", kLongAgo));
  EXPECT_TRUE(request.head_only);
  EXPECT_EQ(request.url, "http://x/dir/big%20file.bin");
  const auto listing = asked.get();
  ASSERT_THAT(listing, Succeeds());
  ASSERT_EQ((*listing)->entries.size(), 1u);
  const DirectoryEntry& e = (*listing)->entries[0];
  EXPECT_EQ(e.name, "big file.bin");
  EXPECT_EQ(e.size, 5000u);
  EXPECT_EQ(e.mtime, kLongAgo);
  EXPECT_EQ(catalog_->url_of(*node_of(e)), "http://x/dir/big%20file.bin");
}

TEST_F(SingleFileTest, AnUnchangedFileIsConfirmed) {
  auto asked = list();
  serve_head(head(5000));
  const DirectoryEntry e = (*asked.get())->entries[0];
  become_old();
  auto again = confirm(e);
  serve_head(head(5000));
  EXPECT_THAT(again.get(), Succeeds());
}

TEST_F(SingleFileTest, AChangedFileIsStaleAndHasANewNumber) {
  auto asked = list();
  serve_head(head(5000));
  const DirectoryEntry e = (*asked.get())->entries[0];
  become_old();
  auto again = confirm(e);
  serve_head(head(6000));
  EXPECT_THAT(again.get(), FailsWith(ErrorCode::kStale));
  EXPECT_THAT(superseded(1), ElementsAre(e.ino));
}

// --- the end -------------------------------------------------------------------------------------------------------

TEST_F(CatalogTest, AtTheEndEverybodyWhoWaitsIsAnswered) {
  know({{"size unknown", std::nullopt}}, {"d"});
  auto head = stat("size unknown");
  auto listing = list(node_of(known("d")));
  auto entry = stat("x", node_of(known("d")));
  ASSERT_TRUE(fetcher_.take_document());
  ASSERT_TRUE(fetcher_.take_document());
  catalog_->stop();
  EXPECT_THAT(head.get(), FailsWith(ErrorCode::kCancelled));
  EXPECT_THAT(listing.get(), FailsWith(ErrorCode::kCancelled));
  EXPECT_THAT(entry.get(), FailsWith(ErrorCode::kCancelled));
}

TEST_F(CatalogTest, WhoAsksWhileItEndsIsAnsweredToo) {
  for (int round = 0; round < 50; ++round) {
    std::vector<Asked<DirectoryRef>> all;
    std::thread asker([&] {
      for (int i = 0; i < 20; ++i) all.push_back(list());
    });
    std::this_thread::yield();
    catalog_->stop();
    asker.join();
    for (auto& asked : all) ASSERT_TRUE(asked.is_answered(5s)) << "round " << round;
    restart();
  }
}

TEST_F(CatalogTest, AnAnswerAfterTheEndIsDropped) {
  auto asked = list();
  auto request = fetcher_.take_document();
  ASSERT_TRUE(request);
  catalog_->stop();
  request->done(page({{"a"}}));
  EXPECT_THAT(asked.get(), FailsWith(ErrorCode::kCancelled));
}

}  // namespace
}  // namespace wormhole
