"""wormhole host: a directory as a small web server, which another wormhole mounts."""

import http.client
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import free_port


@dataclass
class Host:
    tree: Path
    port: int
    process: subprocess.Popen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def answers(self) -> bool:
        try:
            return self.ask("/")[0].status == 200
        except OSError:
            return False


@pytest.fixture
def host(wormhole, tree, work) -> Iterator[Host]:
    port = free_port()
    with open(work / "host.log", "wb") as log:
        process = subprocess.Popen([wormhole, "host", tree, "--listen", f"127.0.0.1:{port}"], stdout=log, stderr=log)
    one = Host(tree, port, process)
    try:
        wait_until(one.answers, "wormhole host answers")
        yield one
        process.terminate()
        assert process.wait(10) == 0, (work / "host.log").read_text()
    finally:
        process.kill()
        process.wait()


def test_a_hosted_tree_is_the_same_in_a_mount(host, mount):
    trees.copy_real_tree(host.tree, files=500, bytes_at_most=20 << 20)
    trees.write_odd_names(host.tree / "odd")
    done = run("diff", "-r", host.tree, mount(host.url).path)
    assert (done.code, done.output) == (0, "")


def test_sizes_and_times_are_listed_exactly_enough(host, mount):
    (host.tree / "file").write_bytes(b"x" * 123456)
    os.utime(host.tree / "file", (1234567890, 1234567890))
    seen = (mount(host.url) / "file").stat()
    assert seen.st_size == 123456
    assert abs(seen.st_mtime - 1234567890) < 60


def test_ranges_are_answered_by_the_book(host):
    content = trees.real_bytes(300_000)
    (host.tree / "file").write_bytes(content)
    whole, body = host.ask("/file")
    assert (whole.status, body, whole.headers["Accept-Ranges"]) == (200, content, "bytes")
    part, body = host.ask("/file", Range="bytes=1000-1999")
    assert (part.status, body) == (206, content[1000:2000])
    assert part.headers["Content-Range"] == "bytes 1000-1999/300000"
    assert host.ask("/file", Range="bytes=299990-")[1] == content[-10:]
    assert host.ask("/file", Range="bytes=-10")[1] == content[-10:]
    assert host.ask("/file", Range="bytes=299999-999999")[1] == content[-1:]
    beyond, _ = host.ask("/file", Range="bytes=300000-300001")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */300000")
    head, body = host.ask("/file", "HEAD")
    assert (head.status, head.headers["Content-Length"], body) == (200, "300000", b"")


def test_if_range_compares_the_version(host):
    content = trees.real_bytes(300_000)
    (host.tree / "file").write_bytes(content)
    etag = host.ask("/file", "HEAD")[0].headers["ETag"]
    assert re.fullmatch(r'"[^"]+"', etag), "a strong ETag"
    assert host.ask("/file", Range="bytes=0-9", If_Range=etag)[0].status == 206
    new = trees.other_version(content)
    trees.replace(host.tree / "file", new, minutes=2)
    changed, body = host.ask("/file", Range="bytes=0-9", If_Range=etag)
    assert (changed.status, body) == (200, new)
    assert changed.headers["ETag"] != etag


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/dir/../../secret", "//../secret",
                                  "/dir/..%2f..%2fsecret", "/%00", "/file%00.txt"])
def test_nothing_outside_the_directory_is_served(host, path):
    (host.tree.parent / "secret").write_text("secret")
    (host.tree / "dir").mkdir()
    (host.tree / "file").write_text("x")
    response, body = host.ask(path)
    assert response.status in (400, 403, 404), response.status
    assert b"secret" not in body.replace(path.encode(), b"")


def test_a_link_out_of_the_directory_is_not_followed(host):
    (host.tree.parent / "secret").write_text("hidden words")
    (host.tree / "link").symlink_to("../secret")
    (host.tree / "up").symlink_to("..")
    assert b"hidden words" not in host.ask("/link")[1]
    assert b"hidden words" not in host.ask("/up/secret")[1]


def test_other_methods_are_refused(host):
    (host.tree / "file").write_text("x")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert host.ask("/file", method)[0].status in (400, 403, 404, 405, 501)
    assert (host.tree / "file").read_text() == "x"


def test_what_is_not_there_is_404(host):
    assert host.ask("/nothing")[0].status == 404
    assert host.ask("/nothing/")[0].status == 404


def test_a_directory_without_its_slash_redirects(host):
    (host.tree / "a b").mkdir()
    moved, _ = host.ask("/a%20b")
    assert moved.status in (301, 302, 307, 308)
    assert moved.headers["Location"].endswith("/a%20b/")


@pytest.mark.parametrize("arguments", [["/nowhere/at/all"], [".", "--listen", "nonsense"],
                                       [".", "--listen", "127.0.0.1:99999"]])
def test_what_cannot_be_served_is_an_error(wormhole, arguments):
    done = run(wormhole, "host", *arguments, timeout=10)
    assert done.code != 0
    assert arguments[-1] in done.output


def test_a_port_that_is_taken_is_named(host, wormhole, tree):
    done = run(wormhole, "host", tree, "--listen", f"127.0.0.1:{host.port}", timeout=10)
    assert done.code != 0
    assert str(host.port) in done.output
