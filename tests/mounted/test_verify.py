"""wormhole cache verify: what is wrong in a cache is found, and fetched again."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount, in_pages, run as run_command, wait_until

KIB = 1 << 10
MIB = 1 << 20
BLOCK = 64 * KIB


def words(arguments) -> list[str]:
    return [str(a.path if isinstance(a, Mount) else a) for a in arguments]


def run(*arguments, **popen):
    return run_command(*words(arguments), **popen)


@pytest.fixture
def files() -> dict[str, bytes]:
    return {"a.bin": trees.real_bytes(5 * MIB + 77), "d/b.bin": trees.real_bytes(2 * MIB, skip=2 * MIB),
            "d/e/small": b"a few bytes", "d/e/big": trees.real_bytes(9 * MIB + 1, skip=3 * MIB)}


@pytest.fixture
def served(origin, files):
    for name, content in files.items():
        (origin.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (origin.tree / name).write_bytes(content)
    return origin


@pytest.fixture
def verify(wormhole):
    """verify(path, ...) is what --json says, and the exit code."""

    def command(*arguments) -> tuple[dict, int]:
        done = subprocess.run([wormhole, "cache", "verify", *words(arguments), "--json"], capture_output=True,
                              text=True, timeout=120)
        return json.loads(done.stdout), done.returncode

    return command


def total(files) -> int:
    return sum(map(len, files.values()))


def read_all(mounted, files) -> None:
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name
    wait_until(lambda: mounted.status()["bytes_cached"] == in_pages(*map(len, files.values())), "all is stored")


def drop_page_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")


def object_of(mounted, name: str) -> Path:
    """Of a file that is larger than a block."""
    number = (mounted / name).stat().st_ino
    return Path(mounted.cache) / "objects" / f"{number & 0xff:02x}" / f"{number:016x}"


def flip(path: Path, *offsets: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        for offset in offsets:
            byte = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 4]), offset)
        os.fsync(file.fileno())


def test_all_is_right(served, mount, verify, wormhole, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    before = served.file_bytes()
    answer, code = verify(mounted)
    assert code == 0
    assert answer["bytes"] == total(files) and answer["files"] == 4 and answer["wrong_bytes"] == 0
    assert answer["blocks"] == 81 + 32 + 1 + 145
    assert answer["errors"] == [] and answer["unrepaired"] == []
    done = run(wormhole, "cache", "verify", mounted / "d", "--no-progress")
    assert done.code == 0
    assert done.output == "checked 11 MiB in 3 files: all is right\n"
    assert served.file_bytes() == before


@pytest.mark.parametrize("passthrough", ["on", "off"])
def test_flipped_bits_are_found_and_fetched_again(served, mount, verify, wormhole, files, passthrough):
    if passthrough == "on" and os.geteuid() != 0:
        pytest.skip("only root's mounts can pass files through")
    mounted = mount(served.url, passthrough=passthrough, speculate="off", hedge="off")
    read_all(mounted, files)
    flip(object_of(mounted, "a.bin"), 3 * MIB + 5, 3 * MIB + BLOCK, 5 * MIB + 70)
    flip(object_of(mounted, "d/e/big"), 100)
    before = served.file_bytes()
    answer, code = verify(mounted)
    assert code == 0, answer
    assert answer["wrong_files"] == 2 and answer["wrong_blocks"] == 4
    assert answer["wrong_bytes"] == answer["repaired_bytes"] == 3 * BLOCK + 77
    wait_until(lambda: served.file_bytes() - before == 3 * BLOCK + 77, "only what was wrong is fetched")
    assert verify(mounted)[0]["wrong_bytes"] == 0
    assert mounted.status()["bytes_cached"] == in_pages(*map(len, files.values()))
    served.stop()
    drop_page_cache()
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name


def test_one_file_of_several(served, mount, verify, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    flip(object_of(mounted, "a.bin"), 7)
    flip(object_of(mounted, "d/b.bin"), 7)
    answer, code = verify(mounted / "d/b.bin")
    assert code == 0
    assert answer["files"] == 1 and answer["bytes"] == 2 * MIB and answer["wrong_blocks"] == 1
    answer, code = verify(mounted / "d/b.bin", mounted / "a.bin", "--no-repair")
    assert code == 3
    assert answer["files"] == 2 and answer["wrong_bytes"] == BLOCK and answer["repaired_bytes"] == 0
    assert mounted.status()["bytes_cached"] == in_pages(*map(len, files.values())) - BLOCK, "it is forgotten for good"


def test_what_was_never_cached_is_not_fetched(origin, mount, verify):
    content = trees.real_bytes(40 * MIB)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, speculate="off", hedge="off")
    with open(mounted / "file", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 20 * MIB) == content[20 * MIB : 20 * MIB + 10]
    wait_until(lambda: mounted.status()["bytes_cached"] > 0, "something is stored")
    time.sleep(0.5)
    there = mounted.status()["bytes_cached"]
    flip(object_of(mounted, "file"), 20 * MIB)
    before = origin.file_bytes()
    answer, code = verify(mounted)
    assert code == 0 and answer["bytes"] == there and answer["wrong_blocks"] == 1
    wait_until(lambda: origin.file_bytes() - before == BLOCK, "only what was wrong is fetched")
    assert mounted.status()["bytes_cached"] == there


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_file_that_is_lost_comes_back(served, mount, verify, files, damage):
    mounted = mount(served.url)
    read_all(mounted, files)
    lost = object_of(mounted, "d/e/big")
    mounted.down()
    mounted.up()
    os.truncate(lost, 5 * MIB) if damage == "truncated" else lost.unlink()
    answer, code = verify(mounted)
    assert code == 0, answer
    assert answer["wrong_files"] == 1 and answer["wrong_blocks"] == 145
    assert answer["wrong_bytes"] == answer["repaired_bytes"] == len(files["d/e/big"])
    assert answer["bytes"] == total(files)
    served.stop()
    drop_page_cache()
    assert (mounted / "d/e/big").read_bytes() == files["d/e/big"]


def test_the_server_is_gone(served, mount, verify, wormhole, files):
    mounted = mount(served.url, timeout=3)
    read_all(mounted, files)
    flip(object_of(mounted, "a.bin"), 7)
    flip(object_of(mounted, "d/b.bin"), 7)
    served.stop()
    done = run(wormhole, "cache", "verify", mounted)
    assert done.code == 3, done.output
    assert f"{mounted / 'a.bin'}: 64 KiB are not repaired: " in done.output
    assert "checked 16 MiB in 4 files: 128 KiB in 2 files were wrong, 0 B are repaired" in done.output
    assert mounted.status()["bytes_cached"] == in_pages(*map(len, files.values())) - 2 * BLOCK
    assert (mounted / "d/e/small").read_bytes() == files["d/e/small"]
    served.start()
    assert verify(mounted)[1] == 0, "what is forgotten is not wrong any more"
    wait_until(lambda: (mounted / "a.bin").read_bytes() == files["a.bin"], "the server is found again", 20)


def test_readers_get_right_bytes_meanwhile(served, mount, verify, files):
    mounted = mount(served.url, passthrough="off", verify="always")
    read_all(mounted, files)
    wrong: list[str] = []
    through = threading.Event()

    def reads() -> None:
        while not through.is_set():
            for name, content in files.items():
                fd = os.open(mounted / name, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(fd, len(content) + 1, 0) != content:
                    wrong.append(name)
                os.close(fd)

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for i in range(10):
            flip(object_of(mounted, "d/e/big"), *(j * 10 * BLOCK + i for j in range(10)))
            answer, code = verify(mounted)
            assert code == 0, answer
    finally:
        through.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert verify(mounted)[0]["wrong_bytes"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's mounts can pass files through")
def test_a_file_that_the_kernel_serves_is_repaired_below_it(served, mount, verify, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    with open(mounted / "a.bin", "rb", buffering=0) as file:
        assert mounted.status()["opens_passed_through"] == 1
        flip(object_of(mounted, "a.bin"), MIB)
        answer, code = verify(mounted)
        assert code == 0 and answer["repaired_bytes"] == BLOCK, answer
        assert os.pread(file.fileno(), len(files["a.bin"]), 0) == files["a.bin"]
    assert verify(mounted)[0]["wrong_bytes"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's mounts can pass files through")
def test_what_is_hot_stays_in_the_page_cache(served, mount, verify, files, need):
    need("fincore")
    mounted = mount(served.url)
    read_all(mounted, files)

    def resident(name: str) -> int:
        return int(run("fincore", "--bytes", "--noheadings", "--output=RES", object_of(mounted, name)).output)

    drop_page_cache()
    (mounted / "a.bin").read_bytes()
    hot = resident("a.bin")
    assert hot >= len(files["a.bin"]), "the kernel reads it from the cache's file"
    assert verify(mounted)[1] == 0
    assert resident("a.bin") == hot
    assert resident("d/e/big") == 0, "what is only checked takes no memory"


def test_after_a_kill_a_whole_pass_restores_trust(served, mount, verify, files):
    mounted = mount(served.url, scrub="off")
    read_all(mounted, files)
    time.sleep(0.5)
    mounted.kill()
    mounted.up()
    assert verify(mounted / "d")[1] == 0
    assert "has been checked since the unclean end" not in mounted.log.read_text(), "that was a part"
    assert verify(mounted)[1] == 0
    wait_until(lambda: "has been checked since the unclean end" in mounted.log.read_text(), "all was checked")
    mounted.down()
    mounted.log.unlink()
    mounted.up()
    assert "not closed cleanly" not in mounted.log.read_text()


def test_ctrl_c_ends_it_cleanly(origin, mount, wormhole, verify):
    origin.tree.joinpath("file").write_bytes(trees.real_bytes(64 * MIB) * 8)
    mounted = mount(origin.url)
    assert run(wormhole, "warm", mounted).code == 0
    verifying = subprocess.Popen([wormhole, "cache", "verify", mounted.path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)

    def asked() -> set[str]:
        """The daemon's threads that answer a command."""
        found = set()
        for task in Path(f"/proc/{mounted.pid}/task").iterdir():
            try:
                found |= {task.name} if (task / "comm").read_text() == "wh-client\n" else set()
            except OSError:
                pass  # it has ended meanwhile
        return found

    # Which mount it is about is answered within a millisecond, and looked up in the mount. This takes longer.
    lasting: set[str] = set()
    while not lasting:
        assert verifying.poll() is None
        before = asked()
        time.sleep(0.05)
        lasting = before & asked()
    os.kill(mounted.pid, signal.SIGSTOP)  # so that it does not come to its end
    verifying.send_signal(signal.SIGINT)
    _, output = verifying.communicate(timeout=10)
    os.kill(mounted.pid, signal.SIGCONT)
    assert verifying.returncode == 128 + signal.SIGINT, output
    assert "interrupted" in output
    answer, code = verify(mounted)
    assert code == 0 and answer["bytes"] == 512 * MIB


