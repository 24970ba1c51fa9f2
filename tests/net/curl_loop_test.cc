#include "net/curl_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/range_server.h"

namespace wormhole {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int kLong = 10'000;  // milliseconds: a test that waits for them has failed

class CurlLoopTest : public testing::Test {
 protected:
  ~CurlLoopTest() override {
    for (CURL* easy : running_) remove(easy);
  }

  CURL* add(const std::string& name) {
    CURL* easy = ::curl_easy_init();
    ::curl_easy_setopt(easy, CURLOPT_URL, server_.url(name).c_str());
    ::curl_easy_setopt(
        easy, CURLOPT_WRITEFUNCTION, +[](char* bytes, size_t size, size_t count, void* text) {
          static_cast<std::string*>(text)->append(bytes, size * count);
          return size * count;
        });
    ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, &text_);
    ::curl_multi_add_handle(loop_.multi(), easy);
    running_.push_back(easy);
    return easy;
  }

  void remove(CURL* easy) {
    ::curl_multi_remove_handle(loop_.multi(), easy);
    ::curl_easy_cleanup(easy);
  }

  // Until `count` transfers have ended. What they ended with, one after the other.
  std::vector<CURLcode> ends(size_t count) {
    std::vector<CURLcode> codes;
    while (codes.size() < count && steady_clock::now() < give_up_) {
      loop_.perform();
      int left = 0;
      while (CURLMsg* message = ::curl_multi_info_read(loop_.multi(), &left)) codes.push_back(message->data.result);
      if (codes.size() < count) loop_.wait(kLong);
    }
    return codes;
  }

  // Whether wait() came back long before its time.
  bool comes_back() {
    loop_.wait(kLong);
    return steady_clock::now() < give_up_;
  }

  const steady_clock::time_point give_up_ = steady_clock::now() + std::chrono::milliseconds(kLong / 2);
  test::RangeServer server_;
  CurlLoop loop_;
  std::string text_;
  std::vector<CURL*> running_;
};

TEST_F(CurlLoopTest, BringsWhatWasAdded) {
  server_.put_bytes("a", std::string(300'000, 'x'));
  add("a");
  EXPECT_THAT(ends(1), testing::ElementsAre(CURLE_OK));
  EXPECT_EQ(text_, std::string(300'000, 'x'));
}

TEST_F(CurlLoopTest, BringsMoreAtATimeThanItTakesEventsAtOnce) {
  server_.put_bytes("a", std::string(1000, 'x'));
  for (int i = 0; i < 200; ++i) add("a");
  EXPECT_THAT(ends(200), testing::Each(CURLE_OK));
  EXPECT_EQ(text_.size(), 200'000u);
}

TEST_F(CurlLoopTest, KeepsTheTimesOfLibcurl) {
  server_.put_bytes("a", "x");
  server_.hold("a");
  ::curl_easy_setopt(add("a"), CURLOPT_TIMEOUT_MS, 100L);
  EXPECT_THAT(ends(1), testing::ElementsAre(CURLE_OPERATION_TIMEDOUT));
}

TEST_F(CurlLoopTest, WaitsNoLongerThanItMay) {
  const auto begin = steady_clock::now();
  EXPECT_FALSE(loop_.wait(20));
  EXPECT_GE(steady_clock::now() - begin, 19ms);
}

TEST_F(CurlLoopTest, IsWokenByAnotherThread) {
  std::thread other([&] {
    std::this_thread::sleep_for(10ms);
    loop_.wake();
  });
  EXPECT_TRUE(comes_back());
  other.join();
}

TEST_F(CurlLoopTest, AWakeUpIsNotLostInWhatIsPerformedBeforeTheWait) {
  loop_.wake();
  loop_.perform();
  EXPECT_TRUE(comes_back());
}

TEST_F(CurlLoopTest, OneWaitTakesAllWakeUpsThatCameBefore) {
  loop_.wake();
  loop_.wake();
  EXPECT_FALSE(loop_.wait(kLong));  // and is no socket
  const auto begin = steady_clock::now();
  loop_.wait(20);
  EXPECT_GE(steady_clock::now() - begin, 19ms);
}

}  // namespace
}  // namespace wormhole
