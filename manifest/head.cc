#include "manifest/head.h"

#include "base/block.h"
#include "manifest/blake3.h"
#include "manifest/bytes.h"

namespace wormhole {
namespace {

constexpr std::string_view kMagic = "WORMHOLE";
constexpr size_t kHashBytes = sizeof(Hash256);
constexpr size_t kMostMirrors = 256;

}  // namespace

std::string pages_name(const Hash256& pages) { return "pages-" + pages.hex().substr(0, 32); }
std::string pinned_head_name(const Hash256& head) { return "manifest-" + head.hex(); }
std::string pinned_signature_name(const Hash256& head) { return pinned_head_name(head) + ".minisig"; }

std::string encode(const ManifestHead& h) {
  ByteWriter out;
  out.raw(kMagic);
  out.fixed(kManifestVersion);
  out.fixed(static_cast<uint32_t>(kBlockSize));
  out.fixed(h.sequence);
  out.fixed(h.created);
  out.fixed(h.files);
  out.fixed(h.directories);
  out.fixed(h.symlinks);
  out.fixed(h.bytes);
  out.fixed(h.pages_bytes);
  out.hash(h.pages);
  out.fixed(h.root.offset);
  out.fixed(h.root.stored);
  out.fixed(h.root.raw);
  out.hash(h.root.hash);
  out.fixed(h.root_mtime);
  out.fixed(static_cast<uint32_t>(h.root_mode));
  out.fixed(static_cast<uint32_t>(h.mirrors.size()));
  for (const std::string& mirror : h.mirrors) {
    out.fixed(static_cast<uint32_t>(mirror.size()));
    out.raw(mirror);
  }
  const Hash256 all = blake3(out.bytes());
  out.hash(all);
  return out.take();
}

Result<ManifestHead> decode_head(std::string_view bytes) {
  if (!bytes.starts_with(kMagic))
    return fail(ErrorCode::kCorrupt, "it is not a manifest: it does not begin with {}", kMagic);
  ByteReader in(bytes.substr(kMagic.size()));
  const auto version = in.fixed<uint32_t>();
  if (in.ok() && version != kManifestVersion)
    return fail(ErrorCode::kFormat, "the manifest has format {}, this program reads {}", version, kManifestVersion);
  if (bytes.size() < kMagic.size() + kHashBytes || bytes.size() > kMostHeadBytes ||
      blake3(bytes.substr(0, bytes.size() - kHashBytes)).view() != bytes.substr(bytes.size() - kHashBytes))
    return fail(ErrorCode::kCorrupt, "the manifest is damaged or cut short ({} bytes)", bytes.size());
  const auto block_size = in.fixed<uint32_t>();
  ManifestHead h;
  h.sequence = in.fixed<uint64_t>();
  h.created = in.fixed<int64_t>();
  h.files = in.fixed<uint64_t>();
  h.directories = in.fixed<uint64_t>();
  h.symlinks = in.fixed<uint64_t>();
  h.bytes = in.fixed<uint64_t>();
  h.pages_bytes = in.fixed<uint64_t>();
  h.pages = in.hash();
  h.root.offset = in.fixed<uint64_t>();
  h.root.stored = in.fixed<uint32_t>();
  h.root.raw = in.fixed<uint32_t>();
  h.root.hash = in.hash();
  h.root_mtime = in.fixed<int64_t>();
  const auto mode = in.fixed<uint32_t>();
  h.root_mode = static_cast<uint16_t>(mode);
  const auto mirrors = in.fixed<uint32_t>();
  for (uint32_t i = 0; in.ok() && i < mirrors && i < kMostMirrors; ++i)
    h.mirrors.emplace_back(in.raw(in.fixed<uint32_t>()));
  in.hash();
  if (!in.ok() || !in.at_end() || mode > 07777 || mirrors > kMostMirrors || !h.root.is_possible() ||
      h.pages_bytes > kMostPagesBytes)
    return fail(ErrorCode::kCorrupt, "the manifest is no valid one");
  if (block_size != kBlockSize)
    return fail(ErrorCode::kFormat, "the manifest has blocks of {} bytes, this program reads {}", block_size,
                kBlockSize);
  return h;
}

}  // namespace wormhole
