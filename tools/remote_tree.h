// A tree as a server's listings tell it, in the order of a manifest: many listings at a time, those first that are
// needed first. A size that a listing does not tell exactly is asked for, file by file, many at a time.
//
// Thread: the caller's; the visitor is called on it.
#pragma once

#include <string>

#include "base/error.h"
#include "manifest/tree_scan.h"
#include "net/fetcher.h"
#include "net/url.h"

namespace wormhole {

// Files have no hash and the mode 0644, directories 0755; a time that is not told is 0. A directory that the server
// refuses is left out; a server that does not answer ends it.
Status walk_remote_tree(Fetcher& fetcher, const Url& root, ScanVisitor& visitor);

}  // namespace wormhole
