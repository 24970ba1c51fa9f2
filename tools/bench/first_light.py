#!/usr/bin/env python3
"""How fast an unread file comes out of a mount, against programs that download it.

    first_light.py loopback     2 GiB over the loopback: cat from a cold mount against `curl -o FILE`
    first_light.py wire         1 GiB over an emulated 1 Gbit/s with 50 ms: cp from a cold mount against one curl stream
                                and, where it is installed, aria2c with 16 connections (needs root; tools/wire)

Origin, cache and copies are on one file system; the origin's file is in the page cache; every run has its own cache.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench import (GIB, add_race_options, alternate, end_cleanly_on_signals, parser, print_summary, summary,
                   work_directory, write_json, write_original)
from link import AT_FAR, AT_NEAR, FAR_ADDRESS, Wire
from race import Race
from support.origin import Origin


def loopback(arguments, work: Path) -> dict:
    size = int(arguments.size * GIB)
    write_original(work / "tree/file", size)
    with Origin(work / "tree", work / "origin") as origin:
        race = Race(arguments.wormhole, work, origin, arguments.option)
        figures = alternate(arguments.runs, {"curl -o FILE": race.curl, "cat from the mount": race.cat},
                            memory=3 * size)
    rows = summary(figures, size)
    ratio = rows["cat from the mount"]["median_seconds"] / rows["curl -o FILE"]["median_seconds"]
    print_summary(f"loopback, {arguments.size:g} GiB, cold, {arguments.runs} runs each", rows)
    print(f"  cat / curl: {ratio:.2f} (asked for: at most 1.30)")
    return {"what": "loopback", "bytes": size, "rows": rows, "ratio": ratio, "passed": ratio <= 1.3}


def wire(arguments, work: Path) -> dict:
    size = int(arguments.size * GIB)
    write_original(work / "tree/file", size)
    with (Wire(arguments.wire, rate=arguments.rate, rtt=arguments.rtt, loss=arguments.loss, buffers=arguments.buffers),
          Origin(work / "tree", work / "origin", address=FAR_ADDRESS, port=8080, prefix=AT_FAR) as origin):
        race = Race(arguments.wormhole, work, origin, arguments.option, AT_NEAR)
        contestants = {"curl, one stream": race.curl, "cp from the mount": race.cp}
        if shutil.which("aria2c"):
            contestants["aria2c, 16 connections"] = race.aria2
        figures = alternate(arguments.runs, contestants, memory=3 * size)
    rows = summary(figures, size)
    rate = rows["cp from the mount"]["median_mb_per_s"]
    print_summary(f"{arguments.rate}bit/s, {arguments.rtt}, loss {arguments.loss}, {arguments.buffers} buffers, "
                  f"{arguments.size:g} GiB, cold, {arguments.runs} runs each", rows)
    print(f"  cp from the mount: {rate:.1f} MB/s (asked for at 1 Gbit/s and 50 ms: at least 80)")
    return {"what": "wire", "bytes": size, "rows": rows, "rate": arguments.rate, "rtt": arguments.rtt,
            "loss": arguments.loss, "buffers": arguments.buffers, "passed": rate >= 80}


def main() -> int:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("what", choices=["loopback", "wire"])
    options.add_argument("--size", type=float, help="in GiB; default 2 on the loopback, 1 over the wire")
    add_race_options(options)
    options.add_argument("--rate", default="1G")
    options.add_argument("--rtt", default="50ms")
    options.add_argument("--loss", default="0%")
    arguments = options.parse_args()
    arguments.option = dict(arguments.option)
    arguments.size = arguments.size or {"loopback": 2, "wire": 1}[arguments.what]
    end_cleanly_on_signals()
    with work_directory(arguments.work) as work:
        result = {"loopback": loopback, "wire": wire}[arguments.what](arguments, work)
    write_json(arguments.json, result)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
