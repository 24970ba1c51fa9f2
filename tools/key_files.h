// Keys of minisign in files.
//
// Thread: any; blocks on the disk, and on whoever types a password.
#pragma once

#include <string>

#include "base/error.h"
#include "manifest/signature.h"

namespace wormhole {

// What is in a file of a key or a password, as far as such a one may be long (16 KiB).
Result<std::string> read_key_file(const std::string& path);

// Of an encrypted one the password is the first line of `password_file`; without that the terminal is asked, unseen.
// Errors: as SecretKey::parse(), kCancelled when no password is given, and those of reading.
Result<SecretKey> read_secret_key(const std::string& path, const std::string& password_file);

// `given`: a file, or the key itself ("RWQ..."). Errors: kInvalid when it is no key, and those of reading.
Result<PublicKey> read_public_key(const std::string& given);

}  // namespace wormhole
