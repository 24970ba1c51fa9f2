// Where lies what is kept and can be made again, if nobody says.
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>

namespace wormhole {

// /var/cache/wormhole for root, ~/.cache/wormhole (or $XDG_CACHE_HOME/wormhole) for others.
std::string cache_home();

// A name for a directory in it: `readable` as far as it can stand in a name, and different for everything that
// `identity` tells apart.
std::string distinct_name(std::string readable, std::string_view identity);

}  // namespace wormhole
