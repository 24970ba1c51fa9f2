// What the directories of a manifest hold. Its pages are fetched when somebody asks for a directory, checked against
// the page that names them, and kept for a while: the way from the root to a directory is walked anew each time.
//
// The pages file is fetched in windows, because directories that belong together lie together: whoever descends finds
// the next one in memory. One manifest, which does not change; a newer one is another object.
//
// Thread: the tree thread (fs/catalog.h) alone, but for the end; `post` brings the network's answers there. Answers may
// come from within list().
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "fs/all_readers.h"
#include "manifest/head.h"
#include "net/fetcher.h"

namespace wormhole {

class ManifestTree : public std::enable_shared_from_this<ManifestTree> {
 public:
  using Listed = UniqueFunction<void(Result<std::vector<ManifestEntry>>)>;

  // All references outlive it. `pages_url`: of the pages file. `patience`: how long a page may be waited for without
  // any byte arriving.
  ManifestTree(ManifestHead head, std::string pages_url, Fetcher& fetcher, BufferPool& buffers, Metrics& metrics,
               AllReaders& all, Duration patience, std::function<void(Task)> post);
  ~ManifestTree();

  const ManifestHead& head() const { return head_; }

  // Nobody is answered any more. At the end of a mount, when the thread has ended.
  void abandon();

  // The entries of the directory, by name. Errors: kNotFound, kNotDirectory; kCorrupt when what the servers have does
  // not match the manifest; those of the fetcher.
  void list(std::vector<std::string> path, Listed done);

 private:
  using PageRefPtr = std::shared_ptr<const DirectoryPage>;
  using PageDone = std::function<void(const Result<PageRefPtr>&)>;
  struct Walk;
  struct Window;
  class Sink;

  void step(const std::shared_ptr<Walk>& walk);
  void descend(const std::shared_ptr<Walk>& walk, const DirectoryPage& page);
  void gather(const std::shared_ptr<Walk>& walk, const DirectoryPage& page);
  static void finish(const std::shared_ptr<Walk>& walk, Result<std::vector<ManifestEntry>> result);

  void page(const PageRef& ref, const PageDone& done);
  void load(const PageRef& ref, const PageDone& done, int attempt);
  void remember(const PageRef& ref, PageRefPtr page);

  ByteRange window_of(const PageRef& ref) const;
  Window& window(ByteRange range, const std::string& avoid);
  void forget_windows();
  void window_came(FetchId id, Status status);
  void run_soon(std::function<void()> work);

  const ManifestHead head_;
  const std::string url_;
  Fetcher& fetcher_;
  BufferPool& buffers_;
  Metrics& metrics_;
  AllReaders& all_;
  const Duration patience_;
  const std::function<void(Task)> post_;
  std::shared_ptr<Sink> sink_;

  std::map<uint64_t, std::unique_ptr<Window>> windows_;  // by where they begin
  std::list<uint64_t> used_windows_;                     // those that have come; the one last used at the back
  std::unordered_map<FetchId, uint64_t> under_way_;
  // Decoded; by their hash.
  struct Known {
    PageRefPtr page;
    std::list<Hash256>::iterator place;
  };
  std::unordered_map<Hash256, Known> pages_;
  std::list<Hash256> used_pages_;
  // So that a directory of many pages is no deep recursion.
  std::deque<std::function<void()>> ready_;
  bool running_ = false;
};

}  // namespace wormhole
