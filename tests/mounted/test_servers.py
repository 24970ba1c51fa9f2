"""Servers that do not go by the book: wrong bytes never reach a reader; what can work, works."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import wait_until

BLOCK = 64 * 1024
MIB = 1 << 20
TIMEOUT = 4  # seconds, as configured
MARGIN = 4


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(5 * MIB + 99)


@pytest.fixture
def server(range_server, content):
    range_server.put("file", content)
    return range_server


def mounted_file(mount, server, **behaviour) -> Path:
    """Listed by the book; then served with `behaviour`."""
    file = mount(server.url, timeout=TIMEOUT) / "file"
    assert file.stat().st_size > 0
    server.behave("file", **behaviour)
    return file


def assert_fails_in_time(file: Path) -> None:
    began = time.monotonic()
    with pytest.raises(OSError) as failed:
        file.read_bytes()
    assert failed.value.errno in (errno.EIO, errno.ETIMEDOUT, errno.ESTALE), failed.value
    assert time.monotonic() - began < 2 * TIMEOUT + MARGIN  # a reader in the kernel may try again once


# --- what works all the same ---

TOLERABLE = {
    "ignores ranges": {"ignore_range": 1},
    "ignores ranges, chunked": {"ignore_range": 1, "chunked": 1},
    "chunked ranges": {"chunked": 1},
    "weak etag": {"validators": "weak"},
    "only a date": {"validators": "date"},
    "no validator": {"validators": "none"},
    "HTTP/1.0": {"http10": 1},
    "HTTP/1.0 without ranges": {"http10": 1, "ignore_range": 1},
    "short bodies for a while": {"close_after": 50_000, "times": 3},
    "resets for a while": {"reset_after": 50_000, "times": 3},
    "a burst of 503": {"status": 503, "times": 3},
    "a burst of 500": {"status": 500, "times": 2},
    "429 with Retry-After": {"status": 429, "retry_after": 1, "times": 2},
    "503 with Retry-After": {"status": 503, "retry_after": 1, "times": 1},
    "a slow line": {"bytes_per_second": 4_000_000},
    "a pause in a body": {"stall_after": 10_000, "times": 1},
}


@pytest.mark.parametrize("what", TOLERABLE)
def test_it_is_read_right_from_a_server_with(server, mount, content, what):
    file = mounted_file(mount, server, **TOLERABLE[what])
    going_on = threading.Timer(1, server.release, ["file"])  # ends the stalls
    going_on.start()
    assert file.read_bytes() == content
    going_on.cancel()


def test_random_reads_work_on_a_server_without_ranges(server, mount, content):
    file = mounted_file(mount, server, ignore_range=1)
    fd = os.open(file, os.O_RDONLY)
    for offset in (4 * MIB, 100, 2 * MIB, len(content) - 10):
        assert os.pread(fd, 10_000, offset) == content[offset : offset + 10_000]
    os.close(fd)


def test_a_whole_body_is_taken_once_and_kept(server, mount, content):
    file = mount(server.url, timeout=TIMEOUT, hedge="off") / "file"  # or a slow part is asked for twice
    server.behave("file", ignore_range=1)
    server.forget()
    readers = [threading.Thread(target=file.read_bytes) for _ in range(3)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join(60)
    assert file.read_bytes() == content
    complete = [r for r in server.requests("file") if r["body_bytes"] >= len(content)]
    assert len(complete) == 1, server.requests("file")


def test_a_redirect_on_every_request_is_followed(server, mount, content):
    server.put("target", content)
    file = mounted_file(mount, server, redirect=server.url + "target")
    assert file.read_bytes() == content


# --- what cannot work, and must not lie ---

INTOLERABLE = {
    "a wrong Content-Range": {"content_range": "wrong"},
    "a missing Content-Range": {"content_range": "missing"},
    "short bodies for ever": {"close_after": 0},
    "resets for ever": {"reset_after": 0},
    "503 for ever": {"status": 503},
    "416": {"status": 416},
    "500": {"status": 500},
}


@pytest.mark.parametrize("what", INTOLERABLE)
def test_a_reader_gets_an_error_in_time_from_a_server_with(server, mount, content, what):
    file = mounted_file(mount, server, **INTOLERABLE[what])
    assert_fails_in_time(file)
    server.behave("file")
    wait_until(lambda: _reads(file) == content, "it is readable again", 20)


def _reads(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_eacces(server, mount, status):
    file = mounted_file(mount, server, status=status)
    with pytest.raises(PermissionError):
        file.read_bytes()


def test_a_file_that_is_listed_but_not_there_is_an_error(server, mount):
    file = mounted_file(mount, server, status=404)
    with pytest.raises(OSError) as missing:
        file.read_bytes()
    assert missing.value.errno in (errno.ENOENT, errno.EIO, errno.ESTALE)


def test_gzip_that_nobody_asked_for_never_reaches_a_reader(server, mount, content):
    file = mounted_file(mount, server, gzip=1)
    try:
        assert file.read_bytes() == content
    except OSError as error:
        assert error.errno in (errno.EIO, errno.ETIMEDOUT)


def test_bytes_behind_the_range_are_ignored_or_refused(server, mount, content):
    file = mounted_file(mount, server, extra=1000)
    try:
        assert file.read_bytes() == content
    except OSError as error:
        assert error.errno in (errno.EIO, errno.ETIMEDOUT)


def test_a_listed_size_that_is_wrong_never_gives_wrong_bytes(server, mount, content):
    """The listing was made before the file grew."""
    mounted = mount(server.url, timeout=TIMEOUT, ttl=1)
    assert (mounted / "file").stat().st_size == len(content)
    longer = content + b"more"
    server.put("file", longer, version=2)
    try:
        seen = (mounted / "file").read_bytes()
        assert seen == longer
    except OSError as error:
        assert error.errno == errno.ESTALE
    time.sleep(1.5)
    assert (mounted / "file").read_bytes() == longer


def test_a_redirect_loop_is_an_error(server, mount):
    file = mounted_file(mount, server, redirect=server.url + "file")
    assert_fails_in_time(file)


def test_one_bad_file_does_not_disturb_the_others(server, mount, content):
    server.put("good", content)
    mounted = mount(server.url, timeout=TIMEOUT)
    assert (mounted / "good").stat().st_size == len(content)
    server.behave("file", stall_after=0)
    waiting = threading.Thread(target=_reads, args=(mounted / "file",))
    waiting.start()
    server.wait_for_requests("file", 1)
    began = time.monotonic()
    assert (mounted / "good").read_bytes() == content
    assert time.monotonic() - began < TIMEOUT
    server.release("file")
    waiting.join(30)


def test_a_server_that_is_asked_to_wait_is_not_hammered(server, mount, content):
    file = mounted_file(mount, server, status=503, retry_after=1, times=1)
    server.forget()
    assert file.read_bytes()[:100] == content[:100]
    refused = [r for r in server.requests("file") if r["status"] == 503]
    assert len(refused) == 1


# --- listings ---


@pytest.mark.parametrize("page", [b"", b"<html>", b"<html><body><p>Hello</p></body></html>", b"\x00\xff\xfe" * 1000,
                                  b"<a href=" + b"x" * 100_000],
                         ids=["nothing", "cut off", "no links", "no html", "endless link"])
def test_a_page_that_is_no_listing_is_an_error_or_an_empty_directory(range_server, mount, page):
    range_server.put("good", b"x")
    range_server.put("bad/", page)
    range_server.put("bad/file", b"y")
    mounted = mount(range_server.url, timeout=TIMEOUT)
    try:
        assert os.listdir(mounted / "bad") == []
    except OSError as error:
        assert error.errno in (errno.EIO, errno.ENOTDIR, errno.EACCES)
    assert (mounted / "good").read_bytes() == b"x"


def test_links_out_of_the_directory_are_no_entries(range_server, mount):
    range_server.put("d/", b"""<html><head><title>Index of /d/</title></head><body><h1>Index of /d/</h1><hr><pre>
<a href="../">../</a>
<a href="/etc/passwd">passwd</a>
<a href="http://example.org/x">x</a>
<a href="..%2F..%2Fescape">escape</a>
<a href="%2e%2e/">dots</a>
<a href="a/b">deep</a>
<a href="?C=N;O=D">sorted</a>
<a href="#top">top</a>
<a href="javascript:alert(1)">script</a>
<a href="mailto:somebody@example.org">mail</a>
<a href="file">file</a>   01-Jan-2026 00:01     1
</pre></body></html>""")
    range_server.put("d/file", b"y")
    mounted = mount(range_server.url)
    assert os.listdir(mounted / "d") == ["file"]
    assert (mounted / "d/file").read_bytes() == b"y"
