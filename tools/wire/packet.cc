#include "tools/wire/packet.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cassert>
#include <cstring>

namespace wormhole::wire {

namespace {

constexpr size_t kDeviceHeader = sizeof(DeviceHeader);

bool is_tcp(const DeviceHeader& h) {
  const int kind = h.offload & ~DeviceHeader::kEcn;
  return kind == DeviceHeader::kTcp4 || kind == DeviceHeader::kTcp6;
}

// The sum of big-endian 16-bit words, of an even number of bytes (RFC 1071).
uint32_t sum_words(const uint8_t* bytes, size_t length, uint32_t sum = 0) {
  for (size_t i = 0; i + 1 < length; i += 2) sum += static_cast<uint32_t>(bytes[i] << 8 | bytes[i + 1]);
  return sum;
}

uint16_t fold(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

void put16(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

}  // namespace

Packet::Packet(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {
  const DeviceHeader h = header();
  if (h.offload == DeviceHeader::kNone || h.segment_size == 0) return;
  const size_t transport = kDeviceHeader + h.checksum_start;
  if (transport + sizeof(tcphdr) > bytes_.size()) return;
  const size_t transport_size = is_tcp(h) ? (bytes_[transport + 12] >> 4) * 4u : sizeof(udphdr);
  const size_t headers = h.checksum_start + transport_size;
  if (kDeviceHeader + headers >= bytes_.size()) return;
  headers_ = headers;
  segment_size_ = h.segment_size;
  segments_ = (bytes_.size() - kDeviceHeader - headers_ + segment_size_ - 1) / segment_size_;
}

DeviceHeader Packet::header() const {
  DeviceHeader h{};
  if (bytes_.size() >= kDeviceHeader) std::memcpy(&h, bytes_.data(), kDeviceHeader);
  return h;
}

size_t Packet::wire_size(size_t index) const {
  const size_t all = bytes_.size() - std::min(bytes_.size(), kDeviceHeader);
  if (segments_ == 1) return all + kEthernetOverhead;
  const size_t before = index * segment_size_;
  return headers_ + std::min(segment_size_, all - headers_ - before) + kEthernetOverhead;
}

Packet Packet::slice(size_t first, size_t count) const {
  assert(count > 0 && first + count <= segments_);
  if (count == segments_) return *this;

  const size_t payload_begin = kDeviceHeader + headers_ + first * segment_size_;
  const size_t payload_end = std::min(bytes_.size(), payload_begin + count * segment_size_);
  const bool has_last = first + count == segments_;
  std::vector<uint8_t> out(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(kDeviceHeader + headers_));
  out.insert(out.end(), bytes_.begin() + static_cast<ptrdiff_t>(payload_begin),
             bytes_.begin() + static_cast<ptrdiff_t>(payload_end));

  DeviceHeader h = header();
  const bool tcp = is_tcp(h);
  if (count == 1) {
    h.offload = DeviceHeader::kNone;
    h.segment_size = 0;
  }
  std::memcpy(out.data(), &h, kDeviceHeader);

  uint8_t* const ip = out.data() + kDeviceHeader;
  uint8_t* const transport = ip + h.checksum_start;
  const size_t ip_size = out.size() - kDeviceHeader;
  const auto transport_size = static_cast<uint16_t>(ip_size - h.checksum_start);
  uint32_t addresses = 0;
  if (ip[0] >> 4 == 4) {
    const size_t length = (ip[0] & 0xf) * 4u;
    put16(ip + offsetof(iphdr, tot_len), static_cast<uint16_t>(ip_size));
    put16(ip + offsetof(iphdr, id), static_cast<uint16_t>((ip[4] << 8 | ip[5]) + first));
    put16(ip + offsetof(iphdr, check), 0);
    put16(ip + offsetof(iphdr, check), static_cast<uint16_t>(~fold(sum_words(ip, length))));
    addresses = sum_words(ip + offsetof(iphdr, saddr), 8);
  } else {
    put16(ip + 4, static_cast<uint16_t>(ip_size - sizeof(ip6_hdr)));
    addresses = sum_words(ip + 8, 32);
  }

  if (tcp) {
    uint32_t sequence = 0;
    std::memcpy(&sequence, transport + 4, 4);
    sequence = htonl(ntohl(sequence) + static_cast<uint32_t>(first * segment_size_));
    std::memcpy(transport + 4, &sequence, 4);
    if (!has_last) transport[13] &= static_cast<uint8_t>(~(TH_FIN | TH_PUSH));
    if (first > 0) transport[13] &= 0x7f;  // CWR is said once
  } else {
    put16(transport + 4, transport_size);
  }
  // The device fills in the checksum; it expects the pseudo header's part in its place.
  const uint32_t protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
  put16(transport + h.checksum_offset, fold(addresses + protocol + transport_size));
  return Packet(std::move(out));
}

}  // namespace wormhole::wire
