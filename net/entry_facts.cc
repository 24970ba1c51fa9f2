#include "net/entry_facts.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

namespace wormhole {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

// The next word of `text`, which is advanced behind it; "" at the end.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(kSpace));
  text.remove_prefix(word.size());
  return word;
}

bool is_rounding_unit(std::string_view word) {
  static constexpr std::array<std::string_view, 5> kUnits = {"k", "m", "g", "t", "p"};
  std::string unit(word);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::any_of(kUnits.begin(), kUnits.end(), [&](std::string_view u) {
    return unit.starts_with(u) && (unit.substr(1).empty() || unit.substr(1) == "b" || unit.substr(1) == "ib");
  });
}

// "1234", "1234 B", "1234 text/plain", but not "12K", "12 K" or "1.2".
std::optional<uint64_t> exact_size(std::string_view text) {
  const std::string_view word = take_word(text);
  uint64_t size = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), size);
  if (word.empty() || error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  if (is_rounding_unit(take_word(text))) return std::nullopt;
  return size;
}

}  // namespace

EntryFacts read_entry_facts(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    rest.remove_prefix(std::min(rest.find_first_not_of(kSpace), rest.size()));
    const std::string_view before = text.substr(0, text.size() - rest.size());
    if (const std::optional<ListedDate> date = take_listed_date(rest)) {
      const bool size_is_behind = rest.find_first_not_of(kSpace) != rest.npos;
      return {date, exact_size(size_is_behind ? rest : before)};
    }
    take_word(rest);
  }
  return {};
}

}  // namespace wormhole
