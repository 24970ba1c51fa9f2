"""A file on the server changes. Whoever has it open reads the version that he opened, or ESTALE; never a mixture."""

import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import wait_until

MIB = 1 << 20
FAR = 36 * MIB  # farther from the beginning than any read-ahead
TTL = 1  # seconds, as configured


@pytest.fixture
def old() -> bytes:
    return trees.real_bytes(40 * MIB + 4321)


@pytest.fixture
def new(old) -> bytes:
    return trees.other_version(old)


def read_after_ttl(file: Path) -> bytes:
    time.sleep(TTL + 0.5)
    return file.read_bytes()


# --- with nginx ---


@pytest.mark.parametrize("grow", [-100_000, 0, 100_000], ids=["shorter", "same size", "longer"])
def test_an_open_handle_gets_estale_and_the_next_open_the_new_bytes(origin, mount, old, new, grow):
    new = new[: len(old) + grow] + b"g" * max(grow, 0)
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, 0) == old[:1000]
    trees.replace(origin.tree / "file", new, minutes=2)
    with pytest.raises(OSError) as stale:
        os.pread(fd, 1000, FAR)
    assert stale.value.errno == errno.ESTALE
    assert (mounted / "file").read_bytes() == new
    assert (mounted / "file").stat().st_size == len(new)
    # What it has of its own version it may still give; the other's it must not.
    try:
        assert os.pread(fd, 1000, 0) == old[:1000]
    except OSError as error:
        assert error.errno == errno.ESTALE
    with pytest.raises(OSError) as stale:
        os.pread(fd, 1000, FAR)
    assert stale.value.errno == errno.ESTALE
    os.close(fd)


@pytest.mark.parametrize("grow", [-100_000, 0, 100_000], ids=["shorter", "same size", "longer"])
def test_a_change_that_nobody_noticed_shows_after_the_time_to_live(origin, mount, old, new, grow):
    new = new[: len(old) + grow] + b"g" * max(grow, 0)
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    assert (mounted / "file").read_bytes() == old
    trees.replace(origin.tree / "file", new, minutes=2)
    assert read_after_ttl(mounted / "file") == new


def test_a_change_behind_a_stopped_mount_shows_at_the_next(origin, mount, old, new):
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    assert (mounted / "file").read_bytes() == old
    mounted.down()
    trees.replace(origin.tree / "file", new, minutes=2)
    time.sleep(TTL + 0.5)
    mounted.up()
    assert (mounted / "file").read_bytes() == new


def test_a_handle_reads_on_from_what_it_has(origin, mount, old, new):
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    with open(mounted / "file", "rb", buffering=0) as stream:
        assert stream.readall() == old
        trees.replace(origin.tree / "file", new, minutes=2)
        assert read_after_ttl(mounted / "file") == new
        stream.seek(0)
        try:
            assert stream.readall() == old
        except OSError as error:
            assert error.errno == errno.ESTALE


def test_a_file_replaced_during_a_copy_is_never_mixed(make_origin, tree, mount, work):
    old = trees.real_bytes(64 * MIB)
    (tree / "file").write_bytes(old)
    # Slow enough that the change falls into the copy, whatever the machine.
    origin = make_origin(tree, directives="limit_rate 6m;")
    mounted = mount(origin.url, ttl=TTL)
    new = trees.other_version(old)
    copying = subprocess.Popen(["cp", mounted / "file", work / "copy"], stderr=subprocess.PIPE, text=True)
    copy = work / "copy"
    wait_until(lambda: copy.exists() and copy.stat().st_size > 2 * MIB, "the copy is under way", 30)
    trees.replace(origin.tree / "file", new, minutes=2)
    message = copying.communicate(timeout=100)[1]
    copied = copy.read_bytes()
    if copying.returncode == 0:
        assert copied == old
    else:
        assert "Stale file handle" in message
        assert copied == old[: len(copied)]
    assert read_after_ttl(mounted / "file") == new


def test_many_readers_during_a_change_each_see_one_version(make_origin, tree, mount):
    old = trees.real_bytes(16 * MIB)
    new = trees.other_version(old)
    (tree / "file").write_bytes(old)
    origin = make_origin(tree, directives="limit_rate 4m;")
    mounted = mount(origin.url, ttl=0)
    mixed: list[str] = []
    outcomes: set[str] = set()
    over = threading.Event()

    def reader() -> None:
        while not over.is_set():
            try:
                content = (mounted / "file").read_bytes()
            except OSError as error:
                outcomes.add(errno.errorcode[error.errno])
                continue
            if content == old:
                outcomes.add("old")
            elif content == new:
                outcomes.add("new")
            else:
                mixed.append(f"{len(content)} bytes, neither old nor new")

    readers = [threading.Thread(target=reader) for _ in range(4)]
    for thread in readers:
        thread.start()
    time.sleep(1.5)
    trees.replace(origin.tree / "file", new, minutes=2)
    deadline = time.monotonic() + 60
    while "new" not in outcomes and time.monotonic() < deadline and not mixed:
        time.sleep(0.1)
    over.set()
    for thread in readers:
        thread.join(60)
    assert mixed == []
    assert "new" in outcomes
    assert outcomes <= {"old", "new", "ESTALE"}


