"""FUSE over io_uring: the same bytes, the same errors and the same ends as by /dev/fuse."""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount, is_alive, run, threads_stuck, wait_until

MIB = 1 << 20
SETTING = Path("/sys/module/fuse/parameters/enable_uring")


def set_kernel(value: str) -> Iterator[None]:
    """The kernel's setting for one test; what it was before comes back."""
    if not SETTING.exists():
        pytest.skip("this kernel has no FUSE over io_uring (6.14 has)")
    before = SETTING.read_text().strip()
    if before != value:
        try:
            SETTING.write_text(value)
        except OSError as error:
            pytest.skip(f"FUSE over io_uring cannot be switched to {value} here: {error}")
    yield
    if before != value:
        SETTING.write_text(before)


@pytest.fixture
def allowed() -> Iterator[None]:
    yield from set_kernel("Y")


@pytest.fixture
def forbidden() -> Iterator[None]:
    yield from set_kernel("N")


@pytest.fixture
def by_uring(allowed, mount):
    """mount(url, **options) with transport=uring, which must be in use."""

    def make(url: str, **options) -> Mount:
        attempt = mount.prepare(url, transport="uring", **options)
        result = attempt.try_up()
        if "built without custom I/O" in result.output:
            pytest.skip(result.output.strip())
        assert result.code == 0, result.output
        assert attempt.status()["transport"] == "uring"
        return attempt

    return make


def warnings_of(mounted: Mount) -> list[str]:
    return [line for line in mounted.log.read_text().splitlines() if " warn " in line or " error " in line]


# --- which one ---


def test_dev_is_dev_whatever_the_kernel_offers(allowed, origin, mount):
    (origin.tree / "file").write_text("content")
    mounted = mount(origin.url, transport="dev")
    assert (mounted / "file").read_text() == "content"
    assert mounted.status()["transport"] == "dev"


def test_auto_works_where_the_kernel_forbids_uring_and_status_says_why(forbidden, origin, mount):
    (origin.tree / "file").write_text("content")
    mounted = mount(origin.url, transport="auto")
    assert (mounted / "file").read_text() == "content"
    status = mounted.status()
    assert status["transport"] == "dev"
    assert "enable_uring" in status["not_uring_because"]
    said = run(mounted.wormhole, "status", mounted.directory).output
    assert "transport dev: " in said and "enable_uring" in said


def test_uring_where_the_kernel_forbids_it_is_refused_and_says_what_to_do(forbidden, origin, make_mount):
    mounted = make_mount(origin.url, transport="uring")
    result = mounted.try_up()
    assert result.code != 0
    assert f"echo Y > {SETTING}" in result.output
    assert not mounted.is_up()
    assert SETTING.read_text().strip() == "N"  # nobody turned it on behind the owner's back


def test_an_unknown_transport_is_named(origin, make_mount):
    result = make_mount(origin.url, transport="pigeon").try_up()
    assert result.code != 0
    assert "transport=pigeon" in result.output and "auto, dev, uring" in result.output


def test_status_says_uring(by_uring, origin):
    mounted = by_uring(origin.url)
    assert mounted.status()["not_uring_because"] == ""
    assert "transport uring\n" in run(mounted.wormhole, "status", mounted.directory).output


# --- bytes and names ---


