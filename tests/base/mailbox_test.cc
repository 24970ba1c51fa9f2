#include "base/mailbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace wormhole {
namespace {

using namespace std::chrono_literals;

class MailboxTest : public ::testing::Test {
 protected:
  static Task append(std::vector<int>& to, int value) {
    return [&to, value] { to.push_back(value); };
  }
  void run_all(Mailbox& box) {
    std::vector<Task> tasks;
    box.drain(tasks);
    for (Task& task : tasks) task();
  }
};

TEST_F(MailboxTest, MessagesArriveInTheOrderOfTheirPosts) {
  Mailbox box;
  std::vector<int> seen;
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(box.post(append(seen, i)));
  run_all(box);
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(MailboxTest, DrainTakesEverythingThatWaits) {
  Mailbox box;
  box.post([] {});
  EXPECT_FALSE(box.empty());
  std::vector<Task> tasks;
  box.drain(tasks);
  EXPECT_EQ(tasks.size(), 1u);
  EXPECT_TRUE(box.empty());
}

TEST_F(MailboxTest, AMessageThatIsPostedWhileMessagesRunWaitsForTheNextDrain) {
  Mailbox box;
  std::vector<int> seen;
  box.post([&] { box.post(append(seen, 1)); });
  run_all(box);
  EXPECT_TRUE(seen.empty());
  run_all(box);
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST_F(MailboxTest, AClosedBoxRefusesAndDropsTheMessage) {
  Mailbox box;
  box.close();
  auto held = std::make_shared<int>(0);
  EXPECT_FALSE(box.post([held] {}));
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(MailboxTest, WhatWaitedBeforeTheCloseCanStillBeDrained) {
  Mailbox box;
  std::vector<int> seen;
  box.post(append(seen, 1));
  box.close();
  run_all(box);
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST_F(MailboxTest, MessagesThatNobodyDrainsAreDestroyedWithTheBox) {
  auto held = std::make_shared<int>(0);
  {
    Mailbox box;
    box.post([held] {});
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(MailboxTest, TheWakerIsCalledWhenTheBoxWasEmptyAndNotOtherwise) {
  int wakes = 0;
  Mailbox box([&] { ++wakes; });
  box.post([] {});
  box.post([] {});
  EXPECT_EQ(wakes, 1);
  run_all(box);
  box.post([] {});
  EXPECT_EQ(wakes, 2);
}

TEST_F(MailboxTest, WhatCanWaitCallsNobodyAndKeepsItsPlace) {
  int calls = 0;
  Mailbox box([&calls] { ++calls; });
  std::vector<int> seen;
  EXPECT_TRUE(box.post_later(append(seen, 1)));
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(box.empty()) << "nothing that is to be run now";
  EXPECT_TRUE(box.post(append(seen, 2)));
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(box.post_later(append(seen, 3)));
  EXPECT_EQ(calls, 1);
  run_all(box);
  EXPECT_EQ(seen, (std::vector<int>{1, 2, 3}));
  box.close();
  EXPECT_FALSE(box.post_later(append(seen, 4)));
}

TEST_F(MailboxTest, TooMuchThatCanWaitDoesNot) {
  int calls = 0;
  Mailbox box([&calls] { ++calls; });
  for (int i = 0; i < 100'000 && calls == 0; ++i) box.post_later([] {});
  EXPECT_EQ(calls, 1);
}

TEST_F(MailboxTest, TheWakerMayLookIntoTheBox) {
  Mailbox* self = nullptr;
  bool was_empty = true;
  Mailbox box([&] { was_empty = self->empty(); });  // would deadlock if it were called under the lock
  self = &box;
  box.post([] {});
  EXPECT_FALSE(was_empty);
}

TEST_F(MailboxTest, WaitingEndsAtTheDeadline) {
  Mailbox box;
  const TimePoint begin = std::chrono::steady_clock::now();
  box.wait_until(begin + 20ms);
  EXPECT_GE(std::chrono::steady_clock::now(), begin + 20ms);
}

TEST_F(MailboxTest, AMessageEndsTheWaiting) {
  Mailbox box;
  std::thread sender([&] {
    std::this_thread::sleep_for(10ms);
    box.post([] {});
  });
  const TimePoint begin = std::chrono::steady_clock::now();
  box.wait_until(begin + 60s);
  EXPECT_FALSE(box.empty());
  EXPECT_LT(std::chrono::steady_clock::now(), begin + 30s);
  sender.join();
}

TEST_F(MailboxTest, NothingIsLostOrReorderedAmongManySenders) {
  constexpr int kSenders = 4;
  constexpr int kMessages = 2000;
  Mailbox box;
  std::vector<std::vector<int>> seen(kSenders);
  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kMessages; ++i) box.post(append(seen[static_cast<size_t>(s)], i));
    });
  }
  const auto count = [&] {
    size_t n = 0;
    for (auto& v : seen) n += v.size();
    return n;
  };
  while (count() < kSenders * kMessages) {
    box.wait_until(std::chrono::steady_clock::now() + 1s);
    run_all(box);
  }
  for (std::thread& sender : senders) sender.join();
  for (auto& v : seen) {
    for (int i = 0; i < kMessages; ++i) EXPECT_EQ(v[static_cast<size_t>(i)], i);
  }
}

}  // namespace
}  // namespace wormhole
