"""wormhole host keeps a manifest: it follows the directory, and who mounts it sees what is there, checked."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until

MIB = 1 << 20
NOBODY = 65534


@dataclass
class Host:
    tree: Path
    place: Path  # of the manifest
    url: str
    port: int
    process: subprocess.Popen
    errors: Path

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def head(self) -> bytes | None:
        """The manifest's, as a reader gets it."""
        status, body = self.get("/.wormhole/manifest")
        assert status in (200, 404)
        return body if status == 200 else None

    def heads(self) -> int:
        return sum(re.fullmatch("manifest-[0-9a-f]{64}", name) is not None for name in os.listdir(self.place))

    def written(self) -> list[dict[str, int]]:
        """What the log says of each manifest."""
        lines = [line for line in self.errors.read_text().splitlines() if "manifest: sequence=" in line]
        return [{name: int(value) for name, value in re.findall(r"([a-z-]+)=(\d+)(?: |$)", line)} for line in lines]

    def end(self) -> float:
        """How long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 0, self.errors.read_text()
        return time.monotonic() - began


StartHost = Callable[..., Host]


@pytest.fixture
def start_host(wormhole, tree, work) -> Iterator[StartHost]:
    with contextlib.ExitStack() as running:
        count = 0

        def start(*arguments: object, place: Path | None = work / "manifest", user: int | None = None, **env) -> Host:
            nonlocal count
            count += 1
            errors = work / f"host-{count}.errors"
            program = wormhole
            if user is not None:  # whom nobody lets into the place where it was built
                program = work / "bin" / "wormhole"
                program.parent.mkdir(exist_ok=True)
                shutil.copy2(wormhole, program)
            where = ["--manifest-dir", place] if place else []
            with open(errors, "wb") as stderr:
                process = subprocess.Popen(
                    [program, "host", tree, "--listen", "127.0.0.1:0", "--json", "--log", "/dev/null",
                     *map(str, [*where, *arguments])],
                    stdout=subprocess.PIPE, stderr=stderr, text=True, user=user, env={**os.environ, **env})
            running.callback(process.wait)
            running.callback(process.kill)
            line = process.stdout.readline()
            assert line, errors.read_text()
            started = json.loads(line)
            one = Host(tree, place or tree / ".wormhole", started["url"], started["port"], process, errors)
            running.callback(lambda: process.poll() is None and one.end())
            return one

        yield start


@pytest.fixture
def check(wormhole):
    """What of the tree is another than the manifest says."""

    def do(host: Host) -> list[tuple[str, str]]:
        done = subprocess.run([wormhole, "index", "--check", host.tree, "-o", host.place, "--json", "-q"],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 3), done.stderr
        return [(one["kind"], one["path"]) for one in json.loads(done.stdout)["differences_named"]]

    return do


def age(path: Path, seconds: int = 1000) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def write_old(path: Path, content: bytes) -> None:
    """Nobody sees it while it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp()
    with open(handle, "wb") as file:
        file.write(content)
    os.chmod(made, 0o644)
    age(Path(made))
    os.rename(made, path)


