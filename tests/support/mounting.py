"""A mount as the tests and benchmarks hold it, and what /proc says about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a command said. One text: what a person would see."""

    code: int
    output: str
    seconds: float


def run(*command: str | Path, timeout: float = 60, **popen) -> Result:
    """Runs a command to its end. Output goes through a file, so that a daemon that it leaves behind cannot keep us
    waiting by holding a pipe."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        files = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        process = subprocess.Popen([*map(str, command)], **(files | popen))
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise
        seconds = time.monotonic() - began
        output.seek(0)
        return Result(process.returncode, output.read().decode(errors="replace"), seconds)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout} s: {what}"
        time.sleep(0.02)


# --- /proc ---


def in_pages(*sizes: int) -> int:
    """What files of these sizes take of the cache: that is what bytes_cached counts."""
    return sum((size + 4095) // 4096 * 4096 for size in sizes)


def own_memory(pid: int) -> int:
    """Bytes that are neither files' nor given back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def has_sanitizers(program: Path) -> bool:
    """They have memory of their own."""
    code = program.read_bytes()
    return b"__asan_init" in code or b"__tsan_init" in code


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _unresolved(directory: Path) -> str:
    """The path as the mount table has it, found without looking at what may be a dead mount."""
    return os.path.join(os.path.realpath(directory.parent), directory.name)


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below `directory`, in the order of mounting."""
    root = _unresolved(directory)
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4].encode().decode("unicode_escape") for line in table]
    return [Path(point) for point in points if point == root or point.startswith(root + "/")]


def is_mounted(directory: Path) -> bool:
    return Path(_unresolved(directory)) in mounts_below(directory)


def daemons_of(directory: Path) -> list[int]:
    """Processes that have /dev/fuse open and name `directory`, or something below it, on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if str(directory) not in (entry / "cmdline").read_text(errors="replace"):
                continue
            if any(os.readlink(fd) == "/dev/fuse" for fd in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def locks_held_in(directory: Path) -> list[str]:
    """Files below `directory` that somebody holds a lock on."""
    held = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.replace("->", "").split()
        major, minor, inode = fields[5].split(":")
        held.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [str(path) for path in files if (path.stat().st_dev, path.stat().st_ino) in held]


def threads_stuck(pids: Iterable[int], seconds: float = 2) -> list[str]:
    """Threads of `pids` that are in D state now and stay in it, at the same place, for `seconds`."""

    def sleeping() -> dict[tuple[int, int], str]:
        found = {}
        for pid in pids:
            try:
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    fields = (thread / "stat").read_text().rpartition(")")[2].split()
                    # Times run and switches tell a thread that came back to the same place from one that stays.
                    if fields[0] == "D":
                        switches = [s for s in (thread / "status").read_text().splitlines() if "ctxt_switches" in s]
                        where = (thread / "wchan").read_text()
                        found[pid, int(thread.name)] = f"{where} {switches}"
            except OSError:
                continue  # ended meanwhile
        return found

    pids = list(pids)
    first = sleeping()
    end = time.monotonic() + seconds
    while first and time.monotonic() < end:
        time.sleep(0.1)
        now = sleeping()
        first = {thread: place for thread, place in first.items() if now.get(thread) == place}
    return [f"pid {pid} thread {thread} in {place}" for (pid, thread), place in first.items()]


def descendants(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        children = [child for child, of in parents.items() if of == parent]
        found += children
        queue += children
    return found


# --- the mount ---


class MountFailed(AssertionError):
    def __init__(self, result: Result):
        super().__init__(f"wormhole mount: exit code {result.code}: {result.output}")
        self.result = result


def _option_name(keyword: str) -> str:
    return keyword if keyword in ("allow_other", "_netdev") else keyword.replace("_", "-")


class Mount:
    """One `wormhole mount`, with its directories below `work`. Options: cache_size="1G", allow_other=True; a list for
    one that may be given several times."""

    def __init__(self, wormhole: Path, url: str, work: Path, *, cache: Path | None = None,
                 directory: Path | None = None, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None,
                 **options):
        self.wormhole, self.url = wormhole, url
        self.directory = directory or Path(tempfile.mkdtemp(prefix="mnt-", dir=work))
        self.cache = cache or Path(tempfile.mkdtemp(prefix="cache-", dir=work)) / "cache"
        self.log = work / f"{self.directory.name}.log"
        self.prefix = prefix
        self.env = env
        self.options = {"log": self.log, "log-level": "debug", "engines": os.environ.get("WORMHOLE_ENGINES"),
                        **{_option_name(k): v for k, v in options.items()}}
        self.pid: int | None = None

    @property
    def path(self) -> Path:
        return self.directory

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def option_string(self) -> str:
        options = {"cache": self.cache, **self.options}
        pairs = [(name, one) for name, value in options.items()
                 for one in (value if isinstance(value, list) else [value])]
        return ",".join(name if value is True else f"{name}={value}" for name, value in pairs
                        if value is not None and value is not False)

    def try_up(self, timeout: float = 60) -> Result:
        result = run(*self.prefix, self.wormhole, "mount", self.url, self.directory, "-o", self.option_string(),
                     timeout=timeout, env=self.env)
        if result.code == 0:
            self.pid = self.status()["pid"]
        return result

    def up(self, timeout: float = 60) -> Mount:
        result = self.try_up(timeout)
        if result.code != 0:
            raise MountFailed(result)
        return self

    def status(self) -> dict:
        """The entry of this mount in `wormhole status --json`."""
        # On standard error it names daemons that do not answer: other tests stop theirs.
        with tempfile.TemporaryFile() as errors:
            result = run(*self.prefix, self.wormhole, "status", self.directory, "--json", env=self.env, stderr=errors)
            errors.seek(0)
            assert result.code == 0, f"wormhole status: {errors.read().decode(errors='replace')}"
        mounts = json.loads(result.output)["mounts"]
        assert len(mounts) == 1, result.output
        return mounts[0]

    def down(self, timeout: float = 60) -> None:
        """`wormhole umount`, and everything it promises: the mount is away, the daemon has ended, the cache is free."""
        result = run(*self.prefix, self.wormhole, "umount", self.directory, timeout=timeout, env=self.env)
        assert result.code == 0, f"wormhole umount: {result.output}"
        self.assert_clean_end()

    def assert_clean_end(self) -> None:
        assert not is_mounted(self.directory), "still in the mount table"
        assert self.pid is None or not is_alive(self.pid), f"daemon {self.pid} is still there"
        assert not locks_held_in(self.cache), f"still locked: {locks_held_in(self.cache)}"
        self.pid = None

    def kill(self) -> None:
        """kill -9 of the daemon; then away with the dead mount."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(self.pid), "the killed daemon is gone")
        self.pid = None
        self.detach()

    def detach(self) -> None:
        # Not `umount -l` on a path that may be a dead mount: libmount looks at it first. umount2 does not.
        for point in reversed(mounts_below(self.directory)):
            if subprocess.run(["umount", "-l", str(point)], capture_output=True).returncode != 0:
                subprocess.run(["fusermount3", "-uz", str(point)], capture_output=True)

    def remove(self) -> None:
        """Whatever state it is in: no daemon, no mount."""
        pids = {*daemons_of(self.directory), *([self.pid] if self.pid and is_alive(self.pid) else [])}
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.detach()
        self.pid = None

    def is_up(self) -> bool:
        return is_mounted(self.directory)

    def log_tail(self, lines: int = 60) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"
