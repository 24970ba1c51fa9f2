// Whether a request may be answered: its Authorization header against the token that the server wants (RFC 6750).
//
// Thread: pure, any.
#pragma once

#include <string_view>

namespace wormhole {

// `authorization` is the header's value, "Bearer TOKEN". The time it takes tells nothing of what the token is, only of
// how long it is. False for an empty token.
bool is_authorized(std::string_view authorization, std::string_view token);

}  // namespace wormhole
