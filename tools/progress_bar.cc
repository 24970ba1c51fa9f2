#include "tools/progress_bar.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "tools/human.h"

namespace wormhole {
namespace {

// Fluent to the eye, and nothing beside the work itself.
constexpr Duration kRedrawInterval = std::chrono::milliseconds(100);
constexpr Duration kLineInterval = std::chrono::seconds(5);

// More samples than this in a second add nothing.
constexpr Duration kSampleInterval = std::chrono::milliseconds(100);

constexpr size_t kSmallestBar = 10;
constexpr size_t kLargestBar = 40;

double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

ProgressBar::Output choose(ProgressBar::Output wanted, std::FILE* out) {
  if (wanted != ProgressBar::Output::kAuto) return wanted;
  return ::isatty(::fileno(out)) == 1 ? ProgressBar::Output::kTerminal : ProgressBar::Output::kLines;
}

size_t terminal_columns(std::FILE* out) {
  winsize size = {};
  const bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - 1u : 79;  // the last column stays free: some terminals wrap there
}

// Characters, not bytes.
size_t width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string cut(std::string_view text, size_t columns) {
  size_t end = 0;
  for (size_t seen = 0; end < text.size(); ++end) {
    if ((text[end] & 0xC0) != 0x80 && seen++ == columns) break;
  }
  return std::string(text.substr(0, end));
}

// Done work is never more than all of it, whatever a server announced.
double share(const Progress& p) {
  if (!p.total || *p.total == 0) return 1;
  return std::min(1.0, static_cast<double>(p.done) / static_cast<double>(*p.total));
}

std::string percent(const Progress& p) {
  return p.total ? fmt::format("{:>3} %", static_cast<int>(share(p) * 100)) : "";
}

std::string amount(const Progress& p) {
  return p.total ? fmt::format("{} / {}", human_bytes(p.done), human_bytes(*p.total)) : human_bytes(p.done);
}

std::string eta(const Progress& p) {
  if (!p.total || p.done >= *p.total) return "";
  if (p.bytes_per_second < 1) return "ETA -:--";
  const double left = static_cast<double>(*p.total - p.done) / p.bytes_per_second;
  constexpr double kForever = 100.0 * 86400;
  if (left > kForever) return "ETA -:--";
  return "ETA " + human_duration(std::chrono::seconds(std::llround(left)));
}

std::string bar(const Progress& p, size_t inside) {
  const auto filled = static_cast<size_t>(share(p) * static_cast<double>(inside));
  std::string text(inside, ' ');
  std::fill_n(text.begin(), filled, '=');
  if (filled < inside) text[filled] = '>';
  return "[" + text + "]";
}

// The parts that are not empty, with two spaces between.
std::string join(std::initializer_list<std::string_view> parts) {
  std::string line;
  for (const std::string_view part : parts) {
    if (part.empty()) continue;
    if (!line.empty()) line += "  ";
    line += part;
  }
  return line;
}

}  // namespace

void RateMeter::add(TimePoint now, uint64_t done) {
  if (!samples_.empty() && done < samples_.back().done) samples_.clear();  // the work has begun again
  if (samples_.size() > 1 && now - samples_[samples_.size() - 2].time < kSampleInterval) samples_.pop_back();
  samples_.push_back({now, done});
  while (samples_.size() > 2 && now - samples_[1].time >= kWindow) samples_.pop_front();
}

double RateMeter::bytes_per_second() const {
  if (samples_.size() < 2) return 0;
  const double elapsed = seconds(samples_.back().time - samples_.front().time);
  return elapsed <= 0 ? 0 : static_cast<double>(samples_.back().done - samples_.front().done) / elapsed;
}

std::string format_progress(const Progress& p, std::optional<size_t> columns) {
  const std::string rate = human_rate(p.bytes_per_second);
  std::string full = join({p.label, percent(p), amount(p), rate, eta(p)});
  if (!columns) return full;
  const size_t used = width(full) + 2;  // the brackets; the spaces around them are there already
  if (p.total && used + kSmallestBar <= *columns) {
    const std::string middle = percent(p) + " " + bar(p, std::min(kLargestBar, *columns - used)) + " " + amount(p);
    return join({p.label, middle, rate, eta(p)});
  }
  for (const std::string& line : {full, join({p.label, percent(p), amount(p), rate}),
                                  join({p.label, percent(p), amount(p)}), join({p.label, percent(p)})}) {
    if (width(line) <= *columns) return line;
  }
  return cut(p.label, *columns);
}

ProgressBar::ProgressBar(std::string label, std::optional<uint64_t> total, const Clock& clock, Output output,
                         std::FILE* out)
    : clock_(clock), out_(out), output_(choose(output, out)), progress_{std::move(label), 0, total, 0} {}

ProgressBar::~ProgressBar() {
  if (line_is_open_) fmt::print(out_, "\n");
}

Duration ProgressBar::interval() const { return output_ == Output::kTerminal ? kRedrawInterval : kLineInterval; }

void ProgressBar::update(uint64_t done) {
  if (output_ == Output::kNone) return;
  const TimePoint now = clock_.now();
  if (!started_) {
    started_ = now;
    done_at_start_ = done;
    if (output_ == Output::kLines) drawn_ = now;  // work of a moment needs no line before its last
  }
  progress_.done = done;
  rate_.add(now, done);
  if (!drawn_ || now - *drawn_ >= interval()) draw(now);
}

void ProgressBar::draw(TimePoint now) {
  drawn_ = now;
  progress_.bytes_per_second = rate_.bytes_per_second();
  if (output_ == Output::kTerminal) {
    constexpr const char* kClearToEnd = "\x1b[K";
    fmt::print(out_, "\r{}{}", format_progress(progress_, terminal_columns(out_)), kClearToEnd);
    line_is_open_ = true;
  } else {
    fmt::print(out_, "{}\n", format_progress(progress_, std::nullopt));
  }
  std::fflush(out_);
}

void ProgressBar::finish() {
  if (output_ == Output::kNone || !started_) return;
  const Duration elapsed = clock_.now() - *started_;
  const double moved = static_cast<double>(progress_.done - std::min(progress_.done, done_at_start_));
  // Work of a few milliseconds has no rate worth the name.
  const std::string rate = elapsed < kSampleInterval ? "" : human_rate(moved / seconds(elapsed));
  const auto whole_seconds = std::chrono::round<std::chrono::seconds>(elapsed);
  fmt::print(out_, "{}{}\n", line_is_open_ ? "\r\x1b[K" : "",
             join({progress_.label, human_bytes(progress_.done) + " in " + human_duration(whole_seconds), rate}));
  std::fflush(out_);
  line_is_open_ = false;
}

}  // namespace wormhole
