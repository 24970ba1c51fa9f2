#!/usr/bin/env python3
"""What is read for the first time: how fast it comes out of a mount, beside what the wire carries and what other
programs make of it.

    cold_path.py --list                 the rows and their goals
    cold_path.py                        all of them: an hour and a half
    cold_path.py bulk first-byte        two of them
    cold_path.py bulk --plot bulk.svg   and a drawing of one more copy

Needs root (network namespaces) and what tools/setup --bench installs; a peer that is not installed is left out. The
exit code is 0 when every goal of the rows that ran was met, 1 when one was missed or could not be measured.
docs/BENCHMARKS.md says what each row is for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from bench import GIB, MIB, add_race_options, end_cleanly_on_signals, parser, percentile, write_manifest
from link import AT_FAR, AT_NEAR, FAR_ADDRESS, Wire, round_trip
from memory import at_hand
from plot import Panel, slope, write_svg
from race import PATIENCE, Progress, Race, compare, cpu_seconds, end, iperf3, timed
from rows import (FAILURES, Contestant, Figures, Goal, Measuring, Rows, Table, chosen_rows, measure_rows, of,
                  print_list, print_machine, ratio)
from support import trees
from support.caddy import CaddyOrigin
from support.mounting import run, wait_until
from support.origin import Certificates, Origin, WebServer

# --- names ------------------------------------------------------------------------------------------------

WORMHOLE, IPERF, CURL, ARIA, PING = "wormhole", "iperf3 -P 8", "curl", "aria2c -x16", "ping"
RCLONE, RCLONE_TUNED, HTTPDIRFS = "rclone", "rclone, tuned", "httpdirfs"
PROGRAMS = {"iperf3": "iperf3", "curl": "curl", "aria2": "aria2c", "rclone": "rclone", "httpdirfs": "httpdirfs"}

RATE, MS, SECONDS = "MB/s", "ms", "s"
LATER_RATE = "MB/s after 1 s"
FIRST_READS, FIRST_P99, READS, P99 = "reads in 1st s", "their p99, ms", "reads/s", "p99, ms"
FETCHED, FAIRNESS, CPU = "fetched / asked for", "slowest / fastest", "CPU s/GiB"


# --- the bench --------------------------------------------------------------------------------------------


class Bench(Measuring):
    """With the wire, and the servers at its far end."""

    programs = PROGRAMS

    def wire(self, rate: str = "1G", rtt: str = "50ms", **conditions) -> Wire:
        return Wire(self.arguments.wire, rate=rate, rtt=rtt, buffers=self.arguments.buffers, **conditions)

    def nginx(self, tree: Path, directives: str = "") -> Origin:
        return Origin(tree, self.directory("nginx"), address=FAR_ADDRESS, port=8080, prefix=AT_FAR,
                      directives=directives)

    def caddy(self, tree: Path) -> tuple[CaddyOrigin, Path]:
        """And the authority to trust."""
        certificates = Certificates.create(self.directory("certificates"), FAR_ADDRESS)
        origin = CaddyOrigin(tree, self.directory("caddy"), certificates, address=FAR_ADDRESS, port=8443, prefix=AT_FAR)
        return origin, certificates.authority

    def race(self, origin: WebServer, prefix: tuple[str, ...] = AT_NEAR, **options) -> Race:
        return Race(self.arguments.wormhole, self.work, origin, {**dict(self.arguments.option), **options}, prefix)


# What a row without large files uses of memory.
LITTLE = 512 * MIB


# --- contestants ------------------------------------------------------------------------------------------


def rated(size: int, copy: Callable[..., float], *arguments, **options) -> Figures:
    seconds = copy(*arguments, **options)
    return {RATE: size / 1e6 / seconds, SECONDS: seconds}


def copy_of(race: Race, name: str, peer: str | None, copy: Callable[..., float], *arguments, **options) -> Contestant:
    """By a way of `race` to make one."""
    return Contestant(name, peer, lambda: rated(race.file.stat().st_size, copy, *arguments, **options))


def copies(race: Race) -> list[Contestant]:
    return [copy_of(race, WORMHOLE, None, race.cp), copy_of(race, CURL, "curl", race.curl),
            copy_of(race, ARIA, "aria2", race.aria2), copy_of(race, RCLONE, "rclone", race.cp_from_rclone),
            copy_of(race, RCLONE_TUNED, "rclone", race.cp_from_rclone, tuned=True)]


def the_wire(bench: Bench, omit: float = 0) -> Contestant:
    return Contestant(IPERF, "iperf3", lambda: {RATE: iperf3(bench.seconds(10), omit) / 1e6})


def the_round_trip() -> Contestant:
    return Contestant(PING, None, lambda: {MS: round_trip() * 1000})


def reading(race: Race, read: Callable[[Path], Figures], *names: str) -> list[Contestant]:
    """From cold mounts of these programs."""
    ways = {WORMHOLE: (None, race.by_wormhole), RCLONE: ("rclone", race.by_rclone),
            HTTPDIRFS: ("httpdirfs", race.by_httpdirfs)}

    def measure(mount) -> Figures:
        with mount() as mounted:
            return read(mounted.path)

    return [Contestant(name, ways[name][0], partial(measure, ways[name][1])) for name in names]


def on_own_wire(bench: Bench, origin: WebServer, contestant: Contestant, **conditions) -> Contestant:
    """A new wire each time: in the same run, all contestants meet the same losses. The far end sends with bbr."""
    seeds = itertools.count(1)

    def measure() -> Figures:
        with bench.wire(seed=next(seeds), congestion="bbr", **conditions), origin:
            return contestant.measure()

    return replace(contestant, measure=measure)


# --- rows: one large file -----------------------------------------------------------------------------------

ROWS = Rows()
row = ROWS.row


@row("bulk", "cp of 1 GiB; 1 Gbit/s, 50 ms",
     Goal("wormhole / iperf3", ">=", 0.95, ratio(of(WORMHOLE, RATE), of(IPERF, RATE))),
     Goal("wormhole / aria2c", ">", 1, ratio(of(WORMHOLE, RATE), of(ARIA, RATE))))
def bulk(bench: Bench) -> Table:
    with bench.tree(file=bench.original(GIB)) as tree, bench.wire(), bench.nginx(tree) as origin:
        race = bench.race(origin)
        table = bench.measure(the_wire(bench), *copies(race))
        if bench.arguments.plot:
            try:
                draw_copy(race, bench.arguments.plot)
            except FAILURES as error:
                bench.note(f"nothing is drawn: {error}")
    return table


LOSSLESS = "wormhole, no loss"


@row("bulk-loss", "cp of 1 GiB; 1 Gbit/s, 50 ms, 1 % loss; bbr at the far end",
     Goal("wormhole / the same without loss", ">=", 0.85, ratio(of(WORMHOLE, RATE), of(LOSSLESS, RATE))))
def bulk_loss(bench: Bench) -> Table:
    with bench.tree(file=bench.original(GIB)) as tree:
        origin = bench.nginx(tree)
        race = bench.race(origin)
        return bench.measure(on_own_wire(bench, origin, copy_of(race, LOSSLESS, None, race.cp)),
                             *(on_own_wire(bench, origin, contestant, loss="1%")
                               for contestant in [the_wire(bench), *copies(race)]))


def wormhole_http(version: str) -> str:
    return f"wormhole http={version}"


AUTO = wormhole_http("auto")
HTTP_VERSIONS = ("1.1", "2", "3", "auto")


def cp_by_http(bench: Bench, race: Race, version: str) -> Contestant:
    name = wormhole_http(version)

    def measure() -> Figures:
        bench.check_option("http", version)
        race.origin.forget()
        figures = rated(race.file.stat().st_size, race.cp, http=version)
        spoken = {request.protocol for request in race.origin.requests() if request.path == f"/{race.name}"}
        bench.note(f"{name} spoke {' and '.join(sorted(spoken))}")
        return figures

    return Contestant(name, None, measure)


def auto_to_best(table: Table) -> float:
    chosen = [table.median(name, RATE) for name in map(wormhole_http, HTTP_VERSIONS) if name != AUTO and name in table]
    return table.median(AUTO, RATE) / max(chosen)


@row("bulk-tls", "cp of 1 GiB over TLS from Caddy; 1 Gbit/s, 50 ms",
     *(Goal(f"http={v} / iperf3", ">=", 0.85, ratio(of(wormhole_http(v), RATE), of(IPERF, RATE)))
       for v in HTTP_VERSIONS),
     Goal("http=auto / the best of the others", ">=", 0.95, auto_to_best))
def bulk_tls(bench: Bench) -> Table:
    with bench.tree(file=bench.original(GIB)) as tree, bench.wire():
        origin, authority = bench.caddy(tree)
        with origin:
            race = bench.race(origin, ca=authority)
            return bench.measure(the_wire(bench), *(cp_by_http(bench, race, version) for version in HTTP_VERSIONS),
                                 copy_of(race, CURL, "curl", race.curl, "--cacert", authority))


@row("h3-loss", "cp of 256 MiB over TLS from Caddy; 1 Gbit/s, 50 ms, 1 % loss; bbr at the far end",
     Goal("http=auto / http=2", ">=", 0.8, ratio(of(AUTO, RATE), of(wormhole_http("2"), RATE))))
def h3_loss(bench: Bench) -> Table:
    with bench.tree(file=bench.original(256 * MIB)) as tree:
        origin, authority = bench.caddy(tree)
        race = bench.race(origin, ca=authority)
        return bench.measure(*(on_own_wire(bench, origin, cp_by_http(bench, race, version), loss="1%")
                               for version in ("auto", "3", "2")))


@row("long-thin", "cp of 64 MiB; 100 Mbit/s, 200 ms",
     Goal("wormhole after the first second / iperf3", ">=", 0.9, ratio(of(WORMHOLE, LATER_RATE), of(IPERF, RATE))))
def long_thin(bench: Bench) -> Table:
    with (bench.tree(file=bench.original(64 * MIB)) as tree, bench.wire(rate="100M", rtt="200ms"),
          bench.nginx(tree) as origin):
        race = bench.race(origin)

        def watched(copy: Callable[..., float]) -> Figures:
            progress = Progress(race.copy)
            figures = rated(race.file.stat().st_size, copy, progress=progress)
            return {LATER_RATE: progress.rate_from(1) / 1e6, **figures}

        # What iperf3 needs to get going is no part of what the wire carries.
        return bench.measure(the_wire(bench, omit=2), Contestant(WORMHOLE, None, partial(watched, race.cp)),
                             Contestant(CURL, "curl", partial(watched, race.curl)),
                             copy_of(race, ARIA, "aria2", race.aria2),
                             Contestant(RCLONE, "rclone", partial(watched, race.cp_from_rclone)), memory=LITTLE)


def read_by_four(race: Race) -> Callable[[Path], Figures]:
    """Four readers, a quarter of the file for each. The quarters are put together again and compared."""
    quarter = race.file.stat().st_size // 4
    piece = 128 << 10  # as cp reads

    def read(mounted: Path) -> Figures:
        race.copy.touch()
        with ExitStack() as stack:
            stack.callback(race.copy.unlink)
            began = time.monotonic()
            readers = []
            for i in range(4):
                place = i * quarter // piece
                readers.append(subprocess.Popen(
                    ["dd", f"if={mounted / race.name}", f"of={race.copy}", f"bs={piece}", f"skip={place}",
                     f"seek={place}", f"count={quarter // piece}", "conv=notrunc", "status=none"]))
                stack.callback(end, readers[-1])
            took: dict[int, float] = {}
            while len(took) < 4:
                took |= {i: time.monotonic() - began for i, reader in enumerate(readers)
                         if i not in took and reader.poll() is not None}
                assert time.monotonic() - began < PATIENCE, "it does not come to an end"
                time.sleep(0.002)
            assert not any(reader.returncode for reader in readers), "a reader got an error"
            compare(race.copy, race.file)
        return {RATE: 4 * quarter / 1e6 / max(took.values()), FAIRNESS: min(took.values()) / max(took.values())}

    return read


@row("four-readers", "4 readers, each of a quarter of a file of 1 GiB; 1 Gbit/s, 50 ms",
     Goal("wormhole, all four / iperf3", ">=", 0.9, ratio(of(WORMHOLE, RATE), of(IPERF, RATE))),
     Goal("the slowest reader / the fastest", ">=", 0.5, of(WORMHOLE, FAIRNESS)))
def four_readers(bench: Bench) -> Table:
    with bench.tree(file=bench.original(GIB)) as tree, bench.wire(), bench.nginx(tree) as origin:
        race = bench.race(origin)
        return bench.measure(the_wire(bench), *reading(race, read_by_four(race), WORMHOLE, RCLONE))


# --- rows: little pieces ------------------------------------------------------------------------------------


def write_small_files(tree: Path, names: list[str], size: int) -> None:
    content = trees.real_bytes(size * len(names))
    for i, name in enumerate(names):
        (tree / name).write_bytes(content[i * size : (i + 1) * size])


def first_bytes(mounted: Path, tree: Path, name: str) -> float:
    """Seconds until the first 4 KiB of a file are there."""
    began = time.monotonic()
    with open(mounted / name, "rb", buffering=0) as file:
        got = file.read(4096)
    seconds = time.monotonic() - began
    with open(tree / name, "rb") as file:
        assert got == file.read(4096), f"wrong bytes in {name}"
    return seconds


@row("first-byte", "first 4 KiB of an unread file of 1 MiB on a connection in use, 30 files; 50 ms",
     Goal("wormhole / round trip", "<=", 1.2, ratio(of(WORMHOLE, MS), of(PING, MS))))
def first_byte(bench: Bench) -> Table:
    with bench.tree() as tree, bench.wire(), bench.nginx(tree) as origin:
        write_small_files(tree, [f"{kind}-{i}" for kind in ("unread", "before") for i in range(30)], MIB)
        race = bench.race(origin)

        def read(files: int, mounted: Path) -> Figures:
            os.listdir(mounted)
            times = []
            for i in range(files):
                first_bytes(mounted, tree, f"before-{i}")
                times.append(first_bytes(mounted, tree, f"unread-{i}") * 1000)
                time.sleep(0.2)  # what was read ahead has arrived
            return {MS: statistics.median(times), "slowest, ms": max(times)}

        return bench.measure(the_round_trip(), *reading(race, partial(read, 30), WORMHOLE),
                             *reading(race, partial(read, 5), RCLONE, HTTPDIRFS), memory=LITTLE)


def random_reads(bench: Bench, file: Path, original: Path, seed: int) -> dict:
    """By 16 threads for 5 s."""
    ran = subprocess.run([bench.random_reader, file, original, "16", f"{bench.seconds(5)}", str(seed)],
                         capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, f"random_reader: {ran.stderr}"
    return json.loads(ran.stdout)


@row("random", "random 4 KiB by 16 threads for 5 s from an unread file of 512 MiB; 1 Gbit/s, 50 ms",
     Goal("reads in the first second", ">=", 280, of(WORMHOLE, FIRST_READS)),
     Goal("their 99th percentile / round trip", "<=", 2, ratio(of(WORMHOLE, FIRST_P99), of(PING, MS))),
     Goal("reads in 5 s / httpdirfs", ">=", 1, ratio(of(WORMHOLE, READS), of(HTTPDIRFS, READS))))
def random(bench: Bench) -> Table:
    with bench.tree(file=bench.original(512 * MIB)) as tree, bench.wire(), bench.nginx(tree) as origin:
        race = bench.race(origin)
        seeds = {name: itertools.count(1) for name in (WORMHOLE, RCLONE, HTTPDIRFS)}  # the same for all in a run

        def read(name: str, mounted: Path) -> Figures:
            got = random_reads(bench, mounted / race.name, race.file, next(seeds[name]))
            return {FIRST_READS: got["first_second"]["reads"], FIRST_P99: got["first_second"]["p99_ms"],
                    READS: got["reads"] / got["seconds"], P99: got["all"]["p99_ms"]}

        return bench.measure(the_round_trip(), *itertools.chain.from_iterable(
            reading(race, partial(read, name), name) for name in seeds), memory=LITTLE)


@row("random-sparse", "the same from a sparse file of 64 GiB: what crosses the wire for it",
     Goal("bytes fetched / 64 KiB for each block asked for", "<=", 4, of(WORMHOLE, FETCHED)))
def random_sparse(bench: Bench) -> Table:
    with bench.tree() as tree, bench.wire(), bench.nginx(tree) as origin:
        (tree / "file").touch()
        os.truncate(tree / "file", bench.size(64 * GIB))
        race = bench.race(origin)

        def measure(mount, seeds: Iterator[int]) -> Figures:
            origin.forget()
            with mount() as mounted:
                got = random_reads(bench, mounted.path / race.name, race.file, next(seeds))
            fetched = origin.file_bytes()  # all of it: nothing is under way any more
            return {FETCHED: fetched / (got["blocks"] << 16), "MB fetched": fetched / 1e6, "blocks": got["blocks"],
                    READS: got["reads"] / got["seconds"]}

        return bench.measure(Contestant(WORMHOLE, None, partial(measure, race.by_wormhole, itertools.count(1))),
                             Contestant(RCLONE, "rclone", partial(measure, race.by_rclone, itertools.count(1))),
                             memory=LITTLE)


STREAMS = 8


@contextmanager
def streams(mounted: Path, tree: Path) -> Iterator[list[subprocess.Popen]]:
    """Readers of large files from their beginning on; each compares what it reads."""
    with ExitStack() as stack:
        readers = []
        for i in range(STREAMS):
            readers.append(subprocess.Popen(["cmp", mounted / f"large-{i}", tree / f"large-{i}"],
                                            stdout=subprocess.DEVNULL))
            stack.callback(end, readers[-1])
        yield readers
        assert not any(reader.poll() for reader in readers), "a stream got an error or wrong bytes"


def bytes_read(process: subprocess.Popen) -> int:
    """By `cmp` from one of its two files."""
    return int(Path(f"/proc/{process.pid}/io").read_text().split()[1]) // 2


@row("crowd", "first 4 KiB of unread small files, one after another for 10 s, beside 8 streams; 1 Gbit/s, 50 ms",
     Goal("99th percentile / round trip", "<=", 3, ratio(of(WORMHOLE, P99), of(PING, MS))))
def crowd(bench: Bench) -> Table:
    small = [f"small-{i}" for i in range(400)]
    with bench.tree() as tree, bench.wire(), bench.nginx(tree) as origin:
        write_small_files(tree, small, 64 << 10)
        size = bench.size(384 * MIB)  # more than arrives, also if one gets twice its share
        with open(bench.original(2 * GIB), "rb") as original:
            for i in range(STREAMS):  # different ones, so that a mixture shows
                original.seek(i * bench.size(200 * MIB))
                (tree / f"large-{i}").write_bytes(original.read(size))

        def read(mounted: Path) -> Figures:
            os.listdir(mounted)
            with streams(mounted, tree) as readers:
                time.sleep(bench.seconds(2))
                before, began = sum(map(bytes_read, readers)), time.monotonic()
                times = []
                for name in small:
                    times.append(first_bytes(mounted, tree, name) * 1000)
                    if time.monotonic() - began >= bench.seconds(10):
                        break
                rate = (sum(map(bytes_read, readers)) - before) / 1e6 / (time.monotonic() - began)
                if any(reader.poll() is not None for reader in readers):
                    bench.note("a stream was over before the end: its file is too small")
            return {"reads": len(times), "median, ms": statistics.median(times), P99: percentile(times, 0.99),
                    "streams, MB/s": rate}

        return bench.measure(the_round_trip(), *reading(bench.race(origin), read, WORMHOLE, RCLONE))


# --- rows: without a wire, without a mount --------------------------------------------------------------------


@row("loopback", "cat of 2 GiB over the loopback",
     Goal("seconds of cat / of curl -o FILE", "<=", 1, ratio(of(WORMHOLE, SECONDS), of(CURL, SECONDS))),
     Goal("CPU seconds of the daemon for each GiB", "<=", 1.2, of(WORMHOLE, CPU)))
def loopback(bench: Bench) -> Table:
    with bench.tree(file=bench.original(2 * GIB)) as tree, Origin(tree, bench.directory("nginx")) as origin:
        race = bench.race(origin, prefix=())
        size = race.file.stat().st_size

        def cat(mounted: Path, pid: int, settle: Callable[[], None]) -> Figures:
            before = cpu_seconds(pid)
            figures = rated(size, timed, "cat", mounted / race.name, stdout=subprocess.DEVNULL)
            settle()
            figures[CPU] = (cpu_seconds(pid) - before) / (size / GIB)
            compare(mounted / race.name, race.file)
            return figures

        def by_wormhole() -> Figures:
            with race.mount() as mount:
                # What it writes behind the reader's back is work for the reader, too.
                return cat(mount.path, mount.pid, lambda: until_quiet(lambda: mount.status()["bytes_cached"]))

        def by_rclone() -> Figures:
            with race.by_rclone() as rclone:
                return cat(rclone.path, rclone.pid, lambda: None)

        return bench.measure(Contestant(WORMHOLE, None, by_wormhole), copy_of(race, CURL, "curl", race.curl),
                             Contestant(RCLONE, "rclone", by_rclone), memory=5 * GIB)


def until_quiet(value: Callable[[], int], quiet: float = 1) -> None:
    last, since = value(), time.monotonic()
    while time.monotonic() - since < quiet:
        time.sleep(0.2)
        if (now := value()) != last:
            last, since = now, time.monotonic()


VERIFIED, UNVERIFIED = "verified", "unverified"


@row("verified", "cat of 1 GiB over the loopback, with a manifest and without",
     Goal("verified / unverified", ">=", 0.9, ratio(of(VERIFIED, RATE), of(UNVERIFIED, RATE))))
def verified(bench: Bench) -> Table:
    with bench.tree(file=bench.original(GIB)) as tree, Origin(tree, bench.directory("nginx")) as origin:
        write_manifest(bench.arguments.wormhole, tree)

        def cat(listing: str) -> Figures:
            race = bench.race(origin, prefix=(), listing=listing)
            return rated(race.file.stat().st_size, race.cat)

        return bench.measure(Contestant(VERIFIED, None, partial(cat, "manifest")),
                             Contestant(UNVERIFIED, None, partial(cat, "html")))


NEW, ANEW, SHARE = "the new version", "all of it, anew", "share of its bytes on the wire"
CHANGED, BLOCK = 0.03, 64 * 1024


def change_blocks(file: Path, share: float, seed: int) -> None:
    """One byte in each of so many blocks, here and there."""
    chance, blocks = Random(seed), file.stat().st_size // BLOCK
    with open(file, "r+b") as out:
        for block in chance.sample(range(blocks), max(1, round(blocks * share))):
            at = block * BLOCK + chance.randrange(BLOCK)
            out.seek(at)
            byte = out.read(1)[0]
            out.seek(at)
            out.write(bytes([byte ^ (1 + chance.randrange(255))]))


@row("new-version", "1 GiB with a manifest, the version before in the cache, 3 % of the blocks changed; 1 Gbit/s, 50 ms",
     Goal(SHARE, "<=", 0.04, of(NEW, SHARE)))
def new_version(bench: Bench) -> Table:
    with bench.tree() as tree, bench.wire():
        file = tree / "file"
        shutil.copyfile(bench.original(GIB), file)
        write_manifest(bench.arguments.wormhole, tree)
        with bench.nginx(tree) as origin:
            race, seeds = bench.race(origin, ttl=1), itertools.count(1)

            def read(mounted: Path) -> Figures:
                origin.forget()
                seconds = timed("cp", mounted / "file", race.copy)
                compare(race.copy, file)
                return {SECONDS: seconds, SHARE: origin.body_bytes() / file.stat().st_size}

            def next_version() -> Figures:
                with race.mount() as mount:
                    read(mount.path)
                    change_blocks(file, CHANGED, next(seeds))
                    write_manifest(bench.arguments.wormhole, tree)
                    time_of = file.stat().st_mtime_ns
                    wait_until(lambda: (mount / "file").stat().st_mtime_ns == time_of, "the new version is seen")
                    return read(mount.path)

            def anew() -> Figures:
                with race.mount() as mount:
                    return read(mount.path)

            return bench.measure(Contestant(NEW, None, next_version), Contestant(ANEW, None, anew))


@row("get", "wormhole get -c 8 of 100 MB, 20 Mbit/s for each connection; 1 Gbit/s, 50 ms",
     Goal("wormhole get / curl", ">=", 6, ratio(of(WORMHOLE, RATE), of(CURL, RATE))))
def get(bench: Bench) -> Table:
    with (bench.tree(file=bench.original(100_000_000)) as tree, bench.wire(),
          bench.nginx(tree, directives="limit_rate 2500k;") as origin):
        race = bench.race(origin)
        return bench.measure(copy_of(race, WORMHOLE, None, race.get, 8), copy_of(race, CURL, "curl", race.curl),
                             copy_of(race, "aria2c -x8", "aria2", race.aria2, 8), memory=LITTLE)


# --- a drawing of a copy --------------------------------------------------------------------------------------


def draw_copy(race: Race, path: Path) -> None:
    """One more cp, not among the figures: asking for the status takes time of its own."""
    samples: list[tuple[float, dict]] = []
    size = race.file.stat().st_size
    with at_hand(3 * size), race.mount() as mount:
        over = threading.Event()
        began = time.monotonic()

        def sample() -> None:
            while not over.wait(max(0, began + 0.05 * len(samples) - time.monotonic())):
                said = run(race.wormhole, "status", "--json", mount.path, timeout=20)
                if said.code == 0:
                    samples.append((time.monotonic() - began, json.loads(said.output)["mounts"][0]))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            seconds = timed("cp", mount / race.name, race.copy)
        finally:
            over.set()
            sampler.join()
            race.copy.unlink(missing_ok=True)

    def counter(name: str, unit: float = 1) -> list[tuple[float, float]]:
        return [(t, status[name] / unit) for t, status in samples if isinstance(status.get(name), (int, float))]

    def lines(unit: float, *names: str) -> dict:
        return {name: points for name in names if (points := counter(name, unit))}

    write_svg(path, f"cp of {size / MIB:g} MiB out of a cold mount: {seconds:.2f} s, {size / 1e6 / seconds:.1f} MB/s", [
        Panel("MB/s", {"received": slope(counter("body_bytes_received", 1e6), over=0.2),
                       **lines(1e6, "link_bytes_per_second")}),
        Panel("MiB", lines(MIB, "window_bytes", "buffer_bytes")),
        Panel("how many", lines(1, "fetches_in_flight", "connections_target", "connections")),
    ])
    print(f"  drawn: {path}", file=sys.stderr)


def versions(wormhole: Path) -> dict[str, str]:
    asked = {"wormhole": [wormhole, "--version"], "nginx": ["nginx", "-v"], "caddy": ["caddy", "version"],
             "iperf3": ["iperf3", "--version"], "curl": ["curl", "--version"], "aria2": ["aria2c", "--version"],
             "rclone": ["rclone", "version"], "httpdirfs": ["httpdirfs", "--version"]}
    return {name: run(*command).output.partition("\n")[0] for name, command in asked.items()
            if shutil.which(command[0])}


# --- the program ----------------------------------------------------------------------------------------------


def peers(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(PROGRAMS)}")
    return names


def parse_arguments() -> argparse.Namespace:
    options = parser(__doc__.partition("\n\n")[0])
    options.add_argument("rows", nargs="*", metavar="ROW", help="what to measure; all of them if none is named")
    options.add_argument("--list", action="store_true", help="name the rows and their goals")
    add_race_options(options)
    options.add_argument("--peers", type=peers, default=",".join(PROGRAMS),
                         help="what to measure beside wormhole; some goals need iperf3, curl or aria2")
    options.add_argument("--scale", type=float, default=1, help="of sizes and times: to try it out, not to measure")
    options.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw one more copy of the row bulk")
    arguments = options.parse_args()
    arguments.rows = chosen_rows(options, ROWS, arguments.rows)
    if arguments.plot and "bulk" not in arguments.rows:
        options.error("--plot draws the row bulk, which is not to run")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        print_list(ROWS)
        return 0
    if os.geteuid() != 0 and not {*arguments.rows} <= {"loopback", "verified"}:
        print("cold_path.py: must be root, to create network namespaces; only loopback and verified need no root",
              file=sys.stderr)
        return 1
    end_cleanly_on_signals()
    machine = print_machine(arguments, "cold")
    return measure_rows(arguments, ROWS, machine, partial(Bench, arguments), versions=versions(arguments.wormhole),
                        buffers=arguments.buffers)


if __name__ == "__main__":
    sys.exit(main())
