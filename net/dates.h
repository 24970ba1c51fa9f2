// Dates as servers write them, to and from seconds since the epoch. A date without a zone is taken as UTC, which is
// what servers print unless they are told otherwise.
//
// Thread: pure functions, any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wormhole {

// "Sat, 21 Nov 2026 02:57:01 GMT" (IMF-fixdate, RFC 9110 section 5.6.7). The two obsolete forms are read, too.
std::optional<int64_t> parse_http_date(std::string_view text);
std::string format_http_date(int64_t seconds);

struct ListedDate {
  int64_t seconds = 0;
  int32_t granularity = 60;  // 1 when the text has seconds
};

// A date as directory listings have it, at the beginning of `text`, which is advanced behind it:
//   21-Nov-2026 02:57      nginx, Apache before 2.4
//   2026-11-21 02:57       Apache
//   2026-Nov-21 02:57:01   lighttpd
//   2026-11-21T02:57:01Z   HTML <time datetime>, Caddy; also with +HH:MM
// Nothing, and `text` untouched, when there is none.
std::optional<ListedDate> take_listed_date(std::string_view& text);

// "2026-11-21T02:57:01.123456789+01:00" or "...Z" (RFC 3339); the fraction is left out.
std::optional<int64_t> parse_rfc3339(std::string_view text);

// "21-Nov-2026 02:57", as nginx prints it.
std::string format_listed_date(int64_t seconds);

}  // namespace wormhole
