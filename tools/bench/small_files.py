#!/usr/bin/env python3
"""Trees and small files that nobody has read yet, over an emulated wire: how long listing, reading and copying them
takes, beside rclone mount.

    small_files.py --list              the rows and their goals
    small_files.py                     all of them
    small_files.py list-exact tar      two of them
    small_files.py --scale 0.1 …       a tenth of the files: a quick try, whose figures mean nothing

Needs root (network namespaces) and what tools/setup --bench installs; a peer that is not installed is left out. The
exit code is 0 when every goal of the rows that ran was met, 1 when one was missed or could not be measured.
docs/BENCHMARKS.md says what each row is for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import MIB, add_race_options, end_cleanly_on_signals, parser
from link import AT_FAR, AT_NEAR, FAR_ADDRESS, Wire
from race import PATIENCE, Race, timed
from rows import (Contestant, Figures, Goal, Measuring, Rows, Table, chosen_rows, measure_rows, of, print_list,
                  print_machine, ratio)
from support import trees
from support.origin import Origin

WORMHOLE, RCLONE = "wormhole", "rclone"
SECONDS, REQUESTS = "s", "requests"

SMALL = 10_000
IN_DIRECTORY = 100
LONG_AGO = 1_600_000_000
INEXACT = "location / { autoindex_exact_size off; }"
LITTLE = 512 * MIB


class Bench(Measuring):
    programs = {"rclone": "rclone"}

    def wire(self) -> Wire:
        return Wire(self.arguments.wire, rate="1G", rtt="50ms", buffers=self.arguments.buffers)

    def nginx(self, tree: Path, directives: str = "") -> Origin:
        return Origin(tree, self.directory("nginx"), address=FAR_ADDRESS, port=8080, prefix=AT_FAR,
                      directives=f"keepalive_requests 100000; {directives}")

    def race(self, origin: Origin) -> Race:
        return Race(self.arguments.wormhole, self.work, origin, dict(self.arguments.option), AT_NEAR)

    def files(self, count: int) -> int:
        return max(IN_DIRECTORY, round(count * self.arguments.scale))

    @contextmanager
    def small_tree(self, files: int, size: int = SMALL, in_directory: int = IN_DIRECTORY):
        """A shallow tree: directories of `in_directory` files each."""
        files = self.files(files)
        with self.tree() as tree:
            content = trees.real_bytes(size * files)
            for i in range(files):
                directory = tree / f"d{i // in_directory:04}"
                directory.mkdir(exist_ok=True)
                path = directory / f"file-{i:06}.dat"
                path.write_bytes(content[i * size : (i + 1) * size])
                os.utime(path, (LONG_AGO, LONG_AGO))
            yield tree


# --- contestants ------------------------------------------------------------------------------------------


# What is measured; it returns what is to be checked when the time is taken.
Work = Callable[[Path], Callable[[], None] | None]


def work_of(race: Race, work: Work) -> Callable[..., Figures]:
    """Done once in a mount that has seen nothing."""

    def measure(mount) -> Figures:
        with mount() as mounted:
            race.origin.forget()
            began = time.monotonic()
            check = work(mounted.path)
            seconds = time.monotonic() - began
            requests = len(race.origin.requests())
            if check is not None:
                check()
            return {SECONDS: seconds, REQUESTS: float(requests)}

    return measure


def contestants(race: Race, work: Work, *names: str) -> list[Contestant]:
    ways = {WORMHOLE: (None, race.by_wormhole), RCLONE: ("rclone", race.by_rclone)}
    return [Contestant(name, ways[name][0], partial(work_of(race, work), ways[name][1])) for name in names]


def list_all(mounted: Path) -> None:
    timed("ls", "-lR", mounted, stdout=subprocess.DEVNULL)


ROWS = Rows()
row = ROWS.row

# --- rows -------------------------------------------------------------------------------------------------


@row("list-exact", "first ls -lR of 2000 files in 20 directories of nginx; 1 Gbit/s, 50 ms",
     Goal("seconds (4 round trips)", "<=", 0.2, of(WORMHOLE, SECONDS)),
     Goal("rclone / wormhole", ">", 1, ratio(of(RCLONE, SECONDS), of(WORMHOLE, SECONDS))))
def list_exact(bench: Bench) -> Table:
    with bench.small_tree(2000, 10) as tree, bench.wire(), bench.nginx(tree) as origin:
        return bench.measure(*contestants(bench.race(origin), list_all, WORMHOLE, RCLONE), memory=LITTLE)


@row("list-inexact", "the same where the listing rounds sizes, so that a HEAD tells each; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 1.5, of(WORMHOLE, SECONDS)))
def list_inexact(bench: Bench) -> Table:
    with bench.small_tree(2000) as tree, bench.wire(), bench.nginx(tree, INEXACT) as origin:
        return bench.measure(*contestants(bench.race(origin), list_all, WORMHOLE), memory=LITTLE)


@row("in-order", "500 unread files of 10 KB of one directory, in order; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 0.8, of(WORMHOLE, SECONDS)),
     Goal("rclone / wormhole", ">", 1, ratio(of(RCLONE, SECONDS), of(WORMHOLE, SECONDS))))
def in_order(bench: Bench) -> Table:
    with bench.small_tree(500, in_directory=10_000) as tree, bench.wire(), bench.nginx(tree) as origin:
        originals = {path.name: path.read_bytes() for path in (tree / "d0000").iterdir()}

        def read(mounted: Path) -> None:
            names = sorted(os.listdir(mounted / "d0000"))
            assert len(names) == len(originals)
            wrong = [name for name in names if (mounted / "d0000" / name).read_bytes() != originals[name]]
            assert not wrong, f"wrong bytes in {wrong[:5]}"

        return bench.measure(*contestants(bench.race(origin), read, WORMHOLE, RCLONE), memory=LITTLE)


@row("tar", "tar c of 10000 unread files of 10 KB in 100 directories; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 5, of(WORMHOLE, SECONDS)))
def tar(bench: Bench) -> Table:
    with bench.small_tree(10_000) as tree, bench.wire(), bench.nginx(tree) as origin:

        def pack(mounted: Path) -> None:
            # Not to /dev/null: tar would not read the files.
            archive = bench.work / "archive.tar"
            timed("tar", "cf", archive, "-C", mounted, ".")
            assert archive.stat().st_size > bench.files(10_000) * SMALL
            archive.unlink()

        return bench.measure(*contestants(bench.race(origin), pack, WORMHOLE), memory=LITTLE)


@row("copy-tree", "cp -r of a source tree of 5000 mixed files; 1 Gbit/s, 50 ms",
     Goal("rclone / wormhole", ">=", 20, ratio(of(RCLONE, SECONDS), of(WORMHOLE, SECONDS))))
def copy_tree(bench: Bench) -> Table:
    with bench.tree() as tree:
        trees.copy_real_tree(tree, files=bench.files(5000), bytes_at_most=200 * MIB)
        with bench.wire(), bench.nginx(tree) as origin:

            def copy(mounted: Path) -> Callable[[], None]:
                made = bench.directory("copy")
                timed("cp", "-r", f"{mounted}/.", made)

                def check() -> None:
                    said = subprocess.run(["diff", "-rq", tree, made], capture_output=True, text=True, timeout=PATIENCE)
                    assert said.returncode == 0, f"the copy differs: {said.stdout[:500]}"
                    shutil.rmtree(made)

                return check

            return bench.measure(*contestants(bench.race(origin), copy, WORMHOLE, RCLONE), memory=LITTLE)


# --- running ----------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    made = parser(__doc__.splitlines()[0])
    add_race_options(made)
    made.add_argument("rows", nargs="*", metavar="ROW", help="which; all when none is named")
    made.add_argument("--list", action="store_true", help="say what the rows are, and their goals")
    made.add_argument("--peers", type=lambda text: [name for name in text.split(",") if name], default="rclone",
                      help="what to measure beside wormhole")
    made.add_argument("--scale", type=float, default=1, help="of the number of files")
    arguments = made.parse_args()
    arguments.rows = chosen_rows(made, ROWS, arguments.rows)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        print_list(ROWS)
        return 0
    if os.geteuid() != 0:
        print("small_files.py: must be root, to create network namespaces", file=sys.stderr)
        return 1
    end_cleanly_on_signals()
    machine = print_machine(arguments, "cold")
    return measure_rows(arguments, ROWS, machine, partial(Bench, arguments), buffers=arguments.buffers)


if __name__ == "__main__":
    sys.exit(main())
