#include "net/download.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/block.h"
#include "base/mailbox.h"
#include "net/range_planner.h"

namespace wormhole {
namespace {

// A request of 4 MiB is some 100 ms of a wire that one connection cannot fill; below 256 KiB its round trip shows.
constexpr uint64_t kLargestPart = 4ull << 20;
constexpr uint64_t kSmallestPart = 256ull << 10;

// Requests beyond the connections, so that one that becomes free finds its next part waiting.
constexpr size_t kQueued = 4;

// Beside the parts: the chunks of a whole body.
constexpr uint64_t kChunkMemory = 16ull << 20;

// How often the loop looks around when nothing arrives.
constexpr Duration kTick = std::chrono::milliseconds(100);

// What a crash may cost.
constexpr Duration kCheckpointInterval = std::chrono::milliseconds(500);

// A file that changes during each of so many downloads is a log; let somebody look at it.
constexpr int kAttempts = 3;

// All connections get something to do, also for a small file.
uint64_t part_size(uint64_t size, int connections) {
  const uint64_t share = std::max<uint64_t>(1, size / static_cast<uint64_t>(connections));
  return std::clamp(std::bit_floor(share), kSmallestPart, kLargestPart);
}

Status check_target(const DownloadOptions& options) {
  struct stat status = {};
  if (::lstat(options.file.c_str(), &status) != 0) return {};
  if (S_ISDIR(status.st_mode)) return fail(ErrorCode::kInvalid, "{} is a directory", options.file);
  if (options.replace) return {};
  return fail(ErrorCode::kInvalid, "{} exists already: --force replaces it", options.file);
}

}  // namespace

// Takes what the net thread says to the owner's. It outlives the download as long as a fetch knows it.
class Download::Inbox final : public FetchSink {
 public:
  explicit Inbox(Download* download) : download_(download) {}

  void fetch_head(FetchId /*id*/, ObjectHead head) override {
    auto shared = std::make_shared<ObjectHead>(std::move(head));
    box_.post([d = download_, shared] { d->on_head(*shared); });
  }
  void fetch_progress(FetchId id, uint64_t arrived) override {
    box_.post([d = download_, id, arrived] { d->on_progress(id, arrived); });
  }
  void fetch_chunk(FetchId /*id*/, ByteRange range, BufferRef bytes) override {
    box_.post([d = download_, range, bytes = std::move(bytes)] { d->on_chunk(range, bytes); });
  }
  void fetch_done(FetchId id, Status status) override {
    box_.post([d = download_, id, status = std::move(status)]() mutable { d->on_done(id, std::move(status)); });
  }

  Mailbox& box() { return box_; }

