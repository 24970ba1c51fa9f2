#!/usr/bin/env python3
"""wormhole host beside nginx: how fast each of them serves one large file, and many small ones.

    host.py --list                      the rows and their goals
    host.py                             all of them: some minutes
    host.py small                       every row that has this in its name
    host.py --runs 1 --scale 0.1        a quick try: the figures mean nothing

Everything is on this machine and in its page cache, and both servers write an access log. The client drops what it gets
in the kernel, so that the servers are what is measured (http_load.c). Needs nginx and a C compiler; no root. The exit
code is 0 when every goal of the rows that ran was met, 1 when one was missed or could not be measured.
docs/BENCHMARKS.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from bench import GIB, PROJECT, end_cleanly_on_signals, parser
from race import PATIENCE, cpu_seconds, end
from rows import (Contestant, Figures, Goal, Measuring, Rows, Table, chosen_rows, measure_rows, of, print_list,
                  print_machine, ratio)
from support.mounting import run
from support.origin import Origin

WORMHOLE, NGINX = "wormhole host", "nginx"
RATE, REQUESTS, CPU_GIB, CPU_REQUEST = "MB/s", "requests/s", "CPU s/GiB", "CPU us/request"

SMALL_SIZE, SMALL_FILES = 10_000, 10_000
SECONDS = 5  # of each figure

# As the tests have it, but a connection never ends, and the log has the format that everybody's has.
NGINX_DIRECTIVES = "keepalive_requests 1000000000; access_log {log} combined;"


class Bench(Measuring):
    """One tree, and two servers that stay up."""

    programs = {"nginx": "nginx"}

    @cached_property
    def load(self) -> Path:
        program = self.work / "http_load"
        subprocess.run(["cc", "-O2", "-o", program, PROJECT / "tools/bench/http_load.c"], check=True)
        return program

    @cached_property
    def served(self) -> Path:
        tree = self.directory("tree")
        os.link(self.original(GIB), tree / "large")
        with open(tree / "large", "rb") as large:
            for i in range(SMALL_FILES):
                (tree / f"small{i:05}").write_bytes(large.read(SMALL_SIZE))
        return tree

    @contextmanager
    def nginx(self) -> Iterator[tuple[int, list[int]]]:
        """The port, and the processes."""
        work = self.directory("nginx")
        with Origin(self.served, work, workers=os.cpu_count() or 1,
                    directives=NGINX_DIRECTIVES.format(log=work / "combined.log")) as origin:
            master = int((work / "nginx.pid").read_text())
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            yield origin.port, [master, *map(int, children)]

    @contextmanager
    def host(self) -> Iterator[tuple[int, list[int]]]:
        work = self.directory("host")
        command = [self.arguments.wormhole, "host", self.served, "--listen", "127.0.0.1:0", "--json", "--log",
                   work / "access.log", "--manifest=off"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("wormhole host does not start")
            yield json.loads(line)["port"], [process.pid]
        finally:
            end(process)

    def ask(self, server: tuple[int, list[int]], clients: int, pattern: str, count: int) -> tuple[dict, float]:
        """What the clients got, and the CPU time that the server used for it."""
        port, processes = server
        self.compare(port, pattern % (count - 1) if "%" in pattern else pattern)
        before = sum(map(cpu_seconds, processes))
        asked = subprocess.run([self.load, str(port), str(clients), str(self.seconds(SECONDS)), f"/{pattern}",
                                str(count)], capture_output=True, text=True, timeout=PATIENCE)
        if asked.returncode != 0:
            raise RuntimeError(asked.stderr.strip())
        return json.loads(asked.stdout), sum(map(cpu_seconds, processes)) - before

    def compare(self, port: int, name: str) -> None:
        """The clients look at lengths only; one answer is looked at whole."""
        with (urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=PATIENCE) as answer,
              open(self.served / name, "rb") as original):
            while piece := original.read(1 << 20):
                assert answer.read(len(piece)) == piece, f"wrong bytes in {name}"
            assert not answer.read(1), f"{name} is too long"

    def race(self, figures: Callable[[tuple[int, list[int]]], Figures]) -> Table:
        self.served.stat()
        with self.nginx() as nginx, self.host() as host:
            return self.measure(Contestant(WORMHOLE, None, partial(figures, host)),
                                Contestant(NGINX, None, partial(figures, nginx)), memory=0)


ROWS = Rows()


def against_nginx(column: str) -> Goal:
    return Goal("against nginx", ">=", 0.9, ratio(of(WORMHOLE, column), of(NGINX, column)))


def large(bench: Bench, clients: int) -> Table:
    def figures(server: tuple[int, list[int]]) -> Figures:
        got, cpu = bench.ask(server, clients, "large", 1)
        return {RATE: got["bytes"] / 1e6 / got["seconds"], CPU_GIB: cpu / (got["bytes"] / GIB)}

    return bench.race(figures)


def small(bench: Bench, clients: int) -> Table:
    def figures(server: tuple[int, list[int]]) -> Figures:
        got, cpu = bench.ask(server, clients, "small%05d", SMALL_FILES)
        return {REQUESTS: got["requests"] / got["seconds"], CPU_REQUEST: cpu * 1e6 / got["requests"]}

    return bench.race(figures)


for one_name, count in (("1", 1), ("64", 64)):
    clients_are = "one client asks" if count == 1 else f"{count} clients ask"
    ROWS.row(f"large-{one_name}", f"{clients_are} for a file of 1 GiB, over and over",
             against_nginx(RATE))(partial(large, clients=count))
    ROWS.row(f"small-{one_name}", f"{clients_are} for {SMALL_FILES} files of 10 KB, one after the other, connections stay",
             against_nginx(REQUESTS))(partial(small, clients=count))


def parse_arguments() -> argparse.Namespace:
    options = parser(__doc__.partition("\n\n")[0])
    options.add_argument("rows", nargs="*", metavar="ROW",
                         help="what to measure: a row, or a part of the names of several; all of them if none is named")
    options.add_argument("--list", action="store_true", help="name the rows and their goals")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--scale", type=float, default=1, help="of sizes and times: to try it out, not to measure")
    arguments = options.parse_args()
    arguments.rows = chosen_rows(options, ROWS, arguments.rows)
    arguments.option = []  # there is no mount
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        print_list(ROWS)
        return 0
    end_cleanly_on_signals()
    machine = print_machine(arguments, "loopback")

    def make_bench(work: Path) -> Bench:
        work.chmod(0o755)
        return Bench(arguments, work)

    versions = {name: run(*command).output.partition("\n")[0] for name, command in
                {"wormhole": [arguments.wormhole, "--version"], "nginx": ["nginx", "-v"]}.items()
                if shutil.which(command[0])}
    return measure_rows(arguments, ROWS, machine, make_bench, versions=versions)


if __name__ == "__main__":
    sys.exit(main())
