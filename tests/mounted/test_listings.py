"""Where a tree comes from: every kind of listing, from the servers themselves; and what no listing can do."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.mounting import Mount, wait_until
from support.s3_gate import Keys, S3Gate, signature
from support.servers import S3, Apache, Lighttpd, PythonHttp, RcloneWebdav, installed

TOUCHED = 1_795_143_421  # 2026-11-20 02:57:01 UTC
FILES = {"plain.txt": 5, "a b": 0, "100%": 1000, "plus+and&": 1, 'quo"te': 70_000, "semi;colon": 2, "café": 12_345,
         "hash#": 3, "ques?": 4, "<tag>": 6, "x" * 200: 7, "sub dir/inner": 8, "sub dir/deeper/leaf": 1_234_567}


def content_of(name: str) -> bytes:
    return (name.encode() * (FILES[name] // len(name.encode()) + 1))[: FILES[name]]


@pytest.fixture
def tree(tree: Path) -> Path:
    for name in FILES:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name))
        os.utime(path, (TOUCHED, TOUCHED))
    (tree / "empty").mkdir()
    return tree


@pytest.fixture
def start(work: Path) -> Iterator[Callable]:
    """start(Server, tree, **options) is one that runs; stopped in the end."""
    started = []

    def make(kind, tree: Path, **options):
        name = {Apache: "apache", Lighttpd: "lighttpd", RcloneWebdav: "rclone", S3: "s3rver"}.get(kind, "")
        if not installed(name):
            pytest.skip(f"{name} is not installed (tools/setup --test installs it)")
        started.append(kind(tree, work / f"server-{len(started)}", **options))
        return started[-1].start()

    yield make
    for server in started:
        server.stop()


def assert_is_the_tree(mounted: Mount, *, times: int | None, empty: bool = True) -> None:
    """`times`: what they are rounded to; None: they are not those of the files."""
    there = {p.relative_to(mounted.path).as_posix() for p in mounted.path.rglob("*")}
    assert there == {*FILES, "sub dir", "sub dir/deeper", *(["empty"] if empty else [])}
    for name, size in FILES.items():
        seen = (mounted / name).stat()
        assert seen.st_size == size, name
        if times:
            assert seen.st_mtime in (TOUCHED, TOUCHED // times * times), name
        assert (mounted / name).read_bytes() == content_of(name), name


def assert_was_found(mounted: Mount, kind: str) -> None:
    assert f"listings are found: kind={kind}\n" in mounted.log.read_text()


# --- the servers ---


def test_nginx_html(make_origin, mount, tree):
    origin = make_origin(tree)
    mounted = mount(origin.url)
    assert_is_the_tree(mounted, times=60)
    assert_was_found(mounted, "html or json")


def test_nginx_json_has_seconds_and_needs_no_head(make_origin, mount, tree):
    origin = make_origin(tree, directives="autoindex_format json;")
    mounted = mount(origin.url, keep_warm="off")
    subprocess.run(["ls", "-lR", mounted.path], check=True, stdout=subprocess.DEVNULL)
    # Each once; which of several that are under way ends first is the server's to say.
    assert sorted((r.method, r.path) for r in origin.requests()) == [
        ("GET", "/"), ("GET", "/empty/"), ("GET", "/sub%20dir/"), ("GET", "/sub%20dir/deeper/"), ("HEAD", "/")]
    assert_is_the_tree(mounted, times=1)


def test_nginx_json_with_a_name_that_is_no_utf8(make_origin, mount, tree):
    odd = os.fsencode(tree) + b"/caf\xe9"
    Path(os.fsdecode(odd)).write_bytes(b"latin")
    mounted = mount(make_origin(tree, directives="autoindex_format json;").url)
    assert b"caf\xe9" in os.listdir(os.fsencode(mounted.path))
    with open(os.fsencode(mounted.path) + b"/caf\xe9", "rb") as file:
        assert file.read() == b"latin"


@pytest.mark.parametrize("listing", ["auto", "html", "json"])
def test_caddy(make_caddy, certificates, mount, tree, listing):
    mounted = mount(make_caddy(tree).url, ca=certificates.authority, listing=listing)
    assert_is_the_tree(mounted, times=1)


@pytest.mark.parametrize("index", ["", "FancyIndexing NameWidth=*", "FancyIndexing HTMLTable NameWidth=*"],
                         ids=["plain", "fancy", "table"])
def test_apache(start, mount, tree, index):
    mounted = mount(start(Apache, tree, index=index).url)
    # Its index has minutes, and no size of more than 999 bytes is exact: a HEAD tells of those, and the time as well.
    assert_is_the_tree(mounted, times=60)


@pytest.mark.parametrize("listing", ["auto", "webdav"])
def test_apache_webdav(start, mount, tree, listing):
    mounted = mount(start(Apache, tree, index=None, webdav=True).url, listing=listing)
    assert_is_the_tree(mounted, times=1)
    if listing == "auto":
        assert_was_found(mounted, "webdav")


def test_lighttpd(start, mount, tree):
    assert_is_the_tree(mount(start(Lighttpd, tree).url), times=1)


def test_python(start, mount, tree):
    assert_is_the_tree(mount(start(PythonHttp, tree).url), times=1)


@pytest.mark.parametrize("listing", ["auto", "webdav"])
def test_rclone_serve_webdav(start, mount, tree, listing):
    assert_is_the_tree(mount(start(RcloneWebdav, tree).url, listing=listing), times=1)


# S3 has no directories, so no empty ones, and times of its own.


@pytest.mark.parametrize("where", ["s3://", "auto", "listing=s3"])
def test_s3(start, mount, tree, where):
    server = start(S3, tree)
    if where == "s3://":
        mounted = mount(f"s3://{server.bucket}", endpoint=server.url)
    else:
        mounted = mount(f"{server.url}{server.bucket}/", **({"listing": "s3"} if where == "listing=s3" else {}))
    assert_is_the_tree(mounted, times=None, empty=False)
    if where == "auto":
        assert_was_found(mounted, "s3")


def test_an_s3_prefix_is_a_directory_and_a_key_is_a_file(start, mount, make_mount, tree):
    server = start(S3, tree)
    directory = mount(f"s3://{server.bucket}/sub dir/", endpoint=server.url)
    assert sorted(os.listdir(directory.path)) == ["deeper", "inner"]
    without_slash = mount(f"s3://{server.bucket}/sub dir", endpoint=server.url)
    assert sorted(os.listdir(without_slash.path)) == ["deeper", "inner"]
    detected = mount(f"{server.url}{server.bucket}/sub%20dir/")
    assert (detected / "deeper/leaf").read_bytes() == content_of("sub dir/deeper/leaf")
    file = mount(f"s3://{server.bucket}/sub dir/inner", endpoint=server.url)
    assert (file / "inner").read_bytes() == content_of("sub dir/inner")
    failed = make_mount(f"s3://{server.bucket}/no such/", endpoint=server.url).try_up()
    assert failed.code == 1 and "no key of the bucket begins with that" in failed.output, failed


@pytest.fixture
def gate(start, tree) -> Iterator[Callable[..., S3Gate]]:
    """gate(keys, ...) is an S3Gate in front of an s3rver that has the tree; stopped in the end."""
    started: list[S3Gate] = []

    def make(keys: Keys | None = None, **options) -> S3Gate:
        server = start(S3, tree)
        started.append(S3Gate(server.address, server.port, keys, **options))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


def test_s3_pages(gate, mount):
    pages = gate(page=3)
    assert_is_the_tree(mount("s3://data", endpoint=pages.url), times=None, empty=False)
    root = [target for _, target, _ in pages.requests if target.endswith("prefix=")]
    assert len(root) == 4 and "continuation-token=" in root[-1], pages.requests  # 11 files and a directory


def test_the_first_page_is_shown_while_the_next_one_is_on_its_way(gate, mount):
    pages = gate(page=3)
    pages.next_pages.clear()
    mounted = mount("s3://data", endpoint=pages.url)
    late: list[bytes] = []
    try:
        with os.scandir(mounted.path) as reader:
            first = [next(reader) for _ in range(3)]
            assert all(entry.stat().st_ino == entry.inode() for entry in first)
            files = [entry.name for entry in first if entry.is_file()]
            assert files
            for name in files:
                assert (mounted / name).read_bytes() == content_of(name)
            waiting = threading.Thread(target=lambda: late.append((mounted / "semi;colon").read_bytes()))
            waiting.start()
            waiting.join(0.3)
            assert not late, "nobody knows yet whether it is there"
            pages.next_pages.set()
            waiting.join(20)
            assert late == [content_of("semi;colon")]
            shown = {entry.name: entry.inode() for entry in [*first, *reader]}
    finally:
        pages.next_pages.set()
    assert {entry.name: entry.inode() for entry in os.scandir(mounted.path)} == shown
    assert os.listdir(mounted.path) == sorted(shown, key=os.fsencode)
    assert_is_the_tree(mounted, times=None, empty=False)


def test_who_waits_for_the_next_page_can_be_killed(gate, mount):
    pages = gate(page=3)
    pages.next_pages.clear()
    mounted = mount("s3://data", endpoint=pages.url)
    try:
        reader = subprocess.Popen(["ls", mounted.path], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        assert reader.poll() is None, "it waits"
        reader.kill()
        reader.wait(5)
    finally:
        pages.next_pages.set()
    assert_is_the_tree(mounted, times=None, empty=False)


def test_an_unchanged_listing_is_not_sent_again(make_origin, tree, mount):
    """A page that is a file: nginx names its version, and says when it is the same."""

    def write_page(names: list[str], seconds: int) -> None:
        links = "".join(f'<a href="{name}">{name}</a> 05-Jan-2020 10:00 1\n' for name in names)
        page = tree / "indexed" / "index.html"
        page.write_text(f"<html><head><title>Index of /indexed/</title></head><body><pre>{links}</pre></body></html>")
        os.utime(page, (seconds, seconds))

    (tree / "indexed").mkdir()
    for name in ("a", "b"):
        (tree / "indexed" / name).write_bytes(b"x")
    write_page(["a"], 1_600_000_000)
    origin = make_origin(tree, directives="location /indexed/ { index index.html; autoindex off; }")
    mounted = mount(origin.url + "indexed/", ttl=1)

    def status_of_the_next(names: list[str]) -> set[int]:
        time.sleep(1.3)
        origin.forget()
        assert os.listdir(mounted.path) == names
        return {r.status for r in origin.requests() if r.path == "/indexed/" and r.method == "GET"}

    assert status_of_the_next(["a"]) == {304}
    mounted.down()
    mounted.up()
    assert status_of_the_next(["a"]) == {304}
    write_page(["a", "b"], 1_600_000_001)
    assert status_of_the_next(["a", "b"]) == {200}
    assert status_of_the_next(["a", "b"]) == {304}


def test_the_gate_knows_the_example_of_the_documentation():
    """Of an object's range, in Authenticating Requests: Using the Authorization Header."""
    header = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9", "x-amz-date": "20130524T000000Z",
              "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    made = signature("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "GET", "/test.txt", header,
                     "host;range;x-amz-content-sha256;x-amz-date", "20130524/us-east-1/s3/aws4_request")
    assert made == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def environment(keys: Keys, **more: str) -> dict[str, str]:
    return {**os.environ, "AWS_ACCESS_KEY_ID": keys.id, "AWS_SECRET_ACCESS_KEY": keys.secret,
            "AWS_SESSION_TOKEN": keys.session_token, **more}


