"""Bytes read from the mount are the bytes on the server, however they are asked for."""

import errno
import hashlib
import mmap
import os
import random
import threading
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, threads_stuck

BLOCK = 64 * 1024
MIB = 1 << 20

# Around everything that has an edge: nothing, a page, a block, a region of 64 blocks.
SIZES = [0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 64 * BLOCK - 1, 64 * BLOCK, 64 * BLOCK + 1]


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(24 * MIB + 12345)


@pytest.fixture
def file(origin, mount, content) -> Path:
    """A file in a mount, nothing of it read yet."""
    (origin.tree / "file").write_bytes(content)
    return mount(origin.url) / "file"


def test_sizes_around_the_edges_are_read_whole(origin, mount):
    everything = trees.real_bytes(max(SIZES))
    for size in SIZES:
        (origin.tree / f"{size}").write_bytes(everything[:size])
    mounted = mount(origin.url)
    for size in SIZES:
        assert (mounted / f"{size}").read_bytes() == everything[:size], size


@pytest.mark.parametrize("command", ["cp {} copy", "cat {} > copy", "pv -q {} > copy", "head -c 99999999 {} > copy",
                                     "dd if={} of=copy bs=1M status=none", "dd if={} of=copy bs=65537 status=none",
                                     "dd if={} of=copy bs=999 status=none", "cp --sparse=always {} copy"])
def test_programs_that_copy_get_the_same_bytes(file, content, work, need, command):
    need(command.split()[0])
    done = run("sh", "-c", command.format(file), cwd=work)
    assert done.code == 0, done.output
    assert (work / "copy").read_bytes() == content


@pytest.mark.parametrize("offset", [0, 1, 4095, BLOCK - 1, BLOCK, BLOCK + 1, 64 * BLOCK - 1, 7_654_321])
def test_cmp_agrees_at_odd_offsets(file, origin, offset):
    done = run("cmp", "-i", str(offset), file, origin.tree / "file")
    assert (done.code, done.output) == (0, "")


def test_reads_at_random_offsets_are_right(file, content):
    chance = random.Random(1)
    fd = os.open(file, os.O_RDONLY)
    for _ in range(400):
        offset, length = chance.randrange(len(content)), chance.choice([1, 100, 4096, 5000, BLOCK, 200_000])
        assert os.pread(fd, length, offset) == content[offset : offset + length], (offset, length)
    os.close(fd)


def test_a_file_read_backwards_is_right(file, content):
    fd = os.open(file, os.O_RDONLY)
    parts = [os.pread(fd, 50_000, offset) for offset in range(0, len(content), 50_000)[::-1]]
    os.close(fd)
    assert b"".join(reversed(parts)) == content


def test_reading_at_and_behind_the_end_gives_nothing(file, content):
    fd = os.open(file, os.O_RDONLY)
    size = len(content)
    assert os.pread(fd, 100, size) == b""
    assert os.pread(fd, 100, size + 1) == b""
    assert os.pread(fd, 100, size + 10 * MIB) == b""
    assert os.pread(fd, 100, size - 1) == content[-1:]
    assert os.pread(fd, MIB, size - 70_000) == content[-70_000:]
    assert os.lseek(fd, 0, os.SEEK_END) == size
    os.close(fd)


