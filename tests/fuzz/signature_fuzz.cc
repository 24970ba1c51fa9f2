// Any text for a key or a signature: an error; it cannot guess a signature.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "manifest/signature.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const PublicKey key = *PublicKey::parse("RWQpknypXE4NPiDEOVIuo2rDbCxw18qojLLzl8nJeyAZv2SjIjhYEjz3");
  if (verify_signature(key, "message", text)) std::abort();
  (void)PublicKey::parse(text);
  (void)SecretKey::parse(text, []() -> Result<std::string> { return fail(ErrorCode::kForbidden, "not here"); });
  return 0;
}
