"""The fault matrix: what happens to a server while a file is read. The reader gets the right bytes, or the errno of the
manual within the time, and reads on once the server is well.

Faults of a server from the beginning on are in test_servers.py, a server that goes away in test_offline.py, changes of
a file in test_versions.py. docs/SEMANTICS.md has the table.
"""

import concurrent.futures
import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount, run, wait_until
from support.origin import Certificates, free_port

MIB = 1 << 20
NEAR = MIB  # not the beginning, which is taken for that of a sequence
FAR = 20 * MIB + 50_000  # not at the beginning of a block either: what comes before has to come as well
SOME = 1000  # bytes

TIMEOUT = 4  # seconds, as configured
MARGIN = 4  # for a busy machine


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(24 * MIB + 99)


@pytest.fixture
def server(range_server, content):
    range_server.put("file", content)
    return range_server


@dataclass
class Handle:
    """A file that is open. A read fetches its blocks and nothing else."""

    fd: int
    content: bytes

    def reads(self, offset: int) -> bool:
        return os.pread(self.fd, SOME, offset) == self.content[offset : offset + SOME]

    def error_at(self, offset: int) -> int:
        with pytest.raises(OSError) as failed:
            os.pread(self.fd, SOME, offset)
        return failed.value.errno


@contextlib.contextmanager
def begun(file: Path, content: bytes) -> Iterator[Handle]:
    """Its first bytes were read while all was well."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        handle = Handle(fd, content)
        assert handle.reads(NEAR)
        yield handle
    finally:
        os.close(fd)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


# --- an answer that ends the read ---

CLOSED = f"http://127.0.0.1:{free_port()}/file"

ERRORS = {
    "401": ({"status": 401}, errno.EACCES),
    "403": ({"status": 403}, errno.EACCES),
    "404": ({"status": 404}, errno.ESTALE),
    "410": ({"status": 410}, errno.ESTALE),
    "412": ({"status": 412}, errno.ESTALE),
    "416": ({"status": 416}, errno.ESTALE),
    "429 for longer than anybody waits": ({"status": 429, "retry_after": 60}, errno.EIO),
    "503": ({"status": 503}, errno.EIO),
    "a wrong Content-Range": ({"content_range": "wrong"}, errno.EIO),
    "a missing Content-Range": ({"content_range": "missing"}, errno.EIO),
    "a body without a byte": ({"close_after": 0}, errno.EIO),
    "gzip on a range": ({"gzip": 1}, errno.EIO),
    "an ETag that has become weak": ({"validators": "weak"}, errno.ESTALE),
    "silence": ({"stall_after": 0}, errno.ETIMEDOUT),
    "a redirect loop": ({"redirect": "{url}file"}, errno.EIO),
    "a redirect to where nobody listens": ({"redirect": CLOSED}, errno.EIO),
    "a redirect to another protocol": ({"redirect": "ftp://127.0.0.1/file"}, errno.EINVAL),
}


# An attempt takes so long that time might be over in the middle of one.
ALL_ATTEMPTS = ("a redirect loop",)


@pytest.mark.parametrize("what", ERRORS)
def test_a_reader_gets_the_errno_in_time_and_reads_on_afterwards(server, mount, content, what):
    behaviour, expected = ERRORS[what]
    timeout = 4 if what in ALL_ATTEMPTS else 1
    mounted = mount(server.url, timeout=timeout, ttl=1)
    with begun(mounted / "file", content) as handle:
        server.behave("file", **{k: v.format(url=server.url) if isinstance(v, str) else v
                                 for k, v in behaviour.items()})
        with within(timeout + MARGIN):
            assert handle.error_at(FAR) == expected
        server.behave("file")
        if expected == errno.ESTALE:
            assert handle.error_at(FAR + MIB) == errno.ESTALE  # this version is gone, for this handle
        else:
            assert handle.reads(FAR)
    assert (mounted / "file").read_bytes() == content


def test_a_name_that_cannot_be_resolved_is_an_error_in_time(server, mount, content):
    timeout = 1
    mounted = mount(server.url, timeout=timeout)
    with begun(mounted / "file", content) as handle:
        server.behave("file", redirect="http://name.invalid/file")
        with within(2 * timeout + MARGIN):
            assert handle.error_at(FAR) in (errno.EIO, errno.ETIMEDOUT)  # as soon, or as late, as the resolver says so
        server.behave("file")
        assert handle.reads(FAR)


def test_a_mount_of_a_name_that_cannot_be_resolved_says_so(make_mount):
    with within(2 * TIMEOUT + MARGIN):
        result = make_mount("http://name.invalid/", timeout=TIMEOUT).try_up()
    assert result.code != 0
    assert "name.invalid" in result.output


# --- a fault that passes ---

PASSING = {
    "429 with Retry-After": {"status": 429, "retry_after": 1, "times": 8},
    "503": {"status": 503, "times": 12},
    "resets in the middle of a part": {"reset_after": 70_000, "times": 12},
    "bodies that end too early": {"close_after": 70_000, "times": 12},
    "bodies longer than announced": {"extra": 1000, "times": 12},
    "bodies longer than their range": {"extra": 1000, "chunked": 1, "times": 12},
    "wrong Content-Ranges": {"content_range": "wrong", "times": 4},
    "missing Content-Ranges": {"content_range": "missing", "times": 4},
    "gzip": {"gzip": 1, "times": 4},
    "chunked bodies": {"chunked": 1},
    "HTTP/1.0": {"http10": 1},
    "whole bodies instead of ranges": {"ignore_range": 1},
    "no ETag any more": {"validators": "date"},
}


@pytest.mark.parametrize("what", PASSING)
def test_a_copy_goes_through_when_the_server_begins_with(server, mount, content, work, what):
    """The beginning of the file was read by the book."""
    mounted = mount(server.url, timeout=TIMEOUT)
    with begun(mounted / "file", content) as handle:
        server.behave("file", **PASSING[what])
        copied = run("cp", mounted / "file", work / "copy")
        assert (copied.code, copied.output) == (0, "")
        assert (work / "copy").read_bytes() == content
        assert handle.reads(FAR)


# --- slow and silent ---


def test_a_part_that_falls_silent_is_asked_for_again(server, mount, content):
    mounted = mount(server.url)
    with begun(mounted / "file", content) as handle:
        server.behave("file", stall_after=1_000, times=1)
        with within(MARGIN):  # much less than it takes until a connection is given up
            assert handle.reads(FAR)
    assert mounted.status()["fetches_hedged"] > 0


def test_a_part_that_drips_is_asked_for_again_once_it_is_known_what_is_usual(server, mount, content):
    size = 100_000
    for i in range(25):
        server.put(f"{i}", content[i * size : (i + 1) * size])
    mounted = mount(server.url, speculate="off")  # the last would be there already
    for i in range(24):
        assert (mounted / f"{i}").read_bytes() == content[i * size : (i + 1) * size]
    server.behave("24", bytes_per_second=5000, times=1)
    with within(MARGIN):  # much less than 20 s
        assert (mounted / "24").read_bytes() == content[24 * size : 25 * size]
    assert mounted.status()["fetches_hedged"] > 0


def test_a_slow_drip_on_all_connections_is_read_right(server, mount, content):
    mounted = mount(server.url, timeout=1)
    with begun(mounted / "file", content) as handle:
        server.behave("file", bytes_per_second=35_000)
        assert handle.reads(FAR)  # a block takes longer than the timeout: something arrives all the time
        server.behave("file")
    assert (mounted / "file").read_bytes() == content


def test_more_readers_than_a_slow_wire_serves_in_time_all_read_right(server, mount, content):
    size, names = 120_000, [f"{i}" for i in range(4)]
    parts = dict(zip(names, (content[i * size : (i + 1) * size] for i in range(4))))
    for name, part in parts.items():
        server.put(name, part)
        server.behave(name, bytes_per_second=60_000)
    mounted = mount(server.url, timeout=1, connections=1, speculate="off")
    with concurrent.futures.ThreadPoolExecutor(4) as readers:
        read = list(readers.map(lambda name: (mounted / name).read_bytes(), names))  # the last waits for 6 s
    assert dict(zip(names, read)) == parts


# --- who we are, and who they are ---

NEEDS_TOKEN = 'set $wanted old; if (-f {flag}) {{ set $wanted new; }}' \
              'if ($http_authorization != "Bearer $wanted") {{ return 401; }}'


@dataclass
class Guarded:
    """Bytes behind a token, which the server can exchange."""

    mounted: Mount
    token: Path
    flag: Path


@pytest.fixture
def guarded(make_origin, tree, mount, work, content) -> Guarded:
    (tree / "file").write_bytes(content)
    token, flag = work / "token", work / "new-token-counts"
    token.write_text("old\n")
    origin = make_origin(tree, directives=NEEDS_TOKEN.format(flag=flag))
    return Guarded(mount(origin.url, token_file=token, timeout=TIMEOUT), token, flag)


def test_a_token_that_was_renewed_is_read_again_after_a_401(guarded, content):
    with begun(guarded.mounted / "file", content) as handle:
        guarded.flag.touch()
        guarded.token.write_text("new\n")
        assert handle.reads(FAR)
    assert (guarded.mounted / "file").read_bytes() == content


def test_a_token_that_is_renewed_too_late_is_eacces_until_then(guarded, content):
    with begun(guarded.mounted / "file", content) as handle:
        guarded.flag.touch()
        with within(MARGIN):
            assert handle.error_at(FAR) == errno.EACCES
        guarded.token.write_text("new\n")
        assert handle.reads(FAR)


def test_a_certificate_of_a_foreign_authority_is_an_error_until_it_is_replaced(make_origin, tree, mount, content,
                                                                                certificates, tmp_path):
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, certificates=certificates)
    mounted = mount(origin.url, ca=certificates.authority, timeout=TIMEOUT)
    with begun(mounted / "file", content) as handle:
        origin.stop()
        impostor = make_origin(tree, certificates=Certificates.create(tmp_path / "foreign"), port=origin.port)
        with within(TIMEOUT + MARGIN):
            assert handle.error_at(FAR) == errno.EIO
        assert impostor.requests() == []
        impostor.stop()
        origin.start()
        assert handle.reads(FAR)


# --- another version ---


def test_an_etag_that_changes_between_two_parts_is_estale_and_never_a_mixture(server, mount, content):
    """All parts of a copy are held. The first goes out in the old version, the others in the new one."""
    new = trees.other_version(content)
    mounted = mount(server.url, ttl=1, connections=4)
    (mounted / "file").stat()
    server.hold("file")
    copied = bytearray()
    outcome: list[int] = []

    def copy() -> None:
        with open(mounted / "file", "rb", buffering=0) as stream:
            try:
                while piece := stream.read(100_000):
                    copied.extend(piece)
            except OSError as error:
                outcome.append(error.errno)

    reader = threading.Thread(target=copy)
    reader.start()
    server.wait_for_requests("file", 2)
    server.release("file", 1)
    wait_until(lambda: any(r["status"] == 206 for r in server.requests("file")), "the first part is under way")
    server.put("file", new, version=2)
    server.release("file")
    reader.join(30)
    assert outcome == [errno.ESTALE]
    assert bytes(copied) == content[: len(copied)]
    assert (mounted / "file").read_bytes() == new


# --- connections that end by agreement ---


def test_a_connection_that_ends_after_five_requests_loses_nothing(make_origin, tree, mount, work, content,
                                                                   certificates):
    """HTTP/2: the server says GOAWAY."""
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, certificates=certificates, directives="keepalive_requests 5;")
    mounted = mount(origin.url, ca=certificates.authority, http=2, connections=2, memory="16M")
    copied = run("cp", mounted / "file", work / "copy")
    assert (copied.code, copied.output) == (0, "")
    assert (work / "copy").read_bytes() == content
    with begun(mounted / "file", content):
        pass
    ranges = [r for r in origin.requests() if r.path == "/file"]
    assert {r.protocol for r in ranges} == {"HTTP/2.0"}
    assert len(ranges) > 10 and len({r.connection for r in ranges}) > 2


# --- HTTP/3 that leads nowhere ---


@contextlib.contextmanager
def nobody(port: int) -> Iterator[None]:
    """Datagrams are refused."""
    yield


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[None]:
    """Datagrams vanish."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", port))
        yield


