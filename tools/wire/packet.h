// A packet as a TUN device with IFF_VNET_HDR hands it over: a device header, then IP. With segmentation offload one
// packet stands for up to 64 KiB of a stream; on a wire it would be many segments, each lost or queued for itself.
//
// Thread: a value, any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wormhole::wire {

// What Ethernet adds to each segment: preamble 8, header 14, checksum 4, gap 12.
inline constexpr size_t kEthernetOverhead = 38;

// struct virtio_net_hdr (VIRTIO 1.2, section 5.1.6); the kernel's own header does not compile as C++. In the machine's
// byte order.
struct DeviceHeader {
  enum Flags : uint8_t { kNeedsChecksum = 1 };
  enum Offload : uint8_t { kNone = 0, kTcp4 = 1, kUdp = 3, kTcp6 = 4, kUdpSegments = 5, kEcn = 0x80 };

  uint8_t flags = 0;
  uint8_t offload = kNone;
  uint16_t header_size = 0;
  uint16_t segment_size = 0;
  uint16_t checksum_start = 0;   // from where it is summed: the TCP or UDP header, counted from the IP header
  uint16_t checksum_offset = 0;  // where it goes, from there
};
static_assert(sizeof(DeviceHeader) == 10);

class Packet {
 public:
  // `bytes` as read from the device. A packet that is not understood counts as one segment.
  explicit Packet(std::vector<uint8_t> bytes);

  const std::vector<uint8_t>& bytes() const { return bytes_; }

  size_t segments() const { return segments_; }
  // Bytes on the wire of segment `index`, with all headers.
  size_t wire_size(size_t index) const;
  // The packet that stands for `count` segments from `first` on. REQUIRES: 0 < count, first + count <= segments().
  Packet slice(size_t first, size_t count) const;

 private:
  DeviceHeader header() const;

  std::vector<uint8_t> bytes_;
  size_t headers_ = 0;       // bytes of IP and TCP or UDP header
  size_t segment_size_ = 0;  // payload of each but the last
  size_t segments_ = 1;
};

}  // namespace wormhole::wire
