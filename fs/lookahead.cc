#include "fs/lookahead.h"

#include <algorithm>

#include "base/block.h"

namespace wormhole {
namespace {

// A guess that lies so many behind the latest that was used is passed by: several readers may share a directory.
constexpr uint64_t kOvertaking = 64;

// Behind the end of a directory so many that follow are looked at: a look costs a search by name.
constexpr int kDirectoriesAhead = 64;

// Listings ahead of a reader: as many as the net thread has under way beside the reads.
constexpr uint64_t kMostListings = 64;
// A step to one of so many that follow is a step in the order of the tree: some are skipped (find -prune), or come in
// the order of a locale.
constexpr int kSkipDirectories = 4;

// Directories of which it is remembered which entries are directories.
constexpr size_t kMostSubdirectories = 4096;
constexpr size_t kMostSpilled = 1024;

bool is_below(const NodeRef& node, Ino directory) {
  for (const Node* n = node.get(); n != nullptr; n = n->parent.get()) {
    if (n->ino == directory) return true;
  }
  return false;
}

// Among the first files of a directory, or the last: where several readers share the work, the second may come first.
bool is_begin(const Directory& listing, uint32_t index) {
  constexpr int kAmongTheFirst = 2;
  const auto is_file = [](const DirectoryEntry& e) { return e.type == EntryType::kFile; };
  int before = 0, behind = 0;
  for (uint32_t i = index; i-- > 0 && before < kAmongTheFirst;) before += is_file(listing.entries[i]);
  for (size_t i = index + 1; i < listing.entries.size() && behind < kAmongTheFirst; ++i)
    behind += is_file(listing.entries[i]);
  return before < kAmongTheFirst || behind < kAmongTheFirst;
}

std::optional<uint32_t> index_of(const Directory& listing, std::string_view name) {
  const DirectoryEntry* e = listing.find(name);
  if (e == nullptr) return std::nullopt;
  return static_cast<uint32_t>(e - listing.entries.data());
}

// The entry of one snapshot in another one of the same directory: nearly always at the same place.
std::optional<uint32_t> same_entry(const Directory& from, uint32_t index, const Directory& to) {
  const std::string& name = from.entries[index].name;
  if (&from == &to || (index < to.entries.size() && to.entries[index].name == name)) return index;
  return index_of(to, name);
}

}  // namespace

// --- what readers do -----------------------------------------------------------------------------------------------

void Lookahead::opened(const NodeRef& file) {
  if (!options_.enabled || file->parent == nullptr) return;
  const DirectoryRef listing = catalog_.known(file->parent->ino).listing;
  if (listing == nullptr) return;
  const auto index = index_of(*listing, file->name);
  if (!index) return;
  Wishes wishes;
  {
    MutexLock lock(mutex_);
    visit(bytes_, For::kBytes, file->parent, listing, *index, wishes);
  }
  grant(wishes);
}

void Lookahead::looked_up(const NodeRef& directory, std::string_view name) {
  if (!options_.enabled) return;
  const DirectoryRef listing = catalog_.known(directory->ino).listing;
  if (listing == nullptr) return;
  const auto index = index_of(*listing, name);
  if (!index || listing->entries[*index].type != EntryType::kFile) return;
  const DirectoryEntry& entry = listing->entries[*index];
  Wishes wishes;
  {
    MutexLock lock(mutex_);
    const bool is_followed = std::any_of(sizes_.all.begin(), sizes_.all.end(), [&](const Stream& s) {
      return s.used_at != 0 && s.directory->ino == directory->ino;
    });
    // Where listings give the sizes there is nothing to follow.
    if (entry.size && !entry.gone && !is_followed && !sizes_.guessed.contains(entry.ino)) return;
    visit(sizes_, For::kSizes, directory, listing, *index, wishes);
  }
  grant(wishes);
}

void Lookahead::listed(const NodeRef& directory) {
  if (!options_.enabled || options_.ttl <= 0) return;
  Wishes wishes;
  {
    MutexLock lock(mutex_);
    Stream* stream = take_guess(listings_, directory->ino);
    bool into_first = false;  // from a directory into the first one in it
    for (Stream& s : listings_.all) {
      if (stream != nullptr || s.used_at == 0) continue;
      if (s.directory->ino == directory->ino) return;
      NodeRef next = s.directory;
      for (int i = 0; i < kSkipDirectories && stream == nullptr; ++i) {
        next = following(next);
        if (next == nullptr) break;
        if (next->ino != directory->ino) continue;
        stream = &s;
        into_first = i == 0 && directory->parent->ino == s.directory->ino;
      }
    }
    if (stream == nullptr) {
      begin_stream(listings_, directory);
      return;
    }
    stream->used_at = ++clock_;
    stream->directory = directory;
    into_first ? stream->window.came_surely() : stream->window.came();
    list_on(*stream, wishes);
  }
  grant(wishes);
}

// --- streams -------------------------------------------------------------------------------------------------------

void Lookahead::visit(Streams& streams, For what, const NodeRef& directory, const DirectoryRef& listing, uint32_t index,
                      Wishes& wishes) {
  Stream* stream = take_guess(streams, listing->entries[index].ino);
  const bool expected = stream != nullptr;
  for (Stream& s : streams.all) {
    if (stream == nullptr && s.used_at != 0 && s.directory->ino == directory->ino) stream = &s;
  }
  for (Stream& s : streams.all) {
    if (stream == nullptr && comes_from_elsewhere(s, directory, listing, index)) stream = &s;
  }
  if (stream == nullptr) stream = &begin_stream(streams, directory);
  stream->used_at = ++clock_;
  if (!stream->cursor) {
    stream->cursor.emplace(listing);
    stream->cursor->visit(index);
    return;
  }
  DirectoryCursor& cursor = *stream->cursor;
  if (stream->directory->ino != directory->ino) {
    const auto order = cursor.order();
    const bool backwards = cursor.backwards();
    cursor = DirectoryCursor(listing);
    cursor.enter(index, order, backwards);
    if (const auto spilled = stream->spilled.find(directory->ino); spilled != stream->spilled.end()) {
      if (order == DirectoryCursor::Order::kName && !backwards) cursor.skip_taken(spilled->second);
      stream->spilled.erase(spilled);
    }
    stream->directory = directory;
    stream->descends = true;
    stream->window.came();
    return propose(streams, what, *stream, listing, wishes);
  }
  const auto in_cursor = same_entry(*listing, index, *cursor.snapshot());
  auto step = DirectoryCursor::Step::kElsewhere;
  if (in_cursor) {
    step = cursor.visit(*in_cursor);
  } else {
    cursor = DirectoryCursor(listing);
    cursor.visit(index);
  }
  if (step == DirectoryCursor::Step::kElsewhere && expected && in_cursor) {
    cursor.enter(*in_cursor, cursor.order(), cursor.backwards());
    step = DirectoryCursor::Step::kOnward;
  }
  if (step == DirectoryCursor::Step::kOnward) stream->window.came();
  if (step == DirectoryCursor::Step::kElsewhere) {
    pass_guesses(streams, *stream, stream->made);
    stream->window.left();
  }
  propose(streams, what, *stream, listing, wishes);
}

// Whether somebody who was in another directory goes on here: below it, beside it or above it, and at its begin; or
// behind the directory that he comes up from.
bool Lookahead::comes_from_elsewhere(const Stream& stream, const NodeRef& directory, const DirectoryRef& listing,
                                     uint32_t index) const {
  if (stream.used_at == 0 || !stream.window.is_open()) return false;
  const bool up = is_below(stream.directory, directory->ino);
  if (!up && (directory->parent == nullptr || !is_below(stream.directory, directory->parent->ino))) return false;
  if (!up) return is_begin(*listing, index);
  const Node* from = stream.directory.get();
  while (from->parent && from->parent->ino != directory->ino) from = from->parent.get();
  const auto left = index_of(*listing, from->name);
  return left && index > *left && index <= *left + kOvertaking;
}

Lookahead::Stream& Lookahead::begin_stream(Streams& streams, const NodeRef& directory) {
  Stream& stream = *std::min_element(streams.all.begin(), streams.all.end(),
                                     [](const Stream& a, const Stream& b) { return a.used_at < b.used_at; });
  for (const Ino ino : stream.guesses) {
    if (const auto it = streams.guessed.find(ino); it != streams.guessed.end() && it->second.stream == &stream)
      streams.guessed.erase(it);
  }
  stream = Stream{};
  stream.used_at = ++clock_;
  stream.directory = directory;
  return stream;
}

// --- what is fetched -----------------------------------------------------------------------------------------------

// Refilled in quarters: a message for each file costs more than it brings.
void Lookahead::propose(Streams& streams, For what, Stream& stream, const DirectoryRef& listing, Wishes& wishes) {
  const NeighbourBounds bounds = neighbour_bounds(fetcher_.link(), options_.memory);
  const uint64_t most = stream.window.size(bounds.files);
  if (stream.ahead * 4 >= most * 3) return;
  DirectoryCursor& cursor = *stream.cursor;
  for (auto next = cursor.next(); next; next = cursor.next()) {
    if (stream.ahead >= most) return;
    const auto now = same_entry(*cursor.snapshot(), *next, *listing);
    if (now && !want(streams, what, stream, stream.directory, listing->entries[*now], bounds, wishes)) return;
    cursor.take();
  }
  if (!stream.descends && !is_crawled(stream.directory)) return;
  if (stream.spilled.size() > kMostSpilled) stream.spilled.clear();
  NodeRef directory = following(stream.directory);
  for (int i = 0; i < kDirectoriesAhead && directory != nullptr; ++i, directory = following(directory)) {
    const Catalog::Known known = catalog_.known(directory->ino);
    if (known.listing == nullptr || !known.fresh) return;
    uint32_t& taken = stream.spilled[directory->ino];
    for (; taken < known.listing->entries.size(); ++taken) {
      if (stream.ahead >= most) return;
      const DirectoryEntry& entry = known.listing->entries[taken];
      if (entry.type == EntryType::kFile && !want(streams, what, stream, directory, entry, bounds, wishes)) return;
    }
  }
}

bool Lookahead::want(Streams& streams, For what, Stream& stream, const NodeRef& directory, const DirectoryEntry& entry,
                     NeighbourBounds bounds, Wishes& wishes) {
  const bool size_is_known = entry.size && !entry.gone;
  if (streams.guessed.contains(entry.ino)) return true;
  if (what == For::kSizes) {
    if (size_is_known) return true;
    make_guess(streams, stream, entry.ino, 0);
    if (wishes.sizes.empty() || wishes.sizes.back().first->ino != directory->ino)
      wishes.sizes.push_back({directory, {}});
    wishes.sizes.back().second.push_back(entry.name);
    return true;
  }
  if (!size_is_known) return false;  // somebody asks about it before he opens it
  if (*entry.size == 0 || *entry.size > bounds.largest) return true;
  if (stream.ahead_bytes + *entry.size > bounds.bytes) return false;
  make_guess(streams, stream, entry.ino, *entry.size);
  wishes.bytes.push_back(node_of(directory, entry));
  wishes.doubtful.push_back(entry.doubtful);
  return true;
}

void Lookahead::list_on(Stream& stream, Wishes& wishes) {
  const uint64_t most = stream.window.size(kMostListings);
  NodeRef directory = stream.directory;
  for (uint64_t i = 0; i < most; ++i) {
    directory = following(directory);
    if (directory == nullptr) return;
    const Catalog::Known known = catalog_.known(directory->ino);
    if (known.listing != nullptr && known.fresh) continue;
    // One that is guessed and not there is on its way, or could not be had.
    if (listings_.guessed.contains(directory->ino) && known.listing == nullptr) continue;
    if (!listings_.guessed.contains(directory->ino)) make_guess(listings_, stream, directory->ino, 0);
    wishes.listings.push_back(directory);
  }
}

// Somebody goes through the tree, and is here.
bool Lookahead::is_crawled(const NodeRef& directory) const {
  return std::any_of(listings_.all.begin(), listings_.all.end(), [&](const Stream& s) {
    return s.used_at != 0 && s.window.is_open() && s.directory->ino == directory->ino;
  });
}

void Lookahead::grant(const Wishes& wishes) {
  for (const NodeRef& directory : wishes.listings) {
    catalog_.list_ahead(directory, [this, directory] { listing_arrived(directory); });
  }
  for (const auto& [directory, names] : wishes.sizes) catalog_.ask_ahead(directory, names);
  for (size_t i = 0; i < wishes.bytes.size(); ++i) {
    const NodeRef& file = wishes.bytes[i];
    // Of what is cached the engine need not hear: a look at the index costs less than a message.
    const Ino object = engines_.object_of(*file);
    if (index_.blocks_present(object) >= block_count(file->size)) {
      has_come(file, wishes.doubtful[i], false);
      continue;
    }
    engines_.fetch_whole(object, file->size, catalog_.url_of(*file), file->content, Lane::kSpeculative,
                         [this, file, doubtful = static_cast<bool>(wishes.doubtful[i])](const Result<bool>& fetched) {
                           has_come(file, doubtful, fetched);
                         });
  }
}

// What a HEAD would tell before the open, the response has told: that the version is the one that is known, or that it
// is not. Of what was there already a HEAD has to tell.
void Lookahead::has_come(const NodeRef& file, bool doubtful, const Result<bool>& fetched) {
  if (fetched && doubtful) *fetched ? catalog_.confirmed(file) : catalog_.ask_ahead(file->parent, {file->name});
  if (!fetched && fetched.error().code == ErrorCode::kStale) catalog_.distrust(file);
}

// It may tell of directories that come before those that were listed, and of files.
void Lookahead::listing_arrived(const NodeRef& directory) {
  if (!options_.enabled || options_.ttl <= 0) return;
  Wishes wishes;
  {
    MutexLock lock(mutex_);
    const auto guess = listings_.guessed.find(directory->ino);
    for (Stream& s : listings_.all) {
      const bool is_his = guess != listings_.guessed.end() ? guess->second.stream == &s
                                                           : s.used_at != 0 && s.directory->ino == directory->ino;
      if (is_his) list_on(s, wishes);
    }
    if (guess != listings_.guessed.end()) {
      propose_on(bytes_, For::kBytes, wishes);
      propose_on(sizes_, For::kSizes, wishes);
    }
  }
  grant(wishes);
}

void Lookahead::propose_on(Streams& streams, For what, Wishes& wishes) {
  for (Stream& s : streams.all) {
    if (!s.cursor || !s.window.is_open()) continue;
    if (const DirectoryRef listing = catalog_.known(s.directory->ino).listing)
      propose(streams, what, s, listing, wishes);
  }
}

// --- guesses -------------------------------------------------------------------------------------------------------

void Lookahead::make_guess(Streams& streams, Stream& stream, Ino ino, uint64_t bytes) {
  streams.guessed.emplace(ino, Guess{&stream, stream.made++, bytes});
  stream.guesses.push_back(ino);
  ++stream.ahead;
  stream.ahead_bytes += bytes;
}

bool Lookahead::drop_guess(Streams& streams, Ino ino) {
  const auto it = streams.guessed.find(ino);
  if (it == streams.guessed.end()) return false;
  --it->second.stream->ahead;
  it->second.stream->ahead_bytes -= it->second.bytes;
  streams.guessed.erase(it);
  return true;
}

// Whose guess it was; null when it was nobody's.
Lookahead::Stream* Lookahead::take_guess(Streams& streams, Ino ino) {
  const auto it = streams.guessed.find(ino);
  if (it == streams.guessed.end()) return nullptr;
  const Guess guess = it->second;
  drop_guess(streams, ino);
  guess.stream->window.used();
  if (guess.number > kOvertaking) pass_guesses(streams, *guess.stream, guess.number - kOvertaking);
  return guess.stream;
}

// Those before the number are not going to be used any more.
void Lookahead::pass_guesses(Streams& streams, Stream& stream, uint64_t before) {
  while (!stream.guesses.empty() && stream.made - stream.guesses.size() < before) {
    if (drop_guess(streams, stream.guesses.front())) stream.window.passed();
    stream.guesses.pop_front();
  }
}

// --- the order of the tree -----------------------------------------------------------------------------------------

NodeRef Lookahead::following(const NodeRef& directory) {
  if (NodeRef first = subdirectory(directory, {})) return first;
  for (NodeRef d = directory; d->parent != nullptr; d = d->parent) {
    if (NodeRef next = subdirectory(d->parent, d->name)) return next;
  }
  return nullptr;
}

// The first one of the parent behind that name; null when there is none, or nothing is known.
NodeRef Lookahead::subdirectory(const NodeRef& parent, std::string_view behind) {
  const DirectoryRef listing = catalog_.known(parent->ino).listing;
  if (listing == nullptr) return nullptr;
  if (subdirectories_.size() > kMostSubdirectories) subdirectories_.clear();
  Subdirectories& known = subdirectories_[parent->ino];
  if (known.snapshot.lock() != listing) {
    known = {listing, {}};
    for (uint32_t i = 0; i < listing->entries.size(); ++i) {
      if (listing->entries[i].type == EntryType::kDirectory) known.entries.push_back(i);
    }
  }
  const auto it = std::upper_bound(known.entries.begin(), known.entries.end(), behind,
                                   [&](std::string_view name, uint32_t i) { return name < listing->entries[i].name; });
  return it == known.entries.end() ? nullptr : node_of(parent, listing->entries[*it]);
}

}  // namespace wormhole
