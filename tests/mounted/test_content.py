"""Content that is known by its hash: the same under two names is fetched and stored once, and a new version of a file
brings only what has changed."""

import mmap
import os
import random
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import in_pages, run, wait_until

BLOCK = 64 * 1024
MIB = 1 << 20


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(16 * MIB + 777)


def change(data: bytes, blocks: list[int], seed: int = 1) -> bytes:
    """A byte of each of these blocks is another."""
    chance, out = random.Random(seed), bytearray(data)
    for block in blocks:
        out[min(block * BLOCK + chance.randrange(BLOCK), len(data) - 1)] ^= 1 + chance.randrange(255)
    return bytes(out)


def objects(mounted) -> list[Path]:
    """The files of objects that have bytes on the disk."""
    return [p for p in (mounted.cache / "objects").rglob("*") if p.is_file() and p.stat().st_blocks > 0]


def cached_bytes(mounted) -> int:
    """What is recorded of it."""
    last = -1
    while last != (last := mounted.status()["bytes_cached"]):
        time.sleep(0.4)  # twice what a commit waits
    return last


class Versions:
    """A file `name` of a served tree, and its versions as the mount sees them."""

    def __init__(self, origin, index, mount, name: str = "file", **options):
        self.origin, self.index, self.name = origin, index, name
        # Nothing is asked for a second time: a slow machine would be in the counts.
        self.mount, self.options, self.mounted = mount, {"hedge": "off", **options}, None

    def put(self, data: bytes) -> None:
        path = self.origin.tree / self.name
        path.write_bytes(data)
        self.index(self.origin.tree)
        if self.mounted is None:
            self.mounted = self.mount(self.origin.url, ttl=1, **self.options)
            return
        time_ns = path.stat().st_mtime_ns
        wait_until(lambda: (self.mounted / self.name).stat().st_mtime_ns == time_ns, "the new version is seen")

    def read(self) -> bytes:
        return (self.mounted / self.name).read_bytes()

    def read_counting(self) -> tuple[bytes, int]:
        """And how many bytes of the file came from the server."""
        self.origin.forget()
        data = self.read()
        return data, self.origin.body_bytes("/" + self.name)


@pytest.fixture
def versions(origin, index, mount) -> Versions:
    return Versions(origin, index, mount)


# --- two names ---


def test_one_content_under_two_names_is_fetched_and_stored_once(origin, index, mount, content):
    (origin.tree / "sub").mkdir()
    for name in ("a", "sub/b"):
        (origin.tree / name).write_bytes(content)
    for name in ("small-a", "sub/small-b"):
        (origin.tree / name).write_bytes(content[:5000])
    index(origin.tree)
    mounted = mount(origin.url)
    assert (mounted / "a").read_bytes() == content
    assert (mounted / "small-a").read_bytes() == content[:5000]
    origin.forget()
    assert (mounted / "sub" / "b").read_bytes() == content
    assert (mounted / "sub" / "small-b").read_bytes() == content[:5000]
    assert origin.body_bytes("/sub/b") + origin.body_bytes("/a") == 0
    assert (mounted / "a").stat().st_ino != (mounted / "sub" / "b").stat().st_ino
    assert cached_bytes(mounted) == in_pages(len(content), 5000)
    # And after a remount, without the server.
    mounted.down()
    origin.stop()
    mounted.up()
    for name in ("sub/b", "a"):
        assert (mounted / name).read_bytes() == content


def test_two_names_at_once_are_one_fetch(origin, index, mount, content):
    names = [f"copy-{i}" for i in range(4)]
    for name in names:
        (origin.tree / name).write_bytes(content)
    index(origin.tree)
    mounted = mount(origin.url)
    read = {}
    threads = [threading.Thread(target=lambda n=n: read.update({n: (mounted / n).read_bytes()})) for n in names]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(read[n] == content for n in names)
    sent = sum(origin.body_bytes("/" + n) for n in names)
    assert sent < 1.1 * len(content) + MIB, "what is hedged, and no more"
    assert cached_bytes(mounted) == in_pages(len(content))


def test_two_names_are_open_at_once(origin, index, mount, content):
    for name in ("a", "b"):
        (origin.tree / name).write_bytes(content)
    index(origin.tree)
    mounted = mount(origin.url)
    assert (mounted / "a").read_bytes() == content
    # All of it is there: where the kernel may, it reads both itself, from one file.
    with open(mounted / "a", "rb") as a, open(mounted / "b", "rb") as b:
        with mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ) as in_a, mmap.mmap(b.fileno(), 0, prot=mmap.PROT_READ) as in_b:
            assert in_a[5 * MIB : 6 * MIB] == in_b[5 * MIB : 6 * MIB] == content[5 * MIB : 6 * MIB]
        assert a.read(1000) == b.read(1000) == content[:1000]
        a.close()
        assert b.read(1000) == content[1000:2000]
        with open(mounted / "a", "rb") as again:
            assert again.read() == content
    mounted.down()


def test_a_file_that_was_renamed_is_not_fetched_again(versions, content):
    versions.put(content)
    assert versions.read() == content
    tree = versions.origin.tree
    os.rename(tree / "file", tree / "renamed")
    versions.index(tree)
    renamed = versions.mounted / "renamed"
    wait_until(renamed.exists, "the new name is seen")
    versions.origin.forget()
    assert renamed.read_bytes() == content
    assert versions.origin.body_bytes("/renamed") < len(content) / 2, "its bytes were there"


def test_what_one_name_has_lost_the_other_has(origin, index, mount, content):
    for name in ("a", "b"):
        (origin.tree / name).write_bytes(content)
    index(origin.tree)
    mounted = mount(origin.url)
    with open(mounted / "a", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 0) == content[:100]
    os.unlink(origin.tree / "a")
    assert (mounted / "b").read_bytes() == content


