// What a TLS server shows of itself: a certificate with its chain, and the key. It can be replaced while connections
// are open: each has the one it was opened with.
//
// Thread: any; nothing changes after create().
#pragma once

#include <memory>
#include <string>

#include "base/error.h"

namespace wormhole {

class TlsIdentity {
 public:
  // Both in PEM, the server's own certificate first. kInvalid: one cannot be read, or they do not belong together.
  static Result<std::shared_ptr<const TlsIdentity>> create(const std::string& certificate, const std::string& key);
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  // For a session (a gnutls_session_t) before its handshake. This must outlive the session.
  void show_in(void* session) const;

 private:
  struct Credentials;
  explicit TlsIdentity(std::unique_ptr<Credentials> credentials);
  std::unique_ptr<Credentials> credentials_;
};

}  // namespace wormhole
