// What stands beside a name in a directory listing: a date, and a size.
//
// A size is taken when it is a whole number of bytes. "12K" and "1.2 MiB" are rounded, so they are not a size: a wrong
// one would be a file that ends too early.
//
// Thread: pure functions, any.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "net/dates.h"

namespace wormhole {

struct EntryFacts {
  std::optional<ListedDate> date;
  std::optional<uint64_t> size;
};

// `text` is the rest of the entry's line, or the other cells of its row with spaces between. The size is looked for
// behind the date and, when nothing is there, before it; without a date a number may mean anything.
EntryFacts read_entry_facts(std::string_view text);

}  // namespace wormhole
