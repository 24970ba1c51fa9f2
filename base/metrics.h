// What the daemon counts. One struct, so that `wormhole status` and a debugger show the same; a counter only grows,
// a gauge goes both ways.
//
// Thread: any; relaxed atomics, each value is right by itself, two of them may be a moment apart.
#pragma once

#include <atomic>
#include <cstdint>

namespace wormhole {

struct Metrics {
  using Counter = std::atomic<uint64_t>;
  using Gauge = std::atomic<int64_t>;

  // Reads, in bytes handed to readers, by where they came from.
  Counter read_requests{0};
  Counter bytes_from_network{0};  // waited for the wire, or were read ahead and still in memory
  Counter bytes_from_cache{0};    // read from the cache's files; not what the kernel reads by itself
  Counter opens_passed_through{0};

  // The wire.
  Counter requests_sent{0};
  Counter body_bytes_received{0};  // of files and of listings
  Counter fetches_failed{0};
  Counter fetches_retried{0};
  Counter fetches_hedged{0};
  Gauge fetches_in_flight{0};
  Counter files_ahead{0};       // that were fetched before anybody opened them
  Gauge bytes_ahead_unread{0};  // and the bytes of those that nobody has opened since
  Gauge window_bytes{0};        // the read-ahead window of the stream that was read last

  // The cache.
  Counter blocks_stored{0};
  Counter blocks_corrupt{0};
  Counter blocks_refused{0};    // that came from a server and do not match the manifest
  Counter blocks_inherited{0};  // of a new version, that were copied from the one before it
  Counter bytes_shared{0};      // of these, what takes no place of its own on the disk
  Counter store_errors{0};
  Counter stores_without_room{0};
  Counter bytes_evicted{0};
  Counter bytes_scrubbed{0};  // read to be checked
  Counter index_commits{0};
  Gauge bytes_cached{0};            // stored bytes that the index knows; changes with its commits
  Gauge buffer_bytes{0};            // memory that buffers hold now
  Gauge direct_bytes_in_flight{0};  // that are being written past the page cache

  // The tree.
  Counter listings_fetched{0};
  Counter stale_objects{0};
};

}  // namespace wormhole
