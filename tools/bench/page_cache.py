"""The kernel's page cache: emptied, and looked into."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

# cachestat(2), since Linux 6.5; the same number on every architecture. It counts the pages of the file itself: where
# FUSE passes reads on to another file, that file has them. (mincore, which fincore uses, would follow the mapping.)
CACHESTAT = 451

_libc = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """Of all file systems: pages, names and inodes. What is not written yet is written first, so that it can go."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def cached_bytes(path: Path) -> int | None:
    """How much of a file is in the page cache; None where the kernel does not tell."""
    fd = os.open(path, os.O_RDONLY)
    try:
        all_of_it = (ctypes.c_uint64 * 2)(0, 0)  # offset, length; 0: to the end
        pages = (ctypes.c_uint64 * 5)()  # cached, dirty, under writeback, evicted, recently evicted
        if _libc.syscall(CACHESTAT, fd, ctypes.byref(all_of_it), ctypes.byref(pages), 0) != 0:
            return None
        return pages[0] * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(fd)


def warm(*command: str | Path) -> None:
    """Runs a command that reads: what it has read is in the page cache then."""
    ran = subprocess.run([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 0, f"{Path(command[0]).name}: exit code {ran.returncode}: {ran.stderr[-1000:]}"
