#include "fs/transport_uring.h"

#include "fs/fuse_version.h"

#include <liburing.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "base/file_descriptor.h"
#include "base/log.h"
#include "base/thread.h"
#include "fs/ops.h"

namespace wormhole {
namespace {

// --- the kernel's interface, which linux/fuse.h has from 6.14 on ---------------------------------------------------

constexpr uint32_t kOverIoUring = 1u << (41 - 32);  // in flags2 of INIT
constexpr uint32_t kRegister = 1, kCommitAndFetch = 2;

// The first part of an entry. The second, for what is longer than an operation's fixed arguments, is the payload.
struct EntryHeader {
  std::byte in_out[128];  // fuse_in_header, then fuse_out_header
  std::byte arguments[128];
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_size;
  uint32_t padding;
  uint64_t reserved;
};
static_assert(sizeof(EntryHeader) == 288);

// In the second half of a submission.
struct Command {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t queue;
  uint8_t padding[6];
};
static_assert(sizeof(Command) == 24);

// --- sizes ---------------------------------------------------------------------------------------------------------

// Entries of a queue: how many requests of one processor may be in hand. A request that waits for a silent server keeps
// its entry, and behind the last one everything waits, even a close(). So: as much read-ahead as the kernel may have in
// the background (fs/ops.cc), and as many again for those who wait by themselves. An entry that was never needed takes
// no memory, and the kernel uses first what was used last.
constexpr unsigned kEntriesOfQueue = 128;
// Of all queues together, where a machine has many processors: what is registered within some milliseconds.
constexpr unsigned kEntries = 4096;

constexpr size_t kPage = 4096;
constexpr size_t kLeastPayload = 8192;  // FUSE_MIN_READ_BUFFER

size_t size_of(const iovec* parts, int count) {
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  return size;
}

}  // namespace

// Zeroed pages, which exist once they are touched.
class UringTransport::Memory {
 public:
  explicit Memory(size_t size)
      : size_(size),
        data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (*this) ::munmap(data_, size_);
  }
  explicit operator bool() const { return data_ != MAP_FAILED; }
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  const size_t size_;
  void* const data_;
};

struct UringTransport::Entry {
  Ring& ring;
  const uint16_t queue;
  EntryHeader& header;
  const std::span<std::byte> payload;
  iovec parts[2] = {{&header, sizeof(EntryHeader)}, {payload.data(), payload.size()}};  // for the kernel
  uint32_t command = kRegister;
  uint64_t commit_id = 0;
};

struct UringTransport::Ring {
  // For the queues `first`, `first` + `step`… below `end`.
  Ring(unsigned first, unsigned step, unsigned end, unsigned entries_of_queue, size_t payload_size)
      : memory((end - first + step - 1) / step * entries_of_queue * (kPage + payload_size)),
        request(sizeof(fuse_in_header) + sizeof(EntryHeader::arguments) + payload_size) {
    if (!memory) return;
    std::byte* place = memory.data();
    for (unsigned queue = first; queue < end; queue += step) {
      for (unsigned i = 0; i < entries_of_queue; ++i, place += kPage + payload_size) {
        auto& header = *reinterpret_cast<EntryHeader*>(place);
        const std::span payload(place + kPage, payload_size);
        entries.push_back(std::unique_ptr<Entry>(  // NOLINT(modernize-make-unique): an aggregate
            new Entry{*this, static_cast<uint16_t>(queue), header, payload}));
      }
    }
  }
  ~Ring() {
    if (is_open) ::io_uring_queue_exit(&uring);
  }

  io_uring uring = {};
  bool is_open = false;
  FileDescriptor wake{::eventfd(0, EFD_CLOEXEC)};
  uint64_t wakes = 0;   // where the ring reads `wake` to
  const Memory memory;  // of the entries: each has a page for its header, and its payload
  std::vector<std::unique_ptr<Entry>> entries;
  size_t lost = 0;  // entries that the kernel has given up: all of them after an unmount
  int processor = -1;
  const Memory request;  // one request in the form of /dev/fuse
  std::thread thread;

