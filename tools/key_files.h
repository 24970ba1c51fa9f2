// Keys of minisign in files.
//
// Thread: any; blocks on the disk.
#pragma once

#include <string>

#include "base/error.h"
#include "manifest/signature.h"

namespace wormhole {

// What is in a file of a key or a password, as far as such a one may be long (16 KiB).
Result<std::string> read_key_file(const std::string& path);

// `given`: a file, or the key itself ("RWQ..."). Errors: kInvalid when it is no key, and those of reading.
Result<PublicKey> read_public_key(const std::string& given);

}  // namespace wormhole
