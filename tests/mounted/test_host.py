"""wormhole host: a directory as a small web server, which another wormhole mounts."""

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import Certificates, free_port


@dataclass
class Host:
    tree: Path
    url: str
    port: int
    process: subprocess.Popen
    log: Path  # a line for each request
    errors: Path
    tls: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)  # with each request

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = (http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.tls) if self.tls else
                      http.client.HTTPConnection("127.0.0.1", self.port, timeout=10))
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (self.headers | headers).items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def status(self, path: str = "/", **headers: str) -> int:
        return self.ask(path, **headers)[0].status

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0, self.errors.read_text()


StartHost = Callable[..., Host]


@pytest.fixture
def start_host(wormhole, tree, work) -> Iterator[StartHost]:
    """Starts one with the arguments given; ends it, which must succeed, if the test has not."""
    with contextlib.ExitStack() as running:
        def start(*arguments: object, tls: ssl.SSLContext | None = None) -> Host:
            log, errors = work / "access.log", work / "host.errors"
            with open(errors, "wb") as stderr:
                process = subprocess.Popen(
                    [wormhole, "host", tree, "--listen", "127.0.0.1:0", "--json", "--log", log, "--manifest=off",
                     *map(str, arguments)],
                    stdout=subprocess.PIPE, stderr=stderr, text=True)
            running.callback(process.wait)
            running.callback(process.kill)
            line = process.stdout.readline()
            assert line, errors.read_text()
            started = json.loads(line)
            one = Host(tree, started["url"], started["port"], process, log, errors, tls)
            running.callback(lambda: process.poll() is None and one.end())
            return one

        yield start


@pytest.fixture
def host(start_host) -> Host:
    return start_host()


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


def test_who_has_a_listing_is_not_sent_it_again(host):
    (host.tree / "file").write_text("x")
    listing, body = host.ask("/")
    etag = listing.headers["ETag"]
    assert re.fullmatch(r'"[^"]+"', etag), "a strong ETag"
    same, nothing = host.ask("/", If_None_Match=etag)
    assert (same.status, nothing, same.headers["ETag"]) == (304, b"", etag)
    (host.tree / "another").write_text("y")
    changed, longer = host.ask("/", If_None_Match=etag)
    assert changed.status == 200 and changed.headers["ETag"] != etag and len(longer) > len(body)


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
    done = run(wormhole, "host", tree, "--listen", f"127.0.0.1:{host.port}", "--manifest=off", timeout=10)
    assert done.code != 0
    assert str(host.port) in done.output


# --- its life ---------------------------------------------------------------------------------------------


