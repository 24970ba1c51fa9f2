#include "manifest/blake3.h"

#include <blake3.h>

#include <bit>
#include <cstring>

namespace wormhole {
namespace {

// libblake3 gives roots only. The compression function (specification, section 2.2) is here for what lies below: a
// parent for each block, and the chunks of a last one. Everything else is the library's.
constexpr uint32_t kIv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr uint8_t kPermutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
enum Flag : uint32_t { kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8 };

constexpr size_t kChunk = BLAKE3_CHUNK_LEN;
constexpr size_t kPiece = BLAKE3_BLOCK_LEN;  // what is compressed at once; "block" in the specification

using Words = std::array<uint32_t, 8>;

void mix(std::array<uint32_t, 16>& s, int a, int b, int c, int d, uint32_t x, uint32_t y) {
  s[a] += s[b] + x;
  s[d] = std::rotr(s[d] ^ s[a], 16);
  s[c] += s[d];
  s[b] = std::rotr(s[b] ^ s[c], 12);
  s[a] += s[b] + y;
  s[d] = std::rotr(s[d] ^ s[a], 8);
  s[c] += s[d];
  s[b] = std::rotr(s[b] ^ s[c], 7);
}

Words compress(const Words& in, std::span<const std::byte, kPiece> piece, uint32_t length, uint64_t counter,
               uint32_t flags) {
  std::array<uint32_t, 16> m;
  std::memcpy(m.data(), piece.data(), kPiece);
  std::array<uint32_t, 16> s = {in[0],
                                in[1],
                                in[2],
                                in[3],
                                in[4],
                                in[5],
                                in[6],
                                in[7],
                                kIv[0],
                                kIv[1],
                                kIv[2],
                                kIv[3],
                                static_cast<uint32_t>(counter),
                                static_cast<uint32_t>(counter >> 32),
                                length,
                                flags};
  for (int round = 0; round < 7; ++round) {
    mix(s, 0, 4, 8, 12, m[0], m[1]);
    mix(s, 1, 5, 9, 13, m[2], m[3]);
    mix(s, 2, 6, 10, 14, m[4], m[5]);
    mix(s, 3, 7, 11, 15, m[6], m[7]);
    mix(s, 0, 5, 10, 15, m[8], m[9]);
    mix(s, 1, 6, 11, 12, m[10], m[11]);
    mix(s, 2, 7, 8, 13, m[12], m[13]);
    mix(s, 3, 4, 9, 14, m[14], m[15]);
    std::array<uint32_t, 16> permuted;
    for (size_t i = 0; i < 16; ++i) permuted[i] = m[kPermutation[i]];
    m = permuted;
  }
  Words out;
  for (size_t i = 0; i < 8; ++i) out[i] = s[i] ^ s[i + 8];
  return out;
}

Words iv() {
  Words words;
  std::memcpy(words.data(), kIv, sizeof kIv);
  return words;
}

Hash256 as_hash(const Words& words) {
  Hash256 hash;
  std::memcpy(hash.bytes.data(), words.data(), sizeof words);
  return hash;
}

Hash256 parent(const Hash256& left, const Hash256& right, bool root) {
  std::array<std::byte, kPiece> piece;
  std::memcpy(piece.data(), left.bytes.data(), 32);
  std::memcpy(piece.data() + 32, right.bytes.data(), 32);
  return as_hash(compress(iv(), piece, kPiece, 0, kParent | (root ? kRoot : 0u)));
}

// 1 to 1024 bytes.
Hash256 chunk_node(std::span<const std::byte> bytes, uint64_t chunk) {
  Words words = iv();
  uint32_t flags = kChunkStart;
  while (!bytes.empty()) {
    const auto now = bytes.first(std::min(bytes.size(), kPiece));
    bytes = bytes.subspan(now.size());
    std::array<std::byte, kPiece> piece{};
    std::memcpy(piece.data(), now.data(), now.size());
    if (bytes.empty()) flags |= kChunkEnd;
    words = compress(words, piece, static_cast<uint32_t>(now.size()), chunk, flags);
    flags = 0;
  }
  return as_hash(words);
}

// Of bytes that begin with this chunk of the file. REQUIRES: the chunk's number is a multiple of the subtree's size.
Hash256 subtree_node(std::span<const std::byte> bytes, uint64_t chunk) {
  if (bytes.size() <= kChunk) return chunk_node(bytes, chunk);
  // A whole subtree: the library hashes it with all lanes, and leaves the two halves below its root on the stack.
  if (std::has_single_bit(bytes.size())) {
    blake3_hasher hasher;
    ::blake3_hasher_init(&hasher);
    hasher.chunk.chunk_counter = chunk;
    ::blake3_hasher_update(&hasher, bytes.data(), bytes.size());
    if (hasher.cv_stack_len == 2) {
      Hash256 halves[2];
      std::memcpy(halves[0].bytes.data(), hasher.cv_stack, 32);
      std::memcpy(halves[1].bytes.data(), hasher.cv_stack + 32, 32);
      return parent(halves[0], halves[1], false);
    }
  }
  // The left subtree has as many chunks as the largest power of two below all of them.
  const size_t left = std::bit_floor(bytes.size() - 1);
  return parent(subtree_node(bytes.first(left), chunk), subtree_node(bytes.subspan(left), chunk + left / kChunk),
                false);
}

}  // namespace

Hash256 blake3(std::span<const std::byte> bytes) {
  blake3_hasher hasher;
  ::blake3_hasher_init(&hasher);
  ::blake3_hasher_update(&hasher, bytes.data(), bytes.size());
  Hash256 out;
  ::blake3_hasher_finalize(&hasher, out.bytes.data(), out.bytes.size());
  return out;
}

Hash256 blake3(std::string_view bytes) { return blake3(std::as_bytes(std::span(bytes))); }

struct Blake3::State {
  blake3_hasher hasher;
};

Blake3::Blake3() : state_(std::make_unique<State>()) { ::blake3_hasher_init(&state_->hasher); }
Blake3::~Blake3() = default;
Blake3::Blake3(Blake3&&) noexcept = default;
Blake3& Blake3::operator=(Blake3&&) noexcept = default;

void Blake3::update(std::span<const std::byte> bytes) {
  ::blake3_hasher_update(&state_->hasher, bytes.data(), bytes.size());
}

Hash256 Blake3::finish() const {
  Hash256 out;
  ::blake3_hasher_finalize(&state_->hasher, out.bytes.data(), out.bytes.size());
  return out;
}

Hash256 blake3_block(std::span<const std::byte> bytes, BlockIndex block) {
  return subtree_node(bytes, block * (kBlockSize / kChunk));
}

Hash256 blake3_parent(std::span<const Hash256> nodes, bool root) {
  if (nodes.size() == 1) return nodes.front();
  const size_t left = std::bit_floor(nodes.size() - 1);
  return parent(blake3_parent(nodes.first(left), false), blake3_parent(nodes.subspan(left), false), root);
}

}  // namespace wormhole