@pytest.mark.parametrize("passthrough", ["off", "auto"])
def test_16_random_readers_get_the_right_bytes(by_uring, origin, passthrough):
    """First what is fetched, then what is in the cache: answered by the engine, and by the ring's own thread."""
    content = trees.real_bytes(48 * MIB + 321)
    (origin.tree / "file").write_bytes(content)
    mounted = by_uring(origin.url, passthrough=passthrough)
    wrong: list[str] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        fd = os.open(mounted / "file", os.O_RDONLY)
        try:
            for _ in range(200):
                size = chance.choice([1, 4096, 65537, MIB, 3 * MIB])
                begin = chance.randrange(len(content))
                if os.pread(fd, size, begin) != content[begin : begin + size]:
                    wrong.append(f"{size} bytes at {begin}")
        except OSError as error:
            wrong.append(str(error))
        finally:
            os.close(fd)

    def read_by_16() -> None:
        readers = [threading.Thread(target=read, args=[seed]) for seed in range(16)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert wrong == []

    read_by_16()
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_cached"] >= len(content), "it is stored")
    for _ in range(2):
        with open(mounted / "file", "rb") as file:  # the kernel's pages go: the daemon is asked again
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        read_by_16()
    status = mounted.status()
    assert (status["opens_passed_through"] > 0) == (passthrough == "auto" and status["passthrough"] == "on")
    assert warnings_of(mounted) == []


def test_names_and_errors_are_the_same(by_uring, origin):
    names = [f"{'x' * 240}-{i:04}" for i in range(2000)]  # listings of many answers, lookups with a long payload
    for name in names:
        (origin.tree / name).touch()
    mounted = by_uring(origin.url)
    assert sorted(os.listdir(mounted.path)) == names
    assert sorted(entry.name for entry in os.scandir(mounted.path) if entry.stat().st_size == 0) == names
    with pytest.raises(FileNotFoundError):
        os.stat(mounted / "missing")
    with pytest.raises(OSError, match="Read-only"):
        (mounted / "new").touch()


# --- signals ---

READER = "import os,sys; os.pread(os.open(sys.argv[1], os.O_RDONLY), 100, int(sys.argv[2]))"


@pytest.fixture
def held_readers(range_server, by_uring) -> Iterator[tuple[Mount, list[subprocess.Popen]]]:
    """Processes that wait for bytes which the server holds back, with more read-ahead than goes out at once."""
    range_server.put_formula("file", 64 * MIB)
    mounted = by_uring(range_server.url, timeout=120)
    (mounted / "file").stat()
    range_server.hold("file")
    readers = [subprocess.Popen(["/usr/bin/python3", "-c", READER, mounted / "file", str(i * 3 * MIB)],
                                stderr=subprocess.DEVNULL) for i in range(20)]
    range_server.wait_for_requests("file", 1)
    time.sleep(1)  # until all of them wait
    yield mounted, readers
    for reader in readers:
        reader.kill()
        reader.wait(20)


def test_who_waits_for_bytes_can_be_killed_and_the_rest_goes_on(held_readers, range_server):
    mounted, readers = held_readers
    for reader in readers[::2]:
        reader.kill()
    for reader in readers[::2]:
        assert reader.wait(5) == -signal.SIGKILL
    range_server.release("file")
    for reader in readers[1::2]:
        assert reader.wait(20) == 0
    # The entries of those who are gone serve again.
    assert len((mounted / "file").read_bytes()) == 64 * MIB
    assert warnings_of(mounted) == []


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_who_waits_for_a_name_can_be_interrupted_and_the_rest_goes_on(by_uring, origin, signal_):
    (origin.tree / "dir").mkdir()
    for i in range(20):  # who asks for a name that somebody else asks for already waits outside of FUSE
        (origin.tree / f"dir/{i}").write_text("content")
    mounted = by_uring(origin.url, timeout=60)
    origin.pause()
    try:
        waiting = [subprocess.Popen(["/usr/bin/python3", "-c", "import os,sys; os.stat(sys.argv[1])",
                                     mounted / f"dir/{i}"], stderr=subprocess.DEVNULL) for i in range(20)]
        time.sleep(2)  # until all of them wait
        assert all(process.poll() is None for process in waiting)
        for process in waiting[::2]:
            process.send_signal(signal_)
        for process in waiting[::2]:
            assert process.wait(5) != 0
        assert all(process.poll() is None for process in waiting[1::2])
    finally:
        origin.resume()
    for process in waiting[1::2]:
        assert process.wait(20) == 0
    assert (mounted / "dir/0").read_text() == "content"
    assert warnings_of(mounted) == []


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_ends_though_readers_wait(held_readers, signal_):
    mounted, readers = held_readers
    os.kill(mounted.pid, signal_)
    wait_until(lambda: not is_alive(mounted.pid), "the daemon ends", 15)
    for reader in readers:
        assert reader.wait(10) != 0
    assert not threads_stuck([r.pid for r in readers], seconds=0.5)
    mounted.detach()
    mounted.assert_clean_end()


def test_kill_9_of_the_daemon_leaves_nobody_waiting(held_readers):
    mounted, readers = held_readers
    mounted.kill()
    for reader in readers:
        assert reader.wait(10) != 0
    mounted.up()
    assert mounted.status()["transport"] == "uring"


# --- ends ---


@pytest.mark.parametrize("how", ["SIGTERM", "umount -l"])
def test_it_ends_while_it_is_read(by_uring, origin, how):
    """Requests come without a pause, by the rings and, as forgets, by /dev/fuse."""
    content = trees.real_bytes(24 * MIB)
    for i in range(8):
        (origin.tree / f"{i}").write_bytes(content[i * MIB :])
    for _ in range(3):
        mounted = by_uring(origin.url, passthrough="off")
        readers = [subprocess.Popen(["sh", "-c", 'while cat "$0" >/dev/null 2>&1; do :; done', mounted / f"{i}"])
                   for i in range(8)]
        try:
            wait_until(lambda: mounted.status()["read_requests"] > 50, "it is read")
            pid = mounted.pid
            if how == "SIGTERM":
                os.kill(pid, signal.SIGTERM)
            else:
                assert run("umount", "-l", mounted.directory).code == 0
            wait_until(lambda: not is_alive(pid), "the daemon ends", 20)
            for reader in readers:
                reader.wait(20)
        finally:
            for reader in readers:
                reader.kill()
                reader.wait(20)
        assert not threads_stuck([reader.pid for reader in readers], seconds=0.2)
        mounted.detach()
        mounted.assert_clean_end()
