"""What was read once is not fetched again: not by the next reader, not after a restart."""

import os
import random
import threading
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import shared_bytes

BLOCK = 64 * 1024
MIB = 1 << 20


def drop_page_cache(file: Path) -> None:
    """So that the next read asks the daemon, not the kernel."""
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(20 * MIB + 777)


def test_a_whole_file_is_fetched_exactly_once(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    assert (mounted / "file").read_bytes() == content
    assert origin.sent_once(len(content))


def test_a_second_read_asks_the_cache_and_not_the_network(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, passthrough="off")  # or the kernel reads by itself, and nobody counts
    assert (mounted / "file").read_bytes() == content
    origin.forget()
    before = mounted.status()["bytes_from_cache"]
    drop_page_cache(mounted / "file")
    assert (mounted / "file").read_bytes() == content
    assert origin.file_bytes() == 0
    after = mounted.status()
    assert after["bytes_from_cache"] - before >= len(content) or after["bytes_from_network"] == len(content)


def test_after_a_remount_no_body_byte_crosses_the_wire(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    assert (mounted / "file").read_bytes() == content
    mounted.down()
    origin.forget()
    mounted.up()
    assert (mounted / "file").read_bytes() == content
    assert origin.file_bytes() == 0
    assert mounted.status()["bytes_from_network"] == 0


def test_after_a_remount_a_tree_of_small_files_is_there(origin, mount):
    trees.copy_real_tree(origin.tree, files=600, bytes_at_most=10 << 20)
    mounted = mount(origin.url)
    assert run("diff", "-r", origin.tree, mounted.path).code == 0
    mounted.down()
    origin.forget()
    mounted.up()
    assert run("diff", "-r", origin.tree, mounted.path).code == 0
    assert origin.file_bytes() == 0


def test_a_partly_read_file_keeps_its_blocks_and_fetches_the_others(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, hedge="off")  # on a busy machine it would bring bytes twice
    fd = os.open(mounted / "file", os.O_RDONLY)
    assert os.pread(fd, 100_000, 5 * MIB) == content[5 * MIB : 5 * MIB + 100_000]
    os.close(fd)
    first = origin.file_bytes()
    assert first < len(content)
    mounted.down()
    first = origin.file_bytes()  # with what was still on its way
    mounted.up()
    assert (mounted / "file").read_bytes() == content
    # Nothing twice, but for the blocks that were on their way when it ended.
    assert origin.file_bytes() <= len(content) + first


def test_a_small_read_of_a_large_file_fetches_little(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 10, 12 * MIB) == content[12 * MIB : 12 * MIB + 10]
    os.close(fd)
    assert origin.file_bytes() <= 2 * MIB


def test_two_readers_of_a_missing_block_share_one_fetch(range_server, mount, content):
    range_server.put("file", content)
    mounted = mount(range_server.url, hedge="off")
    (mounted / "file").stat()
    range_server.hold("file")
    range_server.forget()
    seen: list[bytes] = []

    def read() -> None:
        fd = os.open(mounted / "file", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        seen.append(os.pread(fd, 1000, 3 * BLOCK))
        os.close(fd)

    first = threading.Thread(target=read)
    first.start()
    range_server.wait_for_requests("file", 1)
    others = [threading.Thread(target=read) for _ in range(3)]
    for thread in others:
        thread.start()
    # They must not ask: give them time to be wrong.
    others[0].join(0.5)

    def covers(request: dict) -> bool:
        begin, end = request["range"].removeprefix("bytes=").split("-")
        return int(begin) <= 3 * BLOCK and int(end or len(content)) >= 3 * BLOCK + 999

    asked = [r for r in range_server.requests("file") if covers(r)]
    range_server.release("file")
    for thread in (first, *others):
        thread.join(20)
    assert seen == [content[3 * BLOCK : 3 * BLOCK + 1000]] * 4
    assert len(asked) == 1, asked


def test_readers_of_different_offsets_ask_for_no_byte_twice(range_server, mount, content):
    range_server.put("file", content)
    mounted = mount(range_server.url, hedge="off")

    def read(seed: int) -> None:
        chance = random.Random(seed)
        fd = os.open(mounted / "file", os.O_RDONLY)
        for _ in range(100):
            offset = chance.randrange(len(content) - 5000)
            assert os.pread(fd, 5000, offset) == content[offset : offset + 5000]
        os.close(fd)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(60)
    wait_until(lambda: mounted.status()["fetches_in_flight"] == 0, "all fetches end")
    # But for a few that somebody waited for while they were on their way in a guess, and the rears of slow parts.
    shared = shared_bytes(("file", r["range"]) for r in range_server.requests("file"))
    assert range_server.body_bytes("file") <= len(content) * 1.05 + min(shared, len(content) // 2)


def test_reads_of_cached_blocks_do_not_ask_the_network(range_server, mount, content):
    range_server.put("file", content)
    mounted = mount(range_server.url)
    assert (mounted / "file").read_bytes() == content
    range_server.hold("file")
    range_server.forget()
    drop_page_cache(mounted / "file")
    assert (mounted / "file").read_bytes() == content
    assert range_server.requests("file") == []
    range_server.release("file")


def test_a_listing_is_believed_for_its_time_to_live(origin, mount):
    (origin.tree / "dir").mkdir()
    mounted = mount(origin.url, ttl=60)
    os.listdir(mounted / "dir")
    origin.forget()
    for _ in range(5):
        os.listdir(mounted / "dir")
        os.stat(mounted / "dir")
    assert origin.requests() == []


def test_the_numbers_of_status_agree_with_the_server(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    before = mounted.status()
    assert before["mountpoint"] == str(mounted.path)
    assert before["url"] == origin.url
    assert before["cache"] == str(mounted.cache)
    assert os.path.exists(f"/proc/{before['pid']}")
    assert before["bytes_from_network"] == 0
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["fetches_in_flight"] == 0, "all fetches end")
    wait_until(lambda: mounted.status()["bytes_cached"] >= len(content), "all blocks are in the cache")
    after = mounted.status()
    # nginx counts the framing of chunked listings as well, and what was on its way when a request was broken off.
    assert len(content) < after["body_bytes_received"] <= origin.body_bytes()
    assert origin.sent_once(len(content))
    assert after["requests_sent"] == len(origin.requests(everything=True))
    assert after["bytes_from_network"] + after["bytes_from_cache"] >= len(content)
    assert after["bytes_cached"] <= len(content) + BLOCK


def test_status_tells_people_the_same(origin, mount, wormhole):
    mounted = mount(origin.url)
    text = run(wormhole, "status").output
    assert str(mounted.path) in text and origin.url in text
    assert str(mounted.path) in run(wormhole, "status", mounted.path).output


def test_two_mounts_have_two_caches_and_both_are_in_status(origin, mount, wormhole, content):
    (origin.tree / "file").write_bytes(content)
    first, second = mount(origin.url), mount(origin.url)
    assert (first / "file").read_bytes() == (second / "file").read_bytes() == content
    text = run(wormhole, "status").output
    assert str(first.path) in text and str(second.path) in text
    first.down()
    assert (second / "file").read_bytes() == content


def test_bytes_written_by_hand_into_the_cache_are_not_believed(origin, mount, content):
    """A flipped bit on the disk is found by its checksum, and the block is fetched again."""
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_cached"] >= len(content), "all blocks are in the cache")
    mounted.kill()  # an unclean end: every block is checked at its first touch
    objects = [p for p in mounted.cache.rglob("*") if p.is_file() and p.stat().st_size >= len(content)
               and p.suffix != ".mdb"]
    assert objects, "no object file of that size in the cache"
    with open(objects[0], "r+b") as object_file:
        object_file.seek(3 * BLOCK + 5)
        byte = object_file.read(1)
        object_file.seek(3 * BLOCK + 5)
        object_file.write(bytes([byte[0] ^ 1]))
    mounted.up()
    assert (mounted / "file").read_bytes() == content