def test_it_says_where_it_is(wormhole, tree, work):
    with subprocess.Popen([wormhole, "host", tree, "--listen", "127.0.0.1:0", "--json", "-q", "--manifest=off"],
                          stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            said = json.loads(process.stdout.readline())
            assert said == {"url": f"http://127.0.0.1:{said['port']}/", "port": said["port"], "directory": str(tree)}
        finally:
            process.terminate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_under_way_is_finished_at_the_end(host, number):
    size = 64 << 20
    with open(host.tree / "large", "wb") as file:
        file.truncate(size)
    with socket.create_connection(("127.0.0.1", host.port), timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        received = len(client.recv(1000))
        host.process.send_signal(number)
        wait_until(lambda: refuses(host.port), "no more connections are taken")
        while piece := client.recv(1 << 20):
            received += len(piece)
    assert host.process.wait(10) == 0
    assert received > size
    assert host.lines()[-1].endswith(" whole")


@contextlib.contextmanager
def client_of_something_large(host) -> Iterator[None]:
    """Has asked for 1 GiB, and takes nothing more of it than its begin."""
    with open(host.tree / "large", "wb") as file:
        file.truncate(1 << 30)
    with socket.create_connection(("127.0.0.1", host.port), timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
        yield


def test_a_client_that_takes_nothing_does_not_keep_it(host):
    with client_of_something_large(host):
        begin = time.monotonic()
        host.process.send_signal(signal.SIGTERM)
        assert host.process.wait(15) == 0
        assert time.monotonic() - begin < 9, "five seconds are given, not more"
    assert host.lines()[-1].endswith(" broken")


def test_a_second_interrupt_ends_it_at_once(host):
    with client_of_something_large(host):
        host.process.send_signal(signal.SIGINT)
        wait_until(lambda: refuses(host.port), "no more connections are taken")
        begin = time.monotonic()
        host.process.send_signal(signal.SIGINT)
        assert host.process.wait(10) == -signal.SIGINT
        assert time.monotonic() - begin < 4, "not the five seconds"


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_the_log_has_a_line_for_each_request_and_can_be_moved_away(host):
    (host.tree / "file").write_bytes(b"0123456789")
    host.ask("/file", Range="bytes=2-4", User_Agent='a "browser"')
    wait_until(lambda: len(host.lines()) == 1, "the request is in the log")
    form = r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:[\d:]{8} \+0000\] "GET /file HTTP/1\.1" 206 3 "-" ' \
           r'"a \\x22browser\\x22" \d+\.\d{6} "bytes=2-4" whole'
    assert re.fullmatch(form, host.lines()[0]), host.lines()[0]
    old = host.log.rename(host.log.with_suffix(".1"))
    host.process.send_signal(signal.SIGHUP)
    wait_until(host.log.exists, "there is a new log")
    wait_until(lambda: host.ask("/missing")[0].status == 404 and host.log.stat().st_size > 0, "it is written to")
    assert '"GET /file ' in old.read_text() and '"GET /file ' not in host.log.read_text()


def test_a_thousand_clients_at_once(host):
    """Each has a connection of its own, and all get their bytes; half of them are slow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"only {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    content = trees.real_bytes(100_000)
    (host.tree / "file").write_bytes(content)
    request = b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=30))
                       for _ in range(1000)]
            for client in clients[::2]:
                client.sendall(request[:20])
            for client in clients[1::2]:
                client.sendall(request)
            for client in clients[1::2]:
                assert read_all(client).endswith(content)
            for client in clients[::2]:
                client.sendall(request[20:])
            for client in clients[::2]:
                assert read_all(client).endswith(content)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_all(client: socket.socket) -> bytes:
    pieces = []
    while piece := client.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


# --- who may ask, and through what ------------------------------------------------------------------------


def test_a_token_is_needed_and_the_mount_has_it(start_host, make_mount, mount, work):
    token = work / "token"
    token.write_text("t0ken\n")
    host = start_host("--token-file", token)
    (host.tree / "file").write_bytes(b"content")
    refused, body = host.ask("/file")
    assert (refused.status, b"content" in body) == (401, False)
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert host.status("/file", Authorization="Bearer other") == 401
    assert host.ask("/file", Authorization="Bearer t0ken")[1] == b"content"
    assert make_mount(host.url).try_up().code != 0
    assert (mount(host.url, **{"token-file": token}) / "file").read_bytes() == b"content"
    assert "t0ken" not in host.log.read_text() + host.errors.read_text()


def test_the_token_can_be_changed_while_everything_runs(start_host, mount, work):
    token = work / "token"
    token.write_text("old\n")
    host = start_host("--token-file", token)
    (host.tree / "one").write_bytes(b"1" * 1000)
    (host.tree / "two").write_bytes(b"2" * 1000)
    mounted = mount(host.url, **{"token-file": token})
    assert (mounted / "one").read_bytes() == b"1" * 1000
    token.write_text("new\n")
    host.process.send_signal(signal.SIGHUP)
    wait_until(lambda: host.status(Authorization="Bearer new") == 200, "the new token is taken")
    assert host.status(Authorization="Bearer old") == 401
    assert (mounted / "two").read_bytes() == b"2" * 1000, "the mount reads the file again after a 401"
    # One that cannot be used changes nothing.
    token.write_text("")
    host.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "stay in use" in host.errors.read_text(), "it is told")
    assert host.status(Authorization="Bearer new") == 200
    token.write_text("new\n")


def test_a_mount_through_a_proxy(start_host, make_origin, mount, work):
    """As docs/HOST.md has it."""
    token = work / "token"
    token.write_text("t0ken")
    host = start_host("--token-file", token)
    trees.copy_real_tree(host.tree, files=100, bytes_at_most=4 << 20)
    (host.tree / "a b").mkdir()
    (host.tree / "large").write_bytes(trees.real_bytes(10 << 20))
    proxy = make_origin(work / "empty", directives=f"""
      location /data/ {{
        proxy_pass http://127.0.0.1:{host.port}/;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_redirect / /data/;
        proxy_buffering off;
      }}""")
    mounted = mount(proxy.url + "data/", **{"token-file": token})
    assert run("diff", "-r", host.tree, mounted.path).output == ""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("GET", "/data/a%20b", headers={"Authorization": "Bearer t0ken"})
    assert connection.getresponse().headers["Location"].endswith("/data/a%20b/")
    connection.close()


@pytest.fixture
def secure(start_host, certificates) -> Host:
    return start_host("--tls-cert", certificates.certificate, "--tls-key", certificates.key,
                      tls=ssl.create_default_context(cafile=certificates.authority))


def test_a_tree_is_mounted_through_tls(secure, mount, certificates):
    assert secure.url.startswith("https://")
    trees.copy_real_tree(secure.tree, files=100, bytes_at_most=4 << 20)
    (secure.tree / "large").write_bytes(trees.real_bytes(10 << 20))
    mounted = mount(secure.url, ca=certificates.authority)
    assert run("diff", "-r", secure.tree, mounted.path).output == ""
    part, body = secure.ask("/large", Range="bytes=5000000-5999999")
    assert (part.status, body) == (206, (secure.tree / "large").read_bytes()[5000000:6000000])


def test_plain_http_gets_nothing_from_a_tls_server(secure):
    (secure.tree / "file").write_bytes(b"content")
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as client:
        client.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(OSError):
            assert b"content" not in read_all(client)


def test_a_certificate_can_be_renewed(start_host, work):
    first, second = Certificates.create(work / "first"), Certificates.create(work / "second")
    files = work / "served.pem", work / "served.key"

    def put(made: Certificates) -> None:
        shutil.copy(made.certificate, files[0])
        shutil.copy(made.key, files[1])

    put(first)
    host = start_host("--tls-cert", files[0], "--tls-key", files[1],
                      tls=ssl.create_default_context(cafile=first.authority))
    with socket.create_connection(("127.0.0.1", host.port)) as raw, \
            host.tls.wrap_socket(raw, server_hostname="127.0.0.1") as kept:
        put(second)
        host.process.send_signal(signal.SIGHUP)
        new = ssl.create_default_context(cafile=second.authority)

        def is_new() -> bool:
            host.tls = new
            try:
                return host.status() == 200
            except ssl.SSLError:
                return False

        wait_until(is_new, "the new certificate is shown")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in kept.recv(4096), "a connection that was open stays"
    # A key of another certificate changes nothing.
    shutil.copy(first.key, files[1])
    host.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "stay in use" in host.errors.read_text(), "it is told")
    assert host.status() == 200


def test_wrong_secrets_are_an_error_at_the_start(wormhole, tree, work, certificates):
    empty = work / "empty"
    empty.write_text("")
    for arguments in (["--token-file", empty], ["--token-file", work / "missing"],
                      ["--tls-cert", certificates.certificate], ["--tls-key", certificates.key],
                      ["--tls-cert", certificates.certificate, "--tls-key", work / "missing"],
                      ["--tls-cert", certificates.certificate, "--tls-key", certificates.authority],
                      ["--log", work / "missing/log"]):
        done = run(wormhole, "host", tree, "--listen", "127.0.0.1:0", "--manifest=off", *map(str, arguments),
                   timeout=10)
        assert done.code != 0, arguments
        assert done.output.strip(), arguments


# --- what must never happen -------------------------------------------------------------------------------


def test_what_is_no_file_does_not_hold_it(host):
    os.mkfifo(host.tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.tree / "socket"))
        with contextlib.suppress(PermissionError):
            os.mknod(host.tree / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        for name in ("fifo", "socket", "zero"):
            assert host.status(f"/{name}") == 404
        assert b"fifo" not in host.ask("/")[1]


def test_a_link_that_changes_sides_gives_nothing_away(host):
    """Somebody swaps a link and a file while they are asked for."""
    secret = host.tree.parent / "secret"
    secret.write_text("hidden words")
    (host.tree / "inside").write_text("open words")
    done = threading.Event()

    def swap() -> None:
        link = host.tree / "new"
        while not done.is_set():
            for target in ("inside", "../secret"):
                link.symlink_to(target)
                link.rename(host.tree / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = [host.ask("/link") for _ in range(300)]
    finally:
        done.set()
        swapper.join()
    assert {body for answer, body in seen if answer.status == 200} == {b"open words"}
    assert {answer.status for answer, _ in seen} <= {200, 404}


def test_the_hidden_directory_is_served_and_not_mounted(host, mount):
    (host.tree / ".wormhole").mkdir()
    (host.tree / ".wormhole/manifest").write_bytes(b"m")
    (host.tree / "file").write_bytes(b"x")
    assert host.ask("/.wormhole/manifest")[1] == b"m"
    assert os.listdir(mount(host.url).path) == ["file"]
