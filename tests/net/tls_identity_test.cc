#include "net/tls_identity.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

// The handshake itself is tested with real clients, in tests/mounted/test_host.py.

TEST(TlsIdentity, RefusesWhatIsNoCertificate) {
  for (const char* text : {"", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}) {
    const auto identity = TlsIdentity::create(text, text);
    ASSERT_FALSE(identity.has_value()) << text;
    EXPECT_EQ(identity.error().code, ErrorCode::kInvalid);
    EXPECT_NE(identity.error().message.find("certificate"), std::string::npos);
  }
}

}  // namespace
}  // namespace wormhole
