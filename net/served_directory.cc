#include "net/served_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "net/dates.h"
#include "net/listing_names.h"
#include "net/url.h"

namespace wormhole {
namespace {

// A fifo must not hold the thread, nor a terminal become its own.
constexpr uint64_t kRead = O_RDONLY | O_NONBLOCK | O_NOCTTY;

// Opens `path` below `root`, following links as long as they stay inside.
FileDescriptor open_beneath(int root, const std::string& path, uint64_t flags) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  long fd = -1;
  // EAGAIN: something was renamed meanwhile and the kernel could not be sure. Three times in a row is no accident.
  for (int attempt = 0; attempt < 3 && fd < 0; ++attempt) {
    fd = ::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
    if (fd < 0 && errno != EAGAIN && errno != EINTR) break;
  }
  return FileDescriptor(static_cast<int>(fd));
}

Error error_of_open(int error_number, const std::string& what) {
  switch (error_number) {
    case EACCES:
    case EPERM: return {ErrorCode::kForbidden, what + ": permission denied"};
    case EMFILE:
    case ENFILE: return {ErrorCode::kBusy, what + ": too many open files"};
    case EIO: return error_from_errno(error_number, what);
    default: return {ErrorCode::kNotFound, what + ": not found"};  // ENOENT, ENOTDIR, ELOOP; EXDEV: leads out
  }
}

bool is_servable(const struct stat& status) { return S_ISREG(status.st_mode) || S_ISDIR(status.st_mode); }

// Strong: two contents of a file differ in one of the three, as far as the file system's clock can tell.
Validator validator_of(const struct stat& status) {
  return {fmt::format("\"{:x}-{:x}-{:x}{:08x}\"", status.st_ino, status.st_size, status.st_mtim.tv_sec,
                      status.st_mtim.tv_nsec),
          format_http_date(status.st_mtim.tv_sec)};
}

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using Directory = std::unique_ptr<DIR, DirectoryCloser>;

struct IndexEntry {
  std::string name;
  bool is_directory = false;
  int64_t size = 0;
  int64_t mtime = 0;
};

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

// Characters, not bytes, so that columns line up.
size_t width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// nginx' columns: names in 51, the date, sizes in 20. Names are never cut.
std::string index_line(const IndexEntry& entry) {
  constexpr size_t kNameColumn = 51;
  const std::string slash = entry.is_directory ? "/" : "";
  const size_t used = width(entry.name) + slash.size();
  return fmt::format("<a href=\"{}{}\">{}{}</a>{:{}}{}{:>20}\r\n", encode_segment(entry.name), slash,
                     escape_html(entry.name), slash, "", used < kNameColumn ? kNameColumn - used : 1,
                     format_listed_date(entry.mtime), entry.is_directory ? "-" : std::to_string(entry.size));
}

std::string index_page(const ServedPath& path, const std::vector<IndexEntry>& entries) {
  std::string shown = "/";
  for (const std::string& segment : path.segments) shown += escape_html(segment) + "/";
  std::string page = fmt::format(
      "<html>\r\n<head><meta charset=\"utf-8\"><title>Index of {}</title></head>\r\n<body>\r\n<h1>Index of {}</h1><hr>"
      "<pre><a href=\"../\">../</a>\r\n",
      shown, shown);
  for (const IndexEntry& entry : entries) page += index_line(entry);
  return page + "</pre><hr></body>\r\n</html>\r\n";
}

Result<FileDescriptor> open_root(const std::string& path) {
  FileDescriptor root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root && errno == ENOTDIR) return fail(ErrorCode::kInvalid, "{} is not a directory", path);
  if (!root) return fail(error_from_errno(errno, path));
  if (!open_beneath(root.get(), ".", kRead | O_DIRECTORY)) {
    if (errno == ENOSYS) return fail(ErrorCode::kIo, "this kernel has no openat2(2): Linux 5.6 or later is needed");
    return fail(error_from_errno(errno, path));
  }
  return root;
}

}  // namespace

