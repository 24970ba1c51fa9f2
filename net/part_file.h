// A local file while it is filled, in any order. FILE.wormhole-part has the bytes, each at its own offset;
// FILE.wormhole-part.json, the journal, says what it is to become and which bytes are there. FILE itself appears when
// all of it is there, by a rename.
//
// The journal is written after the bytes it speaks of are on the disk: it can know less than the disk, never more.
// It belongs to one version of the remote file; bytes of another version are thrown away, never joined.
//
// Thread: its owner's. checkpoint() lets a thread of its own do the waiting for the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "base/file_descriptor.h"
#include "base/version.h"
#include "net/range_set.h"

namespace wormhole {

class PartFile {
 public:
  // What is to be in the file.
  struct Identity {
    std::string url;  // without credentials
    uint64_t size = 0;
    Validator validator;
  };
  enum class Start : uint8_t {
    kFresh,    // nothing was there
    kResumed,  // an earlier part of the same version
    kDropped,  // an earlier part of something else, or one whose version cannot be told; it starts from nothing
  };

  // Creates or takes up the part of `target`, of its full size. Errors: kBusy (another process fills it), kNoSpace,
  // kForbidden, kNotFound (no such directory), kIo.
  static Result<std::unique_ptr<PartFile>> open(const std::string& target, Identity identity);
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  Start start() const { return start_; }
  const RangeSet& present() const { return present_; }
  // An interruption now costs nothing: a later open() takes up what is there.
  bool is_resumable() const { return !identity_.validator.if_range().empty() && present_.size() > 0; }

  // Errors: kNoSpace, kIo.
  Status write(uint64_t offset, std::span<const std::byte> bytes);
  // As many bytes as there are from `offset` on, up to the size of `bytes`; for checking what was written.
  Result<size_t> read(uint64_t offset, std::span<std::byte> bytes) const;

  // The bytes written so far get to the disk and then into the journal, in the background. Does nothing while an
  // earlier checkpoint is under way.
  void checkpoint();
  // The same, and waits.
  Status checkpoint_now();

  // Everything is there: becomes FILE. kInvalid when FILE exists and must not be replaced.
  Status finish(bool replace);
  // Removes the part and its journal.
  void discard();

 private:
  PartFile(std::string target, Identity identity);

  std::string part_path() const { return target_ + ".wormhole-part"; }
  std::string journal_path() const { return part_path() + ".json"; }
  Status open_part();
  Status reserve();
  void take_up_journal();
  std::string journal_text() const;

  const std::string target_;
  const Identity identity_;
  FileDescriptor fd_;
  Start start_ = Start::kFresh;
  RangeSet present_;
  std::future<Status> checkpoint_;  // the one under way, or the last
};

}  // namespace wormhole
