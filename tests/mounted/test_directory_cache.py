"""The kernel keeps a directory's listing as long as it is unchanged, and not longer."""

import ctypes
import os
import threading
import time

import pytest
from support.mounting import wait_until

SYS_CACHESTAT = 451  # since Linux 6.5


def kept_pages(fd: int) -> int:
    """Pages of an open directory's listing that the kernel has."""
    everything = (ctypes.c_uint64 * 2)(0, 0)
    found = (ctypes.c_uint64 * 5)()
    if ctypes.CDLL(None, use_errno=True).syscall(SYS_CACHESTAT, fd, everything, found, 0) != 0:
        pytest.skip("this kernel does not tell what it keeps")
    return found[0]


def fill(directory, names) -> set[str]:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_bytes(name.encode())
    return set(os.listdir(directory))


def test_an_unchanged_listing_is_kept(origin, mount):
    names = fill(origin.tree / "d", (f"a file with number {i:04}" for i in range(1000)))
    mounted = mount(origin.url)
    assert set(os.listdir(mounted / "d")) == names
    fd = os.open(mounted / "d", os.O_RDONLY | os.O_DIRECTORY)
    pages = kept_pages(fd)
    assert pages > 5
    assert set(os.listdir(mounted / "d")) == names
    assert {entry.name: entry.inode() for entry in os.scandir(mounted / "d")} == {
        name: (mounted / "d" / name).stat().st_ino for name in names}
    assert kept_pages(fd) == pages
    os.close(fd)


def test_a_changed_listing_is_never_taken_from_the_kernel(origin, mount):
    fill(origin.tree / "d", (f"file {i:04}" for i in range(500)))
    mounted = mount(origin.url, ttl=0)
    for i in range(30):
        if i % 3 == 2:
            (origin.tree / "d" / f"file {i:04}").unlink()
        else:
            fill(origin.tree / "d", (f"new {i} {j}" for j in range(i * 7)))
        served = set(os.listdir(origin.tree / "d"))
        assert set(os.listdir(mounted / "d")) == served
        assert set(os.listdir(mounted / "d")) == served


def test_when_the_time_to_live_is_over_the_new_listing_is_shown(origin, mount):
    fill(origin.tree / "d", (f"file {i:04}" for i in range(100)))
    mounted = mount(origin.url, ttl=2)
    before = set(os.listdir(mounted / "d"))
    (origin.tree / "d" / "another").write_text("new")
    assert set(os.listdir(mounted / "d")) == before, "it is believed for so long"
    time.sleep(2.5)
    assert set(os.listdir(mounted / "d")) == before | {"another"}
    assert set(os.listdir(mounted / "d")) == before | {"another"}


def test_who_reads_an_old_listing_reads_it_to_its_end_and_spoils_no_other(origin, mount):
    old = fill(origin.tree / "d", (f"file {i:05}" for i in range(3000)))
    mounted = mount(origin.url, ttl=1)
    readers = [os.scandir(mounted / "d") for _ in range(2)]
    begun = [[next(reader).name for _ in range(10)] for reader in readers]
    for i in range(0, 3000, 2):
        (origin.tree / "d" / f"file {i:05}").unlink()
    time.sleep(1.5)
    new = set(os.listdir(origin.tree / "d"))
    assert set(os.listdir(mounted / "d")) == new
    assert set(begun[0]) | {entry.name for entry in readers[0]} == old
    assert set(os.listdir(mounted / "d")) == new
    assert set(begun[1]) | {entry.name for entry in readers[1]} == old
    for reader in readers:
        reader.close()
    assert set(os.listdir(mounted / "d")) == new
    assert set(os.listdir(mounted / "d")) == new


def test_many_readers_while_it_changes(origin, mount):
    directory = origin.tree / "d"
    fill(directory, (f"{i:04} generation 0" for i in range(400)))
    mounted = mount(origin.url, ttl=0)
    wrong: list[str] = []
    through = threading.Event()

    def reads() -> None:
        while not through.is_set():
            try:
                numbers = sorted(name[:4] for name in os.listdir(mounted / "d"))
            except FileNotFoundError:  # between the two renames
                continue
            if numbers != [f"{i:04}" for i in range(400)]:
                wrong.append(f"{len(numbers)} entries")

    # Renamed by one rename of the whole directory: each listing is of one generation.
    readers = [threading.Thread(target=reads) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for generation in range(1, 15):
            fill(origin.tree / ".next", (f"{i:04} generation {generation}" for i in range(400)))
            directory.rename(origin.tree / f".old-{generation}")
            (origin.tree / ".next").rename(directory)
            time.sleep(0.1)
    finally:
        through.set()
        for reader in readers:
            reader.join()
    assert not wrong, "a mixture of two"

    def shows_the_last() -> bool:
        try:
            return set(os.listdir(mounted / "d")) == set(os.listdir(directory))
        except FileNotFoundError:  # a listing that was under way between the two renames
            return False

    wait_until(shows_the_last, "the last one is shown")
