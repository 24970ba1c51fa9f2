"""A tree with a manifest: everything is as the manifest says, whoever serves the bytes, or it is an error."""

import errno
import os
import random
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import Origin, free_port

BLOCK = 64 * 1024


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(6 * (1 << 20) + 777)


@pytest.fixture
def served(origin, content):
    """A tree with one of everything."""
    tree = origin.tree
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "big").write_bytes(content)
    (tree / "empty").touch()
    (tree / "sub" / "small").write_bytes(b"x" * 1000)
    (tree / "sub" / "deep" / "script").write_bytes(b"#!/bin/sh\n")
    os.chmod(tree / "sub" / "deep" / "script", 0o750)
    os.symlink("../big", tree / "sub" / "link")
    os.utime(tree / "big", ns=(10**18, 1_234_567_890_123_456_789))
    return origin


def facts(path: Path) -> tuple:
    status = path.lstat()
    target = os.readlink(path) if path.is_symlink() else ""
    times = () if path.is_symlink() or path.is_dir() else (status.st_size, status.st_mtime_ns)
    return (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), target, *times)


def tree_of(root: Path) -> dict[str, tuple]:
    paths = (p for p in root.rglob("*") if ".wormhole" not in p.parts)
    return {str(p.relative_to(root)): facts(p) for p in paths}


