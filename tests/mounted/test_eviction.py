"""A cache that is full makes room, and never exceeds what it may have."""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import wait_until

MIB = 1 << 20
REGION = 4 * MIB
CAP = 24 * MIB


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(96 * MIB + 777)


def disk_bytes(mounted) -> int:
    """What the files of the cache take on the disk."""
    sum_of_all = 0
    for file in (Path(mounted.cache) / "objects").rglob("*"):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        sum_of_all += status.st_blocks * 512 if file.is_file() else 0
    return sum_of_all


def test_many_readers_of_a_file_larger_than_the_cache(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, cache_size="24M")
    errors, most = [], 0
    end = time.monotonic() + 8

    def read_here_and_there(seed: int) -> None:
        chance = random.Random(seed)
        try:
            fd = os.open(mounted / "file", os.O_RDONLY)
            while time.monotonic() < end:
                size = chance.choice([1, 4096, 65536, 300_000])
                offset = chance.randrange(len(content) - size)
                assert os.pread(fd, size, offset) == content[offset : offset + size]
            os.close(fd)
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read_here_and_there, args=(i,)) for i in range(8)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        most = max(most, disk_bytes(mounted))
        time.sleep(0.02)
    assert errors == []
    assert most <= CAP + REGION
    assert most > CAP // 2
    assert mounted.status()["bytes_evicted"] > 0


def test_what_is_left_is_right_and_read_without_the_server(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, cache_size="24M")
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_evicted"] > 0, "something was evicted")
    mounted.down()
    origin.stop()
    mounted.options["offline"] = "on"
    mounted.up()
    right = 0
    with open(mounted / "file", "rb", buffering=0) as file:
        for offset in range(0, len(content), 65536):
            try:
                assert os.pread(file.fileno(), 65536, offset) == content[offset : offset + 65536]
                right += 65536
            except OSError:
                pass
    assert CAP // 2 < right <= CAP + REGION


def test_small_files_go_with_their_files(origin, mount):
    for i in range(300):
        (origin.tree / f"{i:03}").write_bytes(trees.real_bytes(60_000 + i))
    mounted = mount(origin.url, cache_size="6M")
    for i in range(300):
        assert (mounted / f"{i:03}").read_bytes() == trees.real_bytes(60_000 + i)
    wait_until(lambda: disk_bytes(mounted) <= 6 * MIB, "the cache is as small as it should be")
    files = sum(file.is_file() for file in (Path(mounted.cache) / "objects").rglob("*"))
    assert files <= 6 * MIB // 60_000 + 20
    for i in range(0, 300, 7):
        assert (mounted / f"{i:03}").read_bytes() == trees.real_bytes(60_000 + i)


def test_a_smaller_cache_is_reached_at_the_next_mount(origin, mount, content):
    (origin.tree / "file").write_bytes(content[: 20 * MIB])
    mounted = mount(origin.url, cache_size="24M")
    assert (mounted / "file").read_bytes() == content[: 20 * MIB]
    mounted.down()
    mounted.options["cache-size"] = "8M"
    mounted.up()
    wait_until(lambda: disk_bytes(mounted) <= 8 * MIB, "the cache is as small as it should be")
    assert (mounted / "file").read_bytes() == content[: 20 * MIB]


def test_a_file_that_the_kernel_serves_stays(origin, mount, content):
    (origin.tree / "held").write_bytes(content[: 8 * MIB])
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, cache_size="24M")
    assert (mounted / "held").read_bytes() == content[: 8 * MIB]
    wait_until(lambda: mounted.status()["bytes_cached"] >= 8 * MIB, "it is stored")
    with open(mounted / "held", "rb") as held:
        status = mounted.status()
        if status["opens_passed_through"] == 0 and status["passthrough"] != "on":
            pytest.skip(status["passthrough"])
        assert status["opens_passed_through"] == 1
        for _ in range(2):
            assert (mounted / "file").read_bytes() == content
        origin.stop()
        assert held.read() == content[: 8 * MIB]


def test_many_readers_of_many_files_by_several_engines(origin, mount, content):
    files = {f"{i:02}": content[i * 8 * MIB : (i + 1) * 8 * MIB - i] for i in range(12)}
    for name, bytes_of in files.items():
        (origin.tree / name).write_bytes(bytes_of)
    mounted = mount(origin.url, cache_size="24M", engines=3, passthrough="off")
    errors, most = [], 0
    end = time.monotonic() + 8

    def read_here_and_there(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < end:
                name, bytes_of = chance.choice(list(files.items()))
                with open(mounted / name, "rb", buffering=0) as file:
                    for _ in range(chance.choice([1, 20])):
                        size = chance.choice([1, 4096, 65536, 300_000])
                        offset = chance.randrange(len(bytes_of) - size)
                        assert os.pread(file.fileno(), size, offset) == bytes_of[offset : offset + size]
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read_here_and_there, args=(i,)) for i in range(16)]
    for reader in readers:
        reader.start()
    while any(reader.is_alive() for reader in readers):
        most = max(most, disk_bytes(mounted))
        time.sleep(0.02)
    assert errors == []
    assert most <= CAP + REGION
    assert most > CAP // 2
    assert mounted.status()["bytes_evicted"] > 0
    mounted.down()
    mounted.up()
    for name, bytes_of in files.items():
        assert (mounted / name).read_bytes() == bytes_of
