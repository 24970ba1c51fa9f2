// The Fetcher on libcurl: messages to the net thread (net_thread.h).
//
// Connections are what is counted, not streams: each attempt has a connection to itself, on HTTP/2 and HTTP/3 as well
// (one stream each), because a single connection is bound by its congestion window (docs/ARCHITECTURE.md).
//
// Thread: construction and destruction by the owner; the rest as in fetcher.h.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "net/curl_options.h"
#include "net/fetcher.h"
#include "net/host_profile.h"
#include "net/named_mirrors.h"
#include "net/server.h"

namespace wormhole {

class NetThread;

class CurlFetcher final : public Fetcher {
 public:
  // All references outlive the fetcher.
  CurlFetcher(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock);
  // Ends every transfer with kCancelled and joins the thread.
  ~CurlFetcher() override;

  void fetch(FetchRequest request) override;
  void cancel(FetchId id) override;
  void promote(FetchId id) override;
  void want(FetchId id, ByteRange bytes) override;
  void get(DocumentRequest request) override;
  LinkEstimate link() const override;

  // From now on these, and none that was given so before, may bring what is asked for by content.
  void use_content_mirrors(std::vector<KnownMirror> mirrors);

  // What was learnt of each server that has answered, by base URL.
  std::map<std::string, HostProfile> profiles();
  // The origin first.
  std::vector<ServerState> servers();

 private:
  std::unique_ptr<NetThread> thread_;
};

}  // namespace wormhole