def damage(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_names_modes_times_and_links_are_those_of_the_manifest(served, mount, index, content):
    index(served.tree)
    mounted = mount(served.url)
    assert tree_of(mounted.path) == tree_of(served.tree)
    assert (mounted / "sub" / "link").read_bytes() == content
    assert (mounted / "empty").read_bytes() == b""
    # No listing, and no HEAD.
    paths = [r.path for r in served.requests()]
    assert not [p for p in paths if p.endswith("/") and p != "/"]
    assert {r.path for r in served.requests() if r.method == "HEAD"} <= {"/"}


def test_what_the_manifest_needs_is_not_seen(served, mount, index):
    index(served.tree)
    mounted = mount(served.url)
    assert ".wormhole" not in os.listdir(mounted.path)
    assert not (mounted / ".wormhole").exists()


def test_a_tree_without_a_manifest_is_as_before(served, mount, content):
    mounted = mount(served.url)
    assert (mounted / "big").read_bytes() == content
    assert not (mounted / "sub" / "link").is_symlink()


def test_a_wrong_block_is_an_error_and_the_others_are_read(served, mount, index, content):
    index(served.tree)
    at = 30 * BLOCK + 5
    damage(served.tree / "big", at)
    mounted = mount(served.url)
    with open(mounted / "big", "rb", buffering=0) as file:
        with pytest.raises(OSError) as error:
            os.pread(file.fileno(), 10, at)
        assert error.value.errno == errno.EIO
        assert os.pread(file.fileno(), 10, 60 * BLOCK) == content[60 * BLOCK : 60 * BLOCK + 10]
    assert mounted.status()["blocks_refused"] >= 1
    log = mounted.log.read_text()
    assert "block=30" in log and "big" in log and served.url in log
    # Mended, it is read.
    damage(served.tree / "big", at)
    assert (mounted / "big").read_bytes() == content


def test_a_wrong_block_comes_from_a_mirror(served, mount, index, content, work):
    index(served.tree)
    shutil.copytree(served.tree, work / "mirror", symlinks=True)
    damage(served.tree / "big", 30 * BLOCK + 5)
    with Origin(work / "mirror", work / "mirror-server") as mirror:
        mounted = mount(served.url, mirror=mirror.url)
        assert (mounted / "big").read_bytes() == content


def test_a_wrong_small_file_is_an_error(served, mount, index):
    index(served.tree)
    damage(served.tree / "sub" / "small", 500)
    mounted = mount(served.url)
    with pytest.raises(OSError) as error:
        (mounted / "sub" / "small").read_bytes()
    assert error.value.errno == errno.EIO


@pytest.mark.parametrize("name", ["big", "sub/small"])
def test_a_file_that_was_replaced_is_read_without_waiting_for_the_ttl(served, mount, index, content, name):
    index(served.tree)
    mounted = mount(served.url, ttl=3600)
    assert (mounted / name).stat().st_size > 0
    new = bytes(reversed((served.tree / name).read_bytes())) + b"more"
    (served.tree / name).write_bytes(new)
    time.sleep(1.1)  # a manifest that was asked for just now is not asked for again
    with pytest.raises(OSError) as error:  # no manifest says that these bytes are right
        (mounted / name).read_bytes()
    assert error.value.errno in (errno.EIO, errno.ESTALE)
    index(served.tree)
    time.sleep(1.1)

    def is_new() -> bool:
        try:
            return (mounted / name).read_bytes() == new
        except OSError:
            return False

    wait_until(is_new, "the new manifest is asked for")


def test_a_damaged_pages_file_is_an_error(served, wormhole, work, index):
    index(served.tree)
    pages = next((served.tree / ".wormhole").glob("pages-*"))
    pages.write_bytes(bytes(pages.stat().st_size))
    (work / "m").mkdir()
    done = run(wormhole, "mount", served.url, work / "m", "-o", f"cache={work / 'c'}")
    assert done.code != 0
    assert "manifest" in done.output


@pytest.mark.parametrize("harm", ["cut", "rubbish", "future"])
def test_a_manifest_that_cannot_be_one(served, wormhole, work, index, harm):
    index(served.tree)
    head = served.tree / ".wormhole" / "manifest"
    bytes_ = bytearray(head.read_bytes())
    if harm == "cut":
        bytes_ = bytes_[:100]
    elif harm == "rubbish":
        bytes_[20:60] = random.Random(1).randbytes(40)
    else:
        bytes_[8] = 99
    head.write_bytes(bytes_)
    (work / "m").mkdir()
    done = run(wormhole, "mount", served.url, work / "m", "-o", f"cache={work / 'c'}")
    assert done.code != 0
    assert "manifest" in done.output


def test_listing_manifest_wants_one(served, wormhole, work):
    (work / "m").mkdir()
    done = run(wormhole, "mount", served.url, work / "m", "-o", f"cache={work / 'c'},listing=manifest")
    assert done.code != 0 and "manifest" in done.output


def test_a_new_manifest_is_a_new_version_of_what_has_changed(served, mount, index, content):
    index(served.tree)
    mounted = mount(served.url, ttl=1)
    assert (mounted / "big").read_bytes() == content
    before = (mounted / "big").stat().st_ino, (mounted / "sub" / "small").stat().st_ino
    (served.tree / "sub" / "small").write_bytes(b"y" * 2000)
    (served.tree / "new").write_bytes(b"new")
    os.unlink(served.tree / "empty")
    index(served.tree)
    wait_until(lambda: (mounted / "new").exists(), "the manifest is looked at again")
    wait_until(lambda: (mounted / "sub" / "small").stat().st_size == 2000, "the manifest is looked at again")
    assert (mounted / "sub" / "small").read_bytes() == b"y" * 2000
    assert not (mounted / "empty").exists()
    assert (mounted / "big").stat().st_ino == before[0]
    served.forget()
    assert (mounted / "big").read_bytes() == content
    assert served.body_bytes("/big") == 0


def test_a_manifest_by_its_hash_stays_what_it_is(served, mount, index):
    first = index(served.tree)
    (served.tree / "new").write_bytes(b"new")
    second = index(served.tree)
    assert first != second
    mounted = mount(served.url, manifest=first, ttl=0)
    assert "new" not in os.listdir(mounted.path)
    assert "new" in os.listdir(mount(served.url, manifest=second).path)


def test_what_was_read_is_there_without_the_server(served, mount, index, content):
    index(served.tree)
    mounted = mount(served.url, ttl=1)
    assert (mounted / "big").read_bytes() == content
    expected = tree_of(mounted.path)
    mounted.down()
    served.stop()
    mounted.up()
    assert tree_of(mounted.path) == expected
    assert (mounted / "big").read_bytes() == content


# --- signatures ---


@pytest.fixture
def keys(work):
    """Two key pairs of minisign: (secret, public) each."""
    if shutil.which("minisign") is None:
        pytest.skip("minisign is not installed")
    out = []
    for name in ("ours", "another"):
        secret, public = work / f"{name}.key", work / f"{name}.pub"
        subprocess.run(["minisign", "-G", "-W", "-s", secret, "-p", public], check=True, capture_output=True)
        out.append((secret, public))
    return out


def try_mount(wormhole, served, work, **options):
    (work / "m").mkdir(exist_ok=True)
    text = ",".join(f"{k.replace('_', '-')}={v}" for k, v in {"cache": work / "c", **options}.items())
    done = run(wormhole, "mount", served.url, work / "m", "-o", text)
    if done.code == 0:
        run(wormhole, "umount", work / "m")
    return done


def test_a_signed_manifest_is_believed(served, mount, index, keys, content):
    index(served.tree, "--sign", keys[0][0])
    mounted = mount(served.url, manifest_key=keys[0][1])
    assert (mounted / "big").read_bytes() == content


def test_a_manifest_without_the_right_signature_is_not(served, wormhole, work, index, keys):
    index(served.tree)
    assert try_mount(wormhole, served, work, manifest_key=keys[0][1]).code != 0
    index(served.tree, "--sign", keys[1][0])
    assert try_mount(wormhole, served, work, manifest_key=keys[0][1]).code != 0
    shutil.rmtree(served.tree / ".wormhole")
    done = try_mount(wormhole, served, work, manifest_key=keys[0][1])
    assert done.code != 0 and "manifest" in done.output


def test_an_older_manifest_is_not_believed_again(served, mount, index, keys, work, wormhole):
    index(served.tree, "--sign", keys[0][0])
    shutil.copytree(served.tree / ".wormhole", work / "old")
    (served.tree / "new").write_bytes(b"new")
    index(served.tree, "--sign", keys[0][0])
    options = {"manifest_key": keys[0][1], "cache": work / "c", "ttl": 1}
    mounted = mount(served.url, **options)
    assert (mounted / "new").read_bytes() == b"new"
    mounted.down()
    shutil.rmtree(served.tree / ".wormhole")
    shutil.copytree(work / "old", served.tree / ".wormhole")
    mounted.up()  # with what was known before
    assert "new" in os.listdir(mounted.path)
    wait_until(lambda: "new" in os.listdir(mounted.path) and "older" in mounted.log.read_text(),
               "the manifest is looked at again")


# --- mirrors that the manifest names ---


@pytest.fixture
def named(make_origin, served, index, work):
    """named(**options) is another nginx with a copy of the tree, which the manifest of `served` names."""

    def make(**options) -> Origin:
        mirror = make_origin(work / "mirror", **options)
        index(served.tree, "--mirror", mirror.url)
        shutil.copytree(served.tree, work / "mirror", symlinks=True, dirs_exist_ok=True)
        return mirror

    return make


def shown(mounted) -> dict[str, dict]:
    return {server["url"]: server for server in mounted.status()["servers"]}


def test_blocks_come_from_a_mirror_that_the_manifest_names(served, named, make_origin, mount, content):
    mirror = named()
    slow = make_origin(served.tree, directives="limit_rate 200k;")
    mounted = mount(slow.url)
    began = time.monotonic()
    assert (mounted / "big").read_bytes() == content
    assert time.monotonic() - began < len(content) / 400e3
    assert {r.status for r in mirror.requests()} == {206}
    pages = next(served.tree.glob(".wormhole/pages-*")).name
    assert {r.path for r in mirror.requests()} <= {"/big", f"/.wormhole/{pages}"}
    servers = shown(mounted)
    assert servers[slow.url]["role"] == "origin"
    assert servers[mirror.url]["role"] == "mirror of the manifest"
    # What it sent of an answer that was given up may not have been received.
    sent = sum(r.body_bytes for r in mirror.requests())
    assert sent - (1 << 20) < servers[mirror.url]["bytes_received"] <= sent


def test_wrong_bytes_of_the_origin_come_from_the_named_mirror(served, named, mount, content):
    named()
    for block in (3, 30, 90):
        damage(served.tree / "big", block * BLOCK)
    damage(served.tree / "sub" / "small", 5)
    mounted = mount(served.url)
    assert (mounted / "big").read_bytes() == content
    assert (mounted / "sub" / "small").read_bytes() == b"x" * 1000


def test_wrong_bytes_of_a_named_mirror_come_from_the_origin(served, named, mount, content, work):
    mirror = named()
    (work / "mirror" / "big").write_bytes(bytes(len(content)))
    next((work / "mirror" / ".wormhole").glob("pages-*")).write_bytes(b"no pages at all")
    mounted = mount(served.url)
    assert (mounted / "big").read_bytes() == content
    assert tree_of(mounted.path) == tree_of(served.tree)
    assert shown(mounted)[mirror.url]["files_wrong"] + shown(mounted)[mirror.url]["files_lacked"] >= 1


def test_a_named_mirror_serves_while_the_origin_is_away(served, named, mount, content):
    named()
    mounted = mount(served.url, timeout=5)
    served.stop()
    assert (mounted / "big").read_bytes() == content
    assert (mounted / "sub" / "small").read_bytes() == b"x" * 1000
    assert tree_of(mounted.path) == tree_of(served.tree)
    assert shown(mounted)[served.url]["rests"]


def test_a_remembered_mirror_serves_where_the_origin_is_away_from_the_begin(served, named, mount, content):
    named()
    mounted = mount(served.url, timeout=5, ttl=1)
    expected = tree_of(mounted.path)
    mounted.down()
    served.stop()
    mounted.up()
    assert (mounted / "big").read_bytes() == content
    assert tree_of(mounted.path) == expected


def test_what_the_origin_has_lost_the_named_mirror_has(served, named, mount, content):
    named()
    (served.tree / "big").unlink()
    mounted = mount(served.url)
    assert (mounted / "big").read_bytes() == content


def test_a_dead_or_foolish_named_mirror_is_no_harm(served, mount, index, content):
    index(served.tree, "--mirror", f"http://127.0.0.1:{free_port()}/", "--mirror", "http://name.invalid/x")
    mounted = mount(served.url)
    assert (mounted / "big").read_bytes() == content
    assert len(shown(mounted)) == 3


def test_named_mirrors_are_not_asked_where_nobody_wants_that(served, named, mount, content):
    mirror = named()
    mounted = mount(served.url, manifest_mirrors="off")
    assert (mounted / "big").read_bytes() == content
    assert mirror.requests() == []
    assert list(shown(mounted)) == [served.url]


def test_a_newer_manifest_names_other_mirrors(served, named, mount, index, content):
    mirror = named()
    mounted = mount(served.url, ttl=1)
    assert mirror.url in shown(mounted)
    index(served.tree)
    wait_until(lambda: os.listdir(mounted.path) and mirror.url not in shown(mounted), "the manifest is looked at again")
    mirror.forget()
    assert (mounted / "big").read_bytes() == content
    assert mirror.requests() == []


def test_a_named_mirror_learns_no_credentials(served, named, mount, work, content):
    mirror = named()
    (work / "headers").write_text("Authorization: Bearer secret\n")
    mounted = mount(served.url, header_file=work / "headers")
    served.stop()
    assert (mounted / "big").read_bytes() == content
    assert mirror.requests() and {r.authorization for r in mirror.requests()} == {""}


# --- the root directory ---


def test_the_root_directory_is_as_the_manifest_says(served, mount, index, content):
    index(served.tree)  # the first one makes .wormhole, which changes the root
    os.chmod(served.tree, 0o751)
    os.utime(served.tree, (1_500_000_000, 1_500_000_000))
    index(served.tree)
    mounted = mount(served.url, ttl=1)
    status = mounted.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o751, 1_500_000_000)
    os.chmod(served.tree, 0o700)
    os.utime(served.tree, (1_600_000_000, 1_600_000_000))
    index(served.tree)
    wait_until(lambda: os.listdir(mounted.path) and mounted.path.stat().st_mtime == 1_600_000_000,
               "the manifest is looked at again")
    assert stat.S_IMODE(mounted.path.stat().st_mode) == 0o700
    mounted.down()
    mounted.options["offline"] = "on"
    mounted.up()
    assert mounted.path.stat().st_mtime == 1_600_000_000
