// Numbers for people: sizes in binary units, as ls and df print them; rates in decimal ones, as wires are sold.
//
// Thread: pure functions, any.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace wormhole {

std::string human_bytes(uint64_t bytes);                    // "0 B", "1023 B", "1.0 KiB", "460 MiB"
std::string human_rate(double bytes_per_second);            // "0 B/s", "93.2 MB/s", "105 MB/s"
std::string human_duration(std::chrono::seconds duration);  // "0:06", "12:34", "1:02:03", "2d 03h"

}  // namespace wormhole
