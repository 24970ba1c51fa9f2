"""A directory of 100 000 entries, by a listing and by a manifest: all are there, each can be looked at, and the daemon
stays small."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from support.mounting import has_sanitizers, own_memory, run

COUNT = 100_000
LONG_AGO = 1_600_000_000

# What the daemon may have of memory of its own. Before the first listing it has 5 MiB; a listing of 100 000 entries is
# 8 MiB of JSON or 20 MiB of HTML as text, some 25 MiB as a snapshot, 10 MiB as a record of the index, and some of these
# are there at the same time; the kernel knows 100 000 inodes, of 110 bytes each.
MOST_MIB = 128


def size_of(i: int) -> int:
    return 1 if i % 1000 == 0 else 0


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("large") / "tree" / "many"
    directory.mkdir(parents=True)
    for i in range(COUNT):
        with open(directory / f"entry-{i:06}.dat", "wb") as file:
            file.write(b"x" * size_of(i))
    os.utime(directory / "entry-000042.dat", (LONG_AGO, LONG_AGO))
    return directory.parent


@pytest.mark.parametrize("kind", ["json", "html", "manifest"])
def test_a_directory_of_100000_entries(large_tree, wormhole, work, make_origin, mount, kind):
    directives = "autoindex_format json;" if kind == "json" else ""
    origin = make_origin(large_tree, directives=directives)
    if kind == "manifest":
        done = run(wormhole, "index", large_tree, "--output", work / "manifest", "--quiet")
        assert done.code == 0, done.output
        origin.stop()
        origin = make_origin(large_tree, directives=f"location /.wormhole/ {{ alias {work / 'manifest'}/; }}")
    mounted = mount(origin.url, listing=kind, log_level="info")
    many = mounted / "many"
    names = subprocess.run(["ls", "-f", many], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert sorted(names) == [".", "..", *(f"entry-{i:06}.dat" for i in range(COUNT))]
    for i in [0, 42, COUNT - 1, *random.Random(1).sample(range(COUNT), 100)]:
        assert (many / f"entry-{i:06}.dat").stat().st_size == size_of(i)
    assert abs((many / "entry-000042.dat").stat().st_mtime - LONG_AGO) < 60
    assert not (many / f"entry-{COUNT:06}.dat").exists()
    assert (many / "entry-001000.dat").read_bytes() == b"x"
    found = subprocess.run(["find", many, "-type", "f", "-size", "-1", "-printf", "x"], capture_output=True, check=True,
                           timeout=60).stdout
    assert len(found) == sum(size_of(i) == 0 for i in range(COUNT))
    if not has_sanitizers(wormhole):
        assert own_memory(mounted.pid) <= MOST_MIB * (1 << 20)
    # The names came with one request, and nothing was asked about one by one.
    assert len(origin.requests()) < 40
    assert mounted.status()["listings_fetched"] <= 2
