// FUSE over io_uring: the kernel is given entries, each with room for one request and for the payload of its answer. It
// fills one in and completes it; the daemon answers in the same entry and, with the same system call, waits for the
// next. Nothing is read or written, and a reader's processor need not be left.
//
//     reader ──► the queue of its processor ──► entry ──► ring thread ──► libfuse ──► fs/ops.cc
//        ▲                                                                               │
//        └─────────────────── commit ◄── ring thread ◄── answer in the entry's payload ◄─┘
//
// libfuse has rings of its own from 3.18 on, but hands requests that came by them no interrupts: nobody who waits for a
// silent server could be killed. So the rings are ours, and libfuse sees what they bring as if it had read it from
// /dev/fuse; it does the rest: decoding, interrupts, encoding. /dev/fuse stays open beside them: INIT, FORGET and
// INTERRUPT always come by it.
//
// Thread: a ring and its entries belong to its thread, but for an entry in hand: that is whoever's answers it. An
// answer of another thread goes back by a list and an eventfd. attach(), stop() and the destructor by the main thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/thread_annotations.h"
#include "fs/transport.h"

struct fuse_init_in;
struct fuse_session;
struct iovec;

namespace wormhole {

class UringTransport {
 public:
  // For a session that is mounted, and of which nothing was read yet: it reads and writes through the result, which its
  // userdata points to (fs/ops.h). `threads`: how many may serve rings.
  static Result<std::unique_ptr<UringTransport>> attach(fuse_session* session, unsigned threads);
  // After stop(), and when nobody answers any more.
  ~UringTransport();

  // Waits for INIT, the kernel's first request: which way do the others come? An error: none, for the kernel waits for
  // entries that it does not take.
  Result<FuseTransportState> wait_until_decided();
  // The session's loop has ended: what was not decided by then never will be.
  void loop_has_ended();
  // The ring threads end; what is in hand may be answered all the same, and reaches nobody.
  void stop();

  // Where the answer of the request goes that is just being handed to this thread: bytes that are put there need no
  // further copy in the daemon. Empty when it came by /dev/fuse.
  static std::span<std::byte> payload();

 private:
  struct Entry;
  struct Ring;
  class Memory;

  UringTransport(fuse_session* session, unsigned threads);

  static ssize_t on_read(int fd, void* buffer, size_t size, void* userdata);
  static ssize_t on_write(int fd, iovec* parts, int count, void* userdata);

  ssize_t answer_init(int fd, iovec* parts, int count);
  Status make_rings(size_t payload_size);
  void start_rings();
  void decide(Result<FuseTransportState> state);

  void run(Ring& ring);
  void register_entries(Ring& ring);
  void serve(Ring& ring, Entry& entry);
  ssize_t answer(Entry& entry, const iovec* parts, int count);
  Entry* take(uint64_t unique);

  fuse_session* const session_;
  const unsigned threads_;
  std::vector<std::unique_ptr<Ring>> rings_;
  std::atomic<unsigned> rings_registered_{0};
  std::atomic<bool> stopping_{false};

  // INIT: its id while it is not answered, and whether the kernel offered rings in it.
  uint64_t init_ = 0;
  bool offered_ = false;
  std::atomic_flag is_decided_;
  std::promise<Result<FuseTransportState>> decided_;

  Mutex mutex_;
  std::unordered_map<uint64_t, Entry*> in_hand_ GUARDED_BY(mutex_);  // by the kernel's id of the request
};

}  // namespace wormhole
