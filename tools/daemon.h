// A mount while it lives: every part of the program, in the order in which they stand on each other.
//
// Thread: main.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "cache/cache_directory.h"
#include "cache/index.h"
#include "cache/index_check.h"
#include "fs/catalog.h"
#include "fs/engines.h"
#include "fs/filesystem.h"
#include "fs/manifest_source.h"
#include "fs/session.h"
#include "net/curl_fetcher.h"
#include "net/listing_source.h"
#include "tools/cache_requests.h"
#include "tools/control.h"
#include "tools/mount_options.h"

namespace wormhole {

class Daemon {
 public:
  explicit Daemon(MountOptions options) : options_(std::move(options)) {}
  // Ends what start() has begun, in reverse order: nothing that was stored is lost.
  ~Daemon();

  // Everything up to a mount that answers. The errors are for the user: they say what was tried and what to do.
  // The text is a warning ("the server cannot be reached…"), empty when all is well.
  Result<std::string> start();

  // Until somebody unmounts, or a signal ends it.
  void run();

 private:
  Status open_cache(const Url& url);
  void recall_servers(const Url& url);
  std::optional<HostProfile> remembered(const std::string& server) const;
  void use_mirrors(const std::vector<std::string>& named, const Url& origin);
  void remember_servers();
  Result<RemoteRoot> find_root(const Url& url, Ino* ino, std::string* warning);
  void refuse_passthrough();
  Status make_listings(const RemoteRoot& root);
  Status check_root_listing();
  Status mount();
  void find_device();
  nlohmann::json status() const;
  nlohmann::json servers() const;
  void stop();

  MountOptions options_;
  SystemClock clock_;
  Metrics metrics_;
  TimePoint started_{};
  int ended_fd_ = -1;
  int signal_fd_ = -1;

  std::string source_;  // the URL without secrets
  std::unique_ptr<CacheDirectory> cache_directory_;
  IndexFound index_found_ = IndexFound::kSound;
  std::unique_ptr<Space> space_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<BufferPool> buffers_;
  std::unique_ptr<CurlFetcher> fetcher_;
  std::unique_ptr<Engines> engines_;
  std::unique_ptr<ListingSource> listings_;
  const ManifestSource* manifest_ = nullptr;  // the same, if it may come from one
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<Lookahead> lookahead_;
  std::unique_ptr<Filesystem> filesystem_;
  std::unique_ptr<Session> session_;
  std::string device_;  // "major:minor": st_dev of what is in the mount
  std::unique_ptr<CacheRequests> cache_requests_;
  std::unique_ptr<ControlServer> control_;
};

}  // namespace wormhole
