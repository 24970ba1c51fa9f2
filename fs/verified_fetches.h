// Fetches whose bytes are checked against what a manifest says of the file, block by block, before anybody hears of
// them. It stands between the block reader and the fetcher as one more fetcher: the reader asks it, and its own sink
// gets what the network brings.
//
//   fetch            goes on to the network; the nodes of the hash tree that its blocks need are fetched beside it
//   fetch_progress   whole blocks that have come are compared (advance); the reader hears of those that are right
//   wrong            a block that is not: fetched again by itself, from another server if there is one; if that does
//                    not help, the fetch ends with kCorrupt, and the log names file, block and server
//
// A request that does not say what its bytes must be passes through untouched.
//
// Thread: engine. Never blocks, takes no lock. Nothing is told to the reader from within one of his calls.
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
#include "fs/content.h"
#include "manifest/hash_tree.h"
#include "net/fetcher.h"

namespace wormhole {

class VerifiedFetches final : public Fetcher {
 public:
  // All references outlive it. `sink` brings the network's events to the functions
  // below on the engine thread, where `post` runs a task soon.
  VerifiedFetches(Fetcher& network, BufferPool& buffers, Metrics& metrics, AllReaders& all,
                  std::shared_ptr<FetchSink> sink, std::function<void(Task)> post);
  ~VerifiedFetches() override;
  // Hears of what is right. Once, before the first fetch.
  void set_reader(FetchSink& reader) { reader_ = &reader; }

  // As a Fetcher. `wanted` is widened to whole blocks.
  void fetch(FetchRequest request) override;
  void cancel(FetchId id) override;
  void promote(FetchId id) override;
  void want(FetchId id, ByteRange bytes) override;
  void get(DocumentRequest request) override { network_.get(std::move(request)); }
  LinkEstimate link() const override { return network_.link(); }

  // Calls `known` with the hash tree of the file once it has the nodes of all blocks of `request.range`, which may be
  // at once; with null when it cannot have them. Nothing of the file itself is fetched.
  using Known = UniqueFunction<void(const HashTree*)>;
  void with_tree(const FetchRequest& request, Known known);

  // The network's events, as in FetchSink.
  void fetch_head(FetchId id, ObjectHead head);
  void fetch_progress(FetchId id, uint64_t arrived);
  void fetch_behind(FetchId id, ByteRange there);
  void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes);
  void fetch_done(FetchId id, Status status);

 private:
  struct Object;
  struct Fetch;
  struct Piece;  // of a tree, or a block that is fetched again
  using Bytes = std::span<const std::byte>;

  Fetch* find(FetchId id);
  Object& object_of(const FetchRequest& request);
  void forget_idle_objects();
  bool can_check(Object& object, BlockIndex block, const FetchRequest& fetch);
  bool ask_for_tree(Object& object, BlockIndex block, const FetchRequest& fetch);
  bool ask_for_trees(Object& object, const FetchRequest& fetch);
  void tell_who_waits(Object& object, bool failed);
  void fetch_tree(Object& object, ByteRange range, Lane lane, Duration patience, int attempt, std::string avoid);
  void tree_came(FetchId id, Status status);
  bool take_tree(Object& object, const Piece& piece);
  void advance(FetchId id);
  void advance_chunks(Fetch& fetch);
  void advance_behind(Fetch& fetch);
  void wrong(Fetch& fetch, BlockIndex block);
  void block_came(FetchId id, Status status);
  void end(FetchId id, Status status);

  Fetcher& network_;
  BufferPool& buffers_;
  Metrics& metrics_;
  AllReaders& all_;
  FetchSink* reader_ = nullptr;
  const std::shared_ptr<FetchSink> sink_;
  const std::function<void(Task)> post_;

  std::unordered_map<uint64_t, std::unique_ptr<Object>> objects_;
  std::list<uint64_t> used_;  // of them, the one last used at the back
  std::unordered_map<FetchId, std::unique_ptr<Fetch>> fetches_;
  std::unordered_map<FetchId, std::unique_ptr<Piece>> pieces_;
  // Posted tasks may come when it is gone.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace wormhole