def read(path: Path) -> bytes | None:
    """Nothing: it is not there, or between two versions."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def test_a_tree_is_mounted_as_its_manifest_says(start_host, tree, mount, check):
    trees.copy_real_tree(tree, files=300, bytes_at_most=20 * MIB)
    trees.write_odd_names(tree / "odd")
    (tree / "odd" / "link").symlink_to("../nowhere")
    (tree / "odd" / "program").write_bytes(b"#!")
    (tree / "odd" / "program").chmod(0o711)
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    assert check(host) == []
    mounted = mount(host.url)
    assert run("diff", "-r", "--no-dereference", tree, mounted.path).output == ""
    assert os.readlink(mounted / "odd" / "link") == "../nowhere"
    assert (mounted / "odd" / "program").stat().st_mode & 0o7777 == 0o711


def test_a_mount_sees_what_changes(start_host, tree, mount, check):
    write_old(tree / "a/kept", b"kept")
    write_old(tree / "a/changed", b"old")
    write_old(tree / "a/removed", b"removed")
    write_old(tree / "b/moved", trees.real_bytes(300_000))
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    mounted = mount(host.url, ttl=1)
    assert (mounted / "a/changed").read_bytes() == b"old"
    large = trees.real_bytes(5 * MIB)
    (tree / "a/added").write_bytes(large)
    (tree / "new/deep").mkdir(parents=True)
    (tree / "new/deep/file").write_bytes(b"deep")
    trees.replace(tree / "a/changed", b"another", minutes=2)
    (tree / "a/removed").unlink()
    (tree / "b").rename(tree / "c")
    wait_until(lambda: read(mounted / "a/added") == large, "what was added is there", 20)
    wait_until(lambda: read(mounted / "a/changed") == b"another", "what was changed is there", 20)
    wait_until(lambda: read(mounted / "new/deep/file") == b"deep", "a new directory is there", 20)
    wait_until(lambda: not (mounted / "a/removed").exists(), "what was removed is gone", 20)
    wait_until(lambda: read(mounted / "c/moved") == trees.real_bytes(300_000), "a directory has its new name", 20)
    assert not (mounted / "b").exists()
    assert (mounted / "a/kept").read_bytes() == b"kept"
    wait_until(lambda: check(host) == [], "the manifest has caught up", 20)
    assert run("diff", "-r", tree, mounted.path).output == ""


def test_only_what_has_changed_is_read_again(start_host, tree):
    for i in range(20):
        write_old(tree / f"{i}/file", trees.real_bytes(100_000 + i))
    host = start_host()
    wait_until(lambda: len(host.written()) == 1, "there is a manifest")
    assert host.written()[0]["read"] == sum(100_000 + i for i in range(20))
    write_old(tree / "7/other", b"x" * 777)
    wait_until(lambda: len(host.written()) == 2, "there is another")
    assert host.written()[1] | {"sequence": 0, "seconds": 0} == host.written()[1] | {
        "files": 21, "read": 777, "being-written": 0, "sequence": 0, "seconds": 0}


def test_a_burst_of_changes_makes_few_manifests(start_host, tree, check):
    (tree / "dir").mkdir()
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    for i in range(1000):
        (tree / f"dir/{i}").write_bytes(b"%d" % i)
    wait_until(lambda: host.written()[-1]["files"] == 1000, "all are in it", 30)
    assert len(host.written()) <= 8
    assert check(host) == []


def test_a_file_that_is_being_written_is_there_and_gets_its_hash_in_the_end(start_host, tree, mount, check):
    """It grows for some seconds; nobody reads it over and over meanwhile."""
    write_old(tree / "other", b"other")
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    piece = trees.real_bytes(MIB)
    with open(tree / "growing", "wb", buffering=0) as file:
        file.write(piece * 6)
        began = time.monotonic()
        while time.monotonic() - began < 6:
            file.write(piece[:100_000])
            time.sleep(0.05)
    size = (tree / "growing").stat().st_size
    during = host.written()
    assert any(one["being-written"] == 1 and one["files"] == 2 for one in during)
    assert sum(one["read"] for one in during[1:]) == 0, "it is not read while it grows"
    wait_until(lambda: host.written()[-1]["read"] == size, "it is read when it is left alone", 20)
    assert host.written()[-1]["being-written"] == 0
    assert check(host) == []
    assert (mount(host.url) / "growing").read_bytes() == (tree / "growing").read_bytes()


def test_what_is_written_all_the_time_is_never_wrong(start_host, tree, mount, check):
    """Every hash that is ever published is of a content that the file had."""
    file = tree / "file"
    contents = [bytes([i]) * 200_000 for i in range(64)]
    file.write_bytes(contents[0])
    host = start_host()
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            with open(file, "r+b", buffering=0) as out:  # in place, in two halves
                out.write(contents[i % 64][:100_000])
                out.write(contents[i % 64][100_000:])
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: len(host.written()) >= 3, "some manifests are made", 30)
    finally:
        stop.set()
        writer.join()
    wait_until(lambda: check(host) == [], "at the end it is as it is", 20)
    assert (mount(host.url) / "file").read_bytes() == file.read_bytes()


def test_a_directory_that_cannot_be_written_to(start_host, tree, work, mount):
    """As an ordinary user, whose state is where that belongs."""
    write_old(tree / "file", b"content")
    tree.chmod(0o555)
    home = work / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    host = start_host(place=None, user=NOBODY, XDG_CACHE_HOME=str(home))
    wait_until(lambda: host.head() is not None, "there is a manifest")
    assert os.listdir(tree) == ["file"]
    (place,) = (home / "wormhole/host").iterdir()
    assert (place / "manifest").read_bytes() == host.head()
    assert place.stat().st_mode & 0o077 == 0, "names are for those who may list them"
    mounted = mount(host.url)
    assert os.listdir(mounted.path) == ["file"]
    assert (mounted / "file").read_bytes() == b"content"


def test_without_a_place_it_is_served_without(start_host, tree, work):
    write_old(tree / "file", b"content")
    (work / "home").mkdir(mode=0o555)
    host = start_host(place=None, user=NOBODY, XDG_CACHE_HOME=str(work / "home"))
    assert host.get("/file") == (200, b"content")
    assert host.head() is None
    assert "without a manifest" in host.errors.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_hashed_is_not_hashed_again_by_the_next(start_host, tree, mount, number):
    write_old(tree / "a/file", trees.real_bytes(5 * MIB))
    write_old(tree / "b/file", trees.real_bytes(1000))
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    head = host.head()
    host.process.send_signal(number)
    host.process.wait(10)
    again = start_host()
    assert again.head() == head, "at once"
    (tree / "b/new").write_bytes(b"n" * 777)
    wait_until(lambda: len(again.written()) == 1, "the next one is made")
    assert again.written()[0]["read"] in (777, 2 * 777)
    assert (mount(again.url) / "a/file").read_bytes() == trees.real_bytes(5 * MIB)


def test_what_has_changed_while_it_was_not_there_is_found(start_host, tree, check):
    write_old(tree / "a/file", b"old")
    write_old(tree / "b/file", b"old")
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    host.end()
    (tree / "a/file").write_bytes(b"new")
    shutil.rmtree(tree / "b")
    again = start_host()
    wait_until(lambda: len(again.written()) == 1, "the next one is made")
    assert check(again) == []


def test_an_interrupt_while_it_hashes_is_quick(start_host, tree, work):
    for i in range(8):
        with open(tree / f"large{i}", "wb") as file:
            file.truncate(4 << 30)
        age(tree / f"large{i}")
    host = start_host()
    wait_until(lambda: any(name.startswith(".new") for name in os.listdir(host.place)), "it has begun")
    time.sleep(0.3)
    assert host.get("/")[0] == 200
    assert host.head() is None, "and is not through"
    assert host.end() < 5, "to hash all of it takes much longer"
    assert not host.place.exists() or os.listdir(host.place) == []


def test_the_manifest_is_not_listed_even_in_the_tree(start_host, tree, mount):
    write_old(tree / "file", b"content")
    host = start_host(place=tree / "state")
    wait_until(lambda: host.head() is not None, "there is a manifest")
    listed = host.get("/")[1]
    assert b"file" in listed and b"state" not in listed and b".wormhole" not in listed
    for listing in ("manifest", "html"):
        assert os.listdir(mount(host.url, listing=listing).path) == ["file"]
    time.sleep(3)
    assert len(host.written()) == 1, "its own files are no change"


def test_the_trees_own_manifest_is_served_as_it_is(start_host, wormhole, tree):
    write_old(tree / "file", b"content")
    assert run(wormhole, "index", tree).code == 0
    head = (tree / ".wormhole/manifest").read_bytes()
    host = start_host(place=None)
    assert host.head() == head
    (tree / "new").write_bytes(b"new")
    time.sleep(2)
    assert host.head() == head
    host.end()
    # Unless that is asked for.
    host = start_host(place=tree / ".wormhole")
    wait_until(lambda: host.head() != head, "it follows now")


def test_off_means_none(start_host, tree):
    write_old(tree / "file", b"content")
    host = start_host("--manifest=off", place=None)
    time.sleep(1)
    assert host.head() is None
    assert os.listdir(tree) == ["file"]


def test_readers_of_the_one_before_go_on(start_host, tree, mount):
    write_old(tree / "dir/file", trees.real_bytes(5 * MIB))
    host = start_host()
    wait_until(lambda: host.head() is not None, "there is a manifest")
    mounted = mount(host.url)  # believes its manifest for a minute
    os.listdir(mounted.path)
    for i in range(3):
        before = host.head()
        (tree / f"new{i}").write_bytes(b"new")
        wait_until(lambda: host.head() != before, "there is another manifest")
    assert host.heads() >= 4
    assert (mounted / "dir/file").read_bytes() == trees.real_bytes(5 * MIB)


def test_it_is_signed(start_host, need, work, tree, mount, make_mount):
    minisign = need("minisign")
    assert run(minisign, "-G", "-W", "-p", work / "a.pub", "-s", work / "a.key").code == 0
    assert run(minisign, "-G", "-W", "-p", work / "b.pub", "-s", work / "b.key").code == 0
    write_old(tree / "file", b"content")
    host = start_host("--sign", work / "a.key")
    wait_until(lambda: host.head() is not None, "there is a manifest")
    mounted = mount(host.url, ttl=1, **{"manifest-key": work / "a.pub"})
    assert (mounted / "file").read_bytes() == b"content"
    trees.replace(tree / "file", b"another", minutes=2)
    wait_until(lambda: read(mounted / "file") == b"another", "the next one is signed as well", 20)
    assert make_mount(host.url, **{"manifest-key": work / "b.pub"}).try_up().code != 0


def test_two_of_the_same_directory_share_it(start_host, tree):
    write_old(tree / "file", b"content")
    first = start_host()
    wait_until(lambda: first.head() is not None, "there is a manifest")
    second = start_host()
    assert second.head() == first.head()
    (tree / "new").write_bytes(b"new")
    wait_until(lambda: len(first.written()) == 2, "the first one follows")
    assert second.head() == first.head() and second.written() == []
    first.end()
    before = second.head()
    (tree / "newer").write_bytes(b"newer")
    wait_until(lambda: second.head() != before, "then the second one does", 20)


def test_what_cannot_be_is_said(wormhole, tree, work):
    (work / "file").write_text("x")
    for arguments in (["--manifest-dir", work / "file"], ["--manifest-dir", work / "no/where"], ["--manifest-dir", tree],
                      ["--sign", work / "missing"], ["--manifest=off", "--manifest-dir", work / "x"],
                      ["--manifest", "perhaps"]):
        done = run(wormhole, "host", tree, "--listen", "127.0.0.1:0", *map(str, arguments), timeout=10)
        assert done.code != 0 and done.output.strip(), arguments
    assert os.listdir(tree) == []
