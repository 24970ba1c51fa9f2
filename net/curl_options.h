// What the fetcher is told at its start.
//
// Thread: values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "net/credentials.h"
#include "net/host_profile.h"
#include "net/protocol_choice.h"
#include "net/retry.h"

namespace wormhole {

struct CurlOptions {
  // The URL of the mount, a directory's or a file's, without credentials: what lies below it may be fetched from a
  // mirror. Empty: nothing may.
  std::string origin;
  std::vector<std::string> mirrors;  // URLs of the same tree elsewhere

  int connections = 0;  // range requests at a time; 0: found by measuring, up to 64
  HttpVersion http = HttpVersion::kAuto;
  Duration connect_timeout = std::chrono::seconds(10);
  RetryPolicy retry;
  uint64_t limit_rate = 0;              // bytes per second of all that comes; 0: no limit
  bool keep_warm = true;                // one connection stays open for a while when nothing is read
  bool hedge = true;                    // ask again for what takes unusually long
  std::vector<std::string> interfaces;  // devices or local addresses that requests go out from, in turn
  std::string proxy;                    // URL; empty: as the environment says (http_proxy, no_proxy)

  // PEM files; empty: the system's authorities, no certificate of our own.
  std::string ca_file, certificate_file, key_file;
  // For the origin alone; libcurl does not hand them on to another host that a redirect names.
  CredentialOptions credentials;

  std::map<std::string, HostProfile> profiles;  // by base URL of the server, from an earlier run
};

}  // namespace wormhole
