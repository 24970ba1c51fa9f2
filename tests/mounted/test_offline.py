"""The server is gone or says nothing: what is cached stays readable, the rest fails in time and comes back."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount, run

MIB = 1 << 20
TIMEOUT = 3  # seconds, as configured
MARGIN = 3  # for a busy machine

UNREACHABLE = (errno.EIO, errno.ETIMEDOUT)


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(6 * MIB)


@pytest.fixture
def half_cached(origin, mount, content) -> Mount:
    """"cached" was read whole, "missing" never; both were listed."""
    for name in ("cached", "missing"):
        (origin.tree / "dir").mkdir(exist_ok=True)
        (origin.tree / "dir" / name).write_bytes(content)
    mounted = mount(origin.url, timeout=TIMEOUT, ttl=1)
    assert sorted(os.listdir(mounted / "dir")) == ["cached", "missing"]
    assert (mounted / "dir/cached").read_bytes() == content
    return mounted


def error_of_read(file: Path) -> tuple[int | None, float]:
    """The errno of opening and reading, and how long it took."""
    began = time.monotonic()
    try:
        with open(file, "rb", buffering=0) as stream:
            stream.read(100)
        return None, time.monotonic() - began
    except OSError as error:
        return error.errno, time.monotonic() - began


def test_cached_bytes_are_read_while_the_server_is_gone(origin, half_cached, content):
    origin.stop()
    time.sleep(1.5)  # the listing's time to live is over
    assert (half_cached / "dir/cached").read_bytes() == content
    assert sorted(os.listdir(half_cached / "dir")) == ["cached", "missing"]


def test_missing_bytes_fail_in_time_while_the_server_is_gone(origin, half_cached):
    origin.stop()
    error, seconds = error_of_read(half_cached / "dir/missing")
    assert error in UNREACHABLE
    assert seconds < TIMEOUT + MARGIN


def test_missing_bytes_are_read_when_the_server_is_back(origin, half_cached, content):
    origin.stop()
    assert error_of_read(half_cached / "dir/missing")[0] in UNREACHABLE
    origin.start()
    assert (half_cached / "dir/missing").read_bytes() == content


def test_a_handle_that_saw_an_error_reads_on_when_the_server_is_back(origin, half_cached, content):
    fd = os.open(half_cached / "dir/missing", os.O_RDONLY)
    origin.stop()
    with pytest.raises(OSError) as failed:
        os.pread(fd, 100, 0)
    assert failed.value.errno in UNREACHABLE
    origin.start()
    assert os.pread(fd, 100, 0) == content[:100]
    assert os.pread(fd, 100, 5 * MIB) == content[5 * MIB : 5 * MIB + 100]
    os.close(fd)


def test_a_mount_comes_up_without_its_server(origin, half_cached, content):
    half_cached.down()
    origin.stop()
    half_cached.up()
    assert os.listdir(half_cached.path) == ["dir"]
    assert sorted(os.listdir(half_cached / "dir")) == ["cached", "missing"]
    assert (half_cached / "dir/cached").stat().st_size == len(content)
    assert (half_cached / "dir/cached").read_bytes() == content
    error, seconds = error_of_read(half_cached / "dir/missing")
    assert error in UNREACHABLE
    assert seconds < TIMEOUT + MARGIN


def test_a_mount_that_came_up_without_its_server_finds_it_later(origin, half_cached, content):
    half_cached.down()
    origin.stop()
    half_cached.up()
    assert error_of_read(half_cached / "dir/missing")[0] in UNREACHABLE
    origin.start()
    assert (half_cached / "dir/missing").read_bytes() == content
    assert half_cached.is_up()


def test_a_tree_is_the_same_with_the_origin_stopped(origin, mount):
    trees.copy_real_tree(origin.tree, files=400, bytes_at_most=8 << 20)
    mounted = mount(origin.url)
    assert run("diff", "-r", origin.tree, mounted.path).code == 0
    mounted.down()
    origin.stop()
    mounted.up()
    done = run("diff", "-r", origin.tree, mounted.path)
    assert (done.code, done.output) == (0, "")


def test_a_directory_never_listed_fails_in_time_and_comes_back(origin, mount):
    (origin.tree / "unseen").mkdir()
    (origin.tree / "unseen/file").write_text("x")
    mounted = mount(origin.url, timeout=TIMEOUT)
    origin.stop()
    began = time.monotonic()
    with pytest.raises(OSError) as failed:
        os.listdir(mounted / "unseen")
    assert failed.value.errno in UNREACHABLE
    assert time.monotonic() - began < TIMEOUT + MARGIN
    origin.start()
    assert os.listdir(mounted / "unseen") == ["file"]


def test_a_first_mount_without_a_server_is_an_error(origin, make_mount):
    origin.stop()
    result = make_mount(origin.url, timeout=TIMEOUT).try_up()
    assert result.code != 0
    assert result.seconds < TIMEOUT + MARGIN


def test_offline_on_asks_nobody(origin, half_cached, content):
    half_cached.down()
    half_cached.options["offline"] = "on"
    half_cached.up()
    origin.forget()
    assert (half_cached / "dir/cached").read_bytes() == content
    error, seconds = error_of_read(half_cached / "dir/missing")
    assert error in UNREACHABLE
    assert seconds < TIMEOUT - 1, "nobody waits for anybody"
    assert origin.requests() == []


# --- a server that says nothing ---


def test_a_black_hole_is_etimedout_in_time(origin, half_cached):
    origin.pause()
    error, seconds = error_of_read(half_cached / "dir/missing")
    assert error == errno.ETIMEDOUT
    assert seconds < TIMEOUT + MARGIN
    origin.resume()


def test_a_black_hole_does_not_delay_cached_reads(origin, half_cached, content):
    origin.pause()
    waiting = threading.Thread(target=error_of_read, args=(half_cached / "dir/missing",))
    waiting.start()
    time.sleep(0.2)
    began = time.monotonic()
    assert (half_cached / "dir/cached").read_bytes() == content
    assert time.monotonic() - began < 2
    waiting.join()
    origin.resume()


def test_reads_go_on_when_a_black_hole_ends(origin, half_cached, content):
    origin.pause()
    assert error_of_read(half_cached / "dir/missing")[0] == errno.ETIMEDOUT
    origin.resume()
    assert (half_cached / "dir/missing").read_bytes() == content


def test_a_reader_waits_out_a_short_silence(origin, half_cached, content):
    origin.pause()
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append((half_cached / "dir/missing").read_bytes()))
    reader.start()
    time.sleep(TIMEOUT / 3)
    origin.resume()
    reader.join(20)
    assert seen == [content]


def test_a_body_that_stalls_in_the_middle_is_given_up_in_time(range_server, mount, content):
    range_server.put("file", content)
    mounted = mount(range_server.url, timeout=TIMEOUT)
    # Less than what a second request brings on top.
    range_server.behave("file", stall_after=1000)
    error, seconds = error_of_read_at(mounted / "file", 40_000)
    assert error in UNREACHABLE
    assert seconds < TIMEOUT + MARGIN
    range_server.behave("file")
    range_server.release("file")
    assert (mounted / "file").read_bytes() == content


def error_of_read_at(file: Path, offset: int) -> tuple[int | None, float]:
    began = time.monotonic()
    fd = os.open(file, os.O_RDONLY)
    try:
        os.pread(fd, 100, offset)
        return None, time.monotonic() - began
    except OSError as error:
        return error.errno, time.monotonic() - began
    finally:
        os.close(fd)


def test_a_waiting_reader_can_be_killed(origin, half_cached):
    origin.pause()
    # Longer than the reader lives; the daemon's own timeout must not be what ends it.
    result = run("timeout", "-s", "KILL", "0.5", "cat", half_cached / "dir/missing", timeout=TIMEOUT)
    assert result.seconds < 2
    origin.resume()
