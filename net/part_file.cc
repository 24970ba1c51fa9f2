#include "net/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/thread.h"

namespace wormhole {
namespace {

using Json = nlohmann::json;

// Of the journal. One of another version is as good as none.
constexpr int kFormat = 1;

Status write_all(int fd, std::span<const std::byte> bytes, uint64_t offset, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(error_from_errno(errno, "write " + path));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

// Puts a small file in place as a whole: after a crash there is the old one or the new one.
Status replace_file(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  const FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail(error_from_errno(errno, "open " + temporary));
  if (Status written = write_all(fd.get(), std::as_bytes(std::span(text)), 0, temporary); !written) return written;
  if (::fdatasync(fd.get()) != 0) return fail(error_from_errno(errno, "sync " + temporary));
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail(error_from_errno(errno, "rename " + temporary));
  return {};
}

// False with errno. Not every file system can refuse to replace; there it is checked just before.
bool rename_to(const std::string& from, const std::string& to, bool replace) {
  if (replace) return ::rename(from.c_str(), to.c_str()) == 0;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  if (errno != EINVAL) return false;
  errno = EEXIST;
  return ::access(to.c_str(), F_OK) != 0 && ::rename(from.c_str(), to.c_str()) == 0;
}

// fallocate() would find out as well, but only after it has filled the disk for everybody else.
Status check_room(int fd, uint64_t size, const std::string& target) {
  struct stat status = {};
  struct statvfs disk = {};
  if (::fstat(fd, &status) != 0 || ::fstatvfs(fd, &disk) != 0) return {};
  constexpr uint64_t kUnit = 512;  // of st_blocks
  const uint64_t has = static_cast<uint64_t>(status.st_blocks) * kUnit;
  const uint64_t available = disk.f_bavail * disk.f_frsize;
  if (size <= has + available) return {};
  return fail(ErrorCode::kNoSpace, "no space for {}: {} bytes are needed, {} are free", target, size - has, available);
}

void sync_directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  const FileDescriptor fd(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) ::fsync(fd.get());
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Json identity_json(const PartFile::Identity& identity) {
  return {{"format", kFormat},
          {"url", identity.url},
          {"size", identity.size},
          {"etag", identity.validator.etag},
          {"last_modified", identity.validator.last_modified}};
}

// The ranges that a journal lists; those that make no sense are left out.
RangeSet ranges_of(const Json& journal, uint64_t size) {
  RangeSet ranges;
  for (const Json& pair : journal.value("done", Json::array())) {
    const bool is_range =
        pair.is_array() && pair.size() == 2 && pair[0].is_number_unsigned() && pair[1].is_number_unsigned();
    if (!is_range) continue;
    const ByteRange range{pair[0].get<uint64_t>(), pair[1].get<uint64_t>()};
    if (range.end <= size) ranges.add(range);
  }
  return ranges;
}

// A validator may be any bytes; what is not UTF-8 cannot be compared later, which costs no more than a new start.
std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace

PartFile::PartFile(std::string target, Identity identity)
    : target_(std::move(target)), identity_(std::move(identity)) {}

PartFile::~PartFile() {
  if (checkpoint_.valid()) checkpoint_.wait();
}

Result<std::unique_ptr<PartFile>> PartFile::open(const std::string& target, Identity identity) {
  std::unique_ptr<PartFile> part(new PartFile(target, std::move(identity)));
  if (Status opened = part->open_part(); !opened) return fail(opened.error());
  part->take_up_journal();
  if (Status reserved = part->reserve(); !reserved) {
    if (part->start_ != Start::kResumed) part->discard();
    return fail(reserved.error());
  }
  return part;
}

Status PartFile::open_part() {
  const std::string path = part_path();
  fd_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd_) return fail(error_from_errno(errno, "open " + path));
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorCode::kBusy, "{} is being fetched by another process", target_);
  }
  return {};
}

// Finds out now, not at the end, that the disk is too small. File systems that cannot reserve get a sparse file.
Status PartFile::reserve() {
  if (Status room = check_room(fd_.get(), identity_.size, target_); !room) return room;
  const auto size = static_cast<off_t>(identity_.size);
  if (size > 0 && ::fallocate(fd_.get(), 0, 0, size) == 0) return {};
  if (size > 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR) {
    return fail(error_from_errno(errno, "make room for " + target_));
  }
  if (::ftruncate(fd_.get(), size) != 0) return fail(error_from_errno(errno, "make room for " + target_));
  return {};
}

void PartFile::take_up_journal() {
  struct stat status = {};
  const bool empty = ::fstat(fd_.get(), &status) != 0 || status.st_size == 0;
  const Json journal = Json::parse(read_file(journal_path()), nullptr, /*allow_exceptions=*/false);
  if (!empty && journal.is_object()) {
    Json identity = journal;
    identity.erase("done");
    // Without a validator that proves equal bytes, an equal size proves nothing.
    const bool same = identity == identity_json(identity_) && !identity_.validator.if_range().empty();
    if (same && static_cast<uint64_t>(status.st_size) == identity_.size) {
      present_ = ranges_of(journal, identity_.size);
      start_ = Start::kResumed;
      return;
    }
  }
  if (!empty) start_ = Start::kDropped;
  ::unlink(journal_path().c_str());  // before the bytes that it speaks of go
  if (::ftruncate(fd_.get(), 0) != 0) present_ = {};
}

Status PartFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (Status written = write_all(fd_.get(), bytes, offset, part_path()); !written) return written;
  present_.add(ByteRange::of(offset, bytes.size()));
  return {};
}

Result<size_t> PartFile::read(uint64_t offset, std::span<std::byte> bytes) const {
  const ssize_t n = ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
  if (n < 0) return fail(error_from_errno(errno, "read " + part_path()));
  return static_cast<size_t>(n);
}

std::string PartFile::journal_text() const {
  Json journal = identity_json(identity_);
  Json& done = journal["done"] = Json::array();
  for (const ByteRange range : present_.ranges()) done.push_back({range.begin, range.end});
  return dump(journal);
}

void PartFile::checkpoint() {
  if (checkpoint_.valid() && checkpoint_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  checkpoint_ =
      std::async(std::launch::async, [fd = fd_.get(), path = journal_path(), text = journal_text()]() -> Status {
        name_this_thread("wh-journal");
        if (::fdatasync(fd) != 0) return fail(error_from_errno(errno, "sync " + path));
        return replace_file(path, text);
      });
}

Status PartFile::checkpoint_now() {
  if (checkpoint_.valid()) checkpoint_.wait();
  checkpoint();
  return checkpoint_.get();
}

Status PartFile::finish(bool replace) {
  if (checkpoint_.valid()) checkpoint_.wait();
  if (::fsync(fd_.get()) != 0) return fail(error_from_errno(errno, "sync " + part_path()));
  if (!rename_to(part_path(), target_, replace)) {
    if (errno == EEXIST) return fail(ErrorCode::kInvalid, "{} exists already", target_);
    return fail(error_from_errno(errno, "rename to " + target_));
  }
  ::unlink(journal_path().c_str());
  sync_directory_of(target_);
  return {};
}

void PartFile::discard() {
  if (checkpoint_.valid()) checkpoint_.wait();
  ::unlink(journal_path().c_str());
  ::unlink(part_path().c_str());
}

}  // namespace wormhole
