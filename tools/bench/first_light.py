#!/usr/bin/env python3
"""How fast an unread file comes out of a mount, against programs that download it.

    first_light.py loopback     2 GiB over the loopback: cat from a cold mount against `curl -o FILE`
    first_light.py wire         1 GiB over an emulated 1 Gbit/s with 50 ms: cp from a cold mount against one curl stream
                                and, where it is installed, aria2c with 16 connections (needs root; tools/wire)

Origin, cache and copies are on one file system; the origin's file is in the page cache; every run has its own cache.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import (GIB, PROJECT, alternate, mounted, parser, print_summary, summary, work_directory, write_json)
from support import trees
from support.mounting import Mount
from support.origin import Origin

AT_NEAR = ("nsenter", "--net=/run/netns/wormhole-near")
AT_FAR = ("nsenter", "--net=/run/netns/wormhole-far")
FAR_ADDRESS = "10.99.0.2"


def timed(*command: str | Path, stdout=None) -> float:
    began = time.monotonic()
    subprocess.run([*map(str, command)], check=True, stdout=stdout)
    return time.monotonic() - began


class Race:
    """One origin with one file, and the ways to read it; each gives its seconds. The first of each is compared."""

    def __init__(self, wormhole: Path, work: Path, origin: Origin, options: dict, prefix: tuple[str, ...] = ()):
        self.wormhole, self.work, self.origin, self.options, self.prefix = wormhole, work, origin, options, prefix
        self.file = origin.tree / "file"
        self.url = origin.url + "file"
        self._checked: set[str] = set()
        self._numbers = itertools.count()

    def check(self, who: str, copy: Path) -> None:
        if who not in self._checked:
            subprocess.run(["cmp", copy, self.file], check=True)
            self._checked.add(who)

    def _mount(self) -> Mount:
        place = self.work / f"run-{next(self._numbers)}"
        place.mkdir()
        return Mount(self.wormhole, self.origin.url, place, prefix=self.prefix, **{"log_level": "info", **self.options})

    def cat(self) -> float:
        with mounted(self._mount()) as mount:
            seconds = timed("cat", mount / "file", stdout=subprocess.DEVNULL)
            self.check("cat", mount / "file")
        shutil.rmtree(mount.cache)
        return seconds

    def cp(self) -> float:
        copy = self.work / "copy"
        with mounted(self._mount()) as mount:
            seconds = timed("cp", mount / "file", copy)
            self.check("cp", copy)
        copy.unlink()
        shutil.rmtree(mount.cache)
        return seconds

    def curl(self) -> float:
        copy = self.work / "copy"
        seconds = timed(*self.prefix, "curl", "-sSf", "-o", copy, self.url)
        self.check("curl", copy)
        copy.unlink()
        return seconds

    def aria2(self) -> float:
        copy = self.work / "copy"
        seconds = timed(*self.prefix, "aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-d", self.work,
                        "-o", copy.name, self.url)
        self.check("aria2", copy)
        copy.unlink()
        return seconds


def prepare(tree: Path, size: int) -> None:
    print(f"writes {size / GIB:g} GiB of real files", file=sys.stderr)
    trees.write_real_file(tree / "file", size)
    with open(tree / "file", "rb") as file:  # into the page cache
        while file.read(1 << 22):
            pass


def loopback(arguments, work: Path) -> dict:
    size = int(arguments.size * GIB)
    prepare(work / "tree", size)
    with Origin(work / "tree", work / "origin") as origin:
        race = Race(arguments.wormhole, work, origin, arguments.option)
        figures = alternate(arguments.runs, {"curl -o FILE": race.curl, "cat from the mount": race.cat})
    rows = summary(figures, size)
    ratio = rows["cat from the mount"]["median_seconds"] / rows["curl -o FILE"]["median_seconds"]
    print_summary(f"loopback, {arguments.size:g} GiB, cold, {arguments.runs} runs each", rows)
    print(f"  cat / curl: {ratio:.2f} (asked for: at most 1.30)")
    return {"what": "loopback", "bytes": size, "rows": rows, "ratio": ratio, "passed": ratio <= 1.3}


def wire(arguments, work: Path) -> dict:
    size = int(arguments.size * GIB)
    prepare(work / "tree", size)
    program = [arguments.wire, "up", "--rate", arguments.rate, "--rtt", arguments.rtt, "--loss", arguments.loss]
    if arguments.buffers == "system":
        program.append("--system-buffers")
    subprocess.run([*map(str, program)], check=True, stdout=sys.stderr)
    try:
        with Origin(work / "tree", work / "origin", address=FAR_ADDRESS, port=8080, prefix=AT_FAR) as origin:
            race = Race(arguments.wormhole, work, origin, arguments.option, AT_NEAR)
            contestants = {"curl, one stream": race.curl, "cp from the mount": race.cp}
            if shutil.which("aria2c"):
                contestants["aria2c, 16 connections"] = race.aria2
            figures = alternate(arguments.runs, contestants)
    finally:
        subprocess.run([str(arguments.wire), "down"], check=True)
    rows = summary(figures, size)
    rate = rows["cp from the mount"]["median_mb_per_s"]
    print_summary(f"{arguments.rate}bit/s, {arguments.rtt}, loss {arguments.loss}, {arguments.buffers} buffers, "
                  f"{arguments.size:g} GiB, cold, {arguments.runs} runs each", rows)
    print(f"  cp from the mount: {rate:.1f} MB/s (asked for at 1 Gbit/s and 50 ms: at least 80)")
    return {"what": "wire", "bytes": size, "rows": rows, "rate": arguments.rate, "rtt": arguments.rtt,
            "loss": arguments.loss, "buffers": arguments.buffers, "passed": rate >= 80}


def option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def main() -> int:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("what", choices=["loopback", "wire"])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--size", type=float, help="in GiB; default 2 on the loopback, 1 over the wire")
    options.add_argument("--option", "-o", type=option, action="append", default=[], metavar="NAME=VALUE",
                         help="a mount option, may be repeated")
    options.add_argument("--rate", default="1G")
    options.add_argument("--rtt", default="50ms")
    options.add_argument("--loss", default="0%")
    options.add_argument("--buffers", choices=["system", "large"], default="system",
                         help="TCP's limits at both ends: the kernel's, or enough for one stream to fill the wire")
    options.add_argument("--wire", type=Path, default=PROJECT / "build/release/wire", help="the link emulator")
    arguments = options.parse_args()
    arguments.option = dict(arguments.option)
    arguments.size = arguments.size or {"loopback": 2, "wire": 1}[arguments.what]
    with work_directory(arguments.work) as work:
        result = {"loopback": loopback, "wire": wire}[arguments.what](arguments, work)
    write_json(arguments.json, result)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
