#!/usr/bin/env python3
"""The cache engine by itself, without FUSE and network, beside fio with io_uring on the same file system.

    engine.py                                        all cells: more than an hour
    engine.py --depths 16                            a quarter of an hour
    engine.py read-cold --sizes 4K --depths 1,16     two cells

Needs what `cmake --build --preset release --target engine_bench` makes, and fio. The exit code is 0 when every goal of
the cells that ran was met, 1 when one was missed, 130 after Ctrl-C. docs/BENCHMARKS.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import GIB, MIB, PROJECT, end_cleanly_on_signals, work_directory, write_json
from memory import at_hand, is_lent

KIB = 1 << 10
BLOCK = 64 * KIB
SIZES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB)
DEPTHS = (1, 8, 16, 32, 64)
# As engine_bench.cc has it; fio gets files of the same size.
OBJECT = 64 * MIB
# Longer than any cell takes.
PATIENCE = 300

# What was forecast for requests of 4, 16 and 64 KiB: small ones are limited by their number, large ones by their bytes.
FORECAST_REQUESTS, FORECAST_RATE = 10e3, 200e6
FORECAST_SIZES = SIZES[:3]

# Small files of one run: enough for a second, few enough to be kept.
SMALL_FILES, SMALL_BYTES = 10_000, 256 * MIB

ENGINE, FIO, FIO_BUFFERED = "engine", "fio", "fio buffered"


@dataclass(frozen=True)
class Figures:
    requests: float  # per second
    rate: float  # bytes per second
    cpu: float  # microseconds of user and system time for a request


@dataclass(frozen=True)
class Work:
    """A row of cells; one for each size and depth."""

    what: str
    engine: tuple[str, ...]
    sizes: tuple[int, ...]
    peers: dict[str, Callable[["Bench", int, int], Figures]]
    ratio: float = 0  # to fio, at depth 16
    ratio_sizes: tuple[int, ...] = SIZES
    forecast: bool = False  # ten times that is a goal, at depth 16
    small: bool = False


class Bench:
    def __init__(self, arguments: argparse.Namespace, work: Path):
        self.arguments = arguments
        self.cache, self.laid_out, self.scratch = work / "cache", work / "fio", work / "fio-writes"
        # A file system that has just deleted many files is slow to make new ones: ext4 does not use an inode again for
        # a minute, and looks for another. So the small ones stay until a size is through.
        self.small_files = work / "small"
        self.laid_out.mkdir()
        self._has_cache = False
        self._numbers = itertools.count()

    # --- contestants ---

    def engine(self, of: Work, size: int, depth: int) -> Figures:
        if not self._has_cache:
            output(self.arguments.engine_bench, self.cache, "--data", self.arguments.data, "--lay-out")
            self._has_cache = True
        return self._engine(self.cache, self.arguments.data, *of.engine, "--size", size, "--depth", depth)

    def engine_small_files(self, of: Work, size: int, depth: int) -> Figures:
        # The program counts its data in objects of its own.
        data = -(-small_files(size) * size // OBJECT) * OBJECT
        return self._engine(self.small_files / f"cache-{next(self._numbers)}", data, *of.engine, "--size", size,
                            "--depth", depth, "--keep", "--requests", small_files(size))

    def _engine(self, cache: Path, data: int, *options) -> Figures:
        cell = json.loads(output(self.arguments.engine_bench, cache, "--data", data, "--seconds",
                                 self.arguments.seconds, *options))
        assert cell["loop"] == "io_uring", "io_uring is not available"
        return figures(cell["requests"], cell["bytes"], cell["seconds"], cell["cpu_seconds"])

    def fio_read(self, size: int, depth: int, direct: bool, warm: bool = False) -> Figures:
        if warm:
            for path in sorted(self.laid_out.iterdir()):
                with open(path, "rb", buffering=0) as file:
                    while file.read(MIB):
                        pass
        again = ["--time_based", "--invalidate=0"] if warm else []
        return self._fio("--rw=randread", f"--bs={size}", f"--iodepth={depth}", f"--direct={int(direct)}",
                         *self._laid_out_files(), *again)

    def fio_write(self, order: str, size: int, depth: int) -> Figures:
        self.scratch.mkdir()
        try:
            return self._fio_into_nothing(
                self.scratch, f"--rw={order}", f"--bs={size}", f"--iodepth={depth}", "--end_fsync=1",
                f"--nrfiles={self.arguments.data // OBJECT}", f"--size={self.arguments.data}",
                f"--file_service_type={'random' if order == 'randwrite' else 'sequential'}")
        finally:
            shutil.rmtree(self.scratch)

    def fio_small_files(self, size: int, depth: int) -> Figures:
        directory = self.small_files / f"fio-{next(self._numbers)}"
        directory.mkdir(parents=True)
        return self._fio_into_nothing(directory, "--rw=write", f"--bs={size}", f"--iodepth={depth}",
                                      f"--nrfiles={small_files(size)}", f"--filesize={size}", "--create_on_open=1",
                                      f"--openfiles={2 * depth}", "--file_service_type=sequential", sync=True)

    def fio_mixed(self, size: int, depth: int) -> Figures:
        return self._fio("--rw=randrw", "--rwmixread=70", f"--bs={size},{max(size, BLOCK)}", f"--iodepth={depth}",
                         "--direct=1", "--end_fsync=1", *self._laid_out_files())

    def _laid_out_files(self) -> list[str]:
        return [f"--directory={self.laid_out}", "--filename_format=$filenum", "--file_service_type=random",
                f"--nrfiles={self.arguments.data // OBJECT}", f"--size={self.arguments.data}"]

    def _fio_into_nothing(self, directory: Path, *options: str, sync: bool = False) -> Figures:
        """Writes to new files without extents, as those of the cache are."""
        return self._fio(*options, "--direct=1", "--fallocate=none", f"--directory={directory}", sync=sync)

    def forget_small_files(self) -> None:
        shutil.rmtree(self.small_files, ignore_errors=True)

    def _fio(self, *options: str, sync: bool = False) -> Figures:
        before = cpu_seconds_of_children()
        said = output("fio", "--name=cell", "--ioengine=io_uring", f"--runtime={self.arguments.seconds}",
                      "--randrepeat=1", "--output-format=json", *options)
        cpu = cpu_seconds_of_children() - before
        synced = 0.0
        if sync:  # what end_fsync would do one by one
            began = time.monotonic()
            os.sync()
            synced = time.monotonic() - began
        job = json.loads(said[said.index("{"):])["jobs"][0]
        seconds = max(job["read"]["runtime"], job["write"]["runtime"]) / 1000 + synced
        requests = job["read"]["total_ios"] + job["write"]["total_ios"]
        return figures(requests, job["read"]["io_bytes"] + job["write"]["io_bytes"], seconds, cpu)


def small_files(size: int) -> int:
    return min(SMALL_FILES, SMALL_BYTES // size)


def cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def figures(requests: float, amount: float, seconds: float, cpu: float) -> Figures:
    return Figures(requests / seconds, amount / seconds, cpu / max(1, requests) * 1e6)


def output(*command) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name}: exit code {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


WORKS = {
    "read-cold": Work(
        "find and read, random; nothing of it is in the page cache",
        ("--work", "read", "--page-cache", "cold"), SIZES,
        {FIO: lambda b, size, depth: b.fio_read(size, depth, direct=True),
         FIO_BUFFERED: lambda b, size, depth: b.fio_read(size, depth, direct=False)},
        ratio=0.9, ratio_sizes=(4 * KIB,)),
    "read-warm": Work(
        "find and read, random; all of it is in the page cache",
        ("--work", "read", "--page-cache", "warm"), SIZES,
        {FIO: lambda b, size, depth: b.fio_read(size, depth, direct=False, warm=True)}, forecast=True),
    "store": Work(
        "store in order, as a download brings it; checksums, group commit; past the page cache",
        ("--work", "store", "--order", "sequential"), SIZES[2:],
        {FIO: lambda b, size, depth: b.fio_write("write", size, depth)}, ratio=0.8, forecast=True),
    "store-random": Work(
        "store here and there; past the page cache",
        ("--work", "store", "--order", "random"), SIZES[2:],
        {FIO: lambda b, size, depth: b.fio_write("randwrite", size, depth)}, ratio=0.8, forecast=True),
    "store-small": Work(
        "store small files, an object for each request; past the page cache",
        ("--work", "store-small"), SIZES[:3],
        {FIO: lambda b, size, depth: b.fio_small_files(size, depth)}, ratio=0.8, forecast=True, small=True),
    "mixed": Work(
        "70 of 100 find and read, cold; 30 store a block, or as much as is read",
        ("--work", "mixed", "--page-cache", "cold"), SIZES,
        {FIO: lambda b, size, depth: b.fio_mixed(size, depth)}),
}

# --- a cell ---------------------------------------------------------------------------------------------------


@dataclass
class Cell:
    work: str
    size: int
    depth: int
    runs: dict[str, list[Figures]]

    def median(self, name: str) -> Figures:
        runs = self.runs[name]
        return Figures(statistics.median(run.requests for run in runs), statistics.median(run.rate for run in runs),
                       statistics.median(run.cpu for run in runs))

    def ratio(self, name: str) -> float:
        return self.median(ENGINE).requests / self.median(name).requests

    def forecast(self) -> float:
        """How many times what was forecast."""
        engine = self.median(ENGINE)
        return max(engine.requests / FORECAST_REQUESTS, engine.rate / FORECAST_RATE)

    def goals(self) -> list[dict]:
        work, found = WORKS[self.work], []
        if self.depth != 16:
            return found
        if work.ratio and self.size in work.ratio_sizes:
            found.append(goal(f">= {work.ratio:g} x fio", self.ratio(FIO), work.ratio))
        if work.forecast and self.size in FORECAST_SIZES:
            found.append(goal(">= 10 x forecast", self.forecast(), 10))
        return found

    def as_json(self) -> dict:
        return {"work": self.work, "size": self.size, "depth": self.depth, "goals": self.goals(),
                "ratio_to_fio": self.ratio(FIO),
                "runs": {name: [vars(run) for run in runs] for name, runs in self.runs.items()}}


def goal(what: str, value: float, limit: float) -> dict:
    return {"goal": what, "value": value, "met": value >= limit}


def run_cell(bench: Bench, name: str, size: int, depth: int, progress: Callable[[str], None]) -> Cell:
    work = WORKS[name]
    engine = bench.engine_small_files if work.small else bench.engine
    contestants = {ENGINE: lambda: engine(work, size, depth)}
    for peer, measure in work.peers.items():
        contestants[peer] = lambda measure=measure: measure(bench, size, depth)
    names, runs = list(contestants), {contestant: [] for contestant in contestants}
    for run in range(bench.arguments.runs):
        # The order turns, so that none is always first.
        for contestant in names[run % len(names):] + names[: run % len(names)]:
            progress(f"{name} {shown_size(size)} x {depth}, run {run + 1} of {bench.arguments.runs}: {contestant}")
            subprocess.run(["sync"], check=True)
            with at_hand(bench.arguments.data):
                runs[contestant].append(contestants[contestant]())
    return Cell(name, size, depth, runs)


# --- what is said ---------------------------------------------------------------------------------------------


def shown_size(size: int) -> str:
    return f"{size // MIB}M" if size >= MIB else f"{size // KIB}K"


HEAD = ["size", "depth", "requests/s", "MB/s", "CPU us", "fio requests/s", "MB/s", "CPU us", "ratio", "ratio buffered",
        "x forecast", "goal"]
WIDTHS = [5, 6, 11, 8, 7, 15, 8, 7, 6, 15, 11, 40]


def table_line(cells: list[str]) -> str:
    return "  ".join(cell.ljust(width) if i == len(WIDTHS) - 1 else cell.rjust(width)
                     for i, (cell, width) in enumerate(zip(cells, WIDTHS))).rstrip()


def shown(cell: Cell) -> str:
    def three(one: Figures) -> list[str]:
        return [f"{one.requests:.0f}", f"{one.rate / 1e6:.0f}", f"{one.cpu:.1f}"]

    buffered = f"{cell.ratio(FIO_BUFFERED):.2f}" if FIO_BUFFERED in cell.runs else ""
    goals = ", ".join(f"{one['goal']}: {'met' if one['met'] else 'MISSED'}" for one in cell.goals())
    forecast = f"{cell.forecast():.1f}" if cell.size in FORECAST_SIZES else ""
    return table_line([shown_size(cell.size), str(cell.depth), *three(cell.median(ENGINE)), *three(cell.median(FIO)),
                       f"{cell.ratio(FIO):.2f}", buffered, forecast, goals])


class Progress:
    """One line on the terminal that says what runs and how long it will still take."""

    def __init__(self, measurements: int):
        self._all, self._done, self._began = measurements, 0, time.monotonic()
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        left = (time.monotonic() - self._began) / self._done * (self._all - self._done) if self._done else None
        self._done += 1
        line = f"{self._done} of {self._all}, " + (f"{left / 60:.0f} min left, " if left is not None else "") + text
        if self._on_terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


# --- the program ----------------------------------------------------------------------------------------------


def amount(text: str) -> int:
    units = {"K": KIB, "M": MIB, "G": GIB}
    try:
        return int(float(text[:-1]) * units[text[-1]]) if text[-1:] in units else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected a number with K, M or G") from None


def parse_arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    build = Path(os.environ.get("WORMHOLE_BUILD_DIR", PROJECT / "build/release"))
    options.add_argument("works", nargs="*", metavar="WORK",
                         help="what to measure; all if none is named: " + ", ".join(WORKS))
    options.add_argument("--list", action="store_true", help="say what the works are")
    options.add_argument("--engine-bench", type=Path, default=build / "tools/bench/engine_bench",
                         help="the program that drives the engine")
    options.add_argument("--work", type=Path, default=Path("/var/tmp"),
                         help="where the cache and fio's files are put: on the disk to be measured")
    options.add_argument("--sizes", default=",".join(map(shown_size, SIZES)))
    options.add_argument("--depths", default=",".join(map(str, DEPTHS)))
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=int, default=2, help="of a cell and contestant")
    options.add_argument("--data", type=amount, default="1G", help="what is laid out, and the most that a cell stores")
    options.add_argument("--json", type=Path, help="write the figures into this file as well")
    arguments = options.parse_args()
    if unknown := [name for name in arguments.works if name not in WORKS]:
        options.error(f"{', '.join(unknown)}: known are {', '.join(WORKS)}")
    if arguments.data % OBJECT != 0:
        options.error("--data: must be a multiple of 64 MiB")
    arguments.works = arguments.works or list(WORKS)
    arguments.sizes = [amount(text) for text in arguments.sizes.split(",")]
    arguments.depths = [int(text) for text in arguments.depths.split(",")]
    return arguments


def cells_of(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    for name in arguments.works:
        sizes = [size for size in arguments.sizes if size in WORKS[name].sizes]
        yield from ((name, size, depth) for size, depth in itertools.product(sizes, arguments.depths))


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for name, work in WORKS.items():
            print(f"{name:14} {work.what}")
        return 0
    for program in (arguments.engine_bench, "fio"):
        if shutil.which(program) is None:
            print(f"engine.py: {program} is missing", file=sys.stderr)
            return 1
    end_cleanly_on_signals()
    fio = output("fio", "--version").strip()
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, {fio}" + (", lent memory" if is_lent() else "")
    print(f"{machine}; median of {arguments.runs} runs of {arguments.seconds} s", flush=True)
    cells = list(cells_of(arguments))
    progress = Progress(sum((1 + len(WORKS[name].peers)) * arguments.runs for name, _, _ in cells))
    results: list[Cell] = []
    try:
        with work_directory(arguments.work) as work:
            bench = Bench(arguments, work)
            for name, size, depth in cells:
                if results and (results[-1].work, results[-1].size) != (name, size):
                    bench.forget_small_files()
                cell = run_cell(bench, name, size, depth, progress)
                progress.clear()
                if not results or results[-1].work != name:
                    print(f"\n{name}: {WORKS[name].what}\n{table_line(HEAD)}")
                print(shown(cell), flush=True)
                results.append(cell)
    except KeyboardInterrupt:
        return 130
    goals = [one for cell in results for one in cell.goals()]
    passed = all(one["met"] for one in goals)
    print(f"\n{sum(one['met'] for one in goals)} of {len(goals)} goals met")
    write_json(arguments.json, {"machine": machine, "runs": arguments.runs, "seconds": arguments.seconds,
                                "data": arguments.data, "cells": [cell.as_json() for cell in results],
                                "passed": passed})
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
