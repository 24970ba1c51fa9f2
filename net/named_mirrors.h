// The mirrors that a manifest names: other servers with the same tree. Every byte of theirs is compared with a hash, so
// they need not be trusted for what they send. But whoever writes a manifest decides with it where its readers send
// requests, and which hosts learn what they read; hence the rules of usable_mirrors().
//
// Thread: values, any.
#pragma once

#include <string>
#include <vector>

#include "net/host_profile.h"
#include "net/url.h"

namespace wormhole {

// Each server of which nothing is known gets requests, so that it is measured: more of them would not make a reader
// faster who has one connection to the network.
inline constexpr size_t kMostNamedMirrors = 8;

// A directory's URL, and what an earlier run has learnt of the server.
struct KnownMirror {
  Url base;
  HostProfile profile;
};

// Those of `named` that a reader of `origin` asks: the first few that can be asked at all, need no credentials, and are
// not the origin. A tree that is read over https is not asked for over http, where anybody on the way sees what is
// read.
std::vector<Url> usable_mirrors(const std::vector<std::string>& named, const Url& origin);

}  // namespace wormhole
