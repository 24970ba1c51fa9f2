"""Memory that a virtual machine really has.

With free page reporting, a virtual machine gives free memory back to its host within seconds, and fetches each page
anew when somebody uses it: seconds for each GiB, which look like work of the program that is measured.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 16 << 20
AHEAD = 16  # chunks that are free before they are used
REPORTING = 5  # VIRTIO_BALLOON_F_REPORTING


def is_lent() -> bool:
    """Whether this machine gives free memory back."""
    devices = Path("/sys/bus/virtio/drivers/virtio_balloon")
    return any(device.read_text()[REPORTING] == "1" for device in devices.glob("virtio*/features"))


def free_bytes() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree:"))


@contextmanager
def at_hand(size: int) -> Iterator[None]:
    """Where memory is lent: fetches `size` bytes of it now, and frees them bit by bit, as fast as memory is used. What
    was freed last is used first."""
    if not is_lent():
        yield
        return
    held: list[mmap.mmap] = []
    over = threading.Event()

    def free_one() -> None:
        if held:
            held.pop().close()

    def follow() -> None:
        while not over.wait(0.02):
            for _ in range((level - free_bytes()) // CHUNK):
                free_one()

    try:
        while len(held) * CHUNK < min(size, free_bytes() + len(held) * CHUNK - (1 << 30)):
            held.append(mmap.mmap(-1, CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
        for _ in range(AHEAD):
            free_one()
        level = free_bytes()
        follower = threading.Thread(target=follow)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
    finally:
        while held:
            free_one()