 private:
  Download* const download_;  // used by messages alone, which run() runs
  Mailbox box_;
};

Download::Download(Fetcher& fetcher, BufferPool& buffers, const Clock& clock, DownloadOptions options,
                   DownloadObserver& observer)
    : fetcher_(fetcher),
      buffers_(buffers),
      clock_(clock),
      options_(std::move(options)),
      observer_(observer),
      inbox_(std::make_shared<Inbox>(this)) {}

Download::~Download() { inbox_->box().close(); }

uint64_t Download::memory_for(int connections) {
  return (static_cast<uint64_t>(connections) + kQueued) * kLargestPart + kChunkMemory;
}

Result<DownloadResult> Download::run(const Url& url) {
  if (Status possible = check_target(options_); !possible) return fail(possible.error());
  for (int attempt = 1;; ++attempt) {
    Result<DownloadResult> result = run_once(url);
    if (result || result.error().code != ErrorCode::kStale || attempt == kAttempts) return result;
    observer_.note(fmt::format("{} has changed on the server: starts over", url.display()));
  }
}

// --- ask -> open -> transfer -> verify -> finish ----------------------------------------------------

Result<DownloadResult> Download::run_once(const Url& url) {
  const Result<Document> head = ask_head(url);
  if (!head) return fail(head.error());
  if (Status opened = open_part(url, *head); !opened) return fail(opened.error());

  if (Status transferred = transfer(url); !transferred) return fail(keep_or_discard(transferred.error()));
  if (Status right = verify(); !right) return fail(right.error());
  if (Status finished = part_->finish(options_.replace); !finished) return fail(finished.error());
  return DownloadResult{size_, fetched_, validator_};
}

Result<Document> Download::ask_head(const Url& url) {
  auto answer = std::make_shared<std::optional<Result<Document>>>();
  DocumentRequest request;
  request.url = url.str();
  request.head_only = true;
  request.patience = options_.patience;
  request.done = [inbox = inbox_, answer](Result<Document> document) {
    auto shared = std::make_shared<Result<Document>>(std::move(document));
    inbox->box().post([answer, shared] { *answer = std::move(*shared); });
  };
  fetcher_.get(std::move(request));
  while (!answer->has_value()) {
    wait_for_messages();
    if (observer_.stop_requested()) return fail(ErrorCode::kCancelled, "interrupted");
  }
  return std::move(**answer);
}

Status Download::open_part(const Url& url, const Document& head) {
  if (!head.head.size) {
    return fail(ErrorCode::kBadResponse, "{}: the server does not say how large it is", url.display());
  }
  size_ = *head.head.size;
  validator_ = head.head.validator;
  part_.reset();  // its lock, when this is another attempt
  auto part = PartFile::open(options_.file, {url.display(), size_, validator_});
  if (!part) return fail(part.error());
  part_ = std::move(*part);
  if (part_->start() == PartFile::Start::kDropped) {
    observer_.note(
        fmt::format("what was there of {} is not of the version that the server has now: starts over", options_.file));
  }
  observer_.begins(size_, part_->present().size());
  return {};
}

Status Download::transfer(const Url& url) {
  mode_ = Mode::kRanges;
  streamed_ = 0;
  error_.reset();
  waiting_.clear();
  for (const ByteRange missing : part_->present().missing({0, size_})) {
    const std::vector<ByteRange> parts = split_range(missing, part_size(size_, options_.connections));
    waiting_.insert(waiting_.end(), parts.begin(), parts.end());
  }
  std::reverse(waiting_.begin(), waiting_.end());
  next_checkpoint_ = clock_.now() + kCheckpointInterval;

  for (;;) {
    if (mode_ == Mode::kRanges) start_parts(url);
    if (mode_ == Mode::kNoRanges && under_way_.empty() && !error_) start_whole_body(url);
    if (under_way_.empty()) break;
    wait_for_messages();
    tick();
  }
  if (error_) return fail(*error_);
  return {};
}

void Download::start_parts(const Url& url) {
  const size_t limit = static_cast<size_t>(options_.connections) + kQueued;
  while (!error_ && !waiting_.empty() && under_way_.size() < limit) {
    FetchRequest next = request(url, waiting_.back());
    waiting_.pop_back();
    next.buffer = buffers_.allocate(next.range.size());
    under_way_[next.id] = {next.range, next.buffer};
    fetcher_.fetch(std::move(next));
  }
}

void Download::start_whole_body(const Url& url) {
  mode_ = Mode::kWholeBody;
  FetchRequest whole = request(url, {0, size_});
  whole.whole_body = true;
  under_way_[whole.id] = {whole.range, nullptr};
  fetcher_.fetch(std::move(whole));
}

FetchRequest Download::request(const Url& url, ByteRange range) {
  FetchRequest request;
  request.id = next_id_++;
  request.url = url.str();
  request.range = range;
  request.object_size = size_;
  request.validator = validator_;
  request.patience = options_.patience;
  request.sink = inbox_;
  return request;
}

void Download::tick() {
  observer_.progress(mode_ == Mode::kWholeBody ? streamed_ : part_->present().size());
  if (!error_ && observer_.stop_requested()) give_up({ErrorCode::kCancelled, "interrupted"});
  if (clock_.now() >= next_checkpoint_) {
    part_->checkpoint();
    next_checkpoint_ = clock_.now() + kCheckpointInterval;
  }
}

void Download::wait_for_messages() {
  inbox_->box().wait_until(clock_.now() + kTick);
  std::vector<Task> messages;
  inbox_->box().drain(messages);
  for (Task& message : messages) message();
}

// --- what the fetches say ---------------------------------------------------------------------------

// A server that answers HEAD without a validator may give one with the bytes; then all of them must have it.
void Download::on_head(const ObjectHead& head) {
  if (validator_.contradicts(head.validator)) {
    return give_up({ErrorCode::kStale, "the file has changed on the server"});
  }
  if (validator_.empty()) validator_ = head.validator;
}

void Download::on_progress(FetchId id, uint64_t arrived) {
  const auto it = under_way_.find(id);
  if (it == under_way_.end() || error_) return;
  Part& part = it->second;
  write(part.range.begin + part.written, part.buffer->data() + part.written, arrived - part.written);
  part.written = arrived;
}

void Download::on_chunk(ByteRange range, const BufferRef& bytes) {
  if (error_) return;
  write(range.begin, bytes->data(), range.size());
  streamed_ = range.end;
}

void Download::on_done(FetchId id, Status status) {
  under_way_.erase(id);
  if (status || status.error().code == ErrorCode::kCancelled) return;
  if (status.error().code == ErrorCode::kNoRanges && mode_ != Mode::kWholeBody) {
    if (mode_ == Mode::kNoRanges) return;
    mode_ = Mode::kNoRanges;
    for (const auto& [other, part] : under_way_) fetcher_.cancel(other);
    return;
  }
  give_up(std::move(status.error()));
}

void Download::write(uint64_t offset, const std::byte* bytes, size_t length) {
  fetched_ += length;
  if (Status written = part_->write(offset, {bytes, length}); !written) give_up(std::move(written.error()));
}

// The first error is the one that is told; what is still under way ends as cancelled.
void Download::give_up(Error error) {
  if (error_) return;
  error_ = std::move(error);
  for (const auto& [id, part] : under_way_) fetcher_.cancel(id);
}

// --- at the end -------------------------------------------------------------------------------------

Status Download::verify() const {
  if (!options_.sha256) return {};
  std::vector<std::byte> piece(1 << 20);
  Sha256 hash;
  for (uint64_t at = 0; at < size_;) {
    if (observer_.stop_requested()) return fail(ErrorCode::kCancelled, "interrupted while the checksum was computed");
    const Result<size_t> n = part_->read(at, piece);
    if (!n) return fail(n.error());
    if (*n == 0) return fail(ErrorCode::kIo, "{} ends too early", options_.file);
    hash.update({piece.data(), *n});
    at += *n;
  }
  const Sha256Digest digest = hash.digest();
  if (digest == *options_.sha256) return {};
  part_->discard();
  return fail(ErrorCode::kCorrupt, "the file has the sha256 {}, not {}: it is thrown away", to_hex(digest),
              to_hex(*options_.sha256));
}

// What arrived is of use for a later run when it can be told from another version, and when the rest can be asked for.
Error Download::keep_or_discard(Error error) {
  const bool useful = error.code != ErrorCode::kStale && mode_ == Mode::kRanges && part_->is_resumable();
  if (!useful) {
    part_->discard();
  } else if (part_->checkpoint_now()) {
    error.message += ". What has arrived is kept: the same command goes on from there";
  }
  return error;
}

}  // namespace wormhole
