// The same rules for both backends: io_uring where the kernel allows it, threads everywhere.
#include "base/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file_descriptor.h"
#include "tests/support/pattern.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using namespace std::chrono_literals;
using test::expected_bytes;
using test::first_mismatch;

class EventLoopTest : public ::testing::TestWithParam<EventLoop::Backend> {
 protected:
  void SetUp() override {
    loop_ = EventLoop::create(GetParam());
    if (loop_ == nullptr) GTEST_SKIP() << "this kernel, or this container, refuses io_uring";
  }

  // Runs `body` as a message on the loop, and the loop to its end.
  template <typename F>
  void run(F body) {
    loop_->post(std::move(body));
    loop_->run();
  }

  FileDescriptor file(const std::string& name = "file") {
    return FileDescriptor(::open((directory_ / name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  }
  FileDescriptor file_with(uint64_t seed, size_t size) {
    FileDescriptor fd = file();
    const auto bytes = expected_bytes(seed, 0, size);
    EXPECT_EQ(::pwrite(fd.get(), bytes.data(), size, 0), static_cast<ssize_t>(size));
    return fd;
  }

  // One operation in a run of its own.
  int64_t read(int fd, uint64_t offset, void* into, size_t length) {
    int64_t out = INT64_MIN;
    run([&] {
      loop_->read(fd, offset, into, length, [&](int64_t result) {
        out = result;
        loop_->stop();
      });
    });
    return out;
  }
  int64_t write(int fd, uint64_t offset, const void* from, size_t length) {
    int64_t out = INT64_MIN;
    run([&] {
      loop_->write(fd, offset, from, length, [&](int64_t result) {
        out = result;
        loop_->stop();
      });
    });
    return out;
  }

  test::TemporaryDirectory directory_;
  std::unique_ptr<EventLoop> loop_;
};

std::string backend_name(const ::testing::TestParamInfo<EventLoop::Backend>& info) {
  return info.param == EventLoop::Backend::kUring ? "Uring" : "Threads";
}

INSTANTIATE_TEST_SUITE_P(Backends, EventLoopTest,
                         ::testing::Values(EventLoop::Backend::kUring, EventLoop::Backend::kThreads), backend_name);

TEST_P(EventLoopTest, SaysWhatItIs) {
  EXPECT_STREQ(loop_->name(), GetParam() == EventLoop::Backend::kUring ? "io_uring" : "threads");
}

TEST(EventLoop, AutoAlwaysGivesALoop) { EXPECT_NE(EventLoop::create(), nullptr); }

// --- messages ------------------------------------------------------------------------------------------------------

TEST_P(EventLoopTest, PostsRunInTheirOrderOnTheThreadThatRuns) {
  std::vector<int> seen;
  const auto me = std::this_thread::get_id();
  for (int i = 0; i < 100; ++i) {
    loop_->post([&, i] {
      EXPECT_EQ(std::this_thread::get_id(), me);
      seen.push_back(i);
    });
  }
  run([&] { loop_->stop(); });
  ASSERT_EQ(seen.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

TEST_P(EventLoopTest, AMessageMayPostAnother) {
  int depth = 0;
  UniqueFunction<void()> next;
  next = [&] {
    if (++depth == 1000) return loop_->stop();
    loop_->post([&] { next(); });
  };
  run([&] { next(); });
  EXPECT_EQ(depth, 1000);
}

TEST_P(EventLoopTest, AfterTheEndAMessageIsRefusedAndDestroyed) {
  run([&] { loop_->stop(); });
  auto held = std::make_shared<int>(0);
  EXPECT_FALSE(loop_->post([held] {}));
  EXPECT_EQ(held.use_count(), 1);
}

TEST_P(EventLoopTest, AMessageWakesASleepingLoop) {
  std::thread sender([&] {
    for (int i = 0; i < 20; ++i) {
      std::promise<void> ran;
      loop_->post([&] { ran.set_value(); });
      ran.get_future().wait();
      std::this_thread::sleep_for(1ms);  // long enough for it to fall asleep
    }
    loop_->stop();
  });
  const TimePoint begin = std::chrono::steady_clock::now();
  loop_->run();
  sender.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 15s);  // a lost wake-up costs a second each
}

TEST_P(EventLoopTest, StopWakesASleepingLoop) {
  std::thread stopper([&] {
    std::this_thread::sleep_for(20ms);
    loop_->stop();
  });
  const TimePoint begin = std::chrono::steady_clock::now();
  loop_->run();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 900ms);
  stopper.join();
}

TEST_P(EventLoopTest, ManyThreadsMayPost) {
  constexpr int kSenders = 4;
  constexpr int kMessages = 2000;
  std::vector<int> next(kSenders, 0);
  int total = 0;
  std::vector<std::thread> senders;
  for (size_t s = 0; s < kSenders; ++s) {
    senders.emplace_back([&, s] {
      for (int i = 0; i < kMessages; ++i) {
        loop_->post([&, s, i] {
          EXPECT_EQ(next[s]++, i);
          if (++total == kSenders * kMessages) loop_->stop();
        });
      }
    });
  }
  loop_->run();
  for (std::thread& t : senders) t.join();
  EXPECT_EQ(total, kSenders * kMessages);
}

TEST_P(EventLoopTest, TheTickComesAboutEveryPeriod) {
  int ticks = 0;
  loop_->every(10ms, [&] {
    if (++ticks == 5) loop_->stop();
  });
  const TimePoint begin = std::chrono::steady_clock::now();
  loop_->run();
  const Duration took = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(took, 45ms);
  EXPECT_LT(took, 5s);
}

TEST_P(EventLoopTest, TheTickComesAlsoWhenMessagesNeverPause) {
  bool ticked = false;
  UniqueFunction<void()> again;
  again = [&] {
    if (!ticked) loop_->post([&] { again(); });
  };
  loop_->every(5ms, [&] {
    ticked = true;
    loop_->stop();
  });
  run([&] { again(); });
  EXPECT_TRUE(ticked);
}

// --- disk operations -----------------------------------------------------------------------------------------------

TEST_P(EventLoopTest, AReadBringsTheBytesOfItsOffset) {
  const FileDescriptor fd = file_with(1, 100'000);
  std::vector<std::byte> bytes(50'000);
  EXPECT_EQ(read(fd.get(), 12'345, bytes.data(), bytes.size()), 50'000);
  EXPECT_EQ(first_mismatch(1, 12'345, bytes), std::nullopt);
}

TEST_P(EventLoopTest, AWriteLandsAtItsOffset) {
  const FileDescriptor fd = file();
  const auto bytes = expected_bytes(2, 70'000, 30'000);
  EXPECT_EQ(write(fd.get(), 70'000, bytes.data(), bytes.size()), 30'000);
  std::vector<std::byte> seen(30'000);
  ASSERT_EQ(::pread(fd.get(), seen.data(), seen.size(), 70'000), 30'000);
  EXPECT_EQ(first_mismatch(2, 70'000, seen), std::nullopt);
}

TEST_P(EventLoopTest, AReadOverTheEndIsShort) {
  const FileDescriptor fd = file_with(1, 1000);
  std::vector<std::byte> bytes(5000);
  EXPECT_EQ(read(fd.get(), 600, bytes.data(), bytes.size()), 400);
  EXPECT_EQ(first_mismatch(1, 600, std::span(bytes).first(400)), std::nullopt);
}

TEST_P(EventLoopTest, AReadBehindTheEndBringsNothing) {
  const FileDescriptor fd = file_with(1, 1000);
  char byte = 0;
  EXPECT_EQ(read(fd.get(), 1000, &byte, 1), 0);
}

TEST_P(EventLoopTest, AnErrorIsANegativeErrno) {
  char byte = 0;
  EXPECT_EQ(read(-1, 0, &byte, 1), -EBADF);
}

TEST_P(EventLoopTest, AWriteToAFileThatIsOpenForReadingFails) {
  file();
  const FileDescriptor read_only(::open((directory_ / "file").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(write(read_only.get(), 0, "x", 1), -EBADF);
}

TEST_P(EventLoopTest, AFullDiskIsENOSPC) {
  const FileDescriptor full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(write(full.get(), 0, "x", 1), -ENOSPC);
}

TEST_P(EventLoopTest, ACompletionMayStartTheNextOperation) {
  const FileDescriptor fd = file_with(1, 64 * 1024);
  std::vector<std::byte> bytes(64 * 1024);
  size_t at = 0;
  UniqueFunction<void()> step;
  step = [&] {
    if (at == bytes.size()) return loop_->stop();
    loop_->read(fd.get(), at, bytes.data() + at, 1024, [&](int64_t n) {
      ASSERT_EQ(n, 1024);
      at += 1024;
      step();
    });
  };
  run([&] { step(); });
  EXPECT_EQ(first_mismatch(1, 0, bytes), std::nullopt);
}

TEST_P(EventLoopTest, ACompletionNeverRunsInsideTheCallThatStarts) {
  const FileDescriptor fd = file_with(1, 1000);
  char byte = 0;
  bool inside = false;
  run([&] {
    inside = true;
    loop_->read(fd.get(), 0, &byte, 1, [&](int64_t) {
      EXPECT_FALSE(inside);
      loop_->stop();
    });
    inside = false;
  });
}

TEST_P(EventLoopTest, MoreOperationsThanSlotsAllComplete) {
  constexpr size_t kOperations = 1000;  // a ring has 128 slots
  constexpr size_t kPiece = 512;
  const FileDescriptor fd = file_with(3, kOperations * kPiece);
  std::vector<std::byte> bytes(kOperations * kPiece);
  size_t done = 0;
  run([&] {
    for (size_t i = 0; i < kOperations; ++i) {
      loop_->read(fd.get(), i * kPiece, bytes.data() + i * kPiece, kPiece, [&](int64_t n) {
        EXPECT_EQ(n, static_cast<int64_t>(kPiece));
        if (++done == kOperations) loop_->stop();
      });
    }
  });
  EXPECT_EQ(done, kOperations);
  EXPECT_EQ(first_mismatch(3, 0, bytes), std::nullopt);
}

TEST_P(EventLoopTest, ReadsAndWritesOfManyFilesGoTogether) {
  constexpr size_t kFiles = 20;
  std::vector<FileDescriptor> files;
  std::vector<std::vector<std::byte>> written;
  std::vector<std::vector<std::byte>> seen(kFiles, std::vector<std::byte>(10'000));
  for (size_t i = 0; i < kFiles; ++i) {
    files.push_back(file("f" + std::to_string(i)));
    written.push_back(expected_bytes(i, 0, 10'000));
  }
  size_t done = 0;
  run([&] {
    for (size_t i = 0; i < kFiles; ++i) {
      loop_->write(files[i].get(), 0, written[i].data(), 10'000, [&, i](int64_t w) {
        EXPECT_EQ(w, 10'000);
        loop_->read(files[i].get(), 0, seen[i].data(), 10'000, [&](int64_t r) {
          EXPECT_EQ(r, 10'000);
          if (++done == kFiles) loop_->stop();
        });
      });
    }
  });
  for (size_t i = 0; i < kFiles; ++i) EXPECT_EQ(first_mismatch(i, 0, seen[i]), std::nullopt) << i;
}

// --- the end -------------------------------------------------------------------------------------------------------

// A read of a pipe takes as long as the test wants; only io_uring reads pipes.
TEST(EventLoop, StopWaitsForWhatIsInFlight) {
  const auto loop = EventLoop::create(EventLoop::Backend::kUring);
  if (loop == nullptr) GTEST_SKIP() << "io_uring is refused here";
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const FileDescriptor from(ends[0]);
  const FileDescriptor to(ends[1]);
  char byte = 0;
  std::thread writer;
  loop->post([&] {
    loop->read(from.get(), 0, &byte, 1, [&](int64_t n) { EXPECT_EQ(n, 1); });
    loop->stop();
    writer = std::thread([&] {
      std::this_thread::sleep_for(30ms);
      EXPECT_EQ(::write(to.get(), "x", 1), 1);
    });
  });
  loop->run();
  EXPECT_EQ(byte, 'x');
  writer.join();
}

TEST_P(EventLoopTest, StopWaitsForWhatIsQueued) {
  constexpr size_t kOperations = 500;
  const FileDescriptor fd = file_with(3, 4096);
  std::vector<char> bytes(kOperations);
  size_t done = 0;
  run([&] {
    for (size_t i = 0; i < kOperations; ++i) {
      loop_->read(fd.get(), i, &bytes[i], 1, [&](int64_t n) {
        EXPECT_EQ(n, 1);
        ++done;
      });
    }
    loop_->stop();
  });
  EXPECT_EQ(done, kOperations);
}

TEST_P(EventLoopTest, WhatACompletionStartsAfterStopIsWaitedForToo) {
  const FileDescriptor fd = file_with(3, 4096);
  char byte = 0;
  int done = 0;
  run([&] {
    loop_->read(fd.get(), 0, &byte, 1, [&](int64_t) {
      ++done;
      loop_->read(fd.get(), 1, &byte, 1, [&](int64_t) { ++done; });
    });
    loop_->stop();
  });
  EXPECT_EQ(done, 2);
}

// A message that was taken is answered, however close to the end it came: what it starts completes.
TEST_P(EventLoopTest, AMessageThatWasNotRefusedRunsAndItsReadsComplete) {
  const FileDescriptor fd = file_with(3, 4096);
  for (int round = 0; round < 100; ++round) {
    loop_ = EventLoop::create(GetParam());
    std::atomic<int> completed{0};
    std::atomic<bool> ended{false};
    int accepted = 0;
    std::thread sender([&] {
      const auto message = [&] {
        const auto byte = std::make_shared<char>();
        loop_->read(fd.get(), 0, byte.get(), 1, [&completed, byte](int64_t) { ++completed; });
      };
      while (loop_->post(message)) {
        ++accepted;
        while (accepted - completed > 4 && !ended) std::this_thread::yield();
      }
    });
    std::thread stopper([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(10 * round));
      loop_->stop();
    });
    loop_->run();
    ended = true;
    sender.join();
    stopper.join();
    ASSERT_EQ(completed, accepted) << "round " << round;
  }
}

}  // namespace
}  // namespace wormhole
