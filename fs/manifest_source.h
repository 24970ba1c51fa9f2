// Listings out of a manifest, where the server has one; else out of another source. Which it is shows when the first
// directory is asked for.
//
//   the head       .wormhole/manifest below the root, asked for again when it is older than `ttl`
//   the signature  .wormhole/manifest.minisig, if a key is given: without a valid one nothing is believed
//   the sequence   the highest that was ever seen of this tree: an older manifest with a valid signature is a rollback,
//                  and not believed either
//   what it says   of the root directory and of mirrors: the owner is told, and the index remembers it
//   the pages      fs/manifest_tree.h
//
// Thread: list() and doubt() from any; the rest where the request's `post` runs its tasks (the tree thread).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "cache/index.h"
#include "fs/all_readers.h"
#include "fs/content.h"
#include "fs/known_manifest.h"
#include "fs/manifest_tree.h"
#include "net/listing_source.h"

namespace wormhole {

struct ManifestOptions {
  bool required = false;          // a tree without a manifest is an error
  std::optional<Hash256> pinned;  // this very manifest, for ever
  // Of the head's bytes and the text of the signature file. Empty: no signature is asked for.
  std::function<Status(std::string_view head, std::string_view signature)> check_signature;
  int64_t ttl = 60;  // seconds for which a head is believed
  // Told of each manifest that is believed, and with sequence 0 of a tree that has none. Where list() calls back, or
  // within recall().
  std::function<void(const KnownManifest&)> believed;
};

class ManifestSource final : public ListingSource {
 public:
  // All references outlive it. `root`: the URL of the tree, ends with '/'. `otherwise`: who is asked when there is no
  // manifest.
  ManifestSource(ManifestOptions options, std::string root, std::unique_ptr<ListingSource> otherwise, Fetcher& fetcher,
                 BufferPool& buffers, Metrics& metrics, AllReaders& all, Index& index, const Clock& clock);
  ~ManifestSource() override;

  void list(ListingRequest request) override;
  // The head is asked for again, though it is younger than `ttl`.
  void doubt() override { doubted_.store(true, std::memory_order_relaxed); }

  // Tells the owner of the manifest that the index remembers, if there is one: a mount that knows its listings, or
  // cannot ask for them, may long do without another. Before the first list(); from any thread.
  void recall() const;

 private:
  enum class Kind : uint8_t { kUnknown, kManifest, kOther };

  void list_here(ListingRequest request);
  void ask_for_head(const ListingRequest& like);
  void head_came(Result<Document> head);
  void signature_came(const std::string& head, Result<Document> signature);
  Status take_head(std::string_view bytes, const std::string* signature);
  void has_none();
  void answer_waiting();
  void list_in_tree(ListingRequest request);
  static Listing listing_of_entries(std::vector<ManifestEntry> entries, bool is_root,
                                    const std::shared_ptr<const TreesFile>& trees);
  std::string url_of(std::string_view name) const;
  std::string record_key() const;

  const ManifestOptions options_;
  const std::string root_;
  const std::unique_ptr<ListingSource> otherwise_;
  Fetcher& fetcher_;
  BufferPool& buffers_;
  Metrics& metrics_;
  AllReaders& all_;
  Index& index_;
  const Clock& clock_;

  Kind kind_ = Kind::kUnknown;
  KnownManifest known_;  // what the index has of it
  std::shared_ptr<ManifestTree> tree_;
  std::vector<std::weak_ptr<ManifestTree>> older_;  // that still answer somebody
  std::shared_ptr<const TreesFile> trees_;
  Hash256 head_hash_;
  int64_t checked_at_ = 0;  // the head, seconds since the epoch
  bool asking_ = false;
  std::atomic<bool> doubted_{false};
  std::optional<Error> failed_;  // the last time that the head was asked for
  std::vector<ListingRequest> waiting_;
  std::function<bool(Task)> post_;
  Duration patience_{};
};

}  // namespace wormhole