  // Entries that other threads have answered.
  Mutex mutex;
  std::vector<Entry*> answered GUARDED_BY(mutex);
  std::atomic<bool> asleep{false};

  io_uring_sqe* next_sqe() {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&uring);
    if (sqe == nullptr) std::terminate();  // cannot be: there are as many as operations under way
    std::memset(sqe, 0, 2 * sizeof(*sqe));
    return sqe;
  }
  void prepare_wake() {
    io_uring_sqe* const sqe = next_sqe();
    ::io_uring_prep_read(sqe, wake.get(), &wakes, sizeof(wakes), 0);
    ::io_uring_sqe_set_data(sqe, nullptr);
  }
  // Registers the entry, or hands its answer in, and lets the kernel have it for the next request.
  void prepare(Entry& entry) {
    io_uring_sqe* const sqe = next_sqe();
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = 0;
    sqe->cmd_op = entry.command;
    if (entry.command == kRegister) {
      sqe->addr = reinterpret_cast<uint64_t>(entry.parts);
      sqe->len = 2;
    }
    const Command command{0, entry.commit_id, entry.queue, {}};
    std::memcpy(sqe->cmd, &command, sizeof(command));
    ::io_uring_sqe_set_data(sqe, &entry);
  }
  void wake_up() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake.get(), &one, sizeof(one));
  }
  // Of any thread but the ring's own.
  void hand_back(Entry& entry) {
    {
      MutexLock lock(mutex);
      answered.push_back(&entry);
    }
    if (asleep.exchange(false)) wake_up();
  }
  std::vector<Entry*> take_answered() {
    MutexLock lock(mutex);
    return std::exchange(answered, {});
  }
};

namespace {

// What this thread serves at this moment.
thread_local constinit const void* t_ring = nullptr;
thread_local constinit std::span<std::byte> t_payload;

}  // namespace

// --- beginning and end -----------------------------------------------------------------------------------------------

Result<std::unique_ptr<UringTransport>> UringTransport::attach(fuse_session* session, unsigned threads) {
  fuse_custom_io io{};
  io.read = on_read;
  io.writev = on_write;
  const int error = ::fuse_session_custom_io(session, &io, sizeof(io), ::fuse_session_fd(session));
  if (error != 0)
    return fail(ErrorCode::kInvalid,
                "libfuse was built without custom I/O (meson -Denable-custom-io=true; tools/setup does)");
  return std::unique_ptr<UringTransport>(new UringTransport(session, threads));
}

UringTransport::UringTransport(fuse_session* session, unsigned threads) : session_(session), threads_(threads) {}

UringTransport::~UringTransport() { stop(); }

void UringTransport::decide(Result<FuseTransportState> state) {
  if (!is_decided_.test_and_set()) decided_.set_value(std::move(state));
}

Result<FuseTransportState> UringTransport::wait_until_decided() { return decided_.get_future().get(); }

void UringTransport::loop_has_ended() { decide(fail(ErrorCode::kIo, "the kernel has ended the mount")); }

void UringTransport::stop() {
  stopping_ = true;
  for (const auto& ring : rings_) {
    if (!ring->thread.joinable()) continue;
    ring->wake_up();
    ring->thread.join();
    // Before the session closes /dev/fuse: what the kernel has of it through the ring would keep it open.
    ::io_uring_queue_exit(&ring->uring);
    ring->is_open = false;
  }
}

// The kernel wants at least one entry for each processor that the machine may have, and gives a request to the queue of
// the one it was made on.
Status UringTransport::make_rings(size_t payload_size) {
  const auto queues = static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_CONF));
  const unsigned threads = std::min(threads_, queues);
  const unsigned entries = std::clamp(kEntries / queues, 1u, kEntriesOfQueue);
  const int device = ::fuse_session_fd(session_);
  for (unsigned i = 0; i < threads; ++i) {
    auto ring = std::make_unique<Ring>(i, threads, queues, entries, payload_size);
    if (!ring->memory || !ring->request || !ring->wake) return fail(ErrorCode::kNoSpace, "no memory for a ring");
    // One ring for each processor: its thread stays where the readers are whose requests it gets.
    if (threads == queues) ring->processor = static_cast<int>(i);
    const auto depth = static_cast<unsigned>(ring->entries.size()) + 1;  // and the read of `wake`
    if (const int error = ::io_uring_queue_init(depth, &ring->uring, IORING_SETUP_SQE128); error != 0)
      return fail(error_from_errno(-error, "io_uring cannot be used"));
    ring->is_open = true;
    if (const int error = ::io_uring_register_files(&ring->uring, &device, 1); error != 0)
      return fail(error_from_errno(-error, "io_uring does not take /dev/fuse"));
    rings_.push_back(std::move(ring));
  }
  return {};
}

