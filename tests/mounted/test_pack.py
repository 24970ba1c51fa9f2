"""Small files share one file of the cache, the pack: what is in it survives what object files survive."""

import os
import random
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import in_pages, run, wait_until

PAGE = 4096
SLAB = 64 << 20
FILES = 600


@pytest.fixture(scope="module")
def small() -> dict[str, bytes]:
    """Of every size from one byte to a block, and one that is too large."""
    chance = random.Random(1)
    sizes = [1, PAGE, PAGE + 1, 65535, 65536] + [chance.randrange(1, 40_000) for _ in range(FILES - 5)]
    everything = trees.real_bytes(sum(sizes))
    out, at = {}, 0
    for number, size in enumerate(sizes):
        out[f"{number % 7}/{number}"] = everything[at : at + size]
        at += size
    return out


@pytest.fixture
def served(origin, small):
    for name, content in small.items():
        (origin.tree / name).parent.mkdir(exist_ok=True)
        (origin.tree / name).write_bytes(content)
    return origin


def all_is_right(mounted, small: dict[str, bytes]) -> None:
    for name, content in small.items():
        assert (mounted / name).read_bytes() == content, name


def pack_of(mounted) -> Path:
    return Path(mounted.cache) / "objects/pack"


def taken(mounted) -> int:
    return pack_of(mounted).stat().st_blocks * 512


def wait_until_stored(mounted, small) -> None:
    wait_until(lambda: mounted.status()["bytes_cached"] >= in_pages(*map(len, small.values())), "all is stored")


def flip_bits(path: Path, chance: random.Random, count: int) -> None:
    """Where there is something."""
    with open(path, "r+b") as file:
        end = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        for _ in range(count):
            offset = chance.randrange(end)
            byte = os.pread(file.fileno(), 1, offset)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << chance.randrange(8)]), offset)


def test_small_files_are_one_file_and_there_without_the_server(served, mount, small):
    mounted = mount(served.url)
    all_is_right(mounted, small)
    wait_until_stored(mounted, small)
    files = [p for p in (Path(mounted.cache) / "objects").rglob("*") if p.is_file()]
    assert files == [pack_of(mounted)]
    assert pack_of(mounted).stat().st_size == SLAB
    assert taken(mounted) <= in_pages(*map(len, small.values())) * 1.05 + 64 * 1024
    mounted.down()
    served.stop()
    mounted.up()
    all_is_right(mounted, small)
    assert mounted.status()["body_bytes_received"] == 0
    assert mounted.status()["blocks_corrupt"] == 0


def test_killed_while_they_are_stored(served, mount, small):
    mounted = mount(served.url)
    for seed in range(6):
        chance = random.Random(seed)
        names = list(small)
        chance.shuffle(names)
        wrong: list[str] = []
        killed = threading.Event()

        def read(part: list[str]) -> None:
            for name in part:
                try:
                    if (mounted / name).read_bytes() != small[name] and not killed.is_set():
                        wrong.append(name)
                except OSError as error:
                    if not killed.is_set():
                        wrong.append(f"{name}: {error}")
                    return

        readers = [threading.Thread(target=read, args=(names[i::8],), daemon=True) for i in range(8)]
        for reader in readers:
            reader.start()
        time.sleep(chance.uniform(0.05, 0.6))
        killed.set()
        mounted.kill()
        for reader in readers:
            reader.join(30)
        assert not any(reader.is_alive() for reader in readers) and wrong == []
        mounted.up()
    all_is_right(mounted, small)
    assert mounted.status()["blocks_corrupt"] == 0
    wait_until_stored(mounted, small)
    wait_until(lambda: taken(mounted) <= in_pages(*map(len, small.values())) * 1.05 + 64 * 1024, "what kills have left is freed", 20)


def test_flipped_bits_are_found_after_a_kill(served, mount, small):
    mounted = mount(served.url)
    all_is_right(mounted, small)
    wait_until_stored(mounted, small)
    found = 0
    for seed in range(4):
        mounted.kill()
        flip_bits(pack_of(mounted), random.Random(seed), 40)
        mounted.up()
        all_is_right(mounted, small)
        found += mounted.status()["blocks_corrupt"]
        wait_until_stored(mounted, small)
    assert found > 40


@pytest.mark.parametrize("harm", ["deleted", "cut", "zeroed", "replaced"])
def test_a_pack_that_is_not_what_it_was(served, mount, small, harm):
    mounted = mount(served.url)
    all_is_right(mounted, small)
    wait_until_stored(mounted, small)
    mounted.down()
    pack = pack_of(mounted)
    if harm == "deleted":
        pack.unlink()
    elif harm == "cut":
        os.truncate(pack, in_pages(*map(len, small.values())) // 2)
    elif harm == "zeroed":
        os.truncate(pack, 0)
    else:
        pack.unlink()
        pack.write_bytes(random.Random(0).randbytes(1 << 20))
    mounted.up()
    all_is_right(mounted, small)
    assert mounted.status()["blocks_corrupt"] >= FILES // 4
    wait_until_stored(mounted, small)
    mounted.down()
    mounted.up()
    all_is_right(mounted, small)


def test_what_is_evicted_is_given_back_to_the_disk(served, mount, small, wormhole):
    mounted = mount(served.url)
    all_is_right(mounted, small)
    wait_until_stored(mounted, small)
    before = taken(mounted)
    gone = {name: content for name, content in small.items() if name.startswith("3/")}
    assert run(wormhole, "evict", mounted / "3").code == 0
    assert taken(mounted) <= before - in_pages(*map(len, gone.values())) + 64 * 1024  # the file has more extents
    mounted.down()  # what the kernel has of them is not fetched again
    mounted.up()
    all_is_right(mounted, small)
    wait_until_stored(mounted, small)
    assert taken(mounted) <= before + 64 * 1024, "the places are given out again"


@pytest.mark.parametrize("speculate", ["off", "auto"])
def test_the_limit_holds_for_small_files_too(served, mount, small, speculate):
    mounted = mount(served.url, cache_size="2M", min_free="0%", speculate=speculate)
    largest, stop = 0, threading.Event()

    def look() -> None:
        nonlocal largest
        while not stop.is_set():
            if pack_of(mounted).exists():
                largest = max(largest, taken(mounted))
            time.sleep(0.01)

    looker = threading.Thread(target=look)
    looker.start()
    names = list(small)
    for seed in range(3):
        chance = random.Random(seed)
        orders = [chance.sample(names, len(names)) for _ in range(4)]
        wrong: list[str] = []
        readers = [
            threading.Thread(target=lambda o=o: wrong.extend(n for n in o if (mounted / n).read_bytes() != small[n]))
            for o in orders
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert wrong == []
    stop.set()
    looker.join()
    status = mounted.status()
    assert status["bytes_evicted"] > 0
    # How much depends on the disk: what arrives while room is being made is not stored.
    assert status["bytes_evicted"] > 2 << 20 or status["stores_without_room"] > 0
    assert (1 << 20) < largest <= (2 << 20) + 64 * 1024
