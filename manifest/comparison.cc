#include "manifest/comparison.h"

#include <algorithm>
#include <cstring>

#include "base/block.h"
#include "manifest/blake3.h"
#include "manifest/hash_tree.h"

namespace wormhole {
namespace {

const char* word(ManifestEntry::Type type) {
  switch (type) {
    case ManifestEntry::Type::kFile: return "file";
    case ManifestEntry::Type::kDirectory: return "directory";
    case ManifestEntry::Type::kSymlink: return "symlink";
  }
  return "?";
}

std::string_view name_in(const std::string& path) { return std::string_view(path).substr(path.rfind('/') + 1); }

}  // namespace

const char* to_string(Difference::Kind kind) {
  switch (kind) {
    case Difference::Kind::kMissing: return "missing";
    case Difference::Kind::kExtra: return "extra";
    case Difference::Kind::kType: return "type";
    case Difference::Kind::kSize: return "size";
    case Difference::Kind::kContent: return "content";
    case Difference::Kind::kTarget: return "target";
    case Difference::Kind::kMode: return "mode";
    case Difference::Kind::kTime: return "time";
    case Difference::Kind::kUnreadable: return "unreadable";
  }
  return "?";
}

Comparison::Comparison(const ManifestHead& head, const PageSource& pages, std::function<void(const Difference&)> found,
                       std::function<bool(const ScanProgress&)> goes_on)
    : head_(head), pages_(pages), found_(std::move(found)), goes_on_(std::move(goes_on)) {}

Status Comparison::missing_before(Level& level, std::string_view name) {
  while (true) {
    const auto at = level.entries->peek();
    if (!at) return fail(at.error());
    if (*at == nullptr || (!name.empty() && (*at)->name >= name)) return {};
    found_({Difference::Kind::kMissing, level.path + (*at)->name,
            (*at)->type == ManifestEntry::Type::kFile ? "" : word((*at)->type)});
    level.entries->advance();
  }
}

Result<std::optional<ManifestEntry>> Comparison::take(std::string_view name) {
  Level& level = levels_.back();
  if (Status before = missing_before(level, name); !before) return fail(before.error());
  const auto at = level.entries->peek();
  if (!at) return fail(at.error());
  if (*at == nullptr || (*at)->name != name) return std::nullopt;
  ManifestEntry entry = **at;
  level.entries->advance();
  return entry;
}

void Comparison::compare_mode(const ManifestEntry& is, const ManifestEntry& said, const std::string& path) {
  if (is.mode != said.mode)
    found_({Difference::Kind::kMode, path, fmt::format("{:04o}, in the manifest {:04o}", is.mode, said.mode)});
}

Status Comparison::begin_directory(const ManifestEntry& directory, const std::string& path) {
  if (levels_.empty()) {
    compare_mode(directory, root_entry(head_), path);
    levels_.push_back({.path = "", .entries = std::optional<ManifestCursor>(std::in_place, pages_, head_.root)});
    return {};
  }
  Level level{.path = path + "/", .entries = std::nullopt};
  if (levels_.back().entries) {
    const auto said = take(directory.name);
    if (!said) return fail(said.error());
    if (!*said) {
      found_({Difference::Kind::kExtra, path, "directory"});
    } else if ((*said)->type != ManifestEntry::Type::kDirectory) {
      found_({Difference::Kind::kType, path, fmt::format("directory, in the manifest {}", word((*said)->type))});
    } else {
      compare_mode(directory, **said, path);
      level.entries.emplace(pages_, (*said)->page);
    }
  }
  levels_.push_back(std::move(level));
  return {};
}

Status Comparison::end_directory() {
  if (levels_.back().entries) {
    if (Status rest = missing_before(levels_.back(), ""); !rest) return rest;
  }
  levels_.pop_back();
  return {};
}

Status Comparison::entry(ManifestEntry entry, std::span<const std::byte> tree, const std::string& path) {
  if (!levels_.back().entries) return {};
  const auto said = take(entry.name);
  if (!said) return fail(said.error());
  if (!*said) {
    found_({Difference::Kind::kExtra, path, entry.type == ManifestEntry::Type::kFile ? "" : word(entry.type)});
    return {};
  }
  if (entry.type != (*said)->type) {
    found_(
        {Difference::Kind::kType, path, fmt::format("{}, in the manifest {}", word(entry.type), word((*said)->type))});
    return {};
  }
  compare_mode(entry, **said, path);
  const auto other =
      entry.type == ManifestEntry::Type::kSymlink ? other_target(entry, **said) : other_content(entry, tree, **said);
  if (!other) return fail(other.error());
  if (*other) {
    found_({(*other)->kind, path, (*other)->detail});
  } else if (entry.mtime != (*said)->mtime || entry.mtime_ns != (*said)->mtime_ns) {
    found_({Difference::Kind::kTime, path,
            fmt::format("{}.{:09}, in the manifest {}.{:09}", entry.mtime, entry.mtime_ns, (*said)->mtime,
                        (*said)->mtime_ns)});
  }
  return {};
}

Result<std::optional<Difference>> Comparison::other_target(const ManifestEntry& is, const ManifestEntry& said) {
  if (is.target == said.target) return std::nullopt;
  return Difference{Difference::Kind::kTarget, "", fmt::format("{}, in the manifest {}", is.target, said.target)};
}

Result<std::optional<Difference>> Comparison::other_content(const ManifestEntry& is, std::span<const std::byte> tree,
                                                            const ManifestEntry& said) {
  const auto said_tree = load_tree(pages_, said);  // it is checked in any case
  if (!said_tree) return fail(said_tree.error());
  if (is.size != said.size)
    return Difference{Difference::Kind::kSize, "", fmt::format("{} bytes, in the manifest {}", is.size, said.size)};
  if (!said.hash || is.hash == said.hash) return std::nullopt;
  const HashTreeShape shape(is.size);
  if (shape.levels() == 0) return Difference{Difference::Kind::kContent, "", ""};
  // Which blocks: level 0 lies last.
  const size_t bytes = shape.nodes(0) * sizeof(Hash256);
  const auto ours = tree.last(bytes), theirs = std::span(*said_tree).last(bytes);
  uint64_t wrong = 0, first = 0;
  for (BlockIndex b = shape.blocks(); b-- > 0;) {
    const size_t at = b * sizeof(Hash256);
    if (std::memcmp(ours.data() + at, theirs.data() + at, sizeof(Hash256)) == 0) continue;
    ++wrong;
    first = b;
  }
  return Difference{Difference::Kind::kContent, "",
                    fmt::format("{} of {} blocks, the first at byte {}", wrong, shape.blocks(), first * kBlockSize)};
}

Status Comparison::left_out(const std::string& path, const std::string& why) {
  if (!levels_.empty() && levels_.back().entries) {
    const auto said = take(name_in(path));
    if (!said) return fail(said.error());
  }
  found_({Difference::Kind::kUnreadable, path, why});
  return {};
}

Status check_pages(const ManifestHead& head, const PageSource& pages,
                   const std::function<bool(uint64_t bytes)>& goes_on) {
  constexpr uint64_t kPiece = 1 << 20;
  Blake3 hash;
  for (uint64_t at = 0; at < head.pages_bytes; at += kPiece) {
    if (!goes_on(at)) return fail(ErrorCode::kCancelled, "interrupted");
    const auto piece = pages({at, std::min(at + kPiece, head.pages_bytes)});
    if (!piece) return fail(piece.error());
    hash.update(std::as_bytes(std::span(*piece)));
  }
  if (hash.finish() != head.pages)
    return fail(ErrorCode::kCorrupt, "the pages of the manifest, {}, are damaged", pages_name(head.pages));
  return {};
}

}  // namespace wormhole