@pytest.mark.parametrize("http", ["auto", "3"])
@pytest.mark.parametrize("udp", [nobody, black_hole])
def test_http_3_that_does_not_come_through_is_read_over_tcp(make_origin, tree, mount, work, content, certificates,
                                                            udp: Callable, http):
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, certificates=certificates,
                         directives="""add_header Alt-Svc 'h3=":$server_port"; ma=86400' always;""")
    with udp(origin.port):
        with within(TIMEOUT + MARGIN):
            mounted = mount(origin.url, ca=certificates.authority, http=http)
            copied = run("cp", mounted / "file", work / "copy")
        assert (copied.code, copied.output) == (0, "")
        assert (work / "copy").read_bytes() == content
        mounted.down()


def test_http_3_that_ends_in_the_middle_is_followed_by_tcp(make_caddy, tree, mount, content, certificates):
    (tree / "file").write_bytes(content)
    origin = make_caddy(tree)
    mounted = mount(origin.url + "file", ca=certificates.authority, http=3)
    with begun(mounted / "file", content) as handle:
        assert any(r.protocol == "HTTP/3.0" for r in origin.requests() if r.path == "/file")
        origin.stop()
        without = make_caddy(tree, port=origin.port, protocols=("h1", "h2"))
        with within(20):
            assert handle.reads(FAR)
        assert (mounted / "file").read_bytes() == content
        assert {r.protocol for r in without.requests()} <= {"HTTP/1.1", "HTTP/2.0"}
