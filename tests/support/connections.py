"""How many connections there are to a server, as the client's kernel sees them: what a server has not yet noticed the end
of does not count, nor what was opened in place of one that was given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ESTABLISHED = "01"


def established(port: int) -> int:
    """Connections to `port` by IPv4 from here, at this moment."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == _ESTABLISHED for row in rows)


class Most:
    """How many there were at most."""

    def __init__(self) -> None:
        self.connections = 0


@contextmanager
def watched(port: int) -> Iterator[Most]:
    """Looks every few milliseconds, and once at the end, when connections are kept for a while."""
    most, over = Most(), threading.Event()

    def look() -> None:
        while True:
            last = over.wait(0.002)
            most.connections = max(most.connections, established(port))
            if last:
                return

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield most
    finally:
        over.set()
        looker.join()
