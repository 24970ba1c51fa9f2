#include "net/index_signs.h"

#include <algorithm>
#include <array>

namespace wormhole {
namespace {

// What titles begin with, in lower case; a path follows. nginx, Apache, lighttpd, Python, Jetty, Tomcat, rclone.
constexpr std::array<std::string_view, 5> kHeadings = {"index of", "directory listing", "listing of",
                                                       "directory:", "contents of"};

// Longer than any of them and the slash behind it; the path itself does not matter.
constexpr size_t kHeadingLimit = 512;

// The title or the template's first lines come early. Caddy's page has 20 KiB of style before them.
constexpr uint64_t kDecidedWithin = 256 * 1024;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_heading(std::string_view name) { return name == "title" || name == "h1" || name == "h2" || name == "h3"; }

bool is_list(std::string_view name) {
  return name == "pre" || name == "table" || name == "ul" || name == "ol" || name == "dl";
}

// "Index of /pub", but not "Index of economic freedom".
bool names_an_index(std::string_view heading) {
  while (!heading.empty() && is_space(heading.front())) heading.remove_prefix(1);
  std::string text(heading);
  std::transform(text.begin(), text.end(), text.begin(), lower);
  return std::any_of(kHeadings.begin(), kHeadings.end(),
                     [&](std::string_view h) { return text.starts_with(h) && text.find('/') != text.npos; });
}

}  // namespace

void IndexSigns::bytes(std::string_view raw) {
  constexpr std::string_view kEnd = "</html";
  bytes_seen_ += raw.size();
  if (html_closed_) return;
  tail_ += raw;
  html_closed_ = std::search(tail_.begin(), tail_.end(), kEnd.begin(), kEnd.end(),
                             [](char a, char b) { return lower(a) == b; }) != tail_.end();
  if (tail_.size() >= kEnd.size()) tail_.erase(0, tail_.size() - (kEnd.size() - 1));
}

void IndexSigns::start_element(std::string_view name) {
  if (name == "pre") pre_seen_ = true;
  if (is_heading(name)) {
    in_heading_ = true;
    heading_.clear();
  }
}

void IndexSigns::end_element(std::string_view name) {
  if (is_list(name) && !document_ended_) list_closed_ = true;
  if (is_heading(name)) {
    in_heading_ = false;
    if (names_an_index(heading_)) named_index_ = true;
  }
}

void IndexSigns::text(std::string_view text, bool inside_link) {
  if (in_heading_ && heading_.size() < kHeadingLimit) heading_ += text.substr(0, kHeadingLimit);
  if (!inside_link && !std::all_of(text.begin(), text.end(), is_space)) text_elsewhere_ = true;
}

void IndexSigns::entry() { list_closed_ = false; }

void IndexSigns::caddy_table() { caddy_ = true; }

void IndexSigns::document_ended() { document_ended_ = true; }

bool IndexSigns::may_become_index() const { return is_index() || bytes_seen_ < kDecidedWithin; }

}  // namespace wormhole