def test_direct_reads_are_right(file, content):
    try:
        fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError as refused:
        pytest.skip(f"O_DIRECT: {refused.strerror}")
    buffer = mmap.mmap(-1, MIB)  # aligned
    for offset in (0, 4096, 64 * BLOCK - 4096, 20 * MIB, len(content) // 4096 * 4096):
        length = os.preadv(fd, [buffer], offset)
        assert length == min(MIB, len(content) - offset)
        assert buffer[:length] == content[offset : offset + length], offset
    os.close(fd)


def test_a_read_into_several_buffers_is_right(file, content):
    fd = os.open(file, os.O_RDONLY)
    buffers = [bytearray(n) for n in (1, 4095, 100_000, 7)]
    length = os.preadv(fd, buffers, BLOCK - 10)
    assert length == sum(map(len, buffers))
    assert b"".join(buffers) == content[BLOCK - 10 : BLOCK - 10 + length]
    os.close(fd)


def test_mapped_pages_are_right(file, content, support_program):
    touched = run(support_program("page-toucher"), file, timeout=100)
    assert touched.code == 0, touched.output
    assert int(touched.output) == sum(content[i] for i in range(0, len(content), 4096))


def test_pages_touched_far_apart_are_right(file, content, support_program):
    touched = run(support_program("page-toucher"), file, "37", timeout=100)
    pages = (len(content) + 4095) // 4096
    assert int(touched.output) == sum(content[page * 4096] for page in range(pages - 1, -1, -37))


def test_a_mapping_is_right_as_a_whole(file, content):
    script = ("import hashlib, mmap, sys; file = open(sys.argv[1], 'rb');"
              "print(hashlib.sha256(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).hexdigest())")
    assert run("/usr/bin/python3", "-c", script, file).output.strip() == hashlib.sha256(content).hexdigest()


def test_sendfile_is_right(file, content, work):
    source = os.open(file, os.O_RDONLY)
    with open(work / "sent", "wb") as out:
        at = 0
        while n := os.sendfile(out.fileno(), source, at, 3 * MIB + 1):
            at += n
    os.close(source)
    assert (work / "sent").read_bytes() == content


def test_copy_file_range_is_right_or_leaves_it_to_the_caller(file, content, work):
    source = os.open(file, os.O_RDONLY)
    with open(work / "copy", "wb") as out:
        try:
            copied = os.copy_file_range(source, out.fileno(), 100_001, 777)
        except OSError as refused:
            assert refused.errno in (errno.EXDEV, errno.EOPNOTSUPP)
            copied = 0
    os.close(source)
    assert (work / "copy").read_bytes() == content[777 : 777 + copied]


def test_splice_to_a_pipe_is_right(file, content):
    piped = run("sh", "-c", f"cat < '{file}' | sha256sum")
    assert piped.output.split()[0] == hashlib.sha256(content).hexdigest()


def test_the_page_cache_is_kept_from_open_to_open(file, content, mount, origin):
    assert file.read_bytes() == content
    before = origin.file_bytes()
    for _ in range(3):
        assert file.read_bytes() == content
    assert origin.file_bytes() == before and origin.sent_once(len(content))


def test_sixteen_readers_of_a_filling_file_see_only_right_bytes(origin, mount):
    content = trees.real_bytes(128 * MIB)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    wrong: list[str] = []
    reads = [0] * 16
    over = threading.Event()

    def reader(number: int) -> None:
        chance = random.Random(number)
        fd = os.open(mounted / "file", os.O_RDONLY)
        try:
            while not over.is_set() and not wrong:
                offset, length = chance.randrange(len(content)), chance.choice([1, 4096, 10_000, BLOCK, 300_000])
                if os.pread(fd, length, offset) != content[offset : offset + length]:
                    wrong.append(f"reader {number}: {length} bytes at {offset}")
                reads[number] += 1
        except OSError as error:
            wrong.append(f"reader {number}: {error}")
        finally:
            os.close(fd)

    readers = [threading.Thread(target=reader, args=(i,), name=f"reader {i}") for i in range(16)]
    for thread in readers:
        thread.start()
    over.wait(6)
    over.set()
    for thread in readers:
        thread.join(20)
    assert not any(thread.is_alive() for thread in readers), "a reader is stuck"
    assert wrong == []
    assert min(reads) > 0
    assert not threads_stuck([os.getpid(), mounted.pid], seconds=1)


def test_two_sequential_readers_of_one_file_do_not_disturb_each_other(file, content):
    """The second begins in the middle, while the first is under way."""
    halves: dict[int, bytes] = {}

    def read(begin: int, length: int) -> None:
        with open(file, "rb", buffering=0) as stream:
            stream.seek(begin)
            parts = []
            while length > 0 and (part := stream.read(min(length, 131072))):
                parts.append(part)
                length -= len(part)
            halves[begin] = b"".join(parts)

    middle = len(content) // 2
    readers = [threading.Thread(target=read, args=a) for a in ((0, middle), (middle, len(content) - middle))]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(60)
    assert halves[0] + halves[middle] == content


def test_many_files_are_open_at_once(origin, mount):
    contents = {f"file{i}": trees.real_bytes(70_000, i * 70_000) for i in range(200)}
    for name, bytes_ in contents.items():
        (origin.tree / name).write_bytes(bytes_)
    mounted = mount(origin.url)
    streams = {name: open(mounted / name, "rb") for name in contents}
    for name, stream in streams.items():
        assert stream.read() == contents[name]
        stream.close()


def test_a_file_larger_than_the_memory_for_buffers_is_read(origin, mount):
    trees.write_real_file(origin.tree / "file", 96 * MIB)
    mounted = mount(origin.url, memory="32M")
    compared = run("cmp", mounted / "file", origin.tree / "file", timeout=100)
    assert (compared.code, compared.output) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's mounts may raise it")
def test_the_kernel_reads_far_ahead(origin, mount):
    mounted = mount(origin.url)
    for _ in range(5):
        device = os.stat(mounted.path).st_dev
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        assert setting.read_text() == "4096\n"
        mounted.down()
        mounted.up()
