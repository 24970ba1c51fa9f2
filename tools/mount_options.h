// What a mount is told: the URL, the place, and the options of `-o` (also those that mount(8) and fstab add).
//
// Thread: main.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash256.h"
#include "base/log.h"
#include "cache/block_cache.h"
#include "cache/scrubber.h"
#include "fs/catalog.h"
#include "fs/filesystem.h"
#include "fs/transport.h"
#include "net/curl_fetcher.h"
#include "net/listing_source.h"
#include "net/url.h"

namespace wormhole {

struct MountOptions {
  std::string url;         // as given
  std::string mountpoint;  // absolute, resolved
  std::string cache;       // directory; empty: default_cache_directory()
  uint64_t cache_size = 10ull << 30;
  double min_free = 0.05;
  uint64_t memory = 256ull << 20;
  Duration timeout = std::chrono::seconds(30);
  int64_t ttl = 60;
  OfflineMode offline = OfflineMode::kAuto;
  ListingOptions listing;
  std::string manifest_key_file;    // of minisign; a manifest must be signed with it
  std::optional<Hash256> manifest;  // this very one
  bool manifest_mirrors = true;     // those that it names are asked
  std::string endpoint;             // of S3; empty: Amazon's
  std::string region;               // of S3; empty: what the environment says, else us-east-1
  VerifyMode verify = VerifyMode::kAuto;
  unsigned engines = 0;  // 0: as the machine has cores
  bool speculate = true;
  bool passthrough = true;
  FuseTransport transport = FuseTransport::kAuto;
  ScrubberOptions scrubber;
  CurlOptions curl;
  FilesystemOptions filesystem;
  std::string log_file;  // empty: <cache>/daemon.log, or stderr in the foreground
  log::Level log_level = log::Level::kInfo;
  bool foreground = false;
  std::vector<std::string> kernel;  // passed on: "allow_other", "nosuid"…
};

// Takes the comma-separated list of one `-o` into `options`. kInvalid names the option and what it takes.
Status parse_mount_options(const std::string& list, MountOptions& options);

// Where options.url is. For s3://bucket/prefix the URL of that; then, and with listing=s3, `options` gets what the
// environment says of S3 (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or
// AWS_DEFAULT_REGION, AWS_PROFILE). For any other tree it is not looked at. kInvalid: no URL, or options that do not go
// with it.
Result<Url> resolve_url(MountOptions& options);

// "64K", "256M", "10G", "1T" (powers of 1024) or plain bytes.
Result<uint64_t> parse_size(const std::string& text);

// /var/cache/wormhole/NAME for root, ~/.cache/wormhole/NAME (or $XDG_CACHE_HOME) for others; NAME is made from the URL,
// readable and different for every URL.
std::string default_cache_directory(const Url& url);

}  // namespace wormhole