def test_pins_and_evictions_are_of_the_bytes(origin, index, mount, content):
    for name in ("a", "b"):
        (origin.tree / name).write_bytes(content)
    index(origin.tree)
    mounted = mount(origin.url)
    assert run(mounted.wormhole, "pin", mounted / "b").code == 0
    for name in ("a", "b"):
        assert (mounted / name).read_bytes() == content
    before = cached_bytes(mounted)
    assert run(mounted.wormhole, "evict", mounted / "a").code != 0, "b has the same bytes, and is pinned"
    assert cached_bytes(mounted) == before
    assert run(mounted.wormhole, "unpin", mounted / "b").code == 0
    assert run(mounted.wormhole, "evict", mounted / "b").code == 0
    assert cached_bytes(mounted) == 0
    assert (mounted / "a").read_bytes() == content


# --- two versions ---


def test_a_new_version_brings_what_has_changed(versions, content):
    changed = random.Random(3).sample(range(len(content) // BLOCK), 8)  # 3 % of 256
    versions.put(content)
    assert versions.read() == content
    new = change(content, changed)
    versions.put(new)
    read, sent = versions.read_counting()
    assert read == new
    assert sent <= 8 * BLOCK * 1.3, f"{sent} bytes for 8 blocks"
    assert versions.mounted.status()["blocks_inherited"] >= len(content) // BLOCK - 8
    # It is in the cache like any other.
    versions.origin.stop()
    versions.mounted.down()
    versions.mounted.up()
    assert versions.read() == new


def test_a_longer_and_a_shorter_version(versions, content):
    versions.put(content[: 5 * MIB + 100])
    assert versions.read() == content[: 5 * MIB + 100]
    versions.put(content[: 6 * MIB])
    read, sent = versions.read_counting()
    assert read == content[: 6 * MIB]
    assert sent <= MIB + 4 * BLOCK
    versions.put(content[: 2 * MIB + 1])
    read, sent = versions.read_counting()
    assert read == content[: 2 * MIB + 1]
    assert sent <= 4 * BLOCK


def test_random_readers_of_a_new_version(versions, content):
    versions.put(content)
    assert versions.read() == content
    new = change(content, list(range(0, 256, 17)))
    versions.put(new)
    chance = random.Random(5)
    with open(versions.mounted / "file", "rb", buffering=0) as file:
        for _ in range(200):
            at = chance.randrange(len(new))
            assert os.pread(file.fileno(), 5000, at) == new[at : at + 5000]


def test_half_of_the_old_version_helps_half(versions, content):
    versions.put(content)
    with open(versions.mounted / "file", "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, 8 * MIB, BLOCK):
            assert os.pread(file.fileno(), BLOCK, at) == content[at : at + BLOCK]
    new = change(content, [3, 200])
    versions.put(new)
    read, _ = versions.read_counting()
    assert read == new
    assert versions.mounted.status()["blocks_inherited"] >= 120


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone", "another"])
def test_an_old_version_that_is_damaged_does_no_harm(versions, content, harm):
    versions.put(content)
    assert versions.read() == content
    # Its file, behind the daemon's back.
    [old] = objects(versions.mounted)
    if harm == "flipped":
        with open(old, "r+b") as file:
            for at in range(5, len(content), 3 * BLOCK):
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 0x55]))
    elif harm == "cut":
        os.truncate(old, 5 * MIB + 3)
    elif harm == "gone":
        os.unlink(old)
    else:
        with open(old, "r+b") as file:
            file.write(os.urandom(len(content)))
    new = change(content, [1, 100])
    versions.put(new)
    assert versions.read() == new


def test_a_version_that_nobody_has_read_hands_on_the_one_before(versions, content):
    versions.put(content)
    assert versions.read() == content
    versions.put(change(content, [7]))
    versions.put(change(content, [7, 9], seed=2))
    newest = change(content, [7, 9, 11], seed=3)
    versions.put(newest)
    read, sent = versions.read_counting()
    assert read == newest
    assert sent <= 6 * BLOCK


def test_old_versions_go(versions, content):
    for i in range(5):
        data = change(content, [i])
        versions.put(data)
        assert versions.read() == data
    # This one, and the one before it.
    wait_until(lambda: len(objects(versions.mounted)) <= 2, "superseded versions are dropped")
    os.unlink(versions.origin.tree / "file")
    (versions.origin.tree / "other").write_bytes(b"x")
    versions.index(versions.origin.tree)
    wait_until(lambda: "file" not in os.listdir(versions.mounted.path), "the file is gone")
    wait_until(lambda: not objects(versions.mounted), "its bytes are dropped")


def test_an_open_handle_keeps_its_version(versions, content):
    versions.put(content)
    with open(versions.mounted / "file", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == content[:1000]
        new = change(content, list(range(256)))
        versions.put(new)
        assert versions.read() == new
        try:
            assert os.pread(file.fileno(), 1000, 0) == content[:1000]
        except OSError as e:  # what of it was not read is not there any more
            assert e.errno in (5, 116)


def test_the_same_bytes_take_their_place_once(origin, index, mount, content, file_system):
    disk = file_system("xfs", 400 * MIB)
    versions = Versions(origin, index, mount, cache=disk / "cache")
    versions.put(content)
    assert versions.read() == content
    time.sleep(0.5)
    os.sync()
    before = os.statvfs(disk)
    new = change(content, [5, 50])
    versions.put(new)
    assert versions.read() == new
    wait_until(lambda: versions.mounted.status()["bytes_shared"] >= 250 * BLOCK, "the file system shares them")
    os.sync()
    after = os.statvfs(disk)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize < 4 * MIB
    versions.mounted.down()
    versions.mounted.up()
    assert versions.read() == new
    versions.mounted.down()
