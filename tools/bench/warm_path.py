#!/usr/bin/env python3
"""What is in the cache already: how fast it comes out of a mount, beside a file of the same file system and beside
passthrough_hp, libfuse's own example of how fast a FUSE file system can be.

    warm_path.py --list                  the rows and their goals
    warm_path.py                         all of them: more than an hour
    warm_path.py random-cold user-       some of them; a part of a name means every row that has it
    warm_path.py small-files --files 5000 --runs 1
                                         a quick try: the figures mean nothing

Needs root (to empty the page cache, and to become an ordinary user), and what tools/setup --bench installs. The exit
code is 0 when every goal of the rows that ran was met, 1 when one was missed or could not be measured.
docs/BENCHMARKS.md says what each row is for.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import page_cache
from bench import (GIB, MIB, PROJECT, add_mount_options, end_cleanly_on_signals, mounted, parser, settle)
from link import Unavailable
from memory import at_hand
from race import PATIENCE, cpu_seconds, end, foreign_mount
from rows import (FAILURES, Contestant, Figures, Goal, Measuring, Row, Rows, Table, chosen_rows, measure_rows, of,
                  print_list, print_machine, ratio)
from support import trees
from support.mounting import Mount, daemons_of, run, wait_until
from support.origin import Origin

# --- names ------------------------------------------------------------------------------------------------

WORMHOLE, NATIVE, PEER = "wormhole", "native", "passthrough_hp"
IDLE = "idle_fs"  # a file system that does nothing: the limit where each file is asked for
OFF, PEER_OFF = "wormhole passthrough=off", "passthrough_hp --nopassthrough"
THE_PEERS = "the best passthrough_hp"

RATE, READS_1, READS_16 = "MB/s", "reads/s, 1 thread", "reads/s, 16 threads"
MS, DROPPED_MS = "ms", "ms, page cache dropped"
CPU_1, CPU_16 = "CPU us/read, 1 thread", "CPU us/read, 16 threads"
LARGEST, READS = "largest du, MiB", "reads/s"

DEPENDENCIES = Path(os.environ.get("WORMHOLE_DEPS", "/opt/wormhole-deps"))  # as in tools/setup

# --- sizes ------------------------------------------------------------------------------------------------

# Two seconds of a good disk: long enough to measure, small enough to be read five times by three.
SEQUENTIAL_SIZE = GIB
# Random reads shall hit few pages that were read before: 16 readers ask for an eighth of it.
RANDOM_SIZE = 2 * GIB
# In the page cache as a whole, for everybody.
TRANSPORT_SIZE = 512 * MIB
TRANSPORT_READS = {1: 16_384, 16: 65_536}
# The number of reads is fixed and not the time: all contestants have the very same reads to do.
RANDOM_READS = {1: 16_384, 16: 65_536}
# Where no disk is asked, reads are many and quick: a fixed time, in seconds.
HOT_SECONDS = 2
PAGE = 4096
PIECE = 128 << 10  # as cp and cat read
# What programs use besides.
SOME = 256 * MIB
SMALL_FILE = 10_000
SMALL_FILES_IN_DIRECTORY = 1000
# Of passthrough_hp, besides those for the files: directories, and its own.
SOME_DESCRIPTORS = 2000
CAP = 100 * MIB
REGION = 4 * MIB
CAP_SECONDS = 60
KNOWN_OBJECTS = 1_000_000
KNOWN_IN_DIRECTORY = 1000

# Nothing shall be asked of the server because a listing has grown old while something is measured.
TIME_TO_LIVE = 86_400

# --- passthrough_hp ---------------------------------------------------------------------------------------

# Splicing costs it eight system calls more for each read, and brings little.
PEER_SETTINGS = ("--nosplice",)
# A thread waits for the disk while it reads: 16 readers need as many. A single sequential reader is better off with
# few, whose caches and buffers stay warm. Both run.
PEER_THREADS = {f"{threads} threads": (f"--num-threads={threads}",) for threads in (2, 16)}
# The kernel's read-ahead of a mount, which root may change, and wormhole does (fs/session.cc). KiB.
PEER_READAHEAD = 4096

URING_PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")


def uring_allowed() -> bool:
    """Whether this kernel carries FUSE over io_uring. Only the machine's owner changes that."""
    return URING_PARAMETER.exists() and URING_PARAMETER.read_text().strip() == "Y"


