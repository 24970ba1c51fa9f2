// How an attempt is put to libcurl: everything that is set on an easy handle. The one place that knows what an option
// of the mount means for a request.
//
// Thread: net.
#pragma once

#include "net/attempt.h"
#include "net/curl_options.h"

namespace wormhole {

class RequestSetup {
 public:
  // Both outlive it.
  RequestSetup(const CurlOptions& options, const Credentials& credentials)
      : options_(options), credentials_(credentials) {}

  // REQUIRES: a.easy is new or was reset; the attempt stays where it is until the handle is reset.
  void apply(Attempt& a);

  // From what a socket of ours receives, at least.
  static constexpr int kUdpBuffer = 8 << 20;

 private:
  void set_transport(Attempt& a) const;
  void set_tls(Attempt& a) const;
  void set_identity(Attempt& a) const;
  void sign(Attempt& a) const;
  void set_what_is_asked(Attempt& a) const;
  void set_interface(CURL* e);

  const CurlOptions& options_;
  const Credentials& credentials_;
  size_t next_interface_ = 0;
};

}  // namespace wormhole
