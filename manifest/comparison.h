// A local tree against its manifest: a visitor of a scan that says what differs.
//
// Thread: that of the scan.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "manifest/reader.h"
#include "manifest/tree_scan.h"

namespace wormhole {

struct Difference {
  enum class Kind : uint8_t {
    kMissing,     // in the manifest, and not on the disk
    kExtra,       // on the disk, and not in the manifest
    kType,        // a file here, a directory there
    kSize,        //
    kContent,     // of the same size
    kTarget,      // of a symlink
    kMode,        //
    kTime,        // of a file or symlink that is the same otherwise
    kUnreadable,  // nobody can tell
  };
  Kind kind;
  std::string path;  // relative to the root; "" is the root
  std::string detail;
};
// "missing", "extra", "type", ...
const char* to_string(Difference::Kind kind);

class Comparison final : public ScanVisitor {
 public:
  // The source outlives the comparison. `found` is called in the order of the tree; of what is missing or extra only
  // the uppermost directory is named. `goes_on`: as that of the visitor.
  Comparison(const ManifestHead& head, const PageSource& pages, std::function<void(const Difference&)> found,
             std::function<bool(const ScanProgress&)> goes_on);

  // Errors, here and below: of the manifest, when it is damaged.
  Status begin_directory(const ManifestEntry& directory, const std::string& path) override;
  Status entry(ManifestEntry entry, std::span<const std::byte> tree, const std::string& path) override;
  Status end_directory() override;
  Status left_out(const std::string& path, const std::string& why) override;
  bool goes_on(const ScanProgress& progress) override { return goes_on_(progress); }

 private:
  // A directory that is open; without a cursor the manifest has none such, which has been said.
  struct Level {
    std::string path;
    std::optional<ManifestCursor> entries;
  };
  // The entry of that name, behind which the cursor stands then; what is before it is missing.
  Result<std::optional<ManifestEntry>> take(std::string_view name);
  Status missing_before(Level& level, std::string_view name);
  void compare_mode(const ManifestEntry& is, const ManifestEntry& said, const std::string& path);
  // Nothing when it is the same; a difference without its path.
  static Result<std::optional<Difference>> other_target(const ManifestEntry& is, const ManifestEntry& said);
  Result<std::optional<Difference>> other_content(const ManifestEntry& is, std::span<const std::byte> tree,
                                                  const ManifestEntry& said);

  const ManifestHead& head_;
  const PageSource& pages_;
  const std::function<void(const Difference&)> found_;
  const std::function<bool(const ScanProgress&)> goes_on_;
  std::vector<Level> levels_;
};

// Whether the pages file is, to its last byte, the one that the head names.
Status check_pages(const ManifestHead& head, const PageSource& pages,
                   const std::function<bool(uint64_t bytes)>& goes_on);

}  // namespace wormhole
