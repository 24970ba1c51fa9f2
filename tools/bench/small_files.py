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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import MIB, add_race_options, end_cleanly_on_signals, parser, write_manifest
from link import AT_FAR, AT_NEAR, FAR_ADDRESS, Wire
from race import PATIENCE, Race, timed
from rows import (Contestant, Figures, Goal, Measuring, Rows, Table, chosen_rows, measure_rows, of, print_list,
                  print_machine, ratio)
from support import trees
from support.origin import Origin
from support.servers import Apache

WORMHOLE, RCLONE = "wormhole", "rclone"
SECONDS, REQUESTS = "s", "requests"
LOCAL = "the tree itself"
FIRST, WARM, ANONYMOUS, RESIDENT = "first, s", "warm, s", "RssAnon, MiB", "VmHWM, MiB"

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

    def race(self, origin: Origin, prefix: tuple[str, ...] = AT_NEAR, **options) -> Race:
        return Race(self.arguments.wormhole, self.work, origin, {**dict(self.arguments.option), **options}, prefix)

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

    @contextmanager
    def empty_files(self, files: int) -> Iterator[Path]:
        """A tree of so many (after scaling) that take no bytes: a tenth of them in one directory, the others in
        directories of IN_DIRECTORY."""
        with self.tree() as tree:
            large = self.files(files) // 10
            for i in range(self.files(files)):
                number = (i - large) // IN_DIRECTORY
                directory = tree / "large" if i < large else tree / f"d{number // 100:03}" / f"e{number % 100:02}"
                if i == 0 or (i >= large and (i - large) % IN_DIRECTORY == 0):
                    directory.mkdir(parents=True)
                os.close(os.open(directory / f"file-{i:06}", os.O_CREAT | os.O_WRONLY))
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


@contextmanager
def watched_memory(pid: int) -> Iterator[Figures]:
    """What a process has at most, in MiB: of memory of its own, every 20 ms; and in all, with the pages of files that
    it maps (the index), as the kernel counts."""
    figures = {ANONYMOUS: 0.0, RESIDENT: 0.0}
    over = threading.Event()

    def look() -> None:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        said = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        figures[ANONYMOUS] = max(figures[ANONYMOUS], int(said["RssAnon"]) / 1024)
        figures[RESIDENT] = int(said["VmHWM"]) / 1024

    def watch() -> None:
        while not over.wait(0.02):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield figures
    finally:
        over.set()
        thread.join()
        look()


def find_all(directory: Path, files: int) -> float:
    """Seconds of a find that must look at each file."""
    began = time.monotonic()
    said = subprocess.run(["find", directory, "-type", "f", "-empty", "-printf", "x"], capture_output=True, check=True,
                          timeout=PATIENCE)
    seconds = time.monotonic() - began
    assert len(said.stdout) == files, f"{len(said.stdout)} files instead of {files}"
    return seconds


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


@row("list-apache", "the same with Apache and its fancy index, as Debian has it; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 1.5, of(WORMHOLE, SECONDS)))
def list_apache(bench: Bench) -> Table:
    workers = 150  # the default; a multiple of the threads of a process
    bench.work.chmod(0o755)  # its processes are not root's
    with bench.small_tree(2000) as tree, bench.wire():
        with Apache(tree, bench.directory("apache"), index="FancyIndexing VersionSort HTMLTable NameWidth=* "
                    "DescriptionWidth=* Charset=UTF-8", workers=workers, address=FAR_ADDRESS, port=8080,
                    prefix=AT_FAR) as origin:
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


def pack(bench: Bench, mounted: Path) -> None:
    # Not to /dev/null: tar would not read the files.
    archive = bench.work / "archive.tar"
    timed("tar", "cf", archive, "-C", mounted, ".")
    assert archive.stat().st_size > bench.files(10_000) * SMALL
    archive.unlink()


@row("tar", "tar c of 10000 unread files of 10 KB in 100 directories; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 5, of(WORMHOLE, SECONDS)))
def tar(bench: Bench) -> Table:
    with bench.small_tree(10_000) as tree, bench.wire(), bench.nginx(tree) as origin:
        return bench.measure(*contestants(bench.race(origin), partial(pack, bench), WORMHOLE), memory=LITTLE)


@row("tar-manifest", "the same with a manifest, every block checked; 1 Gbit/s, 50 ms",
     Goal("seconds", "<=", 5, of(WORMHOLE, SECONDS)))
def tar_manifest(bench: Bench) -> Table:
    with bench.small_tree(10_000) as tree, bench.wire(), bench.nginx(tree) as origin:
        write_manifest(bench.arguments.wormhole, tree)
        race = bench.race(origin, listing="manifest")
        return bench.measure(*contestants(race, partial(pack, bench), WORMHOLE), memory=LITTLE)


@row("find-million", "find -empty over 1000000 files of a manifest, 100000 of them in one directory; loopback",
     Goal("RssAnon of the daemon, MiB", "<=", 256, of(WORMHOLE, ANONYMOUS)),
     Goal("warm / the tree itself", "<=", 2, ratio(of(WORMHOLE, WARM), of(LOCAL, WARM))))
def find_million(bench: Bench) -> Table:
    files = bench.files(1_000_000)
    with bench.empty_files(1_000_000) as tree:

        def by_itself() -> Figures:
            return {FIRST: find_all(tree, files), WARM: find_all(tree, files)}

        # Before there is a manifest: it would be found as well.
        local = bench.measure(Contestant(LOCAL, None, by_itself), memory=LITTLE)
        write_manifest(bench.arguments.wormhole, tree)
        with Origin(tree, bench.directory("nginx")) as origin:
            # Warm means that what is known is believed.
            race = bench.race(origin, prefix=(), listing="manifest", ttl=3600)

            def mounted() -> Figures:
                with race.by_wormhole() as mount:
                    with watched_memory(mount.pid) as memory:
                        times = {FIRST: find_all(mount.path, files), WARM: find_all(mount.path, files)}
                    return times | memory

            table = bench.measure(Contestant(WORMHOLE, None, mounted), memory=LITTLE)
        return Table(table.runs | local.runs)


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