void UringTransport::start_rings() {
  for (size_t i = 0; i < rings_.size(); ++i) {
    Ring& ring = *rings_[i];
    ring.thread = start_thread("wh-ring-" + std::to_string(i), [this, &ring] { run(ring); });
  }
}

// --- what libfuse reads and writes -------------------------------------------------------------------------------------

ssize_t UringTransport::on_read(int fd, void* buffer, size_t size, void* userdata) {
  const ssize_t n = ::read(fd, buffer, size);
  if (n < static_cast<ssize_t>(sizeof(fuse_in_header) + sizeof(fuse_init_in))) return n;
  const auto& header = *static_cast<const fuse_in_header*>(buffer);
  if (header.opcode != FUSE_INIT) return n;
  UringTransport& self = *static_cast<SessionData*>(userdata)->rings;
  const auto& init = *reinterpret_cast<const fuse_init_in*>(&header + 1);
  self.init_ = header.unique;
  self.offered_ = (init.flags & FUSE_INIT_EXT) != 0 && (init.flags2 & kOverIoUring) != 0;
  return n;
}

ssize_t UringTransport::on_write(int fd, iovec* parts, int count, void* userdata) {
  UringTransport& self = *static_cast<SessionData*>(userdata)->rings;
  const uint64_t unique = static_cast<const fuse_out_header*>(parts[0].iov_base)->unique;
  if (Entry* const entry = self.take(unique)) return self.answer(*entry, parts, count);
  if (unique != 0 && unique == self.init_) return self.answer_init(fd, parts, count);
  return ::writev(fd, parts, count);
}

// From this answer on the kernel holds back every request until it has all entries, so what may fail comes before it.
ssize_t UringTransport::answer_init(int fd, iovec* parts, int count) {
  init_ = 0;
  Status made = fail(ErrorCode::kInvalid, "the kernel does not offer FUSE over io_uring to this mount");
  fuse_init_out init{};
  if (offered_ && count == 2 && parts[1].iov_len == sizeof(init)) {
    std::memcpy(&init, parts[1].iov_base, sizeof(init));
    made = make_rings(std::max({kLeastPayload, size_t{init.max_write}, init.max_pages * kPage}));
  }
  if (!made) {
    rings_.clear();
    decide(FuseTransportState{false, made.error().message});
    return ::writev(fd, parts, count);
  }
  init.flags |= FUSE_INIT_EXT;
  init.flags2 |= kOverIoUring;
  iovec changed[2] = {parts[0], {&init, sizeof(init)}};
  const ssize_t n = ::writev(fd, changed, 2);
  if (n > 0) start_rings();
  return n;
}

// --- a ring ------------------------------------------------------------------------------------------------------------

void UringTransport::run(Ring& ring) {
  t_ring = &ring;
  if (ring.processor >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(ring.processor, &set);
    ::sched_setaffinity(0, sizeof(set), &set);  // refused where it may not run there: then it runs where it may
  }
  register_entries(ring);
  std::vector<std::pair<Entry*, int>> completed;
  while (!stopping_ && ring.lost < ring.entries.size()) {
    ring.asleep = true;
    for (Entry* const entry : ring.take_answered()) {
      ring.asleep = false;
      ring.prepare(*entry);
    }
    const unsigned wait = ring.asleep && !stopping_ ? 1 : 0;
    ::io_uring_submit_and_wait(&ring.uring, wait);
    ring.asleep = false;

    completed.clear();
    io_uring_cqe* cqe = nullptr;
    while (::io_uring_peek_cqe(&ring.uring, &cqe) == 0) {
      completed.emplace_back(static_cast<Entry*>(::io_uring_cqe_get_data(cqe)), cqe->res);
      ::io_uring_cqe_seen(&ring.uring, cqe);
    }
    for (const auto& [entry, result] : completed) {
      if (entry == nullptr) {
        ring.prepare_wake();
      } else if (result == 0) {
        serve(ring, *entry);
      } else if (result == -EAGAIN || result == -EINTR) {
        ring.prepare(*entry);
      } else {
        ++ring.lost;
        if (result != -ENOTCONN)
          log::warn("the kernel does not take an entry: command={} error={}", entry->command, -result);
      }
    }
  }
}

