#!/usr/bin/env python3
"""How fast `wormhole index` hashes what is in the page cache, beside b3sum, sha256sum and cat: one large file, and many
small ones. With --files it also tells the memory, and how long it takes when nothing has changed, and when a file is
added to what `wormhole host` serves."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def timed(command: list, env: dict | None = None) -> tuple[float, int]:
    """Seconds, and the largest resident set in bytes."""
    began = time.monotonic()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return seconds, usage.ru_maxrss << 10


def write_large(directory: Path, size: int) -> None:
    directory.mkdir()
    with open(directory / "file", "wb") as out:
        for _ in range(size >> 20):
            out.write(os.urandom(1 << 20))


def write_small(directory: Path, count: int, size: int) -> None:
    content = os.urandom(size + count)
    for i in range(count):
        place = directory / f"{i // 1000:05}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:07}").write_bytes(content[i:i + size])


def row(name: str, size: int, seconds: float, rss: int) -> None:
    print(f"{name:34} {seconds:8.2f} s {size / seconds / 1e9:8.2f} GB/s {rss >> 20:6} MiB", flush=True)


def measure(wormhole: Path, directory: Path, size: int, runs: int) -> None:
    files = f"find {directory} -path '*/.wormhole' -prune -o -type f -print0 | xargs -0 "
    contestants = {"cat": files + "cat", "b3sum": files + "b3sum", "sha256sum": files + "sha256sum"}
    for name, command in contestants.items():
        if shutil.which(name):
            row(name, size, *min(timed(["sh", "-c", command]) for _ in range(runs)))
    row("wormhole index --rehash", size, *min(timed([wormhole, "index", "-q", "--rehash", directory])
                                              for _ in range(runs)))
    row("wormhole index -j1 --rehash", size, *min(timed([wormhole, "index", "-q", "-j1", "--rehash", directory])
                                                  for _ in range(runs)))
    time.sleep(3)  # what is as young as its manifest is read again
    timed([wormhole, "index", "-q", directory])
    row("wormhole index, nothing changed", size, *min(timed([wormhole, "index", "-q", directory])
                                                      for _ in range(runs)))


def head_of(url: str) -> bytes:
    try:
        return urllib.request.urlopen(f"{url}.wormhole/manifest", timeout=60).read()
    except urllib.error.HTTPError:
        return b""


def until_another(url: str, before: bytes) -> float:
    began = time.monotonic()
    while head_of(url) in (before, b""):
        time.sleep(0.005)
    return time.monotonic() - began


def measure_following(wormhole: Path, directory: Path, place: Path, runs: int) -> None:
    """From a change to the manifest that has it: half a second of quiet is part of it."""
    shutil.rmtree(directory / ".wormhole", ignore_errors=True)
    host = subprocess.Popen([wormhole, "host", directory, "--listen", "127.0.0.1:0", "--json", "-q", "--log",
                             "/dev/null", "--manifest-dir", place], stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(host.stdout.readline())["url"]
        print(f"{'wormhole host, first manifest':34} {until_another(url, b''):8.2f} s", flush=True)
        times = []
        for i in range(runs):
            time.sleep(5)  # it waits after one that took long
            before = head_of(url)
            (directory / "00000" / f"added{i}").write_bytes(b"new")
            times.append(until_another(url, before))
        print(f"{'wormhole host, a file is added':34} {min(times):8.2f} s", flush=True)
    finally:
        host.terminate()
        host.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wormhole", type=Path, default=PROJECT / "build/release/wormhole")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--size", type=int, default=2 << 10, metavar="MIB", help="of the large file")
    parser.add_argument("--files", type=int, default=20_000, help="number of small ones")
    parser.add_argument("--small", type=int, default=10_000, metavar="BYTES", help="size of a small one")
    parser.add_argument("--runs", type=int, default=3, help="of which the best is told")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        if options.size > 0:
            large = Path(work) / "large"
            write_large(large, options.size << 20)
            print(f"one file of {options.size} MiB")
            measure(options.wormhole, large, options.size << 20, options.runs)
            shutil.rmtree(large)
        if options.files > 0:
            small = Path(work) / "small"
            write_small(small, options.files, options.small)
            print(f"{options.files} files of {options.small} bytes")
            measure(options.wormhole, small, options.files * options.small, options.runs)
            measure_following(options.wormhole, small, Path(work) / "manifest", options.runs)


if __name__ == "__main__":
    main()
