#include "tools/key_files.h"

#include <cerrno>
#include <fstream>

namespace wormhole {
namespace {

constexpr size_t kMostKeyBytes = 16 << 10;

}  // namespace

Result<std::string> read_key_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kMostKeyBytes, '\0');
  if (!in) return fail(error_from_errno(errno, "open " + path));
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return fail(error_from_errno(errno, "read " + path));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

Result<PublicKey> read_public_key(const std::string& given) {
  if (auto key = PublicKey::parse(given)) return key;
  const auto text = read_key_file(given);
  if (!text) return fail(text.error());
  auto key = PublicKey::parse(*text);
  if (!key) return fail(key.error().code, "{}: {}", given, key.error().message);
  return key;
}

}  // namespace wormhole
