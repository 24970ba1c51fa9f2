"""Ways to read the same file: out of a mount of wormhole, out of other mounts, and by programs that download it. Each
gives its seconds; every copy is compared with the original and thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import mounted
from link import AT_FAR, AT_NEAR, FAR_ADDRESS
from support.mounting import Mount, is_mounted, wait_until
from support.origin import WebServer

# Longer than anything takes that gets on at all.
PATIENCE = 1200.0


class Progress:
    """How far a copy is, sampled while it is made."""

    def __init__(self, copy: Path):
        self._copy = copy
        self.samples: list[tuple[float, int]] = []  # seconds since its start, bytes

    @contextmanager
    def watch(self) -> Iterator[None]:
        over = threading.Event()
        began = time.monotonic()

        def sample() -> None:
            size = self._copy.stat().st_size if self._copy.exists() else 0
            self.samples.append((time.monotonic() - began, size))

        def watch() -> None:
            while not over.wait(0.005):
                sample()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            sample()

    def rate_from(self, second: float) -> float:
        """Bytes per second from then until the end; of all of it if it was over by then."""
        (end, size) = self.samples[-1]
        began, had = next(((t, s) for t, s in self.samples if second <= t < end), (0.0, 0))
        return (size - had) / (end - began)


def timed(*command: str | Path, stdout=None, progress: Progress | None = None) -> float:
    """Its seconds. What it says on standard error is in the exception when it fails."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        if progress is None:
            process = subprocess.run([*map(str, command)], stdout=stdout, stderr=said, timeout=PATIENCE)
        else:
            with progress.watch():
                process = subprocess.run([*map(str, command)], stdout=stdout, stderr=said, timeout=PATIENCE)
        seconds = time.monotonic() - began
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    assert process.returncode == 0, f"{Path(command[0]).name}: exit code {process.returncode}: {text[-1000:]}"
    return seconds


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used until now, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(copy: Path, original: Path) -> None:
    compared = subprocess.run(["cmp", copy, original], capture_output=True, text=True, timeout=PATIENCE)
    assert compared.returncode == 0, f"wrong bytes: {compared.stdout}{compared.stderr}"


