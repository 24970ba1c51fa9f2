// What becomes of the cached bytes of files that are gone or have another version.
//
// Bytes that are known by their hash may belong to several files: they go with the last of them. Those of a version
// that has a successor stay until that has one in turn, because most blocks of the two may be the same
// (inherited_blocks.h); a version that nobody has read hands on the one before it.
//
// Thread: the tree thread.
#pragma once

#include <vector>

#include "cache/index.h"
#include "fs/directory.h"

namespace wormhole {

// Tells the new versions in `merged` their predecessors. Returns the objects that are of no use to anybody any more.
std::vector<Ino> settle_succession(Index& index, MergeResult* merged);

}  // namespace wormhole
