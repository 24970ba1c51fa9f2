#include "net/retry.h"

#include <algorithm>

namespace wormhole {
namespace {

// Another attempt may end otherwise. The rest is the server's last word, or ours.
bool is_transient(ErrorCode error) {
  return error == ErrorCode::kUnreachable || error == ErrorCode::kTimedOut || error == ErrorCode::kBadResponse;
}

}  // namespace

std::optional<Duration> retry_delay(const RetryPolicy& policy, ErrorCode error, int attempt, double jitter,
                                    std::optional<Duration> retry_after) {
  if (!is_transient(error) || attempt >= policy.attempts) return std::nullopt;
  const auto whole = std::min<Duration>(policy.longest, policy.base * (1LL << std::min(attempt - 1, 20)));
  const auto wait = std::chrono::duration_cast<Duration>(whole * (0.5 + 0.5 * jitter));
  return retry_after ? std::max(wait, *retry_after) : wait;
}

}  // namespace wormhole
