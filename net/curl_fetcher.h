// The Fetcher on libcurl: one thread owns a multi handle and all its easy handles.
//
// Connections are what is counted, not streams: each transfer has a connection to itself, on HTTP/2 as well (one
// stream each), because a single TCP connection is bound by its congestion window (docs/ARCHITECTURE.md).
//
// Thread: construction and destruction by the owner; the rest as in fetcher.h.
#pragma once

#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "net/fetcher.h"
#include "net/retry.h"

namespace wormhole {

enum class HttpVersion : uint8_t { kAuto, k1_1, k2 };

struct CurlOptions {
  // Range transfers at a time. 16 connections fill 1 Gbit/s at 50 ms where one reaches half of it.
  int connections = 16;
  HttpVersion http = HttpVersion::kAuto;
  std::string ca_file;  // PEM; empty: the system's
  // For the server of the first request; libcurl does not hand them on to another host that a redirect names.
  std::string user, password;
  Duration connect_timeout = std::chrono::seconds(10);
  RetryPolicy retry;
};

class CurlFetcher final : public Fetcher {
 public:
  // All references outlive the fetcher.
  CurlFetcher(CurlOptions options, BufferPool& buffers, Metrics& metrics, const Clock& clock);
  // Ends every transfer with kCancelled and joins the thread.
  ~CurlFetcher() override;

  void fetch(FetchRequest request) override;
  void cancel(FetchId id) override;
  void promote(FetchId id) override;
  void get(DocumentRequest request) override;

 private:
  class NetThread;
  std::unique_ptr<NetThread> thread_;
};

}  // namespace wormhole
