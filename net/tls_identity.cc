#include "net/tls_identity.h"

#include <gnutls/gnutls.h>

#include <utility>

namespace wormhole {
namespace {

// GnuTLS does not write into it; its type lacks the const.
gnutls_datum_t datum(const std::string& text) {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())), static_cast<unsigned>(text.size())};
}

}  // namespace

struct TlsIdentity::Credentials {
  Credentials() = default;
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;
  ~Credentials() {
    if (certificate != nullptr) gnutls_certificate_free_credentials(certificate);
  }
  gnutls_certificate_credentials_t certificate = nullptr;
};

TlsIdentity::TlsIdentity(std::unique_ptr<Credentials> credentials) : credentials_(std::move(credentials)) {}
TlsIdentity::~TlsIdentity() = default;

Result<std::shared_ptr<const TlsIdentity>> TlsIdentity::create(const std::string& certificate, const std::string& key) {
  auto credentials = std::make_unique<Credentials>();
  int error = gnutls_certificate_allocate_credentials(&credentials->certificate);
  if (error >= 0) {
    const gnutls_datum_t certificate_text = datum(certificate), key_text = datum(key);
    error = gnutls_certificate_set_x509_key_mem(credentials->certificate, &certificate_text, &key_text,
                                                GNUTLS_X509_FMT_PEM);
  }
  if (error < 0) return fail(ErrorCode::kInvalid, "the TLS certificate and its key: {}", gnutls_strerror(error));
  return std::shared_ptr<const TlsIdentity>(new TlsIdentity(std::move(credentials)));
}

void TlsIdentity::show_in(void* session) const {
  gnutls_credentials_set(static_cast<gnutls_session_t>(session), GNUTLS_CRD_CERTIFICATE, credentials_->certificate);
}

}  // namespace wormhole