// What is wrong with an entry is said at once; then the kernel waits for it in vain.
void UringTransport::register_entries(Ring& ring) {
  for (const auto& entry : ring.entries) {
    ring.prepare(*entry);
  }
  ring.prepare_wake();
  ::io_uring_submit(&ring.uring);
  io_uring_cqe* cqe = nullptr;
  if (::io_uring_peek_cqe(&ring.uring, &cqe) == 0 && ::io_uring_cqe_get_data(cqe) != nullptr && cqe->res < 0 &&
      cqe->res != -ENOTCONN && cqe->res != -EAGAIN && cqe->res != -EINTR) {
    decide(fail(error_from_errno(-cqe->res, "the kernel does not take the rings of FUSE over io_uring")));
  } else if (++rings_registered_ == rings_.size()) {
    decide(FuseTransportState{true, {}});
  }
}

// Puts the request into the form that it would have in /dev/fuse, and lets libfuse take it from there.
void UringTransport::serve(Ring& ring, Entry& entry) {
  const EntryHeader& header = entry.header;
  fuse_in_header in;
  std::memcpy(&in, header.in_out, sizeof(in));
  const size_t payload_size = std::min<size_t>(header.payload_size, entry.payload.size());
  const size_t arguments_size = std::min(in.len - sizeof(in) - payload_size, sizeof(header.arguments));
  std::byte* const request = ring.request.data();
  std::memcpy(request, &in, sizeof(in));
  std::memcpy(request + sizeof(in), header.arguments, arguments_size);
  std::memcpy(request + sizeof(in) + arguments_size, entry.payload.data(), payload_size);
  entry.command = kCommitAndFetch;
  entry.commit_id = header.commit_id;
  {
    MutexLock lock(mutex_);
    in_hand_[in.unique] = &entry;
  }
  fuse_buf buffer{};
  buffer.mem = request;
  buffer.size = sizeof(in) + arguments_size + payload_size;
  t_payload = entry.payload;
  ::fuse_session_process_buf(session_, &buffer);
  t_payload = {};
}

std::span<std::byte> UringTransport::payload() { return t_payload; }

UringTransport::Entry* UringTransport::take(uint64_t unique) {
  MutexLock lock(mutex_);
  const auto it = in_hand_.find(unique);
  if (it == in_hand_.end()) return nullptr;
  Entry* const entry = it->second;
  in_hand_.erase(it);
  return entry;
}

ssize_t UringTransport::answer(Entry& entry, const iovec* parts, int count) {
  fuse_out_header out;
  std::memcpy(&out, parts[0].iov_base, sizeof(out));
  size_t size = size_of(parts + 1, count - 1);
  if (size > entry.payload.size()) {
    out.error = -EIO;
    size = 0;
  }
  std::byte* to = entry.payload.data();
  for (int i = 1; i < count && size != 0; to += parts[i++].iov_len) {
    if (parts[i].iov_base != to) std::memcpy(to, parts[i].iov_base, parts[i].iov_len);
  }
  std::memcpy(entry.header.in_out, &out, sizeof(out));
  entry.header.payload_size = static_cast<uint32_t>(size);
  if (t_ring == &entry.ring) {
    entry.ring.prepare(entry);
  } else {
    entry.ring.hand_back(entry);
  }
  return static_cast<ssize_t>(sizeof(out) + size);
}

}  // namespace wormhole
