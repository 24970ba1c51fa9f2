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

std::vector<ByteRange> HashTreeShape::groups_in(ByteRange bytes) const {
  std::vector<ByteRange> out;
  for (size_t level = nodes_.size(); level-- > 0;) {
    const ByteRange first = group_range(level, 0);
    const uint64_t groups = (nodes_[level] + kTreeFanout - 1) / kTreeFanout;
    const uint64_t group_bytes = kTreeFanout * kNodeBytes;
    const uint64_t skipped = bytes.begin > first.begin ? bytes.begin - first.begin : 0;
    for (uint64_t group = (skipped + group_bytes - 1) / group_bytes; group < groups; ++group) {
      const ByteRange range = group_range(level, group);
      if (range.end > bytes.end) break;
      out.push_back(range);
    }
  }
  return out;
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

// The level and the number of the group that begins there.
std::optional<std::pair<size_t, uint64_t>> HashTree::group_at(ByteRange range) const {
  uint64_t node = range.begin / kNodeBytes;
  for (size_t level = shape_.levels(); level-- > 0;) {
    if (node < shape_.nodes(level)) {
      const uint64_t group = node / kTreeFanout;
      if (shape_.group_range(level, group) != range) return std::nullopt;
      return std::pair{level, group};
    }
    node -= shape_.nodes(level);
  }
  return std::nullopt;
}

// What the group's parent must be: a node of the level above, or the file's hash. Null: it is not known yet.
const Hash256* HashTree::parent_of(size_t level, uint64_t group) const {
  if (level + 1 == shape_.levels()) return &file_;
  const auto above = levels_[level + 1].find(group / kTreeFanout);
  return above == levels_[level + 1].end() ? nullptr : &above->second[group % kTreeFanout];
}

bool HashTree::can_add(ByteRange range) const {
  const auto place = group_at(range);
  return place && parent_of(place->first, place->second) != nullptr;
}

bool HashTree::add(ByteRange range, std::span<const std::byte> bytes) {
  const auto place = group_at(range);
  if (!place || bytes.size() != range.size()) return false;
  const auto [level, number] = *place;
  const Hash256* parent = parent_of(level, number);
  Group group = nodes_of(bytes);
  if (parent == nullptr || blake3_parent(group, level + 1 == shape_.levels()) != *parent) return false;
  levels_[level].insert_or_assign(number, std::move(group));
  return true;
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