Result<ServedPath> ServedPath::parse(std::string_view url_path) {
  ServedPath path;
  path.ends_with_slash = url_path.ends_with('/');
  while (!url_path.empty()) {
    const size_t end = std::min(url_path.find('/'), url_path.size());
    if (end > 0) {
      Result<std::string> segment = decode_segment(url_path.substr(0, end));
      if (!segment || !may_be_entry(*segment)) return fail(ErrorCode::kNotFound, "not found");
      path.segments.push_back(std::move(*segment));
    }
    url_path.remove_prefix(std::min(end + 1, url_path.size()));
  }
  return path;
}

bool ServedFile::read(std::span<char> bytes, uint64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  struct stat now = {};
  return ::fstat(fd.get(), &now) == 0 && validator_of(now) == validator;
}

std::string ServedPath::relative() const {
  return segments.empty() ? "." : fmt::format("{}", fmt::join(segments, "/"));
}

std::string ServedPath::encoded() const {
  std::string path = "/";
  for (const std::string& segment : segments) path += encode_segment(segment) + "/";
  return path;
}

Result<ServedDirectory> ServedDirectory::open(const std::string& path, const std::string& hidden) {
  Result<FileDescriptor> root = open_root(path);
  if (!root) return fail(root.error());
  ServedDirectory directory(std::move(*root));
  if (hidden.empty()) return directory;
  Result<FileDescriptor> aside = open_root(hidden);
  if (!aside) return fail(aside.error());
  directory.hidden_ = std::move(*aside);
  struct stat status = {};
  if (::fstat(directory.hidden_.get(), &status) != 0) return fail(error_from_errno(errno, hidden));
  directory.hidden_identity_ = {status.st_dev, status.st_ino};
  return directory;
}

FileDescriptor ServedDirectory::open_entry(const ServedPath& path) const {
  if (!hidden_ || path.segments.empty() || path.segments.front() != kHiddenName)
    return open_beneath(root_.get(), path.relative(), kRead);
  const std::string_view name = path.segments.size() == 2 ? std::string_view(path.segments.back()) : "";
  if (name.starts_with("manifest") || name.starts_with("pages-"))
    return open_beneath(hidden_.get(), path.segments.back(), kRead);
  errno = ENOENT;
  return {};
}

Result<ServedFile> ServedDirectory::find(const ServedPath& path) const {
  const std::string name = path.relative();
  ServedFile file;
  file.fd = open_entry(path);
  if (!file.fd) return fail(error_of_open(errno, name));
  struct stat status = {};
  if (::fstat(file.fd.get(), &status) != 0) return fail(error_from_errno(errno, name));
  if (!is_servable(status)) return fail(ErrorCode::kNotFound, "{}: not found", name);
  file.is_directory = S_ISDIR(status.st_mode);
  file.size = file.is_directory ? 0 : static_cast<uint64_t>(status.st_size);
  file.validator = validator_of(status);
  return file;
}

Result<std::string> ServedDirectory::index(ServedFile directory, const ServedPath& path) const {
  const Directory stream(::fdopendir(directory.fd.get()));
  if (!stream) return fail(error_from_errno(errno, path.relative()));
  directory.fd.release();  // the stream's now

  std::vector<IndexEntry> entries;
  while (const dirent* found = ::readdir(stream.get())) {
    const std::string_view name = found->d_name;
    struct stat status = {};
    if (path.segments.empty() && name == kHiddenName) continue;
    if (!may_be_entry(name) || !stat_entry(::dirfd(stream.get()), path, name, &status)) continue;
    if (hidden_ && std::pair<uint64_t, uint64_t>(status.st_dev, status.st_ino) == hidden_identity_) continue;
    entries.push_back({std::string(name), S_ISDIR(status.st_mode), status.st_size, status.st_mtim.tv_sec});
  }
  std::sort(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
    return a.is_directory != b.is_directory ? a.is_directory : a.name < b.name;
  });
  return index_page(path, entries);
}

bool ServedDirectory::stat_entry(int directory, const ServedPath& path, std::string_view name,
                                 struct stat* status) const {
  const std::string entry(name);
  if (::fstatat(directory, entry.c_str(), status, AT_SYMLINK_NOFOLLOW) != 0) return false;
  if (S_ISLNK(status->st_mode)) {
    const FileDescriptor target = open_beneath(root_.get(), path.relative() + "/" + entry, O_PATH);
    if (!target || ::fstat(target.get(), status) != 0) return false;
  }
  return is_servable(*status);
}

}  // namespace wormhole
