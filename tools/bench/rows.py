"""Benchmarks that are tables: a row is a situation, a line of it a contestant, and below the lines are goals. What
cold_path.py and warm_path.py share.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from bench import GIB, MIB, PROJECT, alternate, work_directory, write_json, write_original
from link import Unavailable
from memory import is_lent
from support.mounting import run

# --- goals ------------------------------------------------------------------------------------------------

Figures = dict[str, float]  # what one contestant gave in one run, by column


class Table:
    """The figures of a row: contestant, column, runs."""

    def __init__(self, runs: dict[str, list[Figures]]):
        self.runs = runs

    def __contains__(self, contestant: str) -> bool:
        return contestant in self.runs

    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for runs in self.runs.values() for figures in runs for column in figures))

    def all(self, contestant: str, column: str) -> list[float]:
        return [figures[column] for figures in self.runs[contestant] if column in figures]

    def median(self, contestant: str, column: str) -> float:
        """KeyError: it did not run."""
        return statistics.median(self.all(contestant, column))


@dataclass(frozen=True)
class Goal:
    what: str
    sign: str
    limit: float
    value: Callable[[Table], float]

    def met_by(self, value: float) -> bool:
        return {">=": value >= self.limit, "<=": value <= self.limit, ">": value > self.limit}[self.sign]

    def __str__(self) -> str:
        return f"{self.what} {self.sign} {self.limit:g}"


def of(contestant: str, column: str) -> Callable[[Table], float]:
    return lambda table: table.median(contestant, column)


def ratio(above: Callable[[Table], float], below: Callable[[Table], float]) -> Callable[[Table], float]:
    return lambda table: above(table) / below(table)


# --- measuring --------------------------------------------------------------------------------------------

# What a program that is measured, or one that serves, can do wrong.
FAILURES = (AssertionError, OSError, RuntimeError, ValueError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Contestant:
    name: str
    peer: str | None  # the word in --peers; None runs always
    measure: Callable[[], Figures]


class Measuring:
    """What all rows of a benchmark use: arguments, files, taking figures in turns."""

    programs: dict[str, str] = {}  # the words of --peers, and what must be installed for each

    def __init__(self, arguments, work: Path):
        self.arguments, self.work = arguments, work
        self.notes: list[str] = []  # worth saying about the row that is measured
        self._originals: dict[int, Path] = {}
        self._numbers = itertools.count()

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    # --- files ---

    def size(self, size: int) -> int:
        return max(MIB, int(size * self.arguments.scale) // MIB * MIB)

    def seconds(self, seconds: float) -> float:
        return max(2, seconds * min(1, self.arguments.scale))

    def original(self, size: int) -> Path:
        """A file of real bytes, of that size after scaling; written once."""
        size = self.size(size)
        if size not in self._originals:
            self._originals[size] = write_original(self.work / "originals" / str(size), size)
        return self._originals[size]

    @contextmanager
    def tree(self, **files: Path) -> Iterator[Path]:
        directory = self.directory("tree")
        for name, original in files.items():
            os.link(original, directory / name)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def directory(self, name: str) -> Path:
        made = self.work / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    @cached_property
    def random_reader(self) -> Path:
        program = self.work / "random_reader"
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, PROJECT / "tools/bench/random_reader.c"], check=True)
        return program

    def check_option(self, name: str, value: str) -> None:
        """Unavailable, if the program does not know it."""
        said = run(self.arguments.wormhole, "mount", "http://127.0.0.1:1/", self.work / "nowhere", "-o",
                   f"{name}={value}").output
        if "mount option" in said:
            raise Unavailable("not available in this program")

    # --- measuring ---

    def measure(self, *contestants: Contestant, memory: int = 3 * GIB) -> Table:
        """In turns. One that fails is out, and a note says why. `memory` as in bench.alternate."""
        taking_part = {c.name: c.measure for c in contestants if self._takes_part(c)}
        out: set[str] = set()

        def guarded(name: str) -> Figures:
            if name in out:
                return {}
            try:
                return taking_part[name]()
            except Unavailable as error:
                self.note(f"{name}: {error}")
            except FAILURES as error:
                self.note(f"{name}: failed: {error}")
            out.add(name)
            return {}

        runs = alternate(self.arguments.runs, {name: partial(guarded, name) for name in taking_part}, shown,
                         memory=self.size(memory))
        return Table({name: figures for name, figures in runs.items() if name not in out})

    def _takes_part(self, contestant: Contestant) -> bool:
        if contestant.peer is None:
            return True
        if contestant.peer not in self.arguments.peers:
            return False
        if shutil.which(self.programs[contestant.peer]) is None:
            self.note(f"{contestant.peer}: not installed (tools/setup --bench installs it)")
            return False
        return True


# --- rows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    goals: tuple[Goal, ...]
    measure: Callable[[Any], Table]  # of the benchmark's own kind of Measuring


class Rows(dict[str, Row]):
    """By name, in the order in which they run."""

    def row(self, name: str, what: str, *goals: Goal):
        def add(measure: Callable[[Any], Table]) -> Callable[[Any], Table]:
            self[name] = Row(name, what, goals, measure)
            return measure

        return add


def measure_row(bench: Measuring, one: Row) -> dict:
    print(f"\n{one.name}", file=sys.stderr, flush=True)
    bench.notes = []
    try:
        table = one.measure(bench)
    except (Unavailable, *FAILURES) as error:
        bench.note(str(error))
        table = Table({})
    goals = [judge(goal, table) for goal in one.goals]
    print_row(one, table, goals, bench.notes)
    return {"name": one.name, "what": one.what, "figures": table.runs, "goals": goals, "notes": bench.notes}


# --- what is said ---------------------------------------------------------------------------------------------


def shown(figures: Figures) -> str:
    return "  ".join(f"{column} {digits(value)}" for column, value in figures.items()) or "—"


def digits(value: float) -> str:
    """Three that count."""
    before_point = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{min(3, max(0, 3 - max(1, before_point)))}f}"


def print_row(one: Row, table: Table, goals: list[dict], notes: list[str]) -> None:
    print(f"\n{one.name}: {one.what}")
    columns = table.columns()
    lines = [["", *columns]]
    for name in table.runs:
        cells = []
        for column in columns:
            values = table.all(name, column)
            spread = f" ({digits(min(values))}–{digits(max(values))})" if len(values) > 1 else ""
            cells.append(f"{digits(statistics.median(values))}{spread}" if values else "")
        lines.append([name, *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    for cells in lines if table.runs else []:
        print(("  " + "   ".join(cell.ljust(width) for cell, width in zip(cells, widths))).rstrip())
    for goal in goals:
        print(f"  {goal['goal']}: {said_of(goal)}")
    for note in notes:
        print(f"  note: {note}")
    sys.stdout.flush()


def said_of(goal: dict) -> str:
    if goal["value"] is None:
        return "NOT MEASURED"
    return f"{digits(goal['value'])}, {'met' if goal['met'] else 'MISSED'}"


def judge(goal: Goal, table: Table) -> dict:
    try:
        value = goal.value(table)
    except (KeyError, ValueError, ZeroDivisionError, statistics.StatisticsError):  # somebody did not run
        return {"goal": str(goal), "value": None, "met": False}
    return {"goal": str(goal), "value": value, "met": goal.met_by(value)}


def chosen_rows(options: argparse.ArgumentParser, rows: Rows, asked: list[str]) -> list[str]:
    """The rows that are named, whole or by a part of the name; all of them if none is."""
    chosen: list[str] = []
    for name in asked:
        found = [name] if name in rows else [row for row in rows if name in row]
        if not found:
            options.error(f"{name}: no such row; --list names them")
        chosen += found
    return list(dict.fromkeys(chosen)) or list(rows)


def measure_rows(arguments, rows: Rows, machine: str, make_bench: Callable[[Path], Measuring], **settings: Any) -> int:
    """Measures the chosen rows in a directory of their own, says what came out, and returns the exit code."""
    try:
        with work_directory(arguments.work) as work:
            bench = make_bench(work)
            results = [measure_row(bench, rows[name]) for name in arguments.rows]
    except KeyboardInterrupt:
        return 130
    return finish(arguments, machine, results, **settings)


def print_machine(arguments, kind: str, *more: str) -> str:
    """What was measured on, with which settings; returned for the record."""
    machine = ", ".join([f"{os.cpu_count()} cores, Linux {platform.release()}", *more])
    if is_lent():
        machine += ", lent memory (fetched before each run)"
    print(f"{machine}; {kind}, {arguments.runs} runs each: median (lowest–highest)"
          + (f"; SCALED by {arguments.scale:g}" if arguments.scale != 1 else ""), flush=True)
    return machine


def finish(arguments, machine: str, results: list[dict], **settings: Any) -> int:
    """Says which goals are met, writes the record, and returns the exit code."""
    print("\ngoals")
    for result in results:
        for goal in result["goals"]:
            print(f"  {result['name']:20} {goal['goal']}: {said_of(goal)}")
    passed = all(goal["met"] for result in results for goal in result["goals"])
    write_json(arguments.json, {
        "machine": machine, "scale": arguments.scale, "options": dict(arguments.option), **settings, "rows": results,
        "passed": passed})
    return 0 if passed else 1


def print_list(rows: Rows) -> None:
    for one in rows.values():
        print(f"{one.name:14} {one.what}")
        for goal in one.goals:
            print(f"{'':17}{goal}")
