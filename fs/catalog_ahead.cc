// The catalog: what is asked before somebody waits for it, and how what was learnt of single entries becomes part of
// the snapshots.
#include <algorithm>
#include <utility>

#include "fs/catalog.h"
#include "fs/neighbours.h"

namespace wormhole {
namespace {

// Folding what was learnt into a snapshot copies, encodes and writes the directory: so its cost goes with
// the number of entries. It waits for company in proportion, 10 us for each; not at all for less than a hundred
// entries, and not longer than a second, for that is what a crash loses.
constexpr size_t kEntriesInMillisecond = 100;
constexpr Duration kLongestCompany = std::chrono::seconds(1);

}  // namespace

// --- any thread ----------------------------------------------------------------------------------------------------

Catalog::Known Catalog::known(Ino directory) {
  DirectoryRef listing = cached(directory);
  const bool fresh = listing != nullptr && is_fresh(*listing);
  return {std::move(listing), fresh};
}

void Catalog::list_ahead(NodeRef directory, UniqueFunction<void()> done) {
  struct Asked {
    NodeRef directory;
    UniqueFunction<void()> done;
  };
  auto asked = std::make_shared<Asked>(Asked{std::move(directory), std::move(done)});
  mailbox_.post([this, asked] {
    if (!may_ask() || renewals_.contains(asked->directory->ino)) return;
    load(asked->directory, [asked](const Result<DirectoryRef>&) { asked->done(); });
  });
}

void Catalog::ask_ahead(NodeRef directory, std::vector<std::string> names) {
  mailbox_.post([this, directory = std::move(directory), names = std::move(names)] {
    const DirectoryRef listing = newest(directory->ino);
    if (listing == nullptr || !may_ask()) return;
    for (const std::string& name : names) {
      const DirectoryEntry* e = find_newest(*listing, name);
      if (e != nullptr && leaves_open(*e)) ask_about(directory, *e, [](const Result<DirectoryEntry>&) {});
    }
  });
}

bool Catalog::has_no_version(const DirectoryEntry& e) {
  return e.size && *e.size > 0 && *e.size <= kSmallFile && options_.offline != OfflineMode::kOn &&
         !index_.object(e.ino);
}

void Catalog::confirmed(NodeRef file) {
  mailbox_.post([this, file = std::move(file)] {
    const DirectoryRef listing = newest(file->parent->ino);
    const DirectoryEntry* e = listing != nullptr ? find_newest(*listing, file->name) : nullptr;
    if (e == nullptr || e->ino != file->ino || e->gone || !e->doubtful) return;
    DirectoryEntry now = *e;
    now.doubtful = false;
    learn(*listing, std::move(now));
  });
}

// --- the tree thread -----------------------------------------------------------------------------------------------

// Whether a HEAD would tell something that somebody needs. A doubtful file of which nothing was read has no version
// yet.
bool Catalog::leaves_open(const DirectoryEntry& e) {
  if (e.type != EntryType::kFile || e.content) return false;
  return !e.size || e.gone || (e.doubtful && index_.object(e.ino));
}

const DirectoryEntry* Catalog::find_newest(const Directory& listing, const std::string& name) const {
  const DirectoryEntry* listed = listing.find(name);
  const auto learnt = learnt_.find(listing.ino);
  if (listed == nullptr || learnt == learnt_.end()) return listed;
  const auto e = learnt->second.entries.find(name);
  return e == learnt->second.entries.end() ? listed : &e->second;
}

void Catalog::learn(const Directory& listing, DirectoryEntry entry) {
  Learnt& learnt = learnt_[listing.ino];
  if (learnt.entries.empty()) {
    const auto company = std::chrono::milliseconds(listing.entries.size() / kEntriesInMillisecond);
    learnt.fold_at = clock_.now() + std::min<Duration>(company, kLongestCompany);
  }
  std::string name = entry.name;
  learnt.entries.insert_or_assign(std::move(name), std::move(entry));
}

void Catalog::fold(Ino directory) {
  const auto it = learnt_.find(directory);
  if (it == learnt_.end()) return;
  const Learnt learnt = std::move(it->second);
  learnt_.erase(it);
  const DirectoryRef known = newest(directory);
  if (known == nullptr) return;
  auto changed = std::make_shared<Directory>(*known);
  for (const auto& [name, entry] : learnt.entries) {
    DirectoryEntry* e = changed->find(name);
    if (e != nullptr && e->ino == entry.ino) *e = entry;
  }
  write_directory(*changed, {}, {});
  remember(std::move(changed));
}

void Catalog::fold_where_due() {
  if (learnt_.empty()) return;
  const TimePoint now = clock_.now();
  std::vector<Ino> due;
  for (const auto& [ino, learnt] : learnt_) {
    if (now >= learnt.fold_at) due.push_back(ino);
  }
  for (const Ino ino : due) fold(ino);
}

}  // namespace wormhole
