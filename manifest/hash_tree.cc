#include "manifest/hash_tree.h"

#include <algorithm>
#include <cstring>

#include "manifest/blake3.h"

namespace wormhole {
namespace {

constexpr uint64_t kNodeBytes = sizeof(Hash256);

std::vector<Hash256> nodes_of(std::span<const std::byte> bytes) {
  std::vector<Hash256> nodes(bytes.size() / kNodeBytes);
  std::memcpy(nodes.data(), bytes.data(), nodes.size() * kNodeBytes);
  return nodes;
}

}  // namespace

// --- shape ---------------------------------------------------------------------------------------------------------

HashTreeShape::HashTreeShape(uint64_t size) : blocks_(block_count(size)) {
  if (blocks_ < 2) return;
  uint64_t nodes = blocks_;
  nodes_.push_back(nodes);
  while (nodes > kTreeFanout) nodes_.push_back(nodes = (nodes + kTreeFanout - 1) / kTreeFanout);
  for (const uint64_t n : nodes_) bytes_ += n * kNodeBytes;
}

uint64_t HashTreeShape::group_of(size_t level, BlockIndex block) const {
  for (size_t i = 0; i <= level; ++i) block /= kTreeFanout;
  return block;
}

ByteRange HashTreeShape::group_range(size_t level, uint64_t group) const {
  uint64_t begin = group * kTreeFanout;
  const uint64_t end = std::min(begin + kTreeFanout, nodes_[level]);
  const uint64_t count = end - begin;
  for (size_t above = level + 1; above < nodes_.size(); ++above) begin += nodes_[above];
  return ByteRange::of(begin * kNodeBytes, count * kNodeBytes);
}

// --- check ---------------------------------------------------------------------------------------------------------

HashTree::HashTree(uint64_t size, const Hash256& file) : shape_(size), file_(file), levels_(shape_.levels()) {}

const HashTree::Group* HashTree::group(size_t level, BlockIndex block) const {
  const auto it = levels_[level].find(shape_.group_of(level, block));
  return it == levels_[level].end() ? nullptr : &it->second;
}

std::vector<ByteRange> HashTree::missing(BlockIndex block) const {
  std::vector<ByteRange> out;
  for (size_t level = shape_.levels(); level-- > 0;) {
    if (group(level, block) == nullptr) out.push_back(shape_.group_range(level, shape_.group_of(level, block)));
  }
  return out;
}

bool HashTree::add(ByteRange range, std::span<const std::byte> bytes) {
  // Which group begins there.
  uint64_t node = range.begin / kNodeBytes;
  for (size_t level = shape_.levels(); level-- > 0;) {
    if (node >= shape_.nodes(level)) {
      node -= shape_.nodes(level);
      continue;
    }
    const uint64_t number = node / kTreeFanout;
    if (shape_.group_range(level, number) != range || bytes.size() != range.size()) return false;
    Group group = nodes_of(bytes);
    const bool top = level + 1 == shape_.levels();
    Hash256 expected = file_;
    if (!top) {
      const auto above = levels_[level + 1].find(number / kTreeFanout);
      if (above == levels_[level + 1].end()) return false;
      expected = above->second[number % kTreeFanout];
    }
    if (blake3_parent(group, top) != expected) return false;
    levels_[level].insert_or_assign(number, std::move(group));
    return true;
  }
  return false;
}

const Hash256& HashTree::node(BlockIndex block) const {
  return shape_.levels() == 0 ? file_ : (*group(0, block))[block % kTreeFanout];
}

bool HashTree::matches(BlockIndex block, std::span<const std::byte> bytes) const {
  return (shape_.levels() == 0 ? blake3(bytes) : blake3_block(bytes, block)) == node(block);
}

// --- build ---------------------------------------------------------------------------------------------------------

HashTreeBuilder::HashTreeBuilder(uint64_t size) : shape_(size), nodes_(shape_.blocks()) {}

Hash256 HashTreeBuilder::finish(std::vector<std::byte>* out) const {
  std::vector<std::vector<Hash256>> above;  // level 1 first
  while (above.size() + 1 < shape_.levels()) {
    const std::vector<Hash256>& below = above.empty() ? nodes_ : above.back();
    std::vector<Hash256> nodes;
    for (size_t i = 0; i < below.size(); i += kTreeFanout)
      nodes.push_back(
          blake3_parent(std::span(below).subspan(i, std::min<size_t>(kTreeFanout, below.size() - i)), false));
    above.push_back(std::move(nodes));
  }
  const auto append = [out](const std::vector<Hash256>& level) {
    const auto bytes = std::as_bytes(std::span(level));
    out->insert(out->end(), bytes.begin(), bytes.end());
  };
  for (size_t level = above.size(); level-- > 0;) append(above[level]);
  append(nodes_);
  return blake3_parent(above.empty() ? nodes_ : above.back(), true);
}

bool is_tree_of(uint64_t size, const Hash256& file, std::span<const std::byte> tree) {
  const HashTreeShape shape(size);
  if (shape.levels() == 0 || tree.size() != shape.bytes()) return false;
  // Level 0, which is last, says what all the others are.
  const std::vector<Hash256> nodes = nodes_of(tree.last(shape.nodes(0) * kNodeBytes));
  HashTreeBuilder builder(size);
  for (BlockIndex b = 0; b < nodes.size(); ++b) builder.set(b, nodes[b]);
  std::vector<std::byte> expected;
  return builder.finish(&expected) == file && std::ranges::equal(expected, tree);
}

}  // namespace wormhole
