// Which errno a reader sees for which error: here alone.
//
// Thread: any.
#pragma once

#include "base/error.h"

namespace wormhole {

int errno_of(ErrorCode code);

}  // namespace wormhole