# How requests come to the daemon: libfuse's name, and what stands behind a contestant's.
TRANSPORTS = {"device": "", **({"io_uring": ", io_uring"} if uring_allowed() else {})}


# --- who mounts -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """Who mounts and reads, with a home for what belongs to him."""

    home: Path
    prefix: tuple[str, ...] = ()  # a command that makes him run the rest
    env: dict[str, str] | None = None
    uid: int | None = None  # None: the one who runs this


class Bench(Measuring):
    def root(self) -> AbstractContextManager[User]:
        return nullcontext(User(self.directory("root")))

    @contextmanager
    def ordinary_user(self) -> Iterator[User]:
        """nobody, with /dev/fuse as distributions have it: everybody may open it."""
        fusermount = shutil.which("fusermount3")
        if fusermount is None or not os.stat(fusermount).st_mode & stat.S_ISUID:
            raise Unavailable("fusermount3 is not installed setuid root: ordinary users cannot mount")
        nobody = pwd.getpwnam("nobody")
        home = self.directory("home")
        for directory in (home, home / "run", home / "tmp"):
            directory.mkdir(exist_ok=True, mode=0o700)
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        os.chmod("/dev/fuse", 0o666)
        try:
            yield User(home, ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
                       {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"),
                        "TMPDIR": str(home / "tmp")}, nobody.pw_uid)
        finally:
            os.chmod("/dev/fuse", before)

    # --- mounts ---

    def origin(self, tree: Path) -> Origin:
        return Origin(tree, self.directory("nginx"))

    @contextmanager
    def wormhole(self, user: User, origin: Origin, cache: Path | None = None, **options) -> Iterator[Mount]:
        program = user.home / "wormhole"  # where he can reach it
        if not program.exists():
            shutil.copy(self.arguments.wormhole, program)
            program.chmod(0o755)
        directory = Path(tempfile.mkdtemp(prefix="mnt-", dir=user.home))
        if user.uid is not None:
            os.chown(directory, user.uid, -1)
        mount = Mount(program, origin.url, user.home, directory=directory,
                      cache=cache or user.home / f"cache-{next(self._numbers)}", prefix=user.prefix, env=user.env,
                      **{"log_level": "info", "ttl": TIME_TO_LIVE, **options, **dict(self.arguments.option)})
        try:
            with mounted(mount):
                yield mount
        finally:
            if cache is None:
                shutil.rmtree(mount.cache, ignore_errors=True)

    @contextmanager
    def passthrough_hp(self, user: User, source: Path, *flags: str) -> Iterator[Path]:
        program = shutil.which(str(DEPENDENCIES / "bin/passthrough_hp")) or shutil.which("passthrough_hp")
        if program is None:
            raise Unavailable("not installed (tools/setup --bench builds it)")
        with foreign_mount(user.home, *(user.prefix or many_descriptors()), program, "--foreground", *PEER_SETTINGS, *flags, source, "{}",
                           owner=user.uid) as mount:
            if user.uid is None:
                device = mount.path.stat().st_dev
                setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
                setting.write_text(f"{PEER_READAHEAD}\n")
            yield mount.path

    @contextmanager
    def idle_fs(self, files: int) -> Iterator[Path]:
        """The tree of `files` small files by a file system that does as little as one can, as quick as it comes."""
        if not self.arguments.idle_fs.exists():
            raise Unavailable(f"{self.arguments.idle_fs} is not built: cmake --build --preset release --target idle_fs")
        transport = ("-o", "io_uring") if uring_allowed() else ()
        with foreign_mount(self.directory("idle"), self.arguments.idle_fs, str(files), str(SMALL_FILES_IN_DIRECTORY),
                           str(SMALL_FILE), "-f", *transport, "{}") as mount:
            yield mount.path


def many_descriptors() -> tuple[str, ...]:
    """What runs a program with as many descriptors as there can be, where that is allowed."""
    most = Path("/proc/sys/fs/nr_open").read_text().strip()
    raised = ("prlimit", f"--nofile={most}:{most}")
    return raised if run(*raised, "true").code == 0 else ()


ROWS = Rows()


# --- one large file -----------------------------------------------------------------------------------------


@dataclass
class Copy:
    """A file as one contestant shows it, and what the bytes of it are read from in the end."""

    name: str
    path: Path
    user: User
    behind: Path
    mount: Mount | None = None


