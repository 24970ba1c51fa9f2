// The tree of remote names: where a directory's listing comes from (memory, the index, the server) and how long it is
// believed.
//
//   directory   the snapshot of a directory, not older than `ttl` if the server can be asked
//   open_directory
//               the same for who shows names as they come: of one that was never listed, what arrives page by page
//   entry       one name in it, with everything that a stat needs: a HEAD where the listing does not tell
//   confirm     is this file still the version that its node names? Before an open; a HEAD where the listing leaves
//   doubt
//   …_ahead     the same before somebody asks (fs/lookahead.h)
//
// What HEADs tell is kept, and becomes part of the snapshot some of them at a time.
//
// A listing older than `ttl` is fetched again when somebody asks. A server that cannot be reached leaves the old one
// valid (offline = auto), and is not asked again for a few seconds; one that is slow to answer is waited for a moment,
// then the old one is used, and the new one replaces it when it comes. After such a wait nobody waits for listings of
// which there are old ones, until one has come soon. Requests for one directory share one fetch.
//
// Thread: the functions from any; answers come on the caller's thread when memory has them, else on the tree thread,
// which owns what is under way. No lock is held while answering.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "cache/index.h"
#include "fs/arriving_directory.h"
#include "fs/directory.h"
#include "fs/inode_table.h"
#include "net/fetcher.h"
#include "net/listing_source.h"
#include "net/remote.h"

namespace wormhole {

enum class OfflineMode : uint8_t {
  kAuto,  // ask the server; if it cannot be reached, believe what is known
  kOn,    // never ask the server for listings
  kOff,   // a listing that has grown old and cannot be renewed is an error
};

struct CatalogOptions {
  int64_t ttl = 60;  // seconds for which a listing is believed
  OfflineMode offline = OfflineMode::kAuto;
  Duration patience = std::chrono::seconds(30);  // how long nothing may arrive of a listing before it has failed
};

class Catalog {
 public:
  using DirectoryDone = UniqueFunction<void(Result<DirectoryRef>)>;
  using EntryDone = UniqueFunction<void(Result<DirectoryEntry>)>;
  using StatusDone = UniqueFunction<void(Status)>;
  // Objects that are of no use any more; called on the tree thread.
  using OnSuperseded = std::function<void(const std::vector<Ino>&)>;

  // All references outlive the catalog.
  Catalog(CatalogOptions options, RemoteRoot root, Ino root_ino, Index& index, Fetcher& fetcher,
          ListingSource& listings, Metrics& metrics, const Clock& clock, OnSuperseded on_superseded);
  ~Catalog() { stop(); }
  // Answers everybody who waits with kCancelled and joins the thread. The fetcher must still be alive; its late answers
  // are dropped.
  void stop();

  NodeRef root() const { return root_node_; }
  std::string url_of(const Node& node) const;

  // Errors (for all three): kNotFound; what the fetcher says when nothing is known; kCancelled.
  void directory(NodeRef directory, DirectoryDone done);
  struct OpenedDirectory {  // one of the two
    DirectoryRef snapshot;
    ArrivingRef arriving;
  };
  using OpenedDone = UniqueFunction<void(Result<OpenedDirectory>)>;
  void open_directory(NodeRef directory, OpenedDone done);
  void entry(NodeRef directory, std::string name, EntryDone done) {
    find(std::move(directory), std::move(name), Need::kAttributes, std::move(done));
  }
  // kStale when the name has another version now, or is gone.
  void confirm(const NodeRef& file, StatusDone done);
  // The same, without a HEAD for a small file in doubt that nobody has read yet: false. The response that brings its
  // bytes fixes its version, and a HEAD before it would tell nothing that this does not.
  using ConfirmedDone = UniqueFunction<void(Result<bool>)>;
  void confirm_if_read(const NodeRef& file, ConfirmedDone done);

  // A read has found that the server has another version of this file: the next entry() or confirm() asks.
  void distrust(NodeRef file);

  // --- ahead of a reader (fs/catalog_ahead.cc): nobody waits, and nothing is asked while the server is away ---

  // What memory has of a directory; nothing is asked.
  struct Known {
    DirectoryRef listing;  // null: nothing
    bool fresh = false;
  };
  Known known(Ino directory);
  // Lists the directory, unless it was lately, or somebody asks for it already. `done` on the tree thread, whatever
  // came of it.
  void list_ahead(NodeRef directory, UniqueFunction<void()> done);
  // Asks what the listing leaves open of these names, all at once: size, or whether the version is still the same.
  void ask_ahead(NodeRef directory, std::vector<std::string> names);
  // The server has just sent bytes of this very version: it need not be asked again.
  void confirmed(NodeRef file);

  // False after the server could not be reached, until it answers again.
  bool reachable() const { return reachable_.load(std::memory_order_relaxed); }

