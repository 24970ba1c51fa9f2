#include "fs/catalog.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "fs/succession.h"

namespace wormhole {
namespace {

// Directory entries that stay in memory, about 170 bytes each and 250 of a manifest: the listings of a working set of a
// source tree, in 25 MiB. What is beyond is read from the index.
constexpr size_t kCachedEntries = 100'000;

// After the server could not be reached, how long nobody asks it for listings: each attempt may cost a reader a
// connect timeout.
constexpr Duration kAskAgainAfter = std::chrono::seconds(5);

// How long somebody waits for news when something older is at hand: several round trips of any path, and no more than a
// person at a prompt puts up with.
constexpr Duration kPatienceWithOld = std::chrono::seconds(1);

// After somebody has waited for so long, how long nobody else does: who goes through a tree would wait in each of its
// directories.
constexpr Duration kSlowFor = std::chrono::seconds(5);

NodeRef make_root_node(Ino ino) {
  auto node = std::make_shared<Node>();
  node->ino = ino;
  node->type = EntryType::kDirectory;
  return node;
}

}  // namespace

Catalog::Catalog(CatalogOptions options, RemoteRoot root, Ino root_ino, Index& index, Fetcher& fetcher,
                 ListingSource& listings, Metrics& metrics, const Clock& clock, OnSuperseded on_superseded)
    : options_(options),
      root_(std::move(root)),
      root_node_(make_root_node(root_ino)),
      index_(index),
      fetcher_(fetcher),
      listings_(listings),
      metrics_(metrics),
      clock_(clock),
      on_superseded_(std::move(on_superseded)) {
  thread_ = start_thread("wh-tree", [this] { run(); });
}

void Catalog::stop() {
  if (!thread_.joinable()) return;
  mailbox_.post([this] { stopping_ = true; });
  thread_.join();
}

std::string Catalog::url_of(const Node& node) const {
  if (root_.file) return root_.url.str();
  if (node.parent == nullptr) return root_.url.str();
  std::string url = url_of(*node.parent) + encode_segment(node.name);
  if (node.type == EntryType::kDirectory) url += '/';
  return url;
}

// --- any thread ----------------------------------------------------------------------------------------------------

void Catalog::directory(NodeRef directory, DirectoryDone done) {
  if (DirectoryRef known = cached(directory->ino); known && is_fresh(*known)) return done(known);
  const auto shared = std::make_shared<DirectoryDone>(std::move(done));
  if (!mailbox_.post([this, directory = std::move(directory), shared] { load(directory, std::move(*shared)); })) {
    (*shared)(fail(ErrorCode::kCancelled, "the mount is ending"));
  }
}

void Catalog::open_directory(NodeRef directory, OpenedDone done) {
  if (DirectoryRef known = cached(directory->ino); known && is_fresh(*known)) return done(OpenedDirectory{known, {}});
  const auto opener = std::make_shared<OpenedDone>(std::move(done));
  const bool posted = mailbox_.post([this, directory = std::move(directory), opener] {
    load(directory, [opener](const Result<DirectoryRef>& listing) {
      if (!*opener) return;  // has had the first pages
      OpenedDone waiting = std::exchange(*opener, {});
      listing ? waiting(OpenedDirectory{*listing, {}}) : waiting(fail(listing.error()));
    });
    const auto it = renewals_.find(directory->ino);
    if (!*opener || it == renewals_.end()) return;
    if (it->second.arriving) return std::exchange(*opener, {})(OpenedDirectory{{}, it->second.arriving});
    it->second.openers.push_back(opener);
  });
  if (!posted) (*opener)(fail(ErrorCode::kCancelled, "the mount is ending"));
}

bool Catalog::suffices(const DirectoryEntry& e, Need need) {
  if (e.type != EntryType::kFile || e.content) return true;  // a manifest tells everything
  if (!e.size || e.gone) return false;
  return need == Need::kAttributes || !e.doubtful || (need == Need::kVersionIfRead && has_no_version(e));
}

void Catalog::find(NodeRef directory, std::string name, Need need, EntryDone done) {
  // In this order: what was noted is in memory.
  const bool settled = distrusting_.load() == 0;
  if (DirectoryRef known = cached(directory->ino); settled && known && is_fresh(*known)) {
    const DirectoryEntry* e = known->find(name);
    if (e == nullptr) return done(fail(ErrorCode::kNotFound, "{}: no such entry", name));
    if (suffices(*e, need)) return done(*e);
  }
  struct Asked {
    NodeRef directory;
    std::string name;
    Need need;
    EntryDone done;
  };
  const auto asked = std::make_shared<Asked>(Asked{std::move(directory), std::move(name), need, std::move(done)});
  const bool posted = mailbox_.post([this, asked] {
    if (const DirectoryEntry* e = find_shown(asked->directory->ino, asked->name); e && suffices(*e, asked->need))
      return asked->done(*e);
    load(asked->directory, [this, asked](Result<DirectoryRef> listing) {
      if (!listing) return asked->done(fail(listing.error()));
      resolve_entry(asked->directory, *listing, asked->name, asked->need, std::move(asked->done));
    });
  });
  if (!posted) asked->done(fail(ErrorCode::kCancelled, "the mount is ending"));
}

void Catalog::confirm(const NodeRef& file, StatusDone done) {
  auto shared = std::make_unique<StatusDone>(std::move(done));
  const Ino ino = file->ino;
  find(file->parent, file->name, Need::kVersion, [ino, done = std::move(shared)](Result<DirectoryEntry> now) mutable {
    if (!now && now.error().code != ErrorCode::kNotFound) return (*done)(fail(now.error()));
    if (!now || now->ino != ino) return (*done)(fail(ErrorCode::kStale, "another version is on the server"));
    (*done)({});
  });
}

void Catalog::confirm_if_read(const NodeRef& file, ConfirmedDone done) {
  auto shared = std::make_unique<ConfirmedDone>(std::move(done));
  const Ino ino = file->ino;
  find(file->parent, file->name, Need::kVersionIfRead,
       [this, ino, done = std::move(shared)](Result<DirectoryEntry> now) mutable {
         if (!now && now.error().code != ErrorCode::kNotFound) return (*done)(fail(now.error()));
         if (!now || now->ino != ino) return (*done)(fail(ErrorCode::kStale, "another version is on the server"));
         (*done)(!now->doubtful || !has_no_version(*now));
       });
}

void Catalog::distrust(NodeRef file) {
  ++distrusting_;
  mailbox_.post([this, file = std::move(file)] {
    note_gone(file);
    --distrusting_;
  });
}

// --- memory --------------------------------------------------------------------------------------------------------

DirectoryRef Catalog::cached(Ino ino) {
  MutexLock lock(mutex_);
  auto it = cached_.find(ino);
  if (it == cached_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, it->second.place);
  return it->second.directory;
}

void Catalog::remember(DirectoryRef directory) {
  MutexLock lock(mutex_);
  const Ino ino = directory->ino;
  if (auto it = cached_.find(ino); it != cached_.end()) {
    cached_entries_ -= it->second.directory->entries.size();
    recent_.erase(it->second.place);
    cached_.erase(it);
  }
  cached_entries_ += directory->entries.size();
  recent_.push_front(ino);
  cached_.emplace(ino, Cached{std::move(directory), recent_.begin()});
  while (cached_entries_ > kCachedEntries && recent_.size() > 1) {
    auto it = cached_.find(recent_.back());
    cached_entries_ -= it->second.directory->entries.size();
    cached_.erase(it);
    recent_.pop_back();
  }
}

// The newest snapshot, from memory or from the index; null when there is none.
DirectoryRef Catalog::newest(Ino ino) {
  if (DirectoryRef known = cached(ino)) return known;
  const auto bytes = index_.directory(ino);
  if (!bytes) return nullptr;
  auto decoded = decode_directory(ino, *bytes);
  if (!decoded) {
    log::warn("{}", decoded.error().message);
    return nullptr;
  }
  auto known = std::make_shared<const Directory>(std::move(*decoded));
  remember(known);
  return known;
}

bool Catalog::is_fresh(const Directory& directory) const {
  if (options_.offline == OfflineMode::kOn) return true;
  const int64_t age = clock_.unix_seconds() - directory.fetched_at;
  return age >= 0 && age < options_.ttl;  // a clock that was set back makes a listing old, not young
}

// --- the tree thread -----------------------------------------------------------------------------------------------

void Catalog::run() {
  std::vector<Task> messages;
  while (!stopping_) {
    mailbox_.wait_until(next_wake());
    mailbox_.drain(messages);
    for (Task& task : messages) task();
    messages.clear();
    use_known_where_due();
    fold_where_due();
  }
  mailbox_.close();
  mailbox_.drain(messages);
  for (Task& task : messages) task();
  messages.clear();
  while (!learnt_.empty()) fold(learnt_.begin()->first);
  for (auto& [ino, renewal] : renewals_) {
    for (auto& done : renewal.waiters) done(fail(ErrorCode::kCancelled, "the mount is ending"));
    if (renewal.arriving) renewal.arriving->end(fail(ErrorCode::kCancelled, "the mount is ending"));
  }
  for (auto& [url, waiters] : asked_about_) {
    for (auto& done : waiters) done(fail(ErrorCode::kCancelled, "the mount is ending"));
  }
}

bool Catalog::may_ask() const { return options_.offline != OfflineMode::kOn && clock_.now() >= ask_again_at_; }

void Catalog::note_reachable(bool reachable) {
  ask_again_at_ = reachable ? TimePoint{} : clock_.now() + kAskAgainAfter;
  if (reachable_.exchange(reachable, std::memory_order_relaxed) == reachable) return;
  if (reachable) {
    log::info("the server answers again: url={}", root_.url.display());
  } else {
    log::warn("the server cannot be reached, what is known stays valid: url={}", root_.url.display());
  }
}

void Catalog::note_gone(const NodeRef& file) {
  fold(file->parent->ino);
  const DirectoryRef known = newest(file->parent->ino);
  if (known == nullptr) {
    const auto renewal = renewals_.find(file->parent->ino);
    if (renewal == renewals_.end()) return;
    const auto shown = renewal->second.shown.find(file->name);
    if (shown != renewal->second.shown.end() && shown->second.entry->ino == file->ino) shown->second.gone = true;
    return;
  }
  auto changed = std::make_shared<Directory>(*known);
  DirectoryEntry* e = changed->find(file->name);
  if (e == nullptr || e->ino != file->ino) return;
  changed->etag.clear();  // the listing that it names is behind
  // What a manifest says is not the server's to change: only a newer one does, and it is asked for with the listing.
  if (e->content) {
    listings_.doubt();
    changed->fetched_at = 0;
    return remember(std::move(changed));
  }
  e->doubtful = e->gone = true;
  index_.put_directory(changed->ino, encode(*changed));
  remember(std::move(changed));
}

void Catalog::load(NodeRef directory, DirectoryDone done) {
  const Ino ino = directory->ino;
  if (auto it = renewals_.find(ino); it != renewals_.end()) {
    if (it->second.may_use_known && clock_.now() >= it->second.use_known_at) {
      if (const DirectoryRef known = newest(ino)) return done(known);
    }
    it->second.waiters.push_back(std::move(done));
    return;
  }
  const DirectoryRef known = newest(ino);
  if (known != nullptr && (is_fresh(*known) || (!may_ask() && options_.offline != OfflineMode::kOff)))
    return done(known);
  if (options_.offline == OfflineMode::kOn) {
    return done(fail(ErrorCode::kUnreachable, "{}: nothing is known of it, and offline=on", url_of(*directory)));
  }
  // offline = off: an old listing is no answer.
  Renewal& renewal = renewals_[ino];
  renewal.began = clock_.now();
  renewal.is_first = known == nullptr;
  renewal.may_use_known = known != nullptr && options_.offline == OfflineMode::kAuto;
  const bool slow = clock_.now() < slow_until_;
  renewal.use_known_at = renewal.began + (slow ? Duration::zero() : kPatienceWithOld);
  if (slow && renewal.may_use_known) {
    fetch_listing(std::move(directory));
    return done(known);
  }
  renewal.waiters.push_back(std::move(done));
  fetch_listing(std::move(directory));
}

void Catalog::fetch_listing(NodeRef directory) {
  metrics_.listings_fetched.fetch_add(1, std::memory_order_relaxed);
  if (root_.file) return ask_about_single_file(std::move(directory));
  ListingRequest request;
  request.directory = url_of(*directory);
  if (const DirectoryRef known = newest(directory->ino)) request.etag = known->etag;
  request.patience = options_.patience;
  request.post = [this](Task task) { return mailbox_.post(std::move(task)); };
  request.arrived = [this, directory](const std::vector<ListedEntry>& entries) { page_arrived(directory, entries); };
  request.done = [this, directory, etag = request.etag, asked_at = clock_.unix_seconds()](Result<Listing> listing) {
    if (!listing) return listing_failed(directory, listing.error());
    note_reachable(true);
    if (listing->unchanged) return listing_unchanged(directory, etag, asked_at);
    listing_arrived(directory, std::move(*listing), asked_at);
  };
  listings_.list(std::move(request));
}

void Catalog::listing_arrived(const NodeRef& directory, Listing listing, int64_t asked_at) {
  if (!listing.first_refused.empty()) {
    log::warn("entries that no directory can have were left out: url={} count={} first={}", url_of(*directory),
              listing.skipped, listing.first_refused);
  } else if (listing.skipped > 0) {
    log::debug("links that are no entries were skipped: url={} count={}", url_of(*directory), listing.skipped);
  }
  const auto allocate = [this] { return index_.allocate_ino(); };
  // Merged into what is known now: a HEAD or a reader may have told more since the listing was asked for.
  fold(directory->ino);
  const DirectoryRef known = newest(directory->ino);
  MergeResult merged = merge_listing(known.get(), directory->ino, std::move(listing), asked_at, allocate);
  complete_arriving(directory->ino, merged.directory);
  publish(directory, std::move(merged));
}

void Catalog::page_arrived(const NodeRef& directory, const std::vector<ListedEntry>& entries) {
  const auto it = renewals_.find(directory->ino);
  if (it == renewals_.end() || !it->second.is_first) return;
  Renewal& renewal = it->second;
  const ArrivingRef arriving = renewal.arriving ? renewal.arriving : std::make_shared<ArrivingDirectory>();
  Listing page;
  page.entries = entries;
  const size_t before = renewal.shown.size();
  arriving->add(merge_listing(nullptr, directory->ino, std::move(page), clock_.unix_seconds(), [this] {
                  return index_.allocate_ino();
                }).directory.entries);
  for (size_t place = before; const DirectoryEntry* e = arriving->at(place); ++place)
    renewal.shown.emplace(e->name, Renewal::Shown{e});
  renewal.arriving = arriving;
  for (const auto& opener : std::exchange(renewal.openers, {})) {
    if (*opener) std::exchange(*opener, {})(OpenedDirectory{{}, arriving});
  }
}

// What was shown has its numbers, and what a reader has found out since counts.
void Catalog::complete_arriving(Ino ino, Directory& directory) {
  const auto it = renewals_.find(ino);
  if (it == renewals_.end() || !it->second.arriving) return;
  std::vector<DirectoryEntry> rest;
  for (DirectoryEntry& e : directory.entries) {
    const auto shown = it->second.shown.find(e.name);
    if (shown == it->second.shown.end()) {
      rest.push_back(e);
    } else if (shown->second.entry->type == e.type) {
      e.ino = shown->second.entry->ino;
      e.doubtful = e.gone = shown->second.gone;
    }
  }
  it->second.arriving->add(std::move(rest));
}

// Null: not there yet, or not as it was shown any more.
const DirectoryEntry* Catalog::find_shown(Ino directory, const std::string& name) const {
  const auto renewal = renewals_.find(directory);
  if (renewal == renewals_.end()) return nullptr;
  const auto shown = renewal->second.shown.find(name);
  return shown == renewal->second.shown.end() || shown->second.gone ? nullptr : shown->second.entry;
}

// What the server had then may not be what is known now: a reader may have found another version meanwhile.
void Catalog::listing_unchanged(const NodeRef& directory, const std::string& etag, int64_t asked_at) {
  fold(directory->ino);
  const DirectoryRef known = newest(directory->ino);
  if (known == nullptr || known->etag != etag) return fetch_listing(directory);
  publish(directory, {merge_unchanged(*known, asked_at), {}, {}});
}

void Catalog::ask_about_single_file(NodeRef directory) {
  const std::string url = url_of(*directory);
  ask_about_file(
      fetcher_, url, options_.patience,
      [this, directory = std::move(directory), asked_at = clock_.unix_seconds()](Result<Document> document) {
        mailbox_.post([this, directory, asked_at, d = std::make_unique<Result<Document>>(std::move(document))] {
          if (!*d) return listing_failed(directory, d->error());
          note_reachable(true);
          single_file_arrived(directory, **d, asked_at);
        });
      });
}

// The root of a single file is a directory that holds it.
void Catalog::single_file_arrived(const NodeRef& directory, const Document& document, int64_t asked_at) {
  auto file = file_of(document);
  if (!file) return listing_failed(directory, file.error());
  Listing listing;
  listing.entries.push_back({root_.url.file_name(), EntryType::kFile, file->size, file->mtime, 1, {}});
  fold(directory->ino);
  const auto allocate = [this] { return index_.allocate_ino(); };
  const DirectoryRef known = newest(directory->ino);
  MergeResult merged = merge_listing(known.get(), directory->ino, std::move(listing), asked_at, allocate);
  const DirectoryEntry e = merged.directory.entries.front();
  publish(directory, std::move(merged));
  // The HEAD has told the validator as well.
  if (e.doubtful) apply_head(cached(directory->ino), e.name, *file);
}

void Catalog::publish(const NodeRef& directory, MergeResult merged) {
  const std::vector<Ino> unused = settle_succession(index_, &merged);
  auto snapshot = std::make_shared<const Directory>(std::move(merged.directory));
  std::vector<Ino> superseded;
  for (const DirectoryEntry& old : merged.superseded) superseded.push_back(old.ino);
  write_directory(*snapshot, superseded, merged.successions);
  remember(snapshot);
  answer(directory->ino, DirectoryRef(snapshot));
  if (!unused.empty()) on_superseded_(unused);
}

// A pin is the name's: it goes over to the new version. The new one is pinned before the directory shows it, and the
// old one not any more only after that, so that a crash cannot lose it.
void Catalog::write_directory(const Directory& directory, const std::vector<Ino>& superseded,
                              const std::vector<MergeResult::Succession>& successions) {
  std::vector<Ino> heirs;
  for (const auto& [from, to] : successions) {
    if (index_.pinned().contains(from)) heirs.push_back(to);
  }
  if (!heirs.empty()) index_.pin(std::move(heirs));
  index_.put_directory(directory.ino, encode(directory));
  std::vector<Ino> gone;
  std::copy_if(superseded.begin(), superseded.end(), std::back_inserter(gone),
               [this](Ino ino) { return index_.pinned().contains(ino); });
  if (!gone.empty()) index_.unpin(std::move(gone));
}

void Catalog::listing_failed(const NodeRef& directory, const Error& error) {
  const DirectoryRef known = newest(directory->ino);
  const bool unreachable = server_did_not_speak(error.code);
  if (error.code != ErrorCode::kCancelled) note_reachable(!unreachable);
  // An old listing is better than none, unless the server itself says that the directory is gone or closed.
  const bool use_old = known != nullptr && options_.offline == OfflineMode::kAuto &&
                       (unreachable || error.code == ErrorCode::kBadResponse);
  if (!use_old) {
    log::warn("listing failed: url={} error={} \"{}\"", url_of(*directory), to_string(error.code), error.message);
    return answer(directory->ino, fail(error));
  }
  answer(directory->ino, known);
}

void Catalog::answer(Ino ino, const Result<DirectoryRef>& result) {
  auto it = renewals_.find(ino);
  if (it == renewals_.end()) return;
  Renewal renewal = std::move(it->second);
  renewals_.erase(it);
  if (result && clock_.now() - renewal.began < kPatienceWithOld) slow_until_ = {};
  for (DirectoryDone& done : renewal.waiters) done(result);
  if (!renewal.arriving) return;
  renewal.arriving->end(result ? Status{} : fail(result.error()));
  if (result) return;
  // No directory will name these numbers.
  std::vector<Ino> lost;
  for (const auto& [name, shown] : renewal.shown) {
    if (shown.entry->type == EntryType::kFile) lost.push_back(shown.entry->ino);
  }
  on_superseded_(lost);
}

// Whoever has waited long enough for a slow server gets the old listing; the fetch goes on.
void Catalog::use_known_where_due() {
  const TimePoint now = clock_.now();
  std::vector<std::pair<DirectoryDone, DirectoryRef>> due;
  for (auto& [ino, renewal] : renewals_) {
    if (!renewal.may_use_known || now < renewal.use_known_at) continue;
    const DirectoryRef known = newest(ino);
    if (known == nullptr) continue;
    if (!renewal.waiters.empty()) slow_until_ = now + kSlowFor;
    for (DirectoryDone& done : renewal.waiters) due.emplace_back(std::move(done), known);
    renewal.waiters.clear();
  }
  for (auto& [done, known] : due) done(known);
}

TimePoint Catalog::next_wake() const {
  TimePoint wake = clock_.now() + std::chrono::seconds(60);
  for (const auto& [ino, renewal] : renewals_) {
    if (renewal.may_use_known && !renewal.waiters.empty()) wake = std::min(wake, renewal.use_known_at);
  }
  for (const auto& [ino, learnt] : learnt_) wake = std::min(wake, learnt.fold_at);
  return wake;
}

// --- one entry -----------------------------------------------------------------------------------------------------

void Catalog::resolve_entry(NodeRef directory, const DirectoryRef& listing, const std::string& name, Need need,
                            EntryDone done) {
  const DirectoryEntry* e = find_newest(*listing, name);
  if (e == nullptr) return done(fail(ErrorCode::kNotFound, "{}: no such entry", name));
  if (suffices(*e, need)) return done(*e);
  if (!may_ask() && e->size && options_.offline != OfflineMode::kOff && !e->gone) return done(*e);
  ask_about(directory, *e, std::move(done));
}

void Catalog::ask_about(const NodeRef& directory, const DirectoryEntry& e, EntryDone done) {
  Node file;
  file.type = EntryType::kFile;
  file.name = e.name;
  file.parent = directory;
  const std::string url = url_of(file);
  auto& waiters = asked_about_[url];
  waiters.push_back(std::move(done));
  if (waiters.size() > 1) return;
  const bool have_old = e.size && !e.gone && options_.offline == OfflineMode::kAuto;
  const Duration patience = have_old ? std::min(options_.patience, kPatienceWithOld) : options_.patience;
  ask_about_file(fetcher_, url, patience, [this, directory, name = e.name](Result<Document> document) {
    mailbox_.post([this, directory, name, d = std::make_unique<Result<Document>>(std::move(document))] {
      head_arrived(directory, name, std::move(*d));
    });
  });
}

void Catalog::head_arrived(const NodeRef& directory, const std::string& name, Result<Document> document) {
  Node file;
  file.name = name;
  file.parent = directory;
  auto it = asked_about_.find(url_of(file));
  if (it == asked_about_.end()) return;
  std::vector<EntryDone> waiters = std::move(it->second);
  asked_about_.erase(it);

  const DirectoryRef listing = newest(directory->ino);
  const DirectoryEntry* known = listing != nullptr ? find_newest(*listing, name) : nullptr;
  Result<DirectoryEntry> result = fail(ErrorCode::kNotFound, "{}: no such entry", name);
  if (document) {
    note_reachable(true);
    auto remote = file_of(*document);
    result = remote ? apply_head(listing, name, *remote) : fail(remote.error());
  } else if (server_did_not_speak(document.error().code)) {
    note_reachable(false);
    const bool usable = known != nullptr && known->size && !known->gone && options_.offline == OfflineMode::kAuto;
    result = usable ? Result<DirectoryEntry>(*known) : fail(document.error());
  } else {
    if (document.error().code != ErrorCode::kCancelled) note_reachable(true);
    result = fail(document.error());
  }
  for (EntryDone& done : waiters) done(result);
}

// What a HEAD says becomes part of the listing: the exact size and time, or another version.
Result<DirectoryEntry> Catalog::apply_head(const DirectoryRef& listing, const std::string& name,
                                           const RemoteFile& file) {
  const DirectoryEntry* known = listing != nullptr ? find_newest(*listing, name) : nullptr;
  if (known == nullptr) return fail(ErrorCode::kNotFound, "{}: no such entry", name);
  DirectoryEntry e = *known;
  const auto record = index_.object(e.ino);
  const bool same = !e.gone && (!e.size || *e.size == file.size) &&
                    (!record || (record->size == file.size && !record->validator.contradicts(file.validator)));
  e.size = file.size;
  if (file.mtime) e.mtime = *file.mtime;
  e.doubtful = e.gone = false;
  if (same) {
    learn(*listing, e);
    return e;
  }
  // Another version has to be seen by everybody at once.
  const Ino old = std::exchange(e.ino, index_.allocate_ino());
  e.listed_mtime = DirectoryEntry::kNotListedYet;
  fold(listing->ino);
  auto changed = std::make_shared<Directory>(*newest(listing->ino));
  *changed->find(name) = e;
  changed->etag.clear();  // the listing that it names is behind
  write_directory(*changed, {old}, {{old, e.ino}});
  remember(std::move(changed));
  on_superseded_({old});
  return e;
}

}  // namespace wormhole
