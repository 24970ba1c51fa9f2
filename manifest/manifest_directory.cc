#include "manifest/manifest_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>
#include <set>

#include "manifest/blake3.h"

namespace wormhole {
namespace {

// What has no name yet: no web server lists it, and no reader asks for it.
constexpr std::string_view kUnnamed = ".new-";
constexpr std::string_view kPinned = "manifest-";
constexpr std::string_view kPages = "pages-";

// The hash in the name of a head; nothing when it is none.
std::optional<Hash256> pinned_hash(std::string_view name) {
  if (!name.starts_with(kPinned)) return std::nullopt;
  return Hash256::from_hex(name.substr(kPinned.size()));
}

}  // namespace

std::string sign_head(const SecretKey& key, const ManifestHead& head, std::string_view bytes) {
  return key.sign(bytes, fmt::format("timestamp:{}\tfile:{}\tsequence:{}\thashed", head.created / 1'000'000'000,
                                     kHeadName, head.sequence));
}

// --- a file --------------------------------------------------------------------------------------------------------

UnnamedFile::UnnamedFile(int directory, std::string name, FileDescriptor file, std::string path)
    : directory_(directory), name_(std::move(name)), file_(std::move(file)), path_(std::move(path)) {}

UnnamedFile::UnnamedFile(UnnamedFile&& other) noexcept
    : directory_(other.directory_),
      name_(std::exchange(other.name_, "")),
      file_(std::move(other.file_)),
      path_(std::move(other.path_)) {}

UnnamedFile::~UnnamedFile() {
  if (!name_.empty()) ::unlinkat(directory_, name_.c_str(), 0);
}

Status UnnamedFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(error_from_errno(errno, "write in " + path_));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status UnnamedFile::become(const std::string& name) {
  if (::fsync(file_.get()) != 0) return fail(error_from_errno(errno, "sync a file in " + path_));
  if (::renameat(directory_, name_.c_str(), directory_, name.c_str()) != 0)
    return fail(error_from_errno(errno, "rename a file to " + path_ + "/" + name));
  name_.clear();
  return {};
}

// --- open ----------------------------------------------------------------------------------------------------------

Result<ManifestDirectory> ManifestDirectory::open(const std::string& path) {
  FileDescriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return fail(error_from_errno(errno, "open " + path));
  return ManifestDirectory(path, std::move(directory));
}

Result<ManifestDirectory> ManifestDirectory::open_to_write(const std::string& path) {
  const bool made = ::mkdir(path.c_str(), 0777) == 0;
  if (!made && errno != EEXIST) return fail(error_from_errno(errno, "make " + path));
  auto directory = open(path);
  if (!directory) return directory;
  directory->made_ = made;
  if (::flock(directory->directory_.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(ErrorCode::kBusy, "{} is being written by another process", path);
  for (const std::string& name : directory->names()) {
    if (name.starts_with(kUnnamed)) directory->remove(name);
  }
  return directory;
}

ManifestDirectory::~ManifestDirectory() {
  if (made_) ::rmdir(path_.c_str());  // which refuses what is not empty
}

std::pair<uint64_t, uint64_t> ManifestDirectory::identity() const {
  struct stat s {};
  ::fstat(directory_.get(), &s);
  return {s.st_dev, s.st_ino};
}

std::vector<std::string> ManifestDirectory::names() const {
  std::vector<std::string> out;
  const int again = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(again < 0 ? nullptr : ::fdopendir(again), ::closedir);
  if (!listing) return out;
  while (const dirent* d = ::readdir(listing.get())) out.emplace_back(d->d_name);
  return out;
}

void ManifestDirectory::remove(const std::string& name) const { ::unlinkat(directory_.get(), name.c_str(), 0); }

// --- read ----------------------------------------------------------------------------------------------------------

Result<std::string> ManifestDirectory::read(const std::string& name, size_t most) const {
  const FileDescriptor file(::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(error_from_errno(errno, "open " + path_ + "/" + name));
  std::string bytes;
  char buffer[16 << 10];
  while (true) {
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(error_from_errno(errno, "read " + path_ + "/" + name));
    if (n == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(n));
    if (bytes.size() > most) return fail(ErrorCode::kCorrupt, "{}/{} is longer than one can be", path_, name);
  }
}

Result<StoredManifest> ManifestDirectory::current() const {
  StoredManifest stored;
  auto bytes = read(std::string(kHeadName), kMostHeadBytes);
  if (!bytes) return fail(bytes.error());
  stored.head_bytes = std::move(*bytes);
  auto head = decode_head(stored.head_bytes);
  if (!head) return fail(head.error().code, "{}/{}: {}", path_, kHeadName, head.error().message);
  stored.head = std::move(*head);
  for (const std::string& name : {pinned_signature_name(blake3(stored.head_bytes)), std::string(kSignatureName)}) {
    auto signature = read(name, kMostSignatureBytes);
    if (!signature) continue;
    stored.signature = std::move(*signature);
    break;
  }
  const std::string name = pages_name(stored.head.pages);
  stored.pages_file = std::make_shared<FileDescriptor>(::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!*stored.pages_file)
    return fail(ErrorCode::kCorrupt, "{}", error_from_errno(errno, "open " + path_ + "/" + name).message);
  stored.pages = [file = stored.pages_file, source = pages_of_file(stored.pages_file->get(), path_ + "/" + name)](
                     ByteRange range) { return source(range); };
  return stored;
}

uint64_t ManifestDirectory::greatest_sequence() const {
  uint64_t greatest = 0;
  for (const std::string& name : names()) {
    if (name != kHeadName && !pinned_hash(name)) continue;
    const auto bytes = read(name, kMostHeadBytes);
    const auto head = bytes ? decode_head(*bytes) : Result<ManifestHead>(fail(bytes.error()));
    if (head) greatest = std::max(greatest, head->sequence);
  }
  return greatest;
}

// --- write ---------------------------------------------------------------------------------------------------------

Result<UnnamedFile> ManifestDirectory::new_file() {
  for (int i = 0;; ++i) {
    std::string name = fmt::format("{}{}", kUnnamed, i);
    FileDescriptor file(::openat(directory_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file) return UnnamedFile(directory_.get(), std::move(name), std::move(file), path_);
    if (errno != EEXIST) return fail(error_from_errno(errno, "make a file in " + path_));
  }
}

Status ManifestDirectory::write(const std::string& name, std::string_view bytes) {
  auto file = new_file();
  if (!file) return fail(file.error());
  if (Status written = file->append(bytes); !written) return written;
  return file->become(name);
}

Result<ManifestDirectory::Published> ManifestDirectory::publish(
    UnnamedFile pages, const ManifestHead& head, const std::function<std::string(std::string_view)>& sign,
    const Retention& retention) {
  const std::string bytes = encode(head);
  const Hash256 hash = blake3(bytes);
  const std::string signature = sign ? sign(bytes) : "";
  // What the head names is there, on the disk, before the head is.
  Status status = pages.become(pages_name(head.pages));
  if (status && sign) status = write(pinned_signature_name(hash), signature);
  if (status) status = write(pinned_head_name(hash), bytes);
  if (status && ::fsync(directory_.get()) != 0) status = fail(error_from_errno(errno, "sync " + path_));
  if (status && sign) status = write(std::string(kSignatureName), signature);
  if (status) status = write(std::string(kHeadName), bytes);
  if (!status) return fail(status.error());
  if (!sign) remove(std::string(kSignatureName));
  if (::fsync(directory_.get()) != 0) return fail(error_from_errno(errno, "sync " + path_));
  return Published{.hash = hash, .removed = remove_old(head, hash, retention)};
}

std::chrono::seconds ManifestDirectory::age_of(const std::string& name) const {
  struct stat s {};
  if (::fstatat(directory_.get(), name.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0) return {};
  return std::chrono::seconds(std::max<int64_t>(0, std::time(nullptr) - s.st_mtim.tv_sec));
}

// The number of files that were removed.
size_t ManifestDirectory::remove_old(const ManifestHead& head, const Hash256& hash, Retention retention) const {
  struct Old {
    Hash256 hash, pages;
    uint64_t bytes;
  };
  const std::vector<std::string> all = names();
  std::multimap<uint64_t, Old, std::greater<>> before;  // by sequence
  for (const std::string& name : all) {
    const auto which = pinned_hash(name);
    if (!which || *which == hash) continue;
    const auto bytes = read(name, kMostHeadBytes);
    const auto old = bytes ? decode_head(*bytes) : Result<ManifestHead>(fail(bytes.error()));
    // One that is not older was never in its place: its publisher did not come to an end.
    if (old && old->sequence < head.sequence) before.emplace(old->sequence, Old{*which, old->pages, old->pages_bytes});
  }
  std::set<std::string> stay = {pages_name(head.pages), pinned_head_name(hash), pinned_signature_name(hash)};
  std::chrono::seconds replaced{0};  // so long ago
  for (const auto& [sequence, old] : before) {
    const std::string pages = pages_name(old.pages);
    const uint64_t bytes = stay.contains(pages) ? 0 : old.bytes;
    if (retention.count > 0) {
      --retention.count;
    } else if (replaced < retention.age && bytes <= retention.bytes) {
      retention.bytes -= bytes;
    } else {
      break;
    }
    stay.insert({pinned_head_name(old.hash), pinned_signature_name(old.hash), pages});
    replaced = age_of(pinned_head_name(old.hash));
  }
  size_t removed = 0;
  for (const std::string& name : all) {
    if ((!name.starts_with(kPinned) && !name.starts_with(kPages)) || stay.contains(name)) continue;
    remove(name);
    ++removed;
  }
  return removed;
}

}  // namespace wormhole
