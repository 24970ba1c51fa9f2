// Blocks that a file has in common with the version before it: taken from the cache, not from the network.
//
// It stands between the block reader and the fetches that are checked (verified_fetches.h), as one more fetcher:
//
//   fetch        of a file whose predecessor has blocks in the cache at that place waits for the nodes of the hash
//   tree,
//                which are 32 bytes for each block of 64 KiB
//   the file     of the predecessor is read there; a block whose hash is the new one's node is taken
//   the rest     is fetched, each run of it by a fetch of its own into the same buffer
//
// The predecessor is not opened as an object: nothing says that its file has not changed meanwhile, or has holes where
// something was evicted. The hash says which bytes are right, and that is all that is asked. Blocks are compared with
// those at the same place; what has moved within a file is fetched.
//
// Thread: engine. Nothing blocks except the opening of the predecessor's file and an LMDB lookup. Nothing is told to
// the reader from within one of his calls.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "base/disk_io.h"
#include "base/file_descriptor.h"
#include "base/mailbox.h"
#include "base/metrics.h"
#include "cache/index.h"
#include "fs/all_readers.h"
#include "fs/verified_fetches.h"
#include "net/fetcher.h"
#include "net/range_set.h"

namespace wormhole {

class InheritedBlocks final : public Fetcher, public FetchSink {
 public:
  // All references outlive it. `objects_path`: where the files of the cache are. `post` runs a task soon on the engine
  // thread.
  InheritedBlocks(std::string objects_path, VerifiedFetches& network, Index& index, DiskIo& disk, Metrics& metrics,
                  AllReaders& all, std::function<void(Task)> post);
  ~InheritedBlocks() override;
  // Hears what a reader hears of its fetches. Once, before the first fetch.
  void set_reader(FetchSink& reader) { reader_ = &reader; }

  // As a Fetcher.
  void fetch(FetchRequest request) override;
  void cancel(FetchId id) override;
  void promote(FetchId id) override;
  void want(FetchId id, ByteRange bytes) override;
  void get(DocumentRequest request) override { network_.get(std::move(request)); }
  LinkEstimate link() const override { return network_.link(); }

  // The events of what is fetched, as in FetchSink.
  void fetch_head(FetchId id, ObjectHead head) override;
  void fetch_progress(FetchId id, uint64_t bytes) override;
  void fetch_behind(FetchId id, ByteRange there) override;
  void fetch_chunk(FetchId id, ByteRange range, BufferRef bytes) override;
  void fetch_done(FetchId id, Status status) override;

 private:
  struct Fetch;
  struct Blocks;  // of the predecessor, that may be the same

  Fetch* find(FetchId id);
  Fetch* find_by_part(FetchId part);
  std::unique_ptr<Fetch> with_candidates(const FetchRequest& request);
  void tree_came(FetchId id, const HashTree* tree);
  void read(FetchId id, std::unique_ptr<Blocks> blocks);
  void was_read(FetchId id, const Blocks& blocks, int64_t result);
  void fetch_the_rest(Fetch& fetch);
  void arrived(Fetch& fetch, ByteRange bytes);
  void give_up(Fetch& fetch, Status why);
  void end_if_over(FetchId id);

  const std::string objects_path_;
  VerifiedFetches& network_;
  Index& index_;
  DiskIo& disk_;
  Metrics& metrics_;
  AllReaders& all_;
  FetchSink* reader_ = nullptr;
  const std::function<void(Task)> post_;

  std::unordered_map<FetchId, std::unique_ptr<Fetch>> fetches_;
  std::unordered_map<FetchId, FetchId> parts_;  // what is fetched of the rest, and for which fetch
  // Posted tasks, trees and reads may come when it is gone.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace wormhole
