#include "fs/known_manifest.h"

#include <fmt/format.h>

#include <charconv>

namespace wormhole {
namespace {

template <typename Number>
void take(std::string_view text, Number* value) {
  Number read{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (error == std::errc() && end == text.data() + text.size()) *value = read;
}

}  // namespace

KnownManifest known_manifest(const ManifestHead& head) {
  return {head.sequence, head.root_mode, head.root_mtime, head.mirrors};
}

// A mirror with a blank in it is no URL.
std::string encode(const KnownManifest& m) {
  std::string out = fmt::format("sequence={} mode={} mtime={}", m.sequence, m.mode, m.mtime);
  for (const std::string& mirror : m.mirrors) {
    if (mirror.find(' ') == mirror.npos) out += " mirror=" + mirror;
  }
  return out;
}

KnownManifest decode_known_manifest(std::string_view text) {
  KnownManifest out;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    const size_t equals = std::min(word.size(), word.find('='));
    const std::string_view name = word.substr(0, equals), value = word.substr(std::min(word.size(), equals + 1));
    if (name == "sequence") take(value, &out.sequence);
    if (name == "mode") take(value, &out.mode);
    if (name == "mtime") take(value, &out.mtime);
    if (name == "mirror") out.mirrors.emplace_back(value);
  }
  return out;
}

}  // namespace wormhole
