// A directory that is handed out: nothing outside it can be reached, whatever the path says and wherever links lead.
// The kernel sees to that (openat2 with RESOLVE_BENEATH, Linux 5.6).
//
// Thread: any; nothing changes after open().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/version.h"

struct stat;

namespace wormhole {

// What tells of the directory and is no part of it: found by those who know its name, but not listed.
inline constexpr std::string_view kHiddenName = ".wormhole";

// The path of a request, taken apart: decoded segments, none of them empty, "." or "..".
struct ServedPath {
  std::vector<std::string> segments;
  bool ends_with_slash = false;

  // kNotFound when a segment cannot be a name.
  static Result<ServedPath> parse(std::string_view url_path);

  std::string relative() const;  // "a/b"; "." for the root
  std::string encoded() const;   // "/a/b/", the URL path of this as a directory
};

// What was found, as it was then.
struct ServedFile {
  FileDescriptor fd;
  bool is_directory = false;
  uint64_t size = 0;
  Validator validator;  // a strong ETag and Last-Modified

  // Fills `bytes` from `offset` on. False when it cannot, or when the file has changed meanwhile: bytes of two versions
  // may be there.
  bool read(std::span<char> bytes, uint64_t offset) const;
};

class ServedDirectory {
 public:
  // `hidden`: a directory whose files are handed out below kHiddenName, in the place of what may be there under this
  // name: those of a manifest (docs/MANIFEST.md), whatever else lies beside them. Neither is listed, wherever it lies
  // itself. Empty: none. Errors: kNotFound, kInvalid (not a directory), kForbidden, kIo.
  static Result<ServedDirectory> open(const std::string& path, const std::string& hidden = "");

  // A regular file or a directory. Errors: kNotFound (also for anything else, and for links that lead out), kForbidden,
  // kBusy (no descriptor is free), kIo.
  Result<ServedFile> find(const ServedPath& path) const;

  // The index of a directory that find() gave for `path`, as HTML in the format of nginx' autoindex, with exact sizes.
  // Directories come first, then by name. Fifos, devices and links that lead out are left out, and so is kHiddenName in
  // the root. Errors: kIo.
  Result<std::string> index(ServedFile directory, const ServedPath& path) const;

 private:
  explicit ServedDirectory(FileDescriptor root) : root_(std::move(root)) {}
  FileDescriptor open_entry(const ServedPath& path) const;
  // False when the entry `name` of the directory at `path` is not to be shown.
  bool stat_entry(int directory, const ServedPath& path, std::string_view name, struct stat* status) const;

  FileDescriptor root_, hidden_;
  std::pair<uint64_t, uint64_t> hidden_identity_;  // device and inode
};

}  // namespace wormhole
