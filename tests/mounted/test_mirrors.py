"""mirror=: the same tree on other servers. They bring bytes of the same version and nothing else: no names, no other
version, no error; and they never learn who we are."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import Origin, free_port
from support.range_server import RangeServer

BLOCK = 64 * 1024
MIB = 1 << 20
TIMEOUT = 2  # seconds, as configured
MARGIN = 4  # for a busy machine

# Of each connection: so slow that every other server is welcome.
SLOW = "limit_rate 500k;"


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(3 * MIB + 321)


@pytest.fixture
def make_mirror(make_origin, tree, work) -> Callable[..., Origin]:
    """Another nginx with a copy of `tree` as it is now."""

    def make(**options) -> Origin:
        copy = work / "mirror-tree"
        shutil.copytree(tree, copy, dirs_exist_ok=True)  # with the times
        return make_origin(copy, **options)

    return make


def ranges(server: Origin, path: str = "/file") -> list:
    return [r for r in server.requests() if r.path == path and r.range]


@contextlib.contextmanager
def known(file: Path) -> Iterator[Path]:
    """The origin has told the version of the file: from here on mirrors may bring parts of it."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(fd, 1, os.fstat(fd).st_size - 1)
        yield file
    finally:
        os.close(fd)


# --- what they are for ---


def test_a_file_comes_from_the_origin_and_from_a_mirror(make_origin, make_mirror, tree, mount, content):
    (tree / "file").write_bytes(content)
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror(directives=SLOW)
    mounted = mount(origin.url, mirror=mirror.url)
    with known(mounted / "file") as file:
        assert file.read_bytes() == content
    assert {r.status for r in ranges(mirror)} == {206}
    assert {r.status for r in ranges(origin)} == {206}


def test_several_mirrors_share_the_work(make_origin, make_mirror, tree, mount, content):
    (tree / "file").write_bytes(content)
    origin, mirrors = make_origin(tree, directives=SLOW), [make_mirror(directives=SLOW) for _ in range(2)]
    mounted = mount(origin.url, mirror=[mirror.url for mirror in mirrors])
    with known(mounted / "file") as file:
        assert file.read_bytes() == content
    assert all(ranges(mirror) for mirror in mirrors)


def test_a_mirror_may_have_the_tree_in_another_place(make_origin, tree, work, mount, content):
    (tree / "deep").mkdir()
    (tree / "deep/file #1").write_bytes(content)
    shutil.copytree(tree, work / "elsewhere/pub/tree")
    origin, mirror = make_origin(tree, directives=SLOW), make_origin(work / "elsewhere")
    mounted = mount(origin.url, mirror=mirror.url + "pub/tree")
    with known(mounted / "deep/file #1") as file:
        assert file.read_bytes() == content
    assert ranges(mirror, "/pub/tree/deep/file%20%231")


def test_a_tree_is_the_same_with_a_mirror(make_origin, make_mirror, tree, mount):
    trees.copy_real_tree(tree, files=200, bytes_at_most=8 << 20)
    origin, mirror = make_origin(tree), make_mirror()
    mounted = mount(origin.url, mirror=mirror.url)
    assert run("diff", "-r", tree, mounted.path).output == ""


# --- one of them fails ---


@pytest.mark.parametrize("who", ["the origin", "the mirror"])
def test_a_copy_survives_that_a_server_is_stopped(make_origin, make_mirror, tree, mount, work, content, who):
    (tree / "file").write_bytes(content)
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror(directives=SLOW)
    mounted = mount(origin.url, mirror=mirror.url)
    copying = subprocess.Popen(["cp", mounted / "file", work / "copy"], stderr=subprocess.PIPE, text=True)
    copy = work / "copy"
    wait_until(lambda: copy.exists() and copy.stat().st_size > 200_000, "the copy is under way", 30)
    (origin if who == "the origin" else mirror).stop()
    message = copying.communicate(timeout=60)[1]
    assert (copying.returncode, message) == (0, "")
    assert copy.read_bytes() == content