@pytest.mark.parametrize("session_token", ["", "a/token+of=signs"])
def test_s3_requests_are_signed_with_the_keys_of_the_environment(gate, mount, make_mount, session_token):
    """Listings, pages of them, and ranges."""
    keys = Keys("S3RVER", "a/secret+of=signs", session_token)
    closed = gate(keys, page=3, region="eu-central-1")
    options = {"endpoint": closed.url, "region": "eu-central-1", "speculate": "off"}
    assert_is_the_tree(mount("s3://data", env=environment(keys), **options), times=None, empty=False)
    assert {status for _, _, status in closed.requests} <= {200, 206, 404}
    for wrong in (environment(Keys(keys.id, "wrong", session_token)), {**os.environ}):
        refused = make_mount("s3://data", env=wrong, **options).try_up()
        assert refused.code == 1 and "403" in refused.output, refused
    # They are for S3 alone.
    refused = make_mount(closed.url + "data/", env=environment(keys)).try_up()
    assert refused.code == 1 and "403" in refused.output, refused


def test_s3_keys_come_from_a_file_and_are_read_again_when_they_are_refused(gate, mount, make_mount, work):
    file = work / "credentials"

    def write(secret: str) -> None:
        file.write_text("[other]\naws_access_key_id = x\n\n[default]\n# ours\naws_access_key_id = S3RVER\n"
                        f"aws_secret_access_key = {secret}\n")

    write("first")
    closed = gate(Keys("S3RVER", "first"))
    options = {"endpoint": closed.url, "aws_credentials": file, "ttl": 0}
    mounted = mount("s3://data", **options)
    assert (mounted / "plain.txt").read_bytes() == content_of("plain.txt")
    closed.keys = Keys("S3RVER", "second")

    def is_refused() -> bool:
        try:
            (mounted / "a b").stat()
        except PermissionError:
            return True
        return False

    # A listing that takes its time is not waited for while there is an old one.
    wait_until(is_refused, "the old keys are refused")
    write("second")
    assert (mounted / "semi;colon").read_bytes() == content_of("semi;colon")
    file.write_text("[default]\n")
    nothing = make_mount("s3://data", **options).try_up()
    assert nothing.code == 1 and "no aws_access_key_id" in nothing.output, nothing
    assert not {"first", "second"} & set(mounted.log.read_text().split())