def test_a_new_file_appears_after_the_time_to_live(origin, mount):
    (origin.tree / "dir").mkdir()
    mounted = mount(origin.url, ttl=TTL)
    assert os.listdir(mounted / "dir") == []
    assert not (mounted / "dir/late").exists()
    (origin.tree / "dir/late").write_text("here")
    time.sleep(TTL + 0.5)
    assert (mounted / "dir/late").read_text() == "here"
    assert os.listdir(mounted / "dir") == ["late"]


def test_a_deleted_file_disappears_after_the_time_to_live(origin, mount):
    (origin.tree / "file").write_text("x")
    mounted = mount(origin.url, ttl=TTL)
    assert (mounted / "file").read_text() == "x"
    (origin.tree / "file").unlink()
    time.sleep(TTL + 0.5)
    assert not (mounted / "file").exists()
    assert os.listdir(mounted.path) == []


def test_a_file_that_becomes_a_directory_is_one(origin, mount):
    (origin.tree / "thing").write_text("x")
    mounted = mount(origin.url, ttl=TTL)
    assert (mounted / "thing").read_text() == "x"
    (origin.tree / "thing").unlink()
    (origin.tree / "thing").mkdir()
    (origin.tree / "thing/inside").write_text("y")
    time.sleep(TTL + 0.5)
    assert (mounted / "thing/inside").read_text() == "y"


def test_a_file_deleted_while_it_is_open_fails_only_for_what_is_missing(origin, mount, old):
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, 0) == old[:1000]
    (origin.tree / "file").unlink()
    assert os.pread(fd, 1000, 0) == old[:1000]
    with pytest.raises(OSError) as failed:
        os.pread(fd, 1000, FAR)
    assert failed.value.errno in (errno.ESTALE, errno.ENOENT, errno.EIO)
    os.close(fd)


def test_a_new_version_is_a_new_inode(origin, mount, old, new):
    (origin.tree / "file").write_bytes(old)
    mounted = mount(origin.url, ttl=TTL)
    (mounted / "file").read_bytes()
    before = (mounted / "file").stat().st_ino
    trees.replace(origin.tree / "file", new, minutes=2)
    assert read_after_ttl(mounted / "file") == new
    assert (mounted / "file").stat().st_ino != before


# --- with a server that changes between two requests ---


def test_a_change_between_two_parts_is_never_mixed(range_server, mount, old, new):
    """All parts of one read are held; one goes out in the old version, then the object changes."""
    range_server.put("file", old, version=1)
    mounted = mount(range_server.url, ttl=TTL)
    (mounted / "file").stat()
    range_server.hold("file")
    outcome: list[bytes | int] = []

    def read() -> None:
        try:
            outcome.append((mounted / "file").read_bytes())
        except OSError as error:
            outcome.append(error.errno)

    reader = threading.Thread(target=read)
    reader.start()
    range_server.wait_for_requests("file", 1)
    range_server.release("file", 1)
    range_server.wait_for_requests("file", 2)
    range_server.put("file", new, version=2)
    range_server.release("file")
    reader.join(60)
    assert outcome and (outcome[0] == errno.ESTALE or outcome[0] in (old, new))
    assert read_after_ttl(mounted / "file") == new


def test_every_range_names_the_version_that_was_opened(range_server, mount, old):
    range_server.put("file", old)
    mounted = mount(range_server.url)
    with open(mounted / "file", "rb", buffering=0) as stream:
        assert stream.read(1) == old[:1]  # learns the version
        wait_until(lambda: mounted.status()["fetches_in_flight"] == 0, "all fetches end")
        range_server.forget()
        assert stream.readall() == old[1:]
    asked = range_server.requests("file")
    assert asked
    assert all(r["range"] for r in asked)
    assert len({r["if_range"] for r in asked}) == 1
    assert asked[0]["if_range"].startswith('"')


def test_a_date_stands_in_for_a_missing_etag(range_server, mount, old, new):
    range_server.put("file", old)
    range_server.behave("file", validators="date")
    mounted = mount(range_server.url, ttl=TTL)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, 0) == old[:1000]
    range_server.put("file", new, version=9)
    with pytest.raises(OSError) as stale:
        os.pread(fd, 1000, FAR)
    assert stale.value.errno == errno.ESTALE
    os.close(fd)
    assert read_after_ttl(mounted / "file") == new


def test_a_weak_etag_that_changes_is_noticed(range_server, mount, old, new):
    range_server.put("file", old)
    range_server.behave("file", validators="weak")
    mounted = mount(range_server.url, ttl=TTL)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, 0) == old[:1000]
    range_server.put("file", new, version=9)
    with pytest.raises(OSError) as stale:
        os.pread(fd, 1000, FAR)
    assert stale.value.errno == errno.ESTALE
    os.close(fd)


def test_a_size_that_changes_is_noticed_without_any_validator(range_server, mount, old, new):
    range_server.put("file", old)
    range_server.behave("file", validators="none")
    mounted = mount(range_server.url, ttl=TTL)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, 0) == old[:1000]
    range_server.put("file", new[:-1], version=9)
    with pytest.raises(OSError) as stale:
        os.pread(fd, 1000, FAR)
    assert stale.value.errno == errno.ESTALE
    os.close(fd)