 private:
  // What an entry is wanted for decides whether the listing suffices.
  enum class Need : uint8_t { kAttributes, kVersionIfRead, kVersion };
  bool suffices(const DirectoryEntry& entry, Need need);
  bool has_no_version(const DirectoryEntry& entry);
  bool leaves_open(const DirectoryEntry& entry);
  void find(NodeRef directory, std::string name, Need need, EntryDone done);

  // Memory.
  DirectoryRef cached(Ino ino);
  void remember(DirectoryRef directory);
  DirectoryRef newest(Ino ino);
  bool is_fresh(const Directory& directory) const;

  // The tree thread.
  void run();
  void load(NodeRef directory, DirectoryDone done);
  void fetch_listing(NodeRef directory);
  void listing_arrived(const NodeRef& directory, Listing listing, int64_t asked_at);
  void note_gone(const NodeRef& file);
  void page_arrived(const NodeRef& directory, const std::vector<ListedEntry>& entries);
  void complete_arriving(Ino ino, Directory& directory);
  const DirectoryEntry* find_shown(Ino directory, const std::string& name) const;
  void listing_unchanged(const NodeRef& directory, const std::string& etag, int64_t asked_at);
  void ask_about_single_file(NodeRef directory);
  void single_file_arrived(const NodeRef& directory, const Document& document, int64_t asked_at);
  void publish(const NodeRef& directory, MergeResult merged);
  void write_directory(const Directory& directory, const std::vector<Ino>& superseded,
                       const std::vector<MergeResult::Succession>& successions);
  void answer(Ino ino, const Result<DirectoryRef>& result);
  void use_known_where_due();
  TimePoint next_wake() const;
  void listing_failed(const NodeRef& directory, const Error& error);
  void ask_about(const NodeRef& directory, const DirectoryEntry& entry, EntryDone done);
  void head_arrived(const NodeRef& directory, const std::string& name, Result<Document> document);
  Result<DirectoryEntry> apply_head(const DirectoryRef& listing, const std::string& name, const RemoteFile& file);
  const DirectoryEntry* find_newest(const Directory& listing, const std::string& name) const;
  void learn(const Directory& listing, DirectoryEntry entry);
  void fold(Ino directory);
  void fold_where_due();
  void resolve_entry(NodeRef directory, const DirectoryRef& listing, const std::string& name, Need need,
                     EntryDone done);
  void note_reachable(bool reachable);
  bool may_ask() const;

  const CatalogOptions options_;
  const RemoteRoot root_;
  const NodeRef root_node_;
  Index& index_;
  Fetcher& fetcher_;
  ListingSource& listings_;
  Metrics& metrics_;
  const Clock& clock_;
  const OnSuperseded on_superseded_;

  std::atomic<bool> reachable_{true};
  // Of so many files a reader has found another version, which the tree thread has not noted yet. He has his error by
  // then, opens the file again, and must not be given the same one: meanwhile memory is no answer.
  std::atomic<int> distrusting_{0};

  // Recently used directories.
  mutable Mutex mutex_;
  std::list<Ino> recent_ GUARDED_BY(mutex_);  // newest first
  struct Cached {
    DirectoryRef directory;
    std::list<Ino>::iterator place;
  };
  std::unordered_map<Ino, Cached> cached_ GUARDED_BY(mutex_);
  size_t cached_entries_ GUARDED_BY(mutex_) = 0;

  // The tree thread's.
  bool stopping_ = false;
  struct Renewal {  // a listing that is being fetched
    TimePoint began;
    bool is_first = false;       // nothing is known yet: what arrives may be shown
    bool may_use_known = false;  // there is an old one, and it is an answer
    TimePoint use_known_at;      // from then on nobody waits who could have the old one
    std::vector<DirectoryDone> waiters;
    std::vector<std::shared_ptr<OpenedDone>> openers;  // of those who wait; empty functions have been answered
    // What came in pages so far, by name, and of which of them a reader has found another version since.
    struct Shown {
      const DirectoryEntry* entry;
      bool gone = false;
    };
    ArrivingRef arriving;
    std::unordered_map<std::string_view, Shown> shown;
  };
  std::unordered_map<Ino, Renewal> renewals_;
  std::unordered_map<std::string, std::vector<EntryDone>> asked_about_;  // for a HEAD, by URL
  // What was learnt of single entries, and the snapshot does not show yet: a snapshot for each HEAD would copy and
  // write the whole directory as often as it has entries.
  struct Learnt {
    std::unordered_map<std::string, DirectoryEntry> entries;
    TimePoint fold_at;
  };
  std::unordered_map<Ino, Learnt> learnt_;
  TimePoint ask_again_at_{};
  TimePoint slow_until_{};  // until then nobody waits for the server who could have the old listing

  Mailbox mailbox_;
  std::thread thread_;
};

}  // namespace wormhole
