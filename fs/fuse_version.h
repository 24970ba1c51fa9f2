// The libfuse interface that this program is written against; included before any header of libfuse.
#pragma once

// 3.17: FUSE passthrough, and what it brings to fuse_conn_info.
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 17)
#include <fuse_lowlevel.h>
