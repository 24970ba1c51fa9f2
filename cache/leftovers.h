// Files of the cache that take more room than the index knows of: what a crash has left. In the pack it is freed at
// once; of object files the visitor is told, for BlockCache::reclaim().
//
// Thread: any; it looks at each file of the cache and at the index, and so takes its time.
#pragma once

#include <functional>
#include <string>

#include "cache/index.h"

namespace wormhole {

// `visit` returns false when it has seen enough.
void find_leftovers(const std::string& objects_path, Index& index, const std::function<bool(Ino)>& visit);

}  // namespace wormhole
