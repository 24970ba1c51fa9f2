#include "tools/control.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::Succeeds;

class ControlTest : public ::testing::Test {
 protected:
  // Root's sockets are in /run all the same; this process has one of its own there.
  void SetUp() override { ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1); }

  test::TemporaryDirectory directory_;
};

TEST_F(ControlTest, ARequestIsAnsweredAndARefusalIsAnError) {
  auto server = ControlServer::start([](const nlohmann::json& request, const auto&) -> nlohmann::json {
    if (request.value("do", "") != "add") return {{"error", "only add"}};
    return {{"sum", request["a"].get<int>() + request["b"].get<int>()}};
  });
  ASSERT_THAT(server, Succeeds());
  const auto answer = ask_mount(::getpid(), {{"do", "add"}, {"a", 2}, {"b", 3}});
  ASSERT_THAT(answer, Succeeds());
  EXPECT_EQ((*answer)["sum"], 5);
  EXPECT_THAT(ask_mount(::getpid(), {{"do", "subtract"}}), FailsWith(ErrorCode::kInvalid));
}

TEST_F(ControlTest, NobodyThereIsAnError) {
  EXPECT_THAT(ask_mount(::getpid(), {{"do", "add"}}), FailsWith(ErrorCode::kUnreachable));
}

TEST_F(ControlTest, ALongRequestKeepsNoOtherWaiting) {
  std::promise<void> go_on;
  auto wait = go_on.get_future().share();
  auto server = ControlServer::start([wait](const nlohmann::json& request, const auto&) -> nlohmann::json {
    if (request.value("do", "") == "wait") wait.wait();
    return {{"files", request.value("files", nlohmann::json::array()).size()}};
  });
  ASSERT_THAT(server, Succeeds());
  auto slow = std::async([] { return ask_mount(::getpid(), {{"do", "wait"}}); });
  const auto quick = ask_mount(::getpid(), {{"do", "count"}, {"files", std::vector<uint64_t>(10'000, ~uint64_t{0})}});
  ASSERT_THAT(quick, Succeeds());
  EXPECT_EQ((*quick)["files"], 10'000);
  go_on.set_value();
  EXPECT_THAT(slow.get(), Succeeds());
}

TEST_F(ControlTest, WhatIsSaidBeforeTheAnswerIsHeardInOrder) {
  auto server = ControlServer::start([](const nlohmann::json& request, const auto& say) -> nlohmann::json {
    for (int i = 0; i < request["to"].template get<int>(); ++i) say(i);
    return {{"done", true}};
  });
  ASSERT_THAT(server, Succeeds());
  std::vector<int> heard;
  const auto answer = ask_mount(::getpid(), {{"to", 1000}}, [&](const nlohmann::json& said) {
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
  auto server = ControlServer::start([&](const nlohmann::json&, const auto& say) -> nlohmann::json {
    while (say("still at it")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    noticed.set_value();
    return {};
  });
  ASSERT_THAT(server, Succeeds());
  EXPECT_THAT(ask_mount(::getpid(), {{"do", "work"}}, [](const nlohmann::json&) { return false; }),
              FailsWith(ErrorCode::kCancelled));
  noticed.get_future().wait();
}

}  // namespace
}  // namespace wormhole
