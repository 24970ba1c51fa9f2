#!/usr/bin/env python3
"""A large real tree through a mount, compared byte by byte: cold, after a remount, with the origin stopped, while it
fills, after kill -9. Prints what was done and measured; the exit code says whether all of it was right.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import GIB, MIB, mounted, parser, work_directory, write_json
from support import trees
from support.mounting import Mount, run, threads_stuck, wait_until
from support.origin import Origin


class Protocol:
    """One line for each thing that is proven."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def prove(self, what: str, proof: Callable[[], str]) -> None:
        began = time.monotonic()
        try:
            said, passed = proof(), True
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            said, passed = str(error), False
        seconds = time.monotonic() - began
        self.rows.append({"what": what, "passed": passed, "said": said, "seconds": seconds})
        print(f"{'ok  ' if passed else 'FAIL'} {what}: {said} ({seconds:.1f} s)", flush=True)

    @property
    def passed(self) -> bool:
        return all(row["passed"] for row in self.rows)


def build_tree(tree: Path, large: int) -> str:
    count = 0
    for sources, files in ((("/usr/share/doc",), 3000), (("/usr/include",), 2500), (("/usr/bin", "/usr/sbin"), 400),
                           (("/usr/lib",), 1500)):
        count += trees.copy_real_tree(tree / sources[0].replace("/", "_"), files=files, bytes_at_most=200 * MIB,
                                      sources=sources)
    count += trees.write_odd_names(tree / "odd names & more")
    trees.write_real_file(tree / "large", large)
    assert count >= 5000, f"only {count} files: this machine has too few"
    return f"{count} files and one of {large / GIB:g} GiB"


def same(origin: Origin, mount: Mount) -> str:
    compared = run("diff", "-r", origin.tree, mount.path, timeout=1200)
    assert (compared.code, compared.output) == (0, ""), compared.output[:2000]
    return "diff -r says nothing"


def same_without_network(origin: Origin, mount: Mount) -> str:
    origin.forget()
    said = same(origin, mount)
    fetched = origin.file_bytes()
    assert fetched == 0, f"{fetched} bytes of bodies crossed the wire"
    return f"{said}, no body byte crossed the wire"


def random_readers(file: Path, truth: Path, mount: Mount, seconds: float, readers: int = 16) -> str:
    size = truth.stat().st_size
    wrong: list[str] = []
    reads = [0] * readers
    slowest = [0.0] * readers
    over = threading.Event()

    def reader(number: int) -> None:
        chance = random.Random(number)
        seen, real = os.open(file, os.O_RDONLY), os.open(truth, os.O_RDONLY)
        try:
            while not over.is_set() and not wrong:
                offset, length = chance.randrange(size), chance.choice([1, 4096, 10_000, 65_536, 300_000])
                began = time.monotonic()
                got = os.pread(seen, length, offset)
                slowest[number] = max(slowest[number], time.monotonic() - began)
                if got != os.pread(real, length, offset):
                    wrong.append(f"reader {number}: {length} bytes at {offset}")
                reads[number] += 1
        except OSError as error:
            wrong.append(f"reader {number}: {error}")
        finally:
            os.close(seen)
            os.close(real)

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(readers)]
    for thread in threads:
        thread.start()
    cached_at_first = mount.status()["bytes_cached"]
    over.wait(seconds)
    stuck = threads_stuck([os.getpid(), mount.pid], seconds=1)
    over.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a reader does not come back"
    assert not wrong, "; ".join(wrong)
    assert not stuck, f"in D state: {stuck}"
    assert min(reads) > 0, f"a reader read nothing: {reads}"
    status = mount.status()
    return (f"{sum(reads)} reads in {seconds:g} s by {readers} readers, all right, the slowest "
            f"{max(slowest) * 1000:.0f} ms; cached {cached_at_first / MIB:.0f} -> {status['bytes_cached'] / MIB:.0f} MiB "
            f"of {size / MIB:.0f}")


def killed_while_filling(file: Path, truth: Path, mount: Mount) -> str:
    filling = subprocess.Popen(["cat", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    size = truth.stat().st_size
    wait_until(lambda: mount.status()["body_bytes_received"] > size / 4, "a quarter is there", 600)
    mount.kill()
    ended = filling.wait(30)
    mount.up()
    kept = mount.status()["bytes_cached"]
    compared = run("cmp", file, truth, timeout=600)
    assert (compared.code, compared.output) == (0, ""), compared.output
    reader = "the reader got an error" if ended != 0 else "the reader had finished"
    return f"{reader}, {kept / MIB:.0f} MiB were kept, every byte is right"


def main() -> int:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--large", type=float, default=2, help="GiB of the large file")
    options.add_argument("--seconds", type=float, default=30, help="of random reads")
    arguments = options.parse_args()
    protocol = Protocol()

    with work_directory(arguments.work) as work:
        tree = work / "tree"
        protocol.prove("a tree of real files", lambda: build_tree(tree, int(arguments.large * GIB)))
        with Origin(tree, work / "origin") as origin:
            with mounted(Mount(arguments.wormhole, origin.url, work, log_level="info", cache_size="20G")) as mount:
                protocol.prove("cold", lambda: same(origin, mount))
                mount.down()
                mount.up()
                protocol.prove("after a remount", lambda: same_without_network(origin, mount))
                mount.down()
                origin.stop()
                mount.up()
                protocol.prove("with the origin stopped", lambda: same(origin, mount))
            origin.start()
            with mounted(Mount(arguments.wormhole, origin.url, work, log_level="info")) as mount:
                protocol.prove("random readers while it fills", lambda: random_readers(
                    mount / "large", tree / "large", mount, arguments.seconds))
            with mounted(Mount(arguments.wormhole, origin.url, work, log_level="info")) as mount:
                protocol.prove("kill -9 while it fills", lambda: killed_while_filling(
                    mount / "large", tree / "large", mount))
    write_json(arguments.json, {"rows": protocol.rows, "passed": protocol.passed})
    return 0 if protocol.passed else 1


if __name__ == "__main__":
    sys.exit(main())
