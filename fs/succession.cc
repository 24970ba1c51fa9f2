#include "fs/succession.h"

#include <set>

namespace wormhole {
namespace {

ContentKey content_of(const DirectoryEntry& file) { return {file.content->hash, *file.size}; }

// A file that was renamed, or copied and then removed, has its bytes under the new name.
void hand_on_to_new_names(Index& index, const MergeResult& merged) {
  std::set<ContentKey> cached;
  for (const DirectoryEntry& old : merged.superseded) {
    if (old.content && old.size && index.shared(content_of(old))) cached.insert(content_of(old));
  }
  if (cached.empty()) return;
  for (const DirectoryEntry& e : merged.directory.entries) {
    if (e.content && e.size && cached.contains(content_of(e))) index.share(content_of(e), e.ino);
  }
}

}  // namespace

std::vector<Ino> settle_succession(Index& index, MergeResult* merged) {
  hand_on_to_new_names(index, *merged);
  std::vector<Ino> unused;
  const auto release = [&](const std::optional<Predecessor>& version) {
    if (!version) return;
    if (const auto object = index.unshare(version->content, version->file)) unused.push_back(*object);
  };
  for (const DirectoryEntry& old : merged->superseded) {
    if (!old.content || !old.size) {
      unused.push_back(old.ino);
      continue;
    }
    const Predecessor version{content_of(old), old.ino};
    DirectoryEntry* const now = merged->directory.find(old.name);
    if (now == nullptr || now->type != EntryType::kFile || !now->content) {
      release(version);
      release(old.content->predecessor);
    } else if (index.shared(version.content)) {
      now->content = with_predecessor(*now->content, version);
      release(old.content->predecessor);
    } else {
      now->content = with_predecessor(*now->content, old.content->predecessor);
    }
  }
  return unused;
}

}  // namespace wormhole
