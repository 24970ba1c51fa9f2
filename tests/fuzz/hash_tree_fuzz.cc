// Any bytes as groups of the hash tree of a file of any size: nothing is taken that does not belong to the file's hash.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "manifest/blake3.h"
#include "manifest/hash_tree.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wormhole;
  struct {
    uint64_t size, block, begin, end;
  } said;
  if (size < sizeof said) return 0;
  std::memcpy(&said, data, sizeof said);
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(sizeof said);
  const uint64_t file_size = said.size % (uint64_t{1} << 62);
  const HashTreeShape shape(file_size);
  if (shape.blocks() == 0) return 0;
  const BlockIndex block = said.block % shape.blocks();
  // What it gives is the hash of the top group, if it is one: so that this one is taken, and the next are tried.
  const auto top =
      bytes.first(std::min<size_t>(bytes.size(), shape.levels() == 0 ? 0 : shape.nodes(shape.levels() - 1) * 32));
  Hash256 hash{};
  if (top.size() >= 64 && top.size() % 32 == 0) {
    std::vector<Hash256> nodes(top.size() / 32);
    std::memcpy(nodes.data(), top.data(), top.size());
    hash = blake3_parent(nodes, true);
  }
  HashTree tree(file_size, hash);
  size_t at = 0;
  for (const ByteRange& range : tree.missing(block)) {
    if (range.end > shape.bytes()) std::abort();
    const auto part = bytes.subspan(std::min(at, bytes.size()));
    if (part.size() >= range.size()) tree.add(range, part.first(range.size()));
    at += range.size();
  }
  tree.add({said.begin, said.end}, bytes);
  if (tree.missing(block).empty() && tree.matches(block, bytes.first(std::min(bytes.size(), kBlockSize))) &&
      bytes.empty())
    std::abort();
  is_tree_of(std::min<uint64_t>(file_size, 1 << 24), hash, bytes);
  return 0;
}
