#include "tools/control.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::Succeeds;

class ControlTest : public ::testing::Test {
 protected:
  // Not where commands look: they would ask it for its status.
  Result<std::unique_ptr<ControlServer>> start(ControlServer::Handler handler) {
    return ControlServer::start(std::move(handler), directory_.path());
  }
  Result<nlohmann::json> ask(const nlohmann::json& request, const Heard& heard = nullptr) const {
    return ask_mount(::getpid(), request, heard, directory_.path());
  }

  const test::TemporaryDirectory directory_;
};

TEST_F(ControlTest, ARequestIsAnsweredAndARefusalIsAnError) {
  auto server = start([](const nlohmann::json& request, const auto&) -> nlohmann::json {
    if (request.value("do", "") != "add") return {{"error", "only add"}};
    return {{"sum", request["a"].get<int>() + request["b"].get<int>()}};
  });
  ASSERT_THAT(server, Succeeds());
  const auto answer = ask({{"do", "add"}, {"a", 2}, {"b", 3}});
  ASSERT_THAT(answer, Succeeds());
  EXPECT_EQ((*answer)["sum"], 5);
  EXPECT_THAT(ask({{"do", "subtract"}}), FailsWith(ErrorCode::kInvalid));
}

TEST_F(ControlTest, NobodyThereIsAnError) { EXPECT_THAT(ask({{"do", "add"}}), FailsWith(ErrorCode::kUnreachable)); }

TEST_F(ControlTest, ALongRequestKeepsNoOtherWaiting) {
  std::promise<void> go_on;
  auto wait = go_on.get_future().share();
  auto server = start([wait](const nlohmann::json& request, const auto&) -> nlohmann::json {
    if (request.value("do", "") == "wait") wait.wait();
    return {{"files", request.value("files", nlohmann::json::array()).size()}};
  });
  ASSERT_THAT(server, Succeeds());
  auto slow = std::async([this] { return ask({{"do", "wait"}}); });
  const auto quick = ask({{"do", "count"}, {"files", std::vector<uint64_t>(10'000, ~uint64_t{0})}});
  ASSERT_THAT(quick, Succeeds());
  EXPECT_EQ((*quick)["files"], 10'000);
  go_on.set_value();
  EXPECT_THAT(slow.get(), Succeeds());
}

TEST_F(ControlTest, WhatIsSaidBeforeTheAnswerIsHeardInOrder) {
  auto server = start([](const nlohmann::json& request, const auto& say) -> nlohmann::json {
    for (int i = 0; i < request["to"].template get<int>(); ++i) say(i);
    return {{"done", true}};
  });
  ASSERT_THAT(server, Succeeds());
  std::vector<int> heard;
  const auto answer = ask({{"to", 1000}}, [&](const nlohmann::json& said) {
    heard.push_back(said.get<int>());
    return true;
  });
  ASSERT_THAT(answer, Succeeds());
  EXPECT_EQ((*answer)["done"], true);
  std::vector<int> all(1000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(heard, all);
}

TEST_F(ControlTest, WhoHasHeardEnoughGoesAndTheDaemonNotices) {
  std::promise<void> noticed;
  auto server = start([&](const nlohmann::json&, const auto& say) -> nlohmann::json {
    while (say("still at it")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    noticed.set_value();
    return {};
  });
  ASSERT_THAT(server, Succeeds());
  EXPECT_THAT(ask({{"do", "work"}}, [](const nlohmann::json&) { return false; }), FailsWith(ErrorCode::kCancelled));
  noticed.get_future().wait();
}

}  // namespace
}  // namespace wormhole
