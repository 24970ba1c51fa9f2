// What a reader of many files will ask for next, asked for before he does: the bytes of small files, the sizes that
// only a HEAD tells, the listings of directories. The policy is in neighbours.h; here it meets the tree and the wire.
//
//   opened      a file was opened: the small files that follow are fetched whole
//   looked_up   a name was looked up whose listing leaves its size open: those that follow are asked about, all at once
//   listed      a directory was opened: when its reader has come to the first one in it, or to two more in the order of
//               the tree, those that follow are listed
//
// Each of the three has a few *streams*, one for each place where somebody goes on. What follows in a directory is told
// by a cursor; behind its end come the directories that follow in the order of the tree, once the stream has come from
// one directory to the next. Which is the order in which find, ls -R, tar and cp -r go: a directory before what is
// below it, names in the order of the listing.
//
// Everything that is fetched so is speculative: it waits behind what somebody waits for, and holds the memory budget.
//
// Thread: any; one lock, never held while calling the catalog's or the engines' requests.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "fs/catalog.h"
#include "fs/engines.h"
#include "fs/neighbours.h"

namespace wormhole {

struct LookaheadOptions {
  bool enabled = true;
  uint64_t memory = 256 << 20;  // the budget of all buffers, bytes
  int64_t ttl = 60;             // the catalog's; of listings that are not believed none is fetched ahead
};

class Lookahead {
 public:
  // All references outlive it, and it the threads of catalog and engines.
  Lookahead(LookaheadOptions options, Catalog& catalog, Engines& engines, Index& index, const Fetcher& fetcher)
      : options_(options), catalog_(catalog), engines_(engines), index_(index), fetcher_(fetcher) {}

  void opened(const NodeRef& file);
  void looked_up(const NodeRef& directory, std::string_view name);
  // When it is asked for, and when its listing is there.
  void listed(const NodeRef& directory);
  void listing_arrived(const NodeRef& directory);

 private:
  // What is ahead of one reader.
  struct Stream {
    uint64_t used_at = 0;  // 0: free
    NodeRef directory;     // where he was last
    std::optional<DirectoryCursor> cursor;
    AheadWindow window;
    bool descends = false;                      // has come from one directory to another
    std::unordered_map<Ino, uint32_t> spilled;  // directory -> entries up to which are taken
    std::deque<Ino> guesses;                    // the latest, in the order in which they were made
    uint64_t made = 0;                          // guesses since he began
    uint64_t ahead = 0, ahead_bytes = 0;        // of them, those that he has not come to
  };
  enum class For : uint8_t { kBytes, kSizes };
  struct Guess {
    Stream* stream;
    uint64_t number;  // of the stream's
    uint64_t bytes;
  };
  static constexpr size_t kStreams = 8;  // more readers of different places are rare
  struct Streams {
    std::array<Stream, kStreams> all;
    std::unordered_map<Ino, Guess> guessed;  // files, or directories, that nobody has come to yet
  };
  // What is to be asked for, when the lock is free again.
  struct Wishes {
    std::vector<NodeRef> bytes;
    std::vector<bool> doubtful;
    std::vector<std::pair<NodeRef, std::vector<std::string>>> sizes;
    std::vector<NodeRef> listings;
  };

  void visit(Streams& streams, For what, const NodeRef& directory, const DirectoryRef& listing, uint32_t index,
             Wishes& wishes) REQUIRES_LOCK(mutex_);
  bool comes_from_elsewhere(const Stream& stream, const NodeRef& directory, const DirectoryRef& listing,
                            uint32_t index) const;
  Stream& begin_stream(Streams& streams, const NodeRef& directory) REQUIRES_LOCK(mutex_);
  void propose(Streams& streams, For what, Stream& stream, const DirectoryRef& listing, Wishes& wishes)
      REQUIRES_LOCK(mutex_);
  void propose_on(Streams& streams, For what, Wishes& wishes) REQUIRES_LOCK(mutex_);
  // False when there is no room for more.
  bool want(Streams& streams, For what, Stream& stream, const NodeRef& directory, const DirectoryEntry& entry,
            NeighbourBounds bounds, Wishes& wishes);
  void list_on(Stream& stream, Wishes& wishes) REQUIRES_LOCK(mutex_);
  bool is_crawled(const NodeRef& directory) const REQUIRES_LOCK(mutex_);
  void grant(const Wishes& wishes);
  void has_come(const NodeRef& file, bool doubtful, const Result<bool>& fetched);

  static void make_guess(Streams& streams, Stream& stream, Ino ino, uint64_t bytes);
  static Stream* take_guess(Streams& streams, Ino ino);
  static bool drop_guess(Streams& streams, Ino ino);
  static void pass_guesses(Streams& streams, Stream& stream, uint64_t before);

  // The order of the tree.
  NodeRef following(const NodeRef& directory) REQUIRES_LOCK(mutex_);
  NodeRef subdirectory(const NodeRef& parent, std::string_view behind) REQUIRES_LOCK(mutex_);

  const LookaheadOptions options_;
  Catalog& catalog_;
  Engines& engines_;
  Index& index_;
  const Fetcher& fetcher_;

  Mutex mutex_;
  uint64_t clock_ GUARDED_BY(mutex_) = 0;
  Streams bytes_ GUARDED_BY(mutex_), sizes_ GUARDED_BY(mutex_), listings_ GUARDED_BY(mutex_);
  // Which entries of a snapshot are directories: looked for once.
  struct Subdirectories {
    std::weak_ptr<const Directory> snapshot;
    std::vector<uint32_t> entries;
  };
  std::unordered_map<Ino, Subdirectories> subdirectories_ GUARDED_BY(mutex_);
};

}  // namespace wormhole
