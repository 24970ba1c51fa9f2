// What to do after a failed attempt: try again after a while, or give up. Values in, values out.
//
// Exponential backoff with jitter: the wait is drawn from [half, whole] of base * 2^(attempt - 1), so that many clients
// of one server do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
// A server that names a time (Retry-After) is obeyed.
//
// Thread: any.
#pragma once

#include <optional>

#include "base/clock.h"
#include "base/error.h"

namespace wormhole {

struct RetryPolicy {
  Duration base = std::chrono::milliseconds(100);
  Duration longest = std::chrono::seconds(5);
  // Attempts in a row without a byte. Five waits of 0.1 to 1.6 s make about 2.5 s: a restart of a web server is
  // bridged, and a server that is gone is reported soon.
  int attempts = 6;
};

// `attempt` counts failed attempts since the last progress, from 1. `jitter` is in [0, 1). `retry_after` is what the
// server asked for. Nothing: give up.
std::optional<Duration> retry_delay(const RetryPolicy& policy, ErrorCode error, int attempt, double jitter,
                                    std::optional<Duration> retry_after);

}  // namespace wormhole
