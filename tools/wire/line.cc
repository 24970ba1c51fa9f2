#include "tools/wire/line.h"

#include <algorithm>

namespace wormhole::wire {

void Line::offer(Time now, const Packet& packet) {
  size_t first = 0;  // of a run of segments that come through
  Time arrival{};    // of its last one
  const auto send_run = [&](size_t end) {
    if (end > first) under_way_.push_back({arrival, packet.slice(first, end - first)});
  };
  for (size_t i = 0; i < packet.segments(); ++i) {
    if (admit(now, packet.wire_size(i))) {
      arrival = idle_from_ + conditions_.delay;
    } else {
      send_run(i);
      first = i + 1;
    }
  }
  send_run(packet.segments());
}

bool Line::admit(Time now, size_t size) {
  const Time begin = std::max(now, idle_from_);
  Nanoseconds duration{0};
  if (conditions_.bits_per_second != 0) {
    const uint64_t waiting =
        static_cast<uint64_t>((begin - now).count()) * (conditions_.bits_per_second / 1000) / 8'000'000;
    if (waiting + size > conditions_.queue_bytes) {
      ++counts_.dropped;
      return false;
    }
    duration = Nanoseconds(size * 8'000'000'000 / conditions_.bits_per_second);
  }
  idle_from_ = begin + duration;  // what is lost on the line has used it, too
  if (conditions_.loss > 0 && std::uniform_real_distribution<>(0, 1)(chance_) < conditions_.loss) {
    ++counts_.lost;
    return false;
  }
  ++counts_.segments;
  counts_.bytes += size;
  return true;
}

std::optional<Time> Line::next_arrival() const {
  if (under_way_.empty()) return std::nullopt;
  return under_way_.front().arrival;
}

std::optional<Packet> Line::take(Time now) {
  if (under_way_.empty() || under_way_.front().arrival > now) return std::nullopt;
  Packet packet = std::move(under_way_.front().packet);
  under_way_.pop_front();
  return packet;
}

}  // namespace wormhole::wire