def end(process: subprocess.Popen) -> None:
    """Whatever it does; by its number."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


# --- mounts of other programs -------------------------------------------------------------------------------


class Mounted(NamedTuple):
    path: Path
    pid: int  # of its daemon


@contextmanager
def foreign_mount(work: Path, *command: str | Path, owner: int | None = None) -> Iterator[Mounted]:
    """A mount of another program, which stays in the foreground; `{}` in the command is where to. `owner`: the user
    who mounts, if not the one who runs this."""
    directory = Path(tempfile.mkdtemp(prefix="mnt-", dir=work))
    if owner is not None:
        os.chown(directory, owner, -1)
    log = directory.with_suffix(".log")
    with open(log, "wb") as output:
        process = subprocess.Popen([str(word).replace("{}", str(directory)) for word in command],
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: is_mounted(directory) or process.poll() is not None, f"{command[0]} has mounted", 30)
        assert is_mounted(directory), f"it does not mount: {log.read_text(errors='replace')[-1000:]}"
        yield Mounted(directory, process.pid)
        assert process.poll() is None, f"it has ended: {log.read_text(errors='replace')[-1000:]}"
    finally:
        if is_mounted(directory):
            subprocess.run(["umount", "-l", directory], capture_output=True)
        end(process)


def rclone_tuning() -> tuple[str, ...]:
    """The most that this version has for one reader of a large file."""
    flags = subprocess.run(["rclone", "mount", "--help"], capture_output=True, text=True).stdout
    if "--vfs-read-chunk-streams" in flags:  # since 1.68
        return ("--vfs-read-chunk-streams", "16", "--vfs-read-chunk-size", "4M")
    # One stream; at least nobody waits between chunks, and the network does not wait for the reader.
    return ("--vfs-read-chunk-size", "1G", "--buffer-size", "256M", "--max-read-ahead", "1M")


# --- the wire itself ----------------------------------------------------------------------------------------


def iperf3(seconds: float, omit: float = 0, streams: int = 8) -> float:
    """Bytes per second of payload that arrive at the near end from the far end; `omit` seconds before do not count."""
    server = subprocess.Popen([*AT_FAR, "iperf3", "-s", "-1", "-B", FAR_ADDRESS, "--forceflush"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        while "listening" not in (line := server.stdout.readline()):
            assert line, "the server of iperf3 does not start"
        client = subprocess.run([*AT_NEAR, "iperf3", "-c", FAR_ADDRESS, "-R", "-P", str(streams), "-t",
                                 str(round(seconds)), "-O", str(round(omit)), "-J"],
                                capture_output=True, text=True, timeout=seconds + omit + 60)
        result = json.loads(client.stdout)
        assert "error" not in result, f"iperf3: {result['error']}"
        return result["end"]["sum_received"]["bits_per_second"] / 8
    finally:
        end(server)
        server.stdout.close()


# --- the race -----------------------------------------------------------------------------------------------


class Race:
    """One origin with one file, and the ways to read it."""

    def __init__(self, wormhole: Path, work: Path, origin: WebServer, options: dict, prefix: tuple[str, ...] = (),
                 name: str = "file"):
        """`prefix` is a command that runs the programs (nsenter, say)."""
        self.wormhole, self.work, self.origin, self.options, self.prefix = wormhole, work, origin, options, prefix
        self.name = name
        self.file = origin.tree / name
        self.url = origin.url + name
        self.copy = work / "copy"

    # --- mounts, cold each time ---

    @contextmanager
    def mount(self, **options) -> Iterator[Mount]:
        place = Path(tempfile.mkdtemp(prefix="run-", dir=self.work))
        mount = Mount(self.wormhole, self.origin.url, place, prefix=self.prefix,
                      **{"log_level": "info", **self.options, **options})
        try:
            with mounted(mount):
                yield mount
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def by_wormhole(self) -> Iterator[Mounted]:
        with self.mount() as mount:
            yield Mounted(mount.path, mount.pid)

    def by_rclone(self, tuned: bool = False) -> AbstractContextManager[Mounted]:
        return foreign_mount(self.work, *self.prefix, "rclone", "mount", ":http:", "{}", "--http-url", self.origin.url,
                             "--config", "", "--read-only", "--cache-dir", self.work / "rclone",
                             *(rclone_tuning() if tuned else ()))

    @contextmanager
    def by_httpdirfs(self) -> Iterator[Mounted]:
        cache = Path(tempfile.mkdtemp(prefix="httpdirfs-", dir=self.work))
        try:
            # Its check wants Accept-Ranges in answers to range requests, where nginx has no reason to say it.
            with foreign_mount(self.work, *self.prefix, "httpdirfs", "-f", "--no-range-check", "--cache",
                               "--cache-location", cache, self.origin.url, "{}") as mount:
                yield mount
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    # --- each gives its seconds ---

    def cat(self) -> float:
        with self.mount() as mount:
            seconds = timed("cat", mount / self.name, stdout=subprocess.DEVNULL)
            compare(mount / self.name, self.file)
        return seconds

    def cp(self, progress: Progress | None = None, **options) -> float:
        with self.mount(**options) as mount:
            return self._copied("cp", mount / self.name, self.copy, progress=progress)

    def cp_from_rclone(self, tuned: bool = False, progress: Progress | None = None) -> float:
        with self.by_rclone(tuned) as rclone:
            return self._copied("cp", rclone.path / self.name, self.copy, progress=progress)

    def curl(self, *options: str | Path, progress: Progress | None = None) -> float:
        return self._copied(*self.prefix, "curl", "-sSf", *options, "-o", self.copy, self.url, progress=progress)

    def aria2(self, connections: int = 16) -> float:
        return self._copied(*self.prefix, "aria2c", "-q", f"-x{connections}", f"-s{connections}", "-k1M",
                            "--file-allocation=none", "-d", self.copy.parent, "-o", self.copy.name, self.url)

    def get(self, connections: int) -> float:
        return self._copied(*self.prefix, self.wormhole, "get", "--no-progress", "-c", str(connections),
                            "-o", self.copy, self.url)

    def _copied(self, *command: str | Path, progress: Progress | None = None) -> float:
        try:
            seconds = timed(*command, progress=progress)
            compare(self.copy, self.file)
            return seconds
        finally:
            self.copy.unlink(missing_ok=True)
