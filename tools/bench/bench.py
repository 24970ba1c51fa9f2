"""What the benchmarks share: where the programs are, how a figure is taken and shown."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(PROJECT / "tests"))

from support.mounting import Mount  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30


def parser(what: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    build = Path(os.environ.get("WORMHOLE_BUILD_DIR", PROJECT / "build/release"))
    made.add_argument("--wormhole", type=Path, default=Path(os.environ.get("WORMHOLE", build / "wormhole")),
                      help="the program to measure")
    made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()),
                      help="where origin, cache and copies are put: all on this file system")
    made.add_argument("--json", type=Path, help="write the figures into this file as well")
    return made


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


def settle() -> None:
    """What earlier runs have written is on the disk and does not disturb the next."""
    subprocess.run(["sync"], check=True)


def alternate(runs: int, contestants: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each contestant's figures, run by run; the order turns, so that none is always first."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for run in range(runs):
        for name in names[run % len(names):] + names[: run % len(names)]:
            settle()
            figures[name].append(contestants[name]())
            print(f"  run {run + 1}: {name:24} {figures[name][-1]:9.3f} s", file=sys.stderr)
    return figures


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