# --- options ---


@pytest.mark.parametrize("url, options, complaint", [
    ("s3://", {}, "names no bucket"),
    ("s3://x", {"listing": "html"}, "goes with listing=s3"),
    ("http://127.0.0.1:1/", {"endpoint": "http://127.0.0.1:2"}, "endpoint goes with s3://BUCKET"),
    ("http://127.0.0.1:1/", {"region": "eu"}, "region goes with"),
    ("s3://x", {"region": "a.b/c"}, "expected the name of a region"),
    ("s3://x", {"endpoint": "http://me:pass@host"}, "no credentials here"),
    ("http://127.0.0.1:1/", {"listing": "ftp"}, "expected one of: auto, file, html, json, manifest, s3, webdav"),
])
def test_wrong_usage_is_told(make_mount, url, options, complaint):
    failed = make_mount(url, **options).try_up()
    assert failed.code == 2 and complaint in failed.output, failed


def test_listing_file_takes_whatever_is_there_as_a_file(make_origin, mount, make_mount, tree):
    origin = make_origin(tree)
    mounted = mount(origin.url + "plain.txt", listing="file")
    assert os.listdir(mounted.path) == ["plain.txt"]
    failed = make_mount(origin.url, listing="file").try_up()
    assert failed.code == 1 and "names no file" in failed.output, failed


