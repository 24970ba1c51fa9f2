// Any bytes for a page of a manifest, as they are and as something that was compressed: an error, or a page that keeps
// the rules, and is the same when it is written and read again.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "manifest/blake3.h"
#include "manifest/page.h"

namespace wormhole {
namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const DirectoryPage& page) {
  for (size_t i = 0; i < page.entries.size(); ++i) {
    require(is_entry_name(page.entries[i].name));
    require(i == 0 || page.entries[i - 1].name < page.entries[i].name);
    require(look_up(page, page.entries[i].name).entry == &page.entries[i]);
  }
  for (const DirectoryPage::Child& child : page.children) {
    require(is_entry_name(child.first) && child.page.is_possible());
    require(look_up(page, child.first).next == &child.page);
  }
  const StoredPage stored = store_page(page, 8);
  if (stored.ref.raw > kMostPageBytes) return;  // varints can be longer than they need be, but not shorter
  const auto again = load_page(stored.ref, stored.bytes);
  require(again && again->entries == page.entries && again->children == page.children);
}

}  // namespace
}  // namespace wormhole

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  if (size < 4 || size > (1 << 20)) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  PageRef ref{
      .offset = 8, .stored = static_cast<uint32_t>(size), .raw = static_cast<uint32_t>(size), .hash = blake3(bytes)};
  if (const auto page = load_page(ref, bytes)) check(*page);
  // Compressed: its first bytes say how long it says it is.
  const std::string_view stored = bytes.substr(3);
  ref = {.offset = 8,
         .stored = static_cast<uint32_t>(stored.size()),
         .raw = static_cast<uint32_t>(data[0] | data[1] << 8 | data[2] << 16),
         .hash = blake3(stored)};
  if (const auto page = load_page(ref, stored)) check(*page);
  return 0;
}