def behind(cache: Path) -> Path:
    """The file with the cached bytes: the one that takes most of the disk."""
    return max((file for file in cache.rglob("*") if file.is_file()), key=lambda file: file.stat().st_blocks)


class LargeFile:
    """One file, in the cache of each contestant, complete; the reader who brought it there has closed it."""

    def __init__(self, bench: Bench, user: User, size: int):
        self.bench, self.user = bench, user
        self.original = bench.original(size)
        self.size = self.original.stat().st_size
        self.copies: list[Copy] = []
        self._stack = ExitStack()

    def __enter__(self) -> LargeFile:
        with ExitStack() as stack:  # takes down what is up, if something fails on the way
            self._tree = stack.enter_context(self.bench.tree(file=self.original))
            self._origin = stack.enter_context(self.bench.origin(self._tree))
            # A copy, and not the original: it is as new as the cache, and laid out by the same file system.
            self.native = stack.enter_context(self.bench.tree()) / "file"
            shutil.copyfile(self.original, self.native)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def add_native(self) -> None:
        self.copies.append(Copy(NATIVE, self.native, self.user, self.native))

    def add_peer(self, name: str, *flags: str) -> None:
        with self._or_out(name):
            mount = self._stack.enter_context(self.bench.passthrough_hp(self.user, self.native.parent, *flags))
            self.copies.append(Copy(name, mount / "file", self.user, self.native))

    def add_wormhole(self, name: str, **options) -> None:
        with self._or_out(name):
            mount = self._stack.enter_context(self.bench.wormhole(self.user, self._origin, **options))
            page_cache.warm(*self.user.prefix, "cat", mount / "file")
            wait_until(lambda: mount.status()["bytes_cached"] >= self.size, "the cache has all of it", 60)
            settle()
            self.copies.append(Copy(name, mount / "file", self.user, behind(mount.cache), mount))

    @contextmanager
    def _or_out(self, name: str) -> Iterator[None]:
        """The others run without the one that does not come up."""
        try:
            yield
        except (Unavailable, *FAILURES) as error:
            self.bench.note(f"{name}: {str(error).strip()}")

    def measure(self, figures: Callable[[Copy], Figures]) -> Table:
        """In turns. Nothing may be asked of the server meanwhile, and in the end every byte is compared."""
        self._say_extents()
        self._origin.forget()
        table = self.bench.measure(*(Contestant(copy.name, None, partial(figures, copy)) for copy in self.copies),
                                   memory=0)
        fetched = self._origin.file_bytes()
        assert fetched == 0, f"{fetched} bytes came from the server: the cache is not complete"
        for copy in self.copies:
            if copy.name in table:
                compared = run(*copy.user.prefix, "cmp", copy.path, self.original, timeout=PATIENCE)
                assert compared.code == 0, f"{copy.name}: wrong bytes: {compared.output}"
        return table

    def _say_extents(self) -> None:
        files = {"native": self.native, **{copy.name: copy.behind for copy in self.copies if copy.mount}}
        counted = {name: run("filefrag", file).output.rpartition(":")[2].split()[0] for name, file in files.items()}
        self.bench.note("extents: " + ", ".join(f"{name} {count}" for name, count in counted.items()))

    # --- what a contestant is asked ---

    def cold(self, copy: Copy, size: int, *job: str) -> dict:
        """With nothing of it in memory, neither of the mount's file nor of the one behind it. `size`: what it reads."""
        page_cache.drop()
        for file in {copy.behind, *([copy.path] if copy.user.uid is None else [])}:
            left = page_cache.cached_bytes(file)
            assert not left or left < self.size // 100, f"{left >> 20} MiB of {file} are still in the page cache"
        with at_hand(2 * size + SOME):  # the mount's pages, and those of the file behind it
            return fio(copy, *job)

    def random_cold(self, threads: int, copy: Copy) -> float:
        reads = max(1, RANDOM_READS[threads] * self.size // RANDOM_SIZE // threads)
        got = self.cold(copy, threads * reads * PAGE, "--rw=randread", f"--bs={PAGE}", f"--numjobs={threads}",
                        f"--io_size={reads * PAGE}")
        return got["iops"]

    def sequential_cold(self, copy: Copy) -> float:
        return self.cold(copy, self.size, "--rw=read", f"--bs={PIECE}")["bw_bytes"] / 1e6

    def asked(self, copy: Copy, *job: str) -> dict:
        """The kernel has nothing of the mount's file, and all of the one behind it: the daemon is asked, no disk."""
        page_cache.warm("cat", copy.behind)
        with open(copy.path, "rb") as mounted_file:
            os.posix_fadvise(mounted_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        left = page_cache.cached_bytes(copy.path)
        assert not left or left < self.size // 100, f"{left >> 20} MiB of {copy.path} are still in the page cache"
        (daemon,) = daemons_of(copy.path.parent)

        def cpu() -> float:  # with the start of fio, which is the same for everybody
            readers = resource.getrusage(resource.RUSAGE_CHILDREN)
            return cpu_seconds(daemon) + readers.ru_utime + readers.ru_stime

        before = cpu()
        got = fio(copy, *job)
        return {**got, "cpu_seconds": cpu() - before}

    def random_asked(self, threads: int, copy: Copy) -> tuple[float, float]:
        """Reads per second; and microseconds of CPU for each, of daemon and readers."""
        reads = max(1, TRANSPORT_READS[threads] * self.size // TRANSPORT_SIZE // threads)
        got = self.asked(copy, "--rw=randread", f"--bs={PAGE}", f"--numjobs={threads}", f"--io_size={reads * PAGE}")
        return got["iops"], got["cpu_seconds"] / (reads * threads) * 1e6

    def hot(self, copy: Copy, *job: str) -> dict:
        page_cache.warm(*copy.user.prefix, "cat", copy.path)
        return fio(copy, *job, "--time_based", f"--runtime={HOT_SECONDS}")

    def sequential_hot(self, copy: Copy) -> float:
        return self.hot(copy, "--rw=read", f"--bs={PIECE}")["bw_bytes"] / 1e6

    def random_hot(self, copy: Copy) -> float:
        return self.hot(copy, "--rw=randread", f"--bs={PAGE}")["iops"]


def fio(copy: Copy, *job: str) -> dict:
    """What it says of its reads. Each thread has a descriptor of its own, and one read at a time; which places it reads
    is the same for everybody. Nothing is told to the kernel beforehand: neither that reads will be random, which an
    ordinary program does not say, nor that pages are of no use any more."""
    ran = subprocess.run([*copy.user.prefix, "fio", "--name=reads", f"--filename={copy.path}", "--readonly",
                          "--ioengine=psync", "--thread", "--group_reporting", "--fadvise_hint=0", "--invalidate=0",
                          "--output-format=json", *job],
                         capture_output=True, text=True, timeout=PATIENCE, cwd="/", env=copy.user.env)
    assert ran.returncode == 0, f"fio: exit code {ran.returncode}: {ran.stderr[-1000:]}"
    said = json.loads(ran.stdout[ran.stdout.index("{"):])["jobs"][0]
    assert not said["error"], f"fio: {os.strerror(said['error'])}"
    return said["read"]


# --- rows: one large file ---------------------------------------------------------------------------------------

Measure = Callable[[LargeFile, Copy], Figures]


def random_cold(file: LargeFile, copy: Copy) -> Figures:
    return {READS_1: file.random_cold(1, copy), READS_16: file.random_cold(16, copy)}


def random_16(file: LargeFile, copy: Copy) -> Figures:
    return {READS_16: file.random_cold(16, copy)}


def sequential_cold(file: LargeFile, copy: Copy) -> Figures:
    return {RATE: file.sequential_cold(copy)}


def all_asked(file: LargeFile, copy: Copy) -> Figures:
    reads_1, cpu_1 = file.random_asked(1, copy)
    reads_16, cpu_16 = file.random_asked(16, copy)
    return {READS_1: reads_1, READS_16: reads_16, CPU_1: cpu_1, CPU_16: cpu_16,
            RATE: file.asked(copy, "--rw=read", f"--bs={PIECE}")["bw_bytes"] / 1e6}


def sequential_hot(file: LargeFile, copy: Copy) -> Figures:
    return {RATE: file.sequential_hot(copy)}


def random_hot(file: LargeFile, copy: Copy) -> Figures:
    return {READS_1: file.random_hot(copy)}


def with_passthrough(size: int, measure: Measure, bench: Bench) -> Table:
    with bench.root() as user, LargeFile(bench, user, size) as file:
        file.add_native()
        file.add_peer(PEER)
        file.add_wormhole(WORMHOLE)
        table = file.measure(partial(measure, file))
        for copy in file.copies:
            if copy.name == WORMHOLE and page_cache.cached_bytes(copy.path):  # compare() has read all of it
                bench.note("wormhole: its reads do not pass the daemon by: this program has no passthrough, or did "
                           "not use it")
        return table


def without_passthrough(size: int, measure: Measure, bench: Bench, ordinary: bool = False) -> Table:
    with bench.ordinary_user() if ordinary else bench.root() as user, LargeFile(bench, user, size) as file:
        if not uring_allowed():
            bench.note(f"only by /dev/fuse: FUSE over io_uring is off in this kernel ({URING_PARAMETER} is not Y)")
        for transport, suffix in TRANSPORTS.items():
            options = {"transport": "dev"} if ordinary else {"transport": "dev", "passthrough": "off"}
            if transport == "io_uring":  # has a queue for each core: how many threads there are is its own matter
                file.add_peer(PEER_OFF + suffix, "--nopassthrough", "-o", "io_uring")
                options["transport"] = "uring"
            else:
                for threads, flags in PEER_THREADS.items():
                    file.add_peer(f"{PEER_OFF}, {threads}", "--nopassthrough", *flags)
            file.add_wormhole((WORMHOLE if ordinary else OFF) + suffix, **options)
        return file.measure(partial(measure, file))


def goals(us: str, them: str, sign: str, limit: float, *columns: str) -> Iterator[Goal]:
    for column in columns:
        yield Goal(f"{us} / {them}" + (f", {column}" if len(columns) > 1 else ""), sign, limit,
                   ratio(of(us, column), of(them, column)))


def goals_without_passthrough(us: str, limit: float, *columns: str) -> Iterator[Goal]:
    """For each transport, against the best that passthrough_hp makes of it."""
    for transport, suffix in TRANSPORTS.items():
        peers = ([PEER_OFF + suffix] if transport == "io_uring" else
                 [f"{PEER_OFF}, {threads}" for threads in PEER_THREADS])

        def best(column: str, table: Table, peers: list[str] = peers) -> float:
            return max(table.median(peer, column) for peer in peers if peer in table)

        for column in columns:
            yield Goal(f"{us + suffix} / {THE_PEERS + suffix}" + (f", {column}" if len(columns) > 1 else ""), ">=",
                       limit, ratio(of(us + suffix, column), partial(best, column)))


def add_rows() -> None:
    kinds = {
        "random-cold": ("random 4 KiB, nothing in the page cache", RANDOM_SIZE, random_cold, (READS_1, READS_16)),
        "sequential-cold": ("one reader, nothing in the page cache", SEQUENTIAL_SIZE, sequential_cold, (RATE,)),
        "sequential-hot": ("one reader, all of it in the page cache", SEQUENTIAL_SIZE, sequential_hot, (RATE,)),
        "random-hot": ("random 4 KiB by one thread, all of it in the page cache", SEQUENTIAL_SIZE, random_hot,
                       (READS_1,)),
    }
    for name, (what, size, measure, columns) in kinds.items():
        against = PEER if name.endswith("-hot") else NATIVE
        ROWS[name] = Row(name, f"{what}; root, with passthrough", tuple(goals(WORMHOLE, against, ">=", 0.95, *columns)),
                         partial(with_passthrough, size, measure))
    for name, (what, size, measure, columns) in kinds.items():
        ROWS[f"off-{name}"] = Row(
            f"off-{name}", f"{what}; root, without passthrough",
            tuple(goals_without_passthrough(OFF, 1, *columns)),
            partial(without_passthrough, size, measure))
    for name, (what, size, measure, columns) in kinds.items():
        ROWS[f"user-{name}"] = Row(
            f"user-{name}", f"{what}; an ordinary user",
            tuple(goals_without_passthrough(WORMHOLE, 1, *columns)),
            partial(without_passthrough, size, measure, ordinary=True))
    ROWS["random-16"] = Row(
        "random-16", "random 4 KiB by 16 threads, nothing in the page cache; root, without passthrough",
        tuple(goals_without_passthrough(OFF, 1.2, READS_16)),
        partial(without_passthrough, RANDOM_SIZE, random_16))
    ROWS["transport"] = Row(
        "transport", "the daemon is asked for everything, and has it in the page cache; root, without passthrough",
        tuple(goals_without_passthrough(OFF, 1, READS_1, READS_16, RATE)),
        partial(without_passthrough, TRANSPORT_SIZE, all_asked))


add_rows()


# --- rows: several engines ------------------------------------------------------------------------------------

ENGINES = {"engines=1": 1, "engines=2": 2}
# As fs/engines.cc has it: the second one comes with the eighth core.
BY_DEFAULT, OTHERWISE = sorted(ENGINES, reverse=(os.cpu_count() or 1) >= 8)


def checked_reads(files: Copy) -> Figures:
    """Every read comes to the daemon (direct I/O passes the mount's page cache by), and through an engine, which checks
    a block of what lies in the page cache below: nobody waits for a disk."""
    for file in files.behind.rglob("*"):
        if file.is_file():
            page_cache.warm("cat", file)
    return {column: fio(files, "--rw=randread", f"--bs={PAGE}", "--direct=1", f"--numjobs={threads}",
                        "--file_service_type=random", "--time_based", f"--runtime={HOT_SECONDS}")["iops"]
            for column, threads in ((READS_1, 1), (READS_16, 16))}


@ROWS.row("engines", "random 4 KiB of 16 files, each read checked by an engine: one engine and two",
          *goals(BY_DEFAULT, OTHERWISE, ">=", 0.95, READS_1, READS_16))
def engines(bench: Bench) -> Table:
    with ExitStack() as stack:
        enter = stack.enter_context
        user, original = enter(bench.root()), bench.original(SEQUENTIAL_SIZE // 16)
        tree = enter(bench.tree(**{f"file-{i:02}": original for i in range(16)}))
        origin = enter(bench.origin(tree))
        contestants = []
        for name, count in ENGINES.items():
            mount = enter(bench.wormhole(user, origin, engines=count, passthrough="off", verify="always"))
            paths = [mount / path.name for path in sorted(tree.iterdir())]
            page_cache.warm("cat", *paths)
            size = len(paths) * original.stat().st_size
            wait_until(lambda: mount.status()["bytes_cached"] >= size, "the cache has all of it", 60)
            files = Copy(name, Path(":".join(map(str, paths))), user, mount.cache / "objects", mount)
            contestants.append(Contestant(name, None, partial(checked_reads, files)))
        settle()
        origin.forget()
        table = bench.measure(*contestants, memory=0)
        assert (fetched := origin.file_bytes()) == 0, f"{fetched} bytes came from the server: the cache is not complete"
        return table


# --- rows: small files, the limit, the start ----------------------------------------------------------------------

# A shell command that reads the tree $0. GNU tar looks at nothing but names when it writes to /dev/null.
WALKS = {"tar": 'set -o pipefail; tar -c -f - -C "$0" . | cat', "find": 'find "$0" -size +5k', "du": 'du -s "$0"'}


def exact_seconds(*command: str | Path) -> float:
    """Of a command; without the pauses in which a wait with a limit looks whether it has ended."""
    with tempfile.TemporaryFile() as said:  # no pipe: a daemon that is left behind would hold it
        began = time.monotonic()
        process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=said)
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        try:
            code = process.wait()
            seconds = time.monotonic() - began
        finally:
            guard.cancel()
        said.seek(0)
        assert code == 0, f"{command[0]}: exit code {code}: {said.read().decode(errors='replace')[-1000:]}"
    return seconds


def walk(tree: Path) -> Figures:
    def by(name: str) -> float:
        return exact_seconds("bash", "-c", WALKS[name], tree)

    by("tar")
    figures = {f"{name}, s": by(name) for name in WALKS}
    for name in WALKS:
        page_cache.drop()
        with at_hand(4 * GIB if name == "tar" else GIB):
            figures[f"{name} dropped, s"] = by(name)
    return figures


def write_small_tree(tree: Path, files: int) -> None:
    content = trees.real_bytes(64 * MIB)
    for i in range(files):
        directory = tree / f"{i // SMALL_FILES_IN_DIRECTORY:03}"
        if i % SMALL_FILES_IN_DIRECTORY == 0:
            directory.mkdir()
        begin = i * 617 % (len(content) - SMALL_FILE)  # a number that shifts it: no two files are the same
        (directory / f"file-{i:06}").write_bytes(content[begin : begin + SMALL_FILE])


@ROWS.row("small-files", "100 000 files of 10 KB: tar, find -size, du; page cache warm, and dropped",
          *(Goal(f"{name}{dropped}: wormhole / native", "<=", 2,
                 ratio(of(WORMHOLE, f"{name}{dropped}, s"), of(NATIVE, f"{name}{dropped}, s")))
            for dropped in ("", " dropped") for name in WALKS))
def small_files(bench: Bench) -> Table:
    with ExitStack() as stack:
        enter = stack.enter_context
        tree, user = enter(bench.tree()), enter(bench.root())
        write_small_tree(tree, bench.arguments.files)
        origin = enter(bench.origin(tree))
        mount = enter(bench.wormhole(user, origin))
        # Several at a time: a mount is filled by HTTP, and that is not what is measured.
        page_cache.warm("bash", "-c", 'find "$0" -type f -print0 | xargs -0 -n 200 -P 8 cat', mount.path)
        size = bench.arguments.files * SMALL_FILE
        wait_until(lambda: mount.status()["bytes_cached"] >= size, "the cache has all of it", 120)
        roots = {NATIVE: tree, WORMHOLE: mount.path}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if not many_descriptors() and bench.arguments.files >= limit - SOME_DESCRIPTORS:
            bench.note(f"{PEER} needs a descriptor for each file, and may have only {limit}: it does not run")
        else:
            try:
                roots[PEER] = enter(bench.passthrough_hp(user, tree))
            except (Unavailable, *FAILURES) as error:
                bench.note(f"{PEER}: {str(error).strip()}")
        try:
            roots[IDLE] = enter(bench.idle_fs(bench.arguments.files))
        except (Unavailable, *FAILURES) as error:
            bench.note(f"{IDLE}: {str(error).strip()}")
        origin.forget()
        table = bench.measure(*(Contestant(name, None, partial(walk, root)) for name, root in roots.items()), memory=0)
        assert (fetched := origin.file_bytes()) == 0, f"{fetched} bytes came from the server: the cache is not complete"
        compared = run("diff", "-r", tree, mount.path, timeout=PATIENCE)
        assert compared.code == 0, f"wrong bytes: {compared.output[-1000:]}"
        return table


def disk_usage(directory: Path) -> int:
    """Bytes, as du counts them. What goes while it looks is not there."""
    used = 0
    for folder, _, names in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                used += os.lstat(path).st_blocks * 512
            except FileNotFoundError:
                pass
    return used


@ROWS.row("cap", "cache-size=100M, 16 random readers of a file of 2 GiB for 60 s, once: every byte is compared",
          Goal("largest du of the cache directory, MiB", "<=", (CAP + REGION) / MIB, of(WORMHOLE, LARGEST)))
def cap(bench: Bench) -> Table:
    with bench.root() as user, bench.tree(file=bench.original(RANDOM_SIZE)) as tree, bench.origin(tree) as origin, \
            bench.wormhole(user, origin, cache_size=CAP) as mount:
        page_cache.warm("cat", tree / "file")
        reader = subprocess.Popen([bench.random_reader, mount / "file", tree / "file", "16",
                                   f"{bench.seconds(CAP_SECONDS)}", "1"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            said: list[str] = []
            listener = threading.Thread(target=lambda: said.extend(reader.communicate()))
            listener.start()
            largest = 0
            while listener.is_alive():
                largest = max(largest, disk_usage(mount.cache))
                time.sleep(0.05)
        finally:
            end(reader)
        assert reader.returncode == 0, f"random_reader: {said[1]}"
        got = json.loads(said[0])
        if not largest > CAP // 2:
            bench.note("the cache has not come near its limit: the readers were too slow")
        return Table({WORMHOLE: [{LARGEST: largest / MIB, READS: got["reads"] / got["seconds"],
                                  "p99, ms": got["all"]["p99_ms"]}]})


KNOWING, EMPTY = "wormhole, large index", "wormhole, empty cache"


def mount_milliseconds(bench: Bench, user: User, origin: Origin, cache: Path | None) -> float:
    """Of `wormhole mount`, until it is usable."""
    place = bench.directory("mount")
    mount = Mount(bench.arguments.wormhole, origin.url, place, cache=cache, log_level="info",
                  **dict(bench.arguments.option))
    try:
        seconds = exact_seconds(mount.wormhole, "mount", mount.url, mount.directory, "-o", mount.option_string())
        entries = len(os.listdir(mount.directory))
        assert entries == KNOWN_OBJECTS // KNOWN_IN_DIRECTORY, f"it shows {entries} directories"
        mount.pid = mount.status()["pid"]
        mount.down()
    finally:
        mount.remove()
        shutil.rmtree(place, ignore_errors=True)
    return seconds * 1000


@ROWS.row("mount-time", "wormhole mount, until it is usable, with a cache that knows 1 000 000 files",
          Goal("milliseconds", "<=", 200, of(KNOWING, MS)),
          Goal("milliseconds, page cache dropped", "<=", 200, of(KNOWING, DROPPED_MS)))
def mount_time(bench: Bench) -> Table:
    if not bench.arguments.fill_index.exists():
        raise Unavailable(f"{bench.arguments.fill_index} is not built: cmake --build --preset release --target "
                          "fill_index")
    with bench.root() as user, bench.tree() as tree:
        for i in range(KNOWN_OBJECTS // KNOWN_IN_DIRECTORY):
            (tree / str(i)).mkdir()
        with bench.origin(tree) as origin:
            cache = user.home / "known"
            print(f"fills an index with {KNOWN_OBJECTS} objects", file=sys.stderr)
            page_cache.warm(bench.arguments.fill_index, cache, origin.url, str(KNOWN_OBJECTS // KNOWN_IN_DIRECTORY),
                            str(KNOWN_IN_DIRECTORY))
            bench.note(f"the index has {(cache / 'index/data.mdb').stat().st_size / MIB:.0f} MiB")

            def figures(cache: Path | None) -> Figures:
                warm = mount_milliseconds(bench, user, origin, cache)
                page_cache.drop()
                return {MS: warm, DROPPED_MS: mount_milliseconds(bench, user, origin, cache)}

            return bench.measure(Contestant(KNOWING, None, partial(figures, cache)),
                                 Contestant(EMPTY, None, partial(figures, None)), memory=0)


# --- the program ----------------------------------------------------------------------------------------------


def versions(wormhole: Path) -> dict[str, str]:
    asked = {"wormhole": [wormhole, "--version"], "nginx": ["nginx", "-v"], "fio": ["fio", "--version"]}
    known = {name: run(*command).output.partition("\n")[0] for name, command in asked.items()
             if shutil.which(command[0])}
    stamp = DEPENDENCIES / "passthrough_hp.stamp"
    return {**known, **({"passthrough_hp": stamp.read_text().strip()} if stamp.exists() else {})}


def file_system(directory: Path) -> str:
    return run("findmnt", "--noheadings", "--output=FSTYPE", "--target", directory).output.strip()


def parse_arguments() -> argparse.Namespace:
    options = parser(__doc__.partition("\n\n")[0])
    options.add_argument("rows", nargs="*", metavar="ROW",
                         help="what to measure: a row, or a part of the names of several; all of them if none is named")
    options.add_argument("--list", action="store_true", help="name the rows and their goals")
    add_mount_options(options)
    options.add_argument("--files", type=int, default=100_000, help="in the row small-files")
    options.add_argument("--scale", type=float, default=1, help="of sizes and times: to try it out, not to measure")
    options.add_argument("--idle-fs", type=Path, default=PROJECT / "build/release/tools/bench/idle_fs",
                         help="the program that shows what FUSE itself costs (%(default)s)")
    options.add_argument("--fill-index", type=Path, default=PROJECT / "build/release/tools/bench/fill_index",
                         help="the program that makes a large index")
    arguments = options.parse_args()
    arguments.rows = chosen_rows(options, ROWS, arguments.rows)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        print_list(ROWS)
        return 0
    if os.geteuid() != 0:
        print("warm_path.py: must be root, to empty the page cache and to become an ordinary user", file=sys.stderr)
        return 1
    end_cleanly_on_signals()
    on = file_system(arguments.work)
    if on in ("tmpfs", "ramfs"):
        print(f"warm_path.py: {arguments.work} is a {on}, which cannot leave the page cache: name another --work",
              file=sys.stderr)
        return 1
    machine = print_machine(arguments, "warm", on)

    def make_bench(work: Path) -> Bench:
        work.chmod(0o755)  # the ordinary user goes through it
        return Bench(arguments, work)

    return measure_rows(arguments, ROWS, machine, make_bench, versions=versions(arguments.wormhole),
                        files=arguments.files, io_uring=uring_allowed())


if __name__ == "__main__":
    sys.exit(main())