def test_a_listing_of_another_kind_than_was_said_is_an_error(make_origin, make_mount, tree):
    origin = make_origin(tree)
    for listing, complaint in {"json": "expected JSON, the server sent text/html", "webdav": "405", "s3": ""}.items():
        failed = make_mount(origin.url, listing=listing).try_up()
        assert failed.code == 1 and complaint in failed.output, failed


def test_what_is_no_directory_is_told_as_the_server_told_it(make_origin, make_mount, tree):
    origin = make_origin(tree, directives="location / { autoindex off; }")
    failed = make_mount(origin.url).try_up()
    assert failed.code == 1 and "the server answered 403" in failed.output, failed
    missing = make_mount(origin.url + "nowhere/").try_up()
    assert missing.code == 1 and "the server answered 404" in missing.output, missing


# --- bad input ---


class Scripted:
    """answer(method, path, query) is (status, content type, pieces of the body)."""

    def __init__(self, answer: Callable[[str, str, str], tuple]):
        self.requests: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                server.requests.append((self.command, self.path))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = urlsplit(self.path)
                status, kind, body = answer(self.command, parts.path, parts.query)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for piece in [] if self.command == "HEAD" else body:
                        self.wfile.write(piece)
                except OSError:
                    pass  # it has heard enough
                self.close_connection = True

            do_GET = do_HEAD = do_PROPFIND = handle_any

            def log_message(self, *arguments) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    started: list[Scripted] = []

    def make(answer) -> Scripted:
        started.append(Scripted(answer))
        return started[-1]

    yield make
    for server in started:
        server.stop()


def s3_page(entries: str, token: str = "") -> list[bytes]:
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return [f"<ListBucketResult><Name>b</Name>{more}{entries}</ListBucketResult>".encode()]


def refusal(mounted) -> str:
    failed = mounted.try_up()
    assert failed.code == 1, failed
    return failed.output


def test_a_token_that_comes_twice_ends_the_listing(scripted, mount):
    """The first page brings the mount up; who reads on gets what has come, and an error."""
    server = scripted(lambda method, path, query: (200, "application/xml", s3_page("<Contents><Key>k</Key></Contents>",
                                                                                 "again")))
    mounted = mount("s3://b", endpoint=server.url)
    with pytest.raises(OSError) as refused:
        os.listdir(mounted.path)
    assert refused.value.errno == errno.EIO
    assert "a token came twice" in mounted.log.read_text()
    listings = [path for method, path in server.requests if method == "GET"]
    assert len(listings) <= 4, "two for the mount, and for the reader two where he came later"


def test_empty_pages_without_end_end_the_listing(scripted, make_mount):
    server = scripted(lambda method, path, query: (200, "application/xml", s3_page("", str(len(server.requests)))))
    assert "one empty page after the other" in refusal(make_mount("s3://b", endpoint=server.url))
    assert len(server.requests) < 30


