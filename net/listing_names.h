// What may be an entry of a directory, for all kinds of listings: the one place where a name from afar is judged before
// it becomes a name in the file system.
//
// Thread: pure functions, any.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/listing.h"
#include "net/url.h"

namespace wormhole {

// The limit of Linux for one path component, NAME_MAX.
inline constexpr size_t kMaxNameLength = 255;

// False for "", ".", "..", names that are too long, and names with '/' or NUL. Every other byte is allowed, as on a
// local disk.
bool may_be_entry(std::string_view name);

// A name from afar as a log may have it: in quotes, everything but printable ASCII as \xHH, cut after 300 bytes. (fmt's
// {:?} ends the process at some malformed UTF-8.)
std::string in_quotes(std::string_view name);

struct NamedChild {
  std::string name;
  EntryType type = EntryType::kFile;
};

// The direct child of a directory that a link on one of its pages leads to; nothing when it leads elsewhere: up, to
// the page itself, further down, to another origin, to a query of the page (sort links), or to no URL at all.
class ChildLinks {
 public:
  explicit ChildLinks(const Url& page);
  std::optional<NamedChild> child(std::string_view href) const;

 private:
  const Url page_;
  const std::string directory_;  // the page's path up to the last '/', each segment decoded and encoded again
};

}  // namespace wormhole
