#include "net/dates.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>

namespace wormhole {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kWeekdays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

struct Fields {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  int offset_minutes = 0;  // east of UTC
};

// The seconds since the epoch; nothing for the 31st of February.
std::optional<int64_t> seconds_of(const Fields& f) {
  using namespace std::chrono;
  const year_month_day date{year(f.year), month(static_cast<unsigned>(f.month)), day(static_cast<unsigned>(f.day))};
  // 60 is a leap second.
  if (!date.ok() || f.hour > 23 || f.minute > 59 || f.second > 60) return std::nullopt;
  const int64_t days = sys_days(date).time_since_epoch().count();
  return days * 86400 + f.hour * 3600 + (f.minute - f.offset_minutes) * 60 + f.second;
}

Fields fields_of(int64_t seconds) {
  using namespace std::chrono;
  const sys_seconds time{std::chrono::seconds(seconds)};
  const sys_days midnight = floor<days>(time);
  const year_month_day date(midnight);
  const hh_mm_ss clock(time - midnight);
  return {int(date.year()),           int(unsigned(date.month())),  int(unsigned(date.day())),
          int(clock.hours().count()), int(clock.minutes().count()), int(clock.seconds().count())};
}

// Takes a text apart from the left. Every step says whether it matched; what does not match takes nothing.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  std::string_view rest() const { return rest_; }

  bool literal(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }

  bool number(size_t digits, int* value) {
    if (rest_.size() < digits) return false;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + digits, *value);
    if (error != std::errc() || end != rest_.data() + digits || *value < 0) return false;
    rest_.remove_prefix(digits);
    return true;
  }

  bool month_name(int* month) {
    for (size_t i = 0; i < kMonths.size(); ++i) {
      if (!literal(kMonths[i])) continue;
      *month = static_cast<int>(i) + 1;
      return true;
    }
    return false;
  }

  // Up to and including the next `separator`.
  bool skip_past(std::string_view separator) {
    const size_t at = rest_.find(separator);
    if (at == rest_.npos) return false;
    rest_.remove_prefix(at + separator.size());
    return true;
  }

 private:
  std::string_view rest_;
};

bool take_time(Scanner& in, Fields& f) {
  return in.number(2, &f.hour) && in.literal(":") && in.number(2, &f.minute) && in.literal(":") &&
         in.number(2, &f.second);
}

// "Sat, 21 Nov 2026 02:57:01 GMT"
bool take_imf_fixdate(Scanner in, Fields& f) {
  return in.skip_past(", ") && in.number(2, &f.day) && in.literal(" ") && in.month_name(&f.month) && in.literal(" ") &&
         in.number(4, &f.year) && in.literal(" ") && take_time(in, f) && in.rest() == " GMT";
}

// "Saturday, 21-Nov-26 02:57:01 GMT": a year that is more than 50 years ahead means the past (RFC 9110). Years here
// are those of files: 70 to 99 are of the last century.
bool take_rfc850_date(Scanner in, Fields& f) {
  const bool matched = in.skip_past(", ") && in.number(2, &f.day) && in.literal("-") && in.month_name(&f.month) &&
                       in.literal("-") && in.number(2, &f.year) && in.literal(" ") && take_time(in, f) &&
                       in.rest() == " GMT";
  f.year += f.year < 70 ? 2000 : 1900;
  return matched;
}

// "Sat Nov 21 02:57:01 2026", a day below 10 with a space before it
bool take_asctime_date(Scanner in, Fields& f) {
  return in.skip_past(" ") && in.month_name(&f.month) && in.literal(" ") &&
         (in.literal(" ") ? in.number(1, &f.day) : in.number(2, &f.day)) && in.literal(" ") && take_time(in, f) &&
         in.literal(" ") && in.number(4, &f.year) && in.rest().empty();
}

// "21-Nov-2026", "2026-11-21" or "2026-Nov-21"
bool take_listed_day(Scanner& in, Fields& f) {
  const Scanner start = in;
  if (in.number(4, &f.year) && in.literal("-") && (in.month_name(&f.month) || in.number(2, &f.month)) &&
      in.literal("-") && in.number(2, &f.day)) {
    return true;
  }
  in = start;
  return in.number(2, &f.day) && in.literal("-") && in.month_name(&f.month) && in.literal("-") && in.number(4, &f.year);
}

// "Z", "+HH:MM", "-HH:MM" or nothing
void take_zone(Scanner& in, Fields& f) {
  if (in.literal("Z")) return;
  const Scanner start = in;
  const int sign = in.literal("+") ? 1 : in.literal("-") ? -1 : 0;
  int hours = 0, minutes = 0;
  if (sign != 0 && in.number(2, &hours) && in.literal(":") && in.number(2, &minutes)) {
    f.offset_minutes = sign * (hours * 60 + minutes);
  } else {
    in = start;
  }
}

}  // namespace

std::optional<int64_t> parse_http_date(std::string_view text) {
  for (const auto take : {take_imf_fixdate, take_rfc850_date, take_asctime_date}) {
    Fields fields;
    if (take(Scanner(text), fields)) return seconds_of(fields);
  }
  return std::nullopt;
}

std::string format_http_date(int64_t seconds) {
  const Fields f = fields_of(seconds);
  const int64_t days = (seconds - (f.hour * 3600 + f.minute * 60 + f.second)) / 86400;
  const auto weekday = static_cast<size_t>(((days + 4) % 7 + 7) % 7);  // the epoch was a Thursday
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kWeekdays[weekday], f.day,
                     kMonths[static_cast<size_t>(f.month) - 1], f.year, f.hour, f.minute, f.second);
}

std::optional<ListedDate> take_listed_date(std::string_view& text) {
  Scanner in(text);
  Fields f;
  if (!take_listed_day(in, f) || !(in.literal(" ") || in.literal("T"))) return std::nullopt;
  if (!in.number(2, &f.hour) || !in.literal(":") || !in.number(2, &f.minute)) return std::nullopt;
  const bool has_seconds = in.literal(":") && in.number(2, &f.second);
  take_zone(in, f);
  const std::optional<int64_t> seconds = seconds_of(f);
  if (!seconds) return std::nullopt;
  text = in.rest();
  return ListedDate{*seconds, has_seconds ? 1 : 60};
}

std::optional<int64_t> parse_rfc3339(std::string_view text) {
  constexpr size_t kSecondsEnd = std::string_view("2026-11-21T02:57:01").size();
  std::string whole(text);
  if (whole.size() > kSecondsEnd && whole[kSecondsEnd] == '.') {
    const size_t end = std::min(whole.find_first_not_of("0123456789", kSecondsEnd + 1), whole.size());
    whole.erase(kSecondsEnd, end - kSecondsEnd);
  }
  std::string_view rest = whole;
  const std::optional<ListedDate> date = take_listed_date(rest);
  if (!date || date->granularity != 1 || !rest.empty()) return std::nullopt;
  return date->seconds;
}

std::string format_listed_date(int64_t seconds) {
  const Fields f = fields_of(seconds);
  return fmt::format("{:02}-{}-{:04} {:02}:{:02}", f.day, kMonths[static_cast<size_t>(f.month) - 1], f.year, f.hour,
                     f.minute);
}

}  // namespace wormhole