@pytest.mark.parametrize("kind, head", [("text/html", b"<html><head><title>Index of /</title></head><body>"),
                                        ("application/json", b"["), ("application/xml", b"<ListBucketResult>")])
def test_a_listing_of_a_gigabyte_is_refused(scripted, make_mount, kind, head):
    piece = b" " * (1 << 20)
    sent = []

    def body():
        yield head
        for _ in range(1024):
            sent.append(1)
            yield piece

    server = scripted(lambda method, path, query: (200, kind, body()))
    assert "longer than 67108864 bytes" in refusal(make_mount(server.url, timeout=20))
    assert len(sent) < 2 * 200


NAMES = ["..", ".", "", "a/b", "n" * 256, "good", "good", "../../etc/passwd"]


def test_names_that_no_file_can_have_are_left_out(scripted, mount):
    def entry(name: str) -> str:
        return f'{{"name":"{name}","type":"file","size":3}}'

    formats = {
        "json": ("application/json", "[" + ",".join(map(entry, [*NAMES, "nul\\u0000x"])) + "]"),
        "webdav": ("application/xml", '<D:multistatus xmlns:D="DAV:">' + "".join(
            f"<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:getcontentlength>3</D:getcontentlength></D:prop>"
            "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
            for href in ["/good", "/good", "/..", "http://other.example/x", "/a/b", "/%2e%2e/a/x", "/nul%00x",
                         "/" + "n" * 256, "//other.example/y"]) + "</D:multistatus>"),
        "s3": ("application/xml", s3_page("".join(
            f"<Contents><Key>{name}</Key><Size>3</Size></Contents>" for name in NAMES) + "".join(
            f"<CommonPrefixes><Prefix>{name}/</Prefix></CommonPrefixes>" for name in NAMES))[0].decode()),
    }
    for listing, (kind, body) in formats.items():
        status = 207 if listing == "webdav" else 200
        server = scripted(lambda method, path, query, s=status, k=kind, b=body: (
            (s, k, [b.encode()]) if method != "HEAD" or path.endswith("/") else (404, k, [])))
        mounted = mount(server.url + ("b/" if listing == "s3" else ""), listing=listing)
        assert os.listdir(mounted.path) == ["good"], listing
        assert "entries that no directory can have were left out" in mounted.log.read_text(), listing


def test_rubbish_is_an_error_and_what_was_known_stays(scripted, mount):
    listings = {"": [b'[{"name":"d","type":"directory"},{"name":"e","type":"directory"}]'], "d/": [b"[{]"],
                "e/": [b'{"error":"no"}']}
    server = scripted(lambda method, path, query: (200, "application/json", listings[path[1:]]))
    mounted = mount(server.url, listing="json", ttl=0)
    assert sorted(os.listdir(mounted.path)) == ["d", "e"]
    for bad in ("d", "e"):
        with pytest.raises(OSError) as failed:
            os.listdir(mounted / bad)
        assert failed.value.errno == errno.EIO
    listings[""] = [b"\x00\xff rubbish"]
    assert sorted(os.listdir(mounted.path)) == ["d", "e"]


def test_a_size_that_no_file_can_have_is_asked_for(scripted, mount):
    """Sizes that are negative or absurd are none: a HEAD tells."""
    body = b'[{"name":"a","type":"file","size":-1},{"name":"b","type":"file","size":18446744073709551615}]'

    def answer(method, path, query):
        return (200, "application/json", [body]) if path == "/" else (404, "text/plain", [])

    mounted = mount(scripted(answer).url)
    assert sorted(os.listdir(mounted.path)) == ["a", "b"]
    for name in ("a", "b"):
        with pytest.raises(FileNotFoundError):
            (mounted / name).stat()


def test_json_that_is_no_listing_is_asked_for_again_as_html(scripted, mount):
    """A server that answers programs and people differently, and has a listing for people."""
    pages = [(200, "application/json", [b'{"api":1}']),
             (200, "text/html", [b"<html><head><title>Index of /</title></head><body><pre><a href=\"f\">f</a></pre>"
                                 b"</body></html>"])]
    server = scripted(lambda method, path, query: pages[min(1, sum(
        m == "GET" and ".wormhole" not in p for m, p in server.requests) - 1)])
    mounted = mount(server.url, keep_warm="off")
    assert os.listdir(mounted.path) == ["f"]
    assert_was_found(mounted, "html")
