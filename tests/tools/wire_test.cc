// The emulated wire: rate, delay, queue and loss act on segments, and a packet cut into pieces is the same stream.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>

#include <cstring>
#include <numeric>

#include "tools/wire/line.h"
#include "tools/wire/packet.h"

namespace wormhole::wire {
namespace {

using namespace std::chrono_literals;

constexpr Time kStart{};
constexpr size_t kSegment = 1000;
constexpr size_t kHeaders = sizeof(iphdr) + sizeof(tcphdr);
constexpr size_t kWire = kHeaders + kSegment + kEthernetOverhead;
constexpr uint32_t kSequence = 0xfffffc00;  // wraps inside the packet

// A TCP packet of `payload` bytes that counts up, as the kernel hands it over.
Packet tcp(size_t payload) {
  std::vector<uint8_t> bytes(sizeof(DeviceHeader) + kHeaders + payload);
  DeviceHeader h{};
  h.flags = DeviceHeader::kNeedsChecksum;
  h.offload = payload > kSegment ? DeviceHeader::kTcp4 : DeviceHeader::kNone;
  h.segment_size = payload > kSegment ? kSegment : 0;
  h.checksum_start = sizeof(iphdr);
  h.checksum_offset = 16;
  std::memcpy(bytes.data(), &h, sizeof h);
  iphdr ip{};
  ip.version = 4;
  ip.ihl = 5;
  ip.tot_len = htons(static_cast<uint16_t>(kHeaders + payload));
  ip.id = htons(7);
  ip.protocol = IPPROTO_TCP;
  ip.saddr = htonl(0x0a630001);
  ip.daddr = htonl(0x0a630002);
  std::memcpy(bytes.data() + sizeof h, &ip, sizeof ip);
  tcphdr t{};
  t.seq = htonl(kSequence);
  t.doff = 5;
  t.psh = t.fin = 1;
  std::memcpy(bytes.data() + sizeof h + sizeof ip, &t, sizeof t);
  std::iota(bytes.begin() + sizeof h + kHeaders, bytes.end(), 0);
  return Packet(std::move(bytes));
}

DeviceHeader device_header(const Packet& packet) {
  DeviceHeader h;
  std::memcpy(&h, packet.bytes().data(), sizeof h);
  return h;
}

iphdr ip_header(const Packet& packet) {
  iphdr h;
  std::memcpy(&h, packet.bytes().data() + sizeof(DeviceHeader), sizeof h);
  return h;
}

tcphdr tcp_header(const Packet& packet) {
  tcphdr h;
  std::memcpy(&h, packet.bytes().data() + sizeof(DeviceHeader) + sizeof(iphdr), sizeof h);
  return h;
}

size_t payload(const Packet& packet) { return packet.bytes().size() - sizeof(DeviceHeader) - kHeaders; }

TEST(Packet, CountsTheSegmentsItStandsFor) {
  EXPECT_EQ(tcp(1).segments(), 1u);
  EXPECT_EQ(tcp(1000).segments(), 1u);
  EXPECT_EQ(tcp(1001).segments(), 2u);
  EXPECT_EQ(tcp(60'000).segments(), 60u);
  const Packet packet = tcp(2500);
  EXPECT_EQ(packet.wire_size(0), kWire);
  EXPECT_EQ(packet.wire_size(2), kWire - 500);
}

TEST(Packet, SlicesContinueTheStream) {
  const Packet packet = tcp(4500);
  for (size_t first = 0; first < 5; ++first) {
    for (size_t count = 1; first + count <= 5; ++count) {
      const Packet part = packet.slice(first, count);
      const bool last = first + count == 5;
      EXPECT_EQ(part.segments(), count);
      EXPECT_EQ(payload(part), last ? 4500 - first * kSegment : count * kSegment);
      EXPECT_EQ(ntohl(tcp_header(part).seq), kSequence + static_cast<uint32_t>(first * kSegment));
      EXPECT_EQ(tcp_header(part).fin, last);
      EXPECT_EQ(tcp_header(part).psh, last);
      EXPECT_EQ(ntohs(ip_header(part).tot_len), kHeaders + payload(part));
      EXPECT_EQ(part.bytes()[sizeof(DeviceHeader) + kHeaders], static_cast<uint8_t>(first * kSegment));
      EXPECT_EQ(device_header(part).offload, count == 1 ? DeviceHeader::kNone : DeviceHeader::kTcp4);
    }
  }
}

TEST(Packet, ASliceHasAValidHeaderChecksum) {
  const Packet part = tcp(4500).slice(1, 2);
  const iphdr ip = ip_header(part);
  uint16_t words[10];
  std::memcpy(words, &ip, sizeof words);
  uint32_t sum = std::accumulate(std::begin(words), std::end(words), 0u);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_EQ(sum, 0xffffu);
}

TEST(Packet, WhatIsNotUnderstoodIsOneSegment) {
  EXPECT_EQ(Packet({}).segments(), 1u);
  EXPECT_EQ(Packet(std::vector<uint8_t>(12, 0xff)).segments(), 1u);
}

TEST(Line, APacketArrivesAfterItsTimeOnTheLineAndTheDelay) {
  Line line({.bits_per_second = kWire * 8 * 1000, .delay = 25ms});  // 1 ms a segment
  line.offer(kStart, tcp(kSegment));
  EXPECT_EQ(line.next_arrival(), kStart + 26ms);
  EXPECT_FALSE(line.take(kStart + 25ms));
  EXPECT_TRUE(line.take(kStart + 26ms));
  EXPECT_EQ(line.next_arrival(), std::nullopt);
}

TEST(Line, PacketsFollowEachOtherAtTheRate) {
  Line line({.bits_per_second = kWire * 8 * 1000});
  line.offer(kStart, tcp(kSegment));
  line.offer(kStart, tcp(10 * kSegment));
  EXPECT_EQ(line.next_arrival(), kStart + 1ms);
  EXPECT_TRUE(line.take(kStart + 1ms));
  EXPECT_EQ(line.next_arrival(), kStart + 11ms);
}

TEST(Line, AnIdleLineDoesNotSaveItsTimeUp) {
  Line line({.bits_per_second = kWire * 8 * 1000});
  line.offer(kStart, tcp(kSegment));
  line.offer(kStart + 1s, tcp(kSegment));
  line.take(kStart + 1ms);
  EXPECT_EQ(line.next_arrival(), kStart + 1001ms);
}

TEST(Line, AFullQueueDropsWhatComesAndKeepsWhatFits) {
  Line line({.bits_per_second = kWire * 8 * 1000, .queue_bytes = 5 * kWire});
  line.offer(kStart, tcp(20 * kSegment));
  const auto packet = line.take(kStart + 1s);
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->segments(), 5u);
  EXPECT_EQ(ntohl(tcp_header(*packet).seq), kSequence);
  EXPECT_FALSE(line.take(kStart + 1s));
  EXPECT_EQ(line.counts().dropped, 15u);
  line.offer(kStart + 2ms, tcp(20 * kSegment));  // two have left the queue
  EXPECT_EQ(line.take(kStart + 1s)->segments(), 2u);
}

TEST(Line, LossTakesTheShareItWasToldTo) {
  Line line({.loss = 0.01});
  size_t arrived = 0;
  for (int i = 0; i < 2000; ++i) {
    line.offer(kStart, tcp(50 * kSegment));
    while (const auto packet = line.take(kStart)) arrived += packet->segments();
  }
  EXPECT_EQ(arrived, line.counts().segments);
  EXPECT_EQ(arrived + line.counts().lost, 100'000u);
  EXPECT_NEAR(static_cast<double>(line.counts().lost), 1000, 150);
}

TEST(Line, TheSameSeedLosesTheSameSegments) {
  const auto lengths = [](uint64_t seed) {
    Line line({.loss = 0.1, .seed = seed});
    line.offer(kStart, tcp(60 * kSegment));
    std::vector<size_t> out;
    while (const auto packet = line.take(kStart)) out.push_back(packet->segments());
    return out;
  };
  EXPECT_EQ(lengths(1), lengths(1));
  EXPECT_NE(lengths(1), lengths(2));
}

}  // namespace
}  // namespace wormhole::wire
