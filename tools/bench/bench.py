"""What the benchmarks share: where the programs are, how a figure is taken and shown."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

PROJECT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(PROJECT / "tests"))

from memory import at_hand  # noqa: E402
from support import trees  # noqa: E402
from support.mounting import Mount  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30

Figure = TypeVar("Figure")


def parser(what: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    build = Path(os.environ.get("WORMHOLE_BUILD_DIR", PROJECT / "build/release"))
    made.add_argument("--wormhole", type=Path, default=Path(os.environ.get("WORMHOLE", build / "wormhole")),
                      help="the program to measure")
    made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()),
                      help="where origin, cache and copies are put: all on this file system")
    made.add_argument("--json", type=Path, help="write the figures into this file as well")
    return made


def add_race_options(made: argparse.ArgumentParser) -> None:
    """Of the benchmarks that let programs race, over an emulated wire or not."""
    add_mount_options(made)
    made.add_argument("--buffers", choices=["system", "large"], default="system",
                      help="TCP's limits at both ends: the kernel's, or enough for one stream to fill the wire")
    made.add_argument("--wire", type=Path, default=PROJECT / "build/release/wire", help="the link emulator")


def add_mount_options(made: argparse.ArgumentParser) -> None:
    """Of the benchmarks that mount again and again."""
    made.add_argument("--runs", type=int, default=5)
    made.add_argument("--option", "-o", type=_option, action="append", default=[], metavar="NAME=VALUE",
                      help="a mount option, may be repeated")


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def end_cleanly_on_signals() -> None:
    """Ctrl-C and SIGTERM take down all that is up, through the `finally`s; a second one does not disturb that."""

    def end(*_) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


@contextmanager
def work_directory(parent: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="wormhole-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def mounted(mount: Mount) -> Iterator[Mount]:
    """Up, down in the end, and gone whatever happens."""
    try:
        yield mount.up()
        if mount.is_up():
            mount.down()
    except BaseException:
        print(mount.log_tail(30), file=sys.stderr)
        raise
    finally:
        mount.remove()


def write_original(path: Path, size: int) -> Path:
    """A file of real bytes, which is in the page cache then."""
    print(f"writes {size / MIB:g} MiB of real files", file=sys.stderr)
    trees.write_real_file(path, size)
    with open(path, "rb") as file:
        while file.read(1 << 22):
            pass
    return path


def write_manifest(wormhole: Path, tree: Path) -> None:
    subprocess.run([wormhole, "index", "--quiet", tree], check=True, stdout=subprocess.DEVNULL)


def settle() -> None:
    """What earlier runs have written is on the disk and does not disturb the next."""
    subprocess.run(["sync"], check=True)


def alternate(runs: int, contestants: dict[str, Callable[[], Figure]],
              show: Callable[[Figure], str] = lambda seconds: f"{seconds:9.3f} s",
              memory: int = 0) -> dict[str, list[Figure]]:
    """Each contestant's figures, run by run; the order turns, so that none is always first. `memory` is about what one
    of them will use, page cache included."""
    figures: dict[str, list[Figure]] = {name: [] for name in contestants}
    names = list(contestants)
    for run in range(runs):
        for name in names[run % len(names):] + names[: run % len(names)]:
            settle()
            with at_hand(memory):
                figures[name].append(contestants[name]())
            print(f"  run {run + 1}: {name:24} {show(figures[name][-1])}", file=sys.stderr, flush=True)
    return figures


def percentile(values: list[float], share: float) -> float:
    """The smallest one that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def summary(figures: dict[str, list[float]], size: int) -> dict[str, dict]:
    return {name: {"seconds": seconds, "median_seconds": statistics.median(seconds),
                   "median_mb_per_s": size / 1e6 / statistics.median(seconds)} for name, seconds in figures.items()}


def print_summary(title: str, rows: dict[str, dict]) -> None:
    print(f"\n{title}")
    for name, row in rows.items():
        spread = f"{min(row['seconds']):.2f}–{max(row['seconds']):.2f} s"
        print(f"  {name:28} median {row['median_seconds']:8.3f} s  {row['median_mb_per_s']:8.1f} MB/s   ({spread})")


def write_json(path: Path | None, result: dict) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
