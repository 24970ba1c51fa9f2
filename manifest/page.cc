#include "manifest/page.h"

#include <zstd.h>

#include <algorithm>

#include "base/block.h"
#include "manifest/blake3.h"
#include "manifest/bytes.h"

namespace wormhole {
namespace {

enum Kind : uint8_t { kEntries = 1, kChildren = 2 };
constexpr uint8_t kTypeMask = 0x0f;
constexpr uint8_t kHasHash = 0x10;

// 3 is zstd's own default; a hash does not compress at any level, names and numbers do at this one.
constexpr int kCompressionLevel = 3;

void write(ByteWriter& out, const PageRef& ref) {
  out.varint(ref.offset);
  out.varint(ref.stored);
  out.varint(ref.raw);
  out.hash(ref.hash);
}

PageRef read_page_ref(ByteReader& in) {
  PageRef ref;
  ref.offset = in.varint();
  ref.stored = static_cast<uint32_t>(std::min<uint64_t>(in.varint(), UINT32_MAX));
  ref.raw = static_cast<uint32_t>(std::min<uint64_t>(in.varint(), UINT32_MAX));
  ref.hash = in.hash();
  return ref;
}

void write(ByteWriter& out, const ManifestEntry& e) {
  out.fixed(static_cast<uint8_t>(static_cast<uint8_t>(e.type) | (e.hash ? kHasHash : 0)));
  out.string(e.name);
  out.varint(e.mode);
  out.signed_varint(e.mtime);
  out.varint(e.mtime_ns);
  switch (e.type) {
    case ManifestEntry::Type::kFile:
      out.varint(e.size);
      if (e.hash) out.hash(*e.hash);
      if (e.hash) out.varint(e.tree);
      break;
    case ManifestEntry::Type::kDirectory:
      out.varint(e.entries);
      write(out, e.page);
      break;
    case ManifestEntry::Type::kSymlink: out.string(e.target); break;
  }
}

// False when it breaks a rule.
bool read(ByteReader& in, ManifestEntry& e) {
  const auto head = in.fixed<uint8_t>();
  e.type = static_cast<ManifestEntry::Type>(head & kTypeMask);
  e.name = in.string();
  const uint64_t mode = in.varint();
  e.mode = static_cast<uint16_t>(mode);
  e.mtime = in.signed_varint();
  const uint64_t ns = in.varint();
  e.mtime_ns = static_cast<uint32_t>(ns);
  if (mode > 07777 || ns >= 1'000'000'000 || !is_entry_name(e.name)) return false;
  switch (e.type) {
    case ManifestEntry::Type::kFile:
      e.size = in.varint();
      if ((head & kHasHash) != 0) {
        e.hash = in.hash();
        e.tree = in.varint();
      }
      return in.ok() && e.size < kMostPagesBytes && e.tree < kMostPagesBytes &&
             (e.hash && e.size > kBlockSize ? e.tree >= kPagesMagic.size() : e.tree == 0);
    case ManifestEntry::Type::kDirectory:
      e.entries = in.varint();
      e.page = read_page_ref(in);
      return in.ok() && e.page.is_possible();
    case ManifestEntry::Type::kSymlink:
      e.target = in.string();
      return in.ok() && !e.target.empty() && e.target.size() <= 4095 && e.target.find('\0') == e.target.npos;
  }
  return false;
}

}  // namespace

bool is_entry_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

size_t encoded_size(const ManifestEntry& entry) {
  ByteWriter out;
  write(out, entry);
  return out.size();
}

size_t encoded_size(const DirectoryPage::Child& child) {
  ByteWriter out;
  out.string(child.first);
  write(out, child.page);
  return out.size();
}

PageLookup look_up(const DirectoryPage& page, std::string_view name) {
  if (page.children.empty()) {
    const auto it = std::ranges::lower_bound(page.entries, name, {}, &ManifestEntry::name);
    return {.entry = it != page.entries.end() && it->name == name ? &*it : nullptr};
  }
  const auto behind = std::ranges::upper_bound(page.children, name, {}, &DirectoryPage::Child::first);
  return {.next = behind == page.children.begin() ? nullptr : &std::prev(behind)->page};
}

StoredPage store_page(const DirectoryPage& page, uint64_t offset) {
  ByteWriter out;
  out.fixed(page.children.empty() ? kEntries : kChildren);
  out.varint(page.children.empty() ? page.entries.size() : page.children.size());
  for (const ManifestEntry& e : page.entries) write(out, e);
  for (const DirectoryPage::Child& c : page.children) {
    out.string(c.first);
    write(out, c.page);
  }
  const std::string raw = out.take();
  StoredPage stored;
  stored.ref.offset = offset;
  stored.bytes.resize(::ZSTD_compressBound(raw.size()));
  const size_t size =
      ::ZSTD_compress(stored.bytes.data(), stored.bytes.size(), raw.data(), raw.size(), kCompressionLevel);
  if (::ZSTD_isError(size) || size >= raw.size()) {
    stored.bytes = raw;  // as long as it is: not compressed
  } else {
    stored.bytes.resize(size);
  }
  stored.ref.stored = static_cast<uint32_t>(stored.bytes.size());
  stored.ref.raw = static_cast<uint32_t>(raw.size());
  stored.ref.hash = blake3(stored.bytes);
  return stored;
}

Result<DirectoryPage> load_page(const PageRef& ref, std::string_view stored) {
  const auto broken = [&](std::string_view why) {
    return fail(ErrorCode::kCorrupt, "manifest: the page at {}, {} bytes, {}", ref.offset, ref.stored, why);
  };
  if (!ref.is_possible()) return broken("has an impossible place or length");
  if (stored.size() != ref.stored || blake3(stored) != ref.hash) return broken("is not the one that is meant");
  std::string unpacked;
  if (ref.stored < ref.raw) {
    unpacked.resize(ref.raw);
    const size_t size = ::ZSTD_decompress(unpacked.data(), unpacked.size(), stored.data(), stored.size());
    if (::ZSTD_isError(size) || size != ref.raw) return broken("cannot be decompressed");
    stored = unpacked;
  }
  ByteReader in(stored);
  DirectoryPage page;
  const auto kind = in.fixed<uint8_t>();
  const uint64_t count = in.varint();
  if (!in.ok() || (kind != kEntries && kind != kChildren) || count > stored.size() || (kind == kChildren && count == 0))
    return broken("is no directory");
  std::string before;
  for (uint64_t i = 0; i < count; ++i) {
    std::string name;
    if (kind == kEntries) {
      ManifestEntry& e = page.entries.emplace_back();
      if (!read(in, e)) return broken("has an entry that cannot be one");
      name = e.name;
    } else {
      DirectoryPage::Child& c = page.children.emplace_back();
      c.first = in.string();
      c.page = read_page_ref(in);
      if (!in.ok() || !is_entry_name(c.first) || !c.page.is_possible())
        return broken("names a page that cannot be one");
      name = c.first;
    }
    if (name <= before) return broken("is not in order");
    before = std::move(name);
  }
  if (!in.at_end()) return broken("has something behind its end");
  return page;
}

}  // namespace wormhole