def test_a_handle_reads_on_from_the_mirror_alone(make_origin, make_mirror, tree, mount, content):
    (tree / "file").write_bytes(content)
    origin, mirror = make_origin(tree), make_mirror()
    mounted = mount(origin.url, mirror=mirror.url)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, MIB) == content[MIB : MIB + 1000]
    origin.stop()
    for offset in range(3 * MIB // 2, 3 * MIB, MIB // 4):
        assert os.pread(fd, 1000, offset) == content[offset : offset + 1000]
    os.close(fd)


def test_a_mirror_stands_in_for_an_origin_that_is_away(make_origin, make_mirror, tree, mount, content):
    (tree / "dir").mkdir()
    (tree / "dir/file").write_bytes(content)
    origin, mirror = make_origin(tree), make_mirror()
    mounted = mount(origin.url, mirror=mirror.url, timeout=TIMEOUT)
    origin.stop()
    assert os.listdir(mounted / "dir") == ["file"]
    assert (mounted / "dir/file").read_bytes() == content
    mounted.down()
    mounted.up()
    assert (mounted / "dir/file").read_bytes() == content


def dead(kind: str, make_mirror) -> str:
    """The URL of a mirror that does not answer."""
    if kind == "unknown name":
        return "http://name.invalid/"
    if kind == "refused":
        return f"http://127.0.0.1:{free_port()}/"
    mirror = make_mirror()
    mirror.pause()
    return mirror.url


@pytest.mark.parametrize("kind", ["refused", "unknown name", "silent"])
def test_a_dead_mirror_costs_its_latency_once_and_no_error(make_origin, make_mirror, tree, mount, content, kind):
    for name in ("first", "second"):
        (tree / name).write_bytes(content)
    origin = make_origin(tree, directives="limit_rate 1m;")
    mounted = mount(origin.url, mirror=dead(kind, make_mirror), timeout=TIMEOUT)
    for name, seconds in (("first", 2 * TIMEOUT), ("second", 0)):
        with known(mounted / name) as file:
            began = time.monotonic()
            assert file.read_bytes() == content
            assert time.monotonic() - began < seconds + MARGIN


def test_a_silent_mirror_is_no_error_for_a_random_reader(make_origin, make_mirror, tree, mount, content):
    """One request at a time: nobody else finds out for him."""
    (tree / "file").write_bytes(content)
    origin = make_origin(tree)
    mirror = make_mirror()
    mounted = mount(origin.url, mirror=mirror.url, timeout=TIMEOUT)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    places = range(MIB // 2, 3 * MIB, MIB // 4)
    for number, at in enumerate(places):
        if number == 3:
            mirror.pause()
        assert os.pread(fd, 1000, at) == content[at : at + 1000], number
    os.close(fd)


def test_a_mirror_that_is_back_is_used_again(make_origin, make_mirror, tree, mount, content):
    (tree / "big").write_bytes(content[: 2 * MIB])
    parts = [content[i * BLOCK : i * BLOCK + MIB // 2] for i in range(20)]
    for i, part in enumerate(parts):
        (tree / f"{i}").write_bytes(part)
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror()
    mounted = mount(origin.url, mirror=mirror.url)
    mirror.stop()
    with known(mounted / "big") as file:
        assert file.read_bytes() == content[: 2 * MIB]  # many requests find out at once
    mirror.start()
    back = time.monotonic()
    for i, part in enumerate(parts):
        with known(mounted / f"{i}") as file:
            assert file.read_bytes() == part
        if any(r.status == 206 for r in mirror.requests()):
            break
        assert time.monotonic() - back < 2 + 8, "it is left alone for longer than two seconds"


# --- another version ---


def be_longer(file: Path, content: bytes) -> None:
    trees.replace(file, trees.other_version(content) + b"more", minutes=0)


def be_shorter(file: Path, content: bytes) -> None:
    trees.replace(file, trees.other_version(content)[:-50_000], minutes=0)


def be_newer(file: Path, content: bytes) -> None:
    trees.replace(file, trees.other_version(content), minutes=2)


def be_missing(file: Path, content: bytes) -> None:
    file.unlink()


def be_unreadable(file: Path, content: bytes) -> None:
    file.unlink()
    file.symlink_to(file.name)  # nginx answers with an error


NAMELESS = 'etag off; add_header Last-Modified "";'  # says nothing of its versions

OTHER_VERSIONS = [be_longer, be_shorter, be_newer, be_missing, be_unreadable]


@pytest.mark.parametrize("before", ["unknown", "known"])
@pytest.mark.parametrize("other", OTHER_VERSIONS, ids=lambda f: f.__name__)
def test_a_mirror_with_something_else_never_contributes_a_byte(make_origin, make_mirror, tree, mount, content, other,
                                                               before):
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, directives=SLOW if before == "known" else "")
    mirror = make_mirror()
    other(mirror.tree / "file", content)
    mounted = mount(origin.url, mirror=mirror.url)
    with known(mounted / "file") if before == "known" else contextlib.nullcontext(mounted / "file") as file:
        assert file.read_bytes() == content
    asked = ranges(mirror)
    assert asked or before == "unknown"
    assert len(asked) < 24  # not for each part anew


def test_a_mirror_without_dates_and_etags_never_contributes_a_byte(make_origin, make_mirror, tree, mount, content):
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, directives=SLOW)
    mirror = make_mirror(directives=NAMELESS)
    (mirror.tree / "file").write_bytes(trees.other_version(content))
    mounted = mount(origin.url, mirror=mirror.url)
    with known(mounted / "file") as file:
        assert file.read_bytes() == content
    assert ranges(mirror)


def test_a_mirror_without_dates_and_etags_does_not_finish_what_the_origin_began(make_origin, make_mirror, tree, mount,
                                                                               work, content):
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, directives="limit_rate 100k;")  # of each request, but for the first 100 KB
    mirror = make_mirror(directives=NAMELESS)
    (mirror.tree / "file").write_bytes(trees.other_version(content))
    # Many parts wait for the one connection; they were asked for before the version was known.
    mounted = mount(origin.url, mirror=mirror.url, timeout=1, connections=1)
    copying = subprocess.Popen(["cp", mounted / "file", work / "copy"], stderr=subprocess.PIPE, text=True)
    copy = work / "copy"
    wait_until(lambda: copy.exists() and copy.stat().st_size > 100_000, "the copy is under way", 30)
    origin.stop()
    message = copying.communicate(timeout=60)[1]
    copied = copy.read_bytes()
    assert copied == content[: len(copied)]
    assert len(copied) < len(content) and "error" in message


def test_a_weak_etag_does_not_make_a_mirror_the_same(range_server, support_program, mount, content):
    """Weak ETags are equal when two files mean the same. That is not enough to put them together."""
    mirror = RangeServer(support_program("range-server"))
    try:
        range_server.put("file", content)
        mirror.put("file", trees.other_version(content))
        for server in (range_server, mirror):
            server.behave("file", validators="weak", bytes_per_second=2_000_000)
        mounted = mount(range_server.url, mirror=mirror.url)
        with known(mounted / "file") as file:
            assert file.read_bytes() == content
        assert mirror.requests("file")
    finally:
        mirror.stop()


@pytest.mark.parametrize("other", OTHER_VERSIONS, ids=lambda f: f.__name__)
def test_a_small_file_that_is_another_one_on_the_faster_mirror_is_the_origins(make_origin, make_mirror, tree, mount,
                                                                             content, other):
    small, big = content[:100_000], content[: 2 * MIB]
    (tree / "file").write_bytes(small)
    (tree / "big").write_bytes(big)
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror()
    other(mirror.tree / "file", small)
    mounted = mount(origin.url, mirror=mirror.url)
    with known(mounted / "big") as file:
        assert file.read_bytes() == big  # shows who is faster
    assert ranges(mirror, "/big")
    assert (mounted / "file").read_bytes() == small


def test_names_and_sizes_are_the_origins_whoever_is_faster(make_origin, make_mirror, tree, mount, content):
    (tree / "big").write_bytes(content[: 2 * MIB])
    (tree / "dir").mkdir()
    (tree / "dir/both").write_bytes(b"short")
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror()
    (tree / "dir/both").write_bytes(b"longer on the origin")
    (tree / "dir/late").write_bytes(b"on the origin alone")
    (mirror.tree / "dir/foreign").write_bytes(b"on the mirror alone")
    mounted = mount(origin.url, mirror=mirror.url)
    with known(mounted / "big") as file:
        reading = threading.Thread(target=file.read_bytes)
        reading.start()
        wait_until(lambda: bool(ranges(mirror, "/big")), "both are at work")
        names = sorted(os.listdir(mounted / "dir"))
        reading.join(60)
    assert names == ["both", "late"]
    assert (mounted / "dir/both").read_bytes() == b"longer on the origin"
    assert (mounted / "dir/late").read_bytes() == b"on the origin alone"
    assert [r.path for r in mirror.requests() if r.path.endswith("/") or r.method == "HEAD"] == []


# --- who we are ---


@pytest.mark.parametrize("kind", ["token-file", "header-file", "netrc", "user and password"])
def test_credentials_go_to_the_origin_alone(make_origin, make_mirror, tree, mount, work, content, kind):
    content = content[: 2 * MIB]
    (tree / "file").write_bytes(content)
    origin, mirror = make_origin(tree, directives=SLOW), make_mirror()
    secret = work / "secret"
    secret.write_text({"token-file": "t0ken\n", "header-file": "Authorization: Custom t0ken\n",
                       "netrc": "machine 127.0.0.1 login me password t0ken\n"}.get(kind, ""))
    url = origin.url.replace("//", "//me:t0ken@") if kind == "user and password" else origin.url
    options = {kind.replace("-", "_"): secret} if kind != "user and password" else {}
    mounted = mount(url, mirror=mirror.url, **options)
    with known(mounted / "file") as file:
        assert file.read_bytes() == content
    assert ranges(mirror)
    assert all(r.authorization for r in origin.requests())
    assert {r.authorization for r in mirror.requests()} == {""}


def test_a_mirror_with_a_password_is_refused(make_origin, tree, make_mount):
    origin = make_origin(tree)
    result = make_mount(origin.url, mirror="http://me:secret@127.0.0.1/").try_up()
    assert result.code == 2
    assert "mirror" in result.output and "credentials" in result.output
