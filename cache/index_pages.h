// The pages of LMDB's file: its trees as they stand there, looked at without LMDB, which believes them. A reader needs
// only a part of what is in a page's head; the next writer needs all of it, and ends the process where it makes no
// sense.
//
// The form is that of data version 1 (LMDB 0.9): two meta pages, of which the one with the higher transaction counts;
// in it the roots of the tree of free pages and of the tree of tables; in that the roots of the tables. A tree has
// branch pages and leaf pages; a value that is too large for a leaf has overflow pages of its own.
//
// Thread: any; it reads a file that nobody writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace wormhole {

// Which pages the trees use, by page number. kCorrupt: something in them cannot be, or a page is used twice. Whoever
// calls it survives a SIGBUS, or does it in a process of its own: the file may be shorter than its pages say.
Result<std::vector<bool>> check_pages(const std::string& file, uint64_t page_size, uint64_t transaction);

}  // namespace wormhole