def test_ctrl_c_while_the_server_is_silent(range_server, mount, wormhole):
    content = trees.real_bytes(4 * MIB)
    range_server.put("file", content)
    mounted = mount(range_server.url)
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_cached"] == in_pages(len(content)), "it is stored")
    flip(object_of(mounted, "file"), MIB)
    range_server.behave("file", stall_after=10)
    verifying = subprocess.Popen([wormhole, "cache", "verify", mounted.path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert verifying.poll() is None, "it waits for the server"
    verifying.send_signal(signal.SIGINT)
    _, output = verifying.communicate(timeout=5)
    assert verifying.returncode == 128 + signal.SIGINT, output


def test_the_mount_ends_meanwhile(range_server, mount, wormhole):
    content = trees.real_bytes(4 * MIB)
    range_server.put("file", content)
    mounted = mount(range_server.url)
    assert (mounted / "file").read_bytes() == content
    wait_until(lambda: mounted.status()["bytes_cached"] == in_pages(len(content)), "it is stored")
    flip(object_of(mounted, "file"), MIB)
    range_server.behave("file", stall_after=10)
    verifying = subprocess.Popen([wormhole, "cache", "verify", mounted.path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    os.kill(mounted.pid, signal.SIGTERM)
    _, output = verifying.communicate(timeout=10)
    assert verifying.returncode == 1, output
    wait_until(lambda: not mounted.is_up(), "the mount is gone")


def test_progress_on_a_terminal(served, mount, wormhole, need, files):
    need("script")
    mounted = mount(served.url)
    read_all(mounted, files)
    done = run("script", "-qec", f"'{wormhole}' cache verify '{mounted.path}'", "/dev/null",
               env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    assert done.code == 0, done.output
    assert "checking" in done.output and "16 MiB" in done.output and "B/s" in done.output


# --- a cache that no daemon holds ---


def test_a_cache_without_a_mount(served, mount, verify, wormhole, files):
    mounted = mount(served.url, speculate="off", hedge="off")
    read_all(mounted, files)
    a, big = object_of(mounted, "a.bin"), object_of(mounted, "d/e/big")
    mounted.down()
    answer, code = verify("--cache", mounted.cache)
    assert code == 0 and answer["bytes"] == total(files) and answer["wrong_bytes"] == 0, answer
    flip(a, 7, 2 * MIB)
    big.unlink()
    done = run(wormhole, "cache", "verify", "--cache", mounted.cache, "--no-progress")
    assert done.code == 3, done.output
    assert done.output == ("checked 16 MiB in 4 files: 9.1 MiB in 2 files were wrong and are forgotten: they are fetched "
                           "when they are read\n")
    assert verify("--cache", mounted.cache)[1] == 0
    served.forget()
    mounted.up()
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name
    wait_until(lambda: served.file_bytes() == 2 * BLOCK + len(files["d/e/big"]), "only what was wrong is fetched")


def test_after_a_kill_a_cache_without_a_mount_is_trusted_again(served, mount, verify, files):
    mounted = mount(served.url, scrub="off")
    read_all(mounted, files)
    time.sleep(0.5)
    mounted.kill()
    answer, code = verify("--cache", mounted.cache)
    assert code == 0 and answer["bytes"] == total(files)
    mounted.log.unlink()
    mounted.up()
    assert "not closed cleanly" not in mounted.log.read_text()
    assert "wh-leftovers" in mounted.log.read_text() or "does not know of is freed" in mounted.log.read_text()


def test_a_cache_that_a_mount_holds(served, mount, verify):
    mounted = mount(served.url)
    answer, code = verify("--cache", mounted.cache)
    assert code == 1
    assert f"held by a running wormhole, pid {mounted.pid}" in answer["errors"][0]


def test_what_is_no_cache(work, verify):
    (work / "file").write_text("mine")
    for place in (work, work / "nothing"):
        answer, code = verify("--cache", place)
        assert code == 1 and "is no cache of wormhole" in answer["errors"][0]
    assert sorted(p.name for p in work.iterdir()) == ["file"]


def test_a_damaged_index(served, mount, verify, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    mounted.down()
    index = Path(mounted.cache) / "index/data.mdb"
    with open(index, "r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(index.stat().st_size - 2 * 4096))
    answer, code = verify("--cache", mounted.cache)
    assert code == 1 and "the index of the cache was damaged" in answer["errors"][0]
    mounted.up()
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name


def test_wrong_usage(work, wormhole):
    assert run(wormhole, "cache", "verify").code == 2
    assert run(wormhole, "cache", "verify", "--cache", work, work).code == 2
    assert run(wormhole, "cache", "verify", work).code == 1
