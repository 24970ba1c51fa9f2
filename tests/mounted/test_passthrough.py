"""A file of which all is cached is served by the kernel itself, from its next open on."""

import mmap
import os
import threading
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until

MIB = 1 << 20
BLOCK = 64 * 1024

# The kernel must be able to, and the tests run as root on a file system that is not stacked.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's mounts can pass files through")


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(9 * MIB + 777)


@pytest.fixture
def filled(origin, mount, content):
    """A mount in whose cache all of `file` is."""
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    fill(mounted, "file", content)
    return mounted


def fill(mounted, name: str, content: bytes) -> None:
    assert (mounted / name).read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_cached"] >= len(content), "it is stored")


def passed(mounted) -> int:
    """How many opens were passed through. Where the machine cannot do that, there is nothing to test."""
    status = mounted.status()
    if any(reason in status["passthrough"] for reason in ("kernel", "stacked", "CAP_SYS_ADMIN")):
        pytest.skip(status["passthrough"])
    return status["opens_passed_through"]


def state(mounted) -> str:
    return mounted.status()["passthrough"]


def object_file(mounted, size: int) -> Path:
    (found,) = [f for f in (Path(mounted.cache) / "objects").rglob("*") if f.is_file() and f.stat().st_size == size]
    return found


def test_a_file_is_passed_through_at_its_next_open(filled, content):
    assert passed(filled) == 0
    before = filled.status()["read_requests"]
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 1
    assert filled.status()["read_requests"] == before
    assert state(filled) == "on"


def test_after_a_remount_it_is_passed_through_at_the_first_open(filled, content):
    filled.down()
    filled.up()
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 1


def test_it_can_be_mapped(filled, content):
    with open(filled / "file", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert passed(filled) == 1
        assert mapped[:] == content


def test_while_a_handle_from_before_is_open_others_follow_it(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    with open(mounted / "file", "rb") as early:
        fill(mounted, "file", content)
        assert (mounted / "file").read_bytes() == content
        assert early.read() == content
        assert passed(mounted) == 0
    wait_until(lambda: (mounted / "file").read_bytes() == content and passed(mounted) > 0, "the early handle is gone")


def test_many_open_and_close_it_at_once(filled, content):
    errors = []

    def read_often() -> None:
        try:
            for i in range(200):
                with open(filled / "file", "rb") as file:
                    assert os.pread(file.fileno(), 100, i * 4096) == content[i * 4096 : i * 4096 + 100]
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read_often) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert errors == []
    assert passed(filled) == 8 * 200


def test_many_open_it_while_it_fills(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    errors = []

    def read_often() -> None:
        try:
            while passed(mounted) == 0:
                with open(mounted / "file", "rb") as file:
                    assert file.read() == content
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read_often) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert errors == []
    assert passed(mounted) > 0


def test_after_a_kill_only_when_every_block_was_checked(filled, content):
    filled.kill()
    filled.options["scrub"] = "off"
    filled.up()
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 0
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 1


def test_after_a_kill_the_scrubber_checks_them_all(filled, content):
    filled.kill()
    filled.up()
    wait_until(lambda: filled.status()["bytes_scrubbed"] >= len(content), "all was checked")
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 1
    filled.down()
    filled.up()
    assert (filled / "file").read_bytes() == content
    assert passed(filled) == 1


def test_a_block_that_was_flipped_meanwhile_is_never_passed_through(filled, content):
    filled.kill()
    with open(object_file(filled, len(content)), "r+b") as file:
        file.seek(3 * MIB + 5)
        file.write(bytes([content[3 * MIB + 5] ^ 1]))
    filled.up()
    for _ in range(3):
        assert (filled / "file").read_bytes() == content
    wait_until(lambda: (filled / "file").read_bytes() == content and passed(filled) > 0, "it is passed through")
    assert filled.status()["blocks_corrupt"] == 1


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_file_that_was_cut_or_is_gone_is_fetched_again(filled, content, harm):
    filled.down()
    file = object_file(filled, len(content))
    os.truncate(file, 5 * MIB) if harm == "cut" else file.unlink()
    filled.up()
    assert (filled / "file").read_bytes() == content
    wait_until(lambda: (filled / "file").read_bytes() == content and passed(filled) > 0, "it is passed through")


def test_a_new_version_is_not_the_old_file(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, ttl=0)
    fill(mounted, "file", content)
    with open(mounted / "file", "rb") as old:
        assert passed(mounted) == 1
        newer = trees.other_version(content)
        (origin.tree / "file").write_bytes(newer)
        os.utime(origin.tree / "file", (1, 1))
        assert (mounted / "file").read_bytes() == newer
        assert old.read() == content


@pytest.mark.parametrize(("option", "why"), [({"passthrough": "off"}, "options"), ({"verify": "always"}, "verify=always")])
def test_it_can_be_turned_off(origin, mount, content, wormhole, option, why):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, **option)
    fill(mounted, "file", content)
    assert (mounted / "file").read_bytes() == content
    assert passed(mounted) == 0
    assert state(mounted).startswith("off: ") and why in state(mounted)
    assert "passthrough off: " in run(wormhole, "status", mounted.path).output


def test_without_it_what_is_in_the_page_cache_needs_no_engine(origin, mount, content):
    """And is right, also after the mount's own pages are gone."""
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, passthrough="off")
    fill(mounted, "file", content)
    for _ in range(3):
        fd = os.open(mounted / "file", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(content), 0) == content
        assert os.pread(fd, 10, len(content) - 3) == content[-3:]
        assert os.pread(fd, 10, len(content)) == b""
        os.close(fd)


def test_a_small_file_is_not_waited_for(origin, mount):
    content = trees.real_bytes(1000)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    for _ in range(3):
        assert (mounted / "file").read_bytes() == content
    assert passed(mounted) == 0
