"""wormhole warm, evict, pin, unpin and cache stats: the commands that rule what a cache holds."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount, in_pages, run, wait_until

MIB = 1 << 20


def words(arguments) -> list[str]:
    return [str(a.path if isinstance(a, Mount) else a) for a in arguments]


@pytest.fixture
def do(wormhole):
    """do("evict", path, ...) is the result of the command."""

    def command(*arguments, **popen):
        return run(wormhole, *words(arguments), **popen)

    return command


@pytest.fixture
def ask(wormhole):
    """The JSON that a command prints, and its exit code."""

    def command(*arguments) -> tuple[dict, int]:
        done = subprocess.run([wormhole, *words(arguments), "--json"], capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout), done.returncode

    return command


@pytest.fixture
def files() -> dict[str, bytes]:
    return {"a.bin": trees.real_bytes(5 * MIB + 77), "d/b.bin": trees.real_bytes(2 * MIB, skip=2 * MIB),
            "d/e/small": b"a few bytes", "d/e/empty": b"", "d/e/big": trees.real_bytes(9 * MIB + 1, skip=3 * MIB)}


@pytest.fixture
def served(origin, files):
    for name, content in files.items():
        (origin.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (origin.tree / name).write_bytes(content)
    return origin


def cached(mounted) -> int:
    return mounted.status()["bytes_cached"]


def read_all(mounted, files) -> None:
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name
    wait_until(lambda: cached(mounted) == in_pages(*map(len, files.values())), "all is stored")


def drop_page_cache() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("1")


def disk_bytes(mounted) -> int:
    return sum(f.stat().st_blocks * 512 for f in (Path(mounted.cache) / "objects").rglob("*") if f.is_file())


# --- evict ---


def test_what_is_evicted_is_gone_and_comes_back(served, mount, do, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    done = do("evict", mounted / "d")
    assert done.code == 0, done.output
    assert done.output == "evicted 11 MiB of 3 files\n"
    assert cached(mounted) == in_pages(len(files["a.bin"]))
    assert disk_bytes(mounted) < len(files["a.bin"]) + MIB
    before = served.file_bytes()
    for name, content in files.items():
        fd = os.open(mounted / name, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(content) + 1, 0) == content
        os.close(fd)
    assert served.file_bytes() - before >= 11 * MIB


def test_one_file_and_json(served, mount, ask, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    answer, code = ask("evict", mounted / "a.bin", mounted / "d/e/small")
    assert code == 0
    assert answer["freed_bytes"] == len(files["a.bin"]) + len(files["d/e/small"])
    assert answer["freed_files"] == 2 and answer["stayed"] == [] and answer["errors"] == []
    assert ask("evict", mounted / "a.bin")[0]["freed_bytes"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's mounts can pass files through")
def test_a_file_that_the_kernel_serves_stays_and_says_so(served, mount, do, ask, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    with open(mounted / "d/e/big", "rb") as file:
        assert mounted.status()["opens_passed_through"] == 1
        done = do("evict", mounted)
        assert done.code == 1
        assert f"{mounted / 'd/e/big'}: 9.0 MiB stay: it is open" in done.output
        assert cached(mounted) == in_pages(len(files["d/e/big"]))
        drop_page_cache()
        assert file.read() == files["d/e/big"]
        answer, code = ask("evict", mounted / "d")
        assert code == 1
        assert answer["stayed"] == [{"path": str(mounted / "d/e/big"), "why": "open", "bytes": len(files["d/e/big"])}]
    wait_until(lambda: do("evict", mounted / "d").code == 0, "it is closed")
    wait_until(lambda: cached(mounted) == 0, "it is gone")


def test_a_file_that_is_open_without_the_kernel_goes_and_is_read_on(served, mount, do, files):
    mounted = mount(served.url, passthrough="off")
    read_all(mounted, files)
    with open(mounted / "d/e/big", "rb", buffering=0) as file:
        assert file.read(1000) == files["d/e/big"][:1000]
        wait_until(lambda: do("evict", mounted / "d/e/big").code == 0, "nobody reads it at the moment")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 5000, 8 * MIB) == files["d/e/big"][8 * MIB : 8 * MIB + 5000]


# --- pin ---


def test_what_is_pinned_is_not_evicted_until_it_is_unpinned(served, mount, do, ask, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    assert do("pin", mounted / "d").output == "pinned 4 files\n"
    assert do("pin", mounted / "d/b.bin").output == "pinned 0 files, 1 were so before\n"
    done = do("evict", mounted)
    assert done.code == 1
    assert "d/b.bin: 2.0 MiB stay: it is pinned (wormhole unpin)" in done.output
    assert cached(mounted) == in_pages(*(len(c) for n, c in files.items() if n != "a.bin"))
    answer, code = ask("unpin", mounted)
    assert code == 0 and answer == {"files": 5, "changed": 4}
    assert do("evict", mounted).code == 0
    assert cached(mounted) == 0


def test_a_pin_survives_a_remount_and_a_kill(served, mount, ask, files):
    mounted = mount(served.url)
    read_all(mounted, files)
    assert ask("pin", mounted / "a.bin")[1] == 0
    mounted.kill()
    mounted.up()
    assert ask("pin", mounted / "d/b.bin")[1] == 0
    mounted.down()
    mounted.up()
    answer, code = ask("evict", mounted)
    assert code == 1
    # The scrubber, which reads after a kill, may keep others.
    assert sorted(s["path"] for s in answer["stayed"] if s["why"] == "pinned") == [str(mounted / "a.bin"), str(mounted / "d/b.bin")]


def test_what_is_pinned_stays_in_a_full_cache(origin, mount, do, ask):
    pinned = trees.real_bytes(12 * MIB)
    (origin.tree / "pinned").write_bytes(pinned)
    for i in range(12):
        (origin.tree / f"other-{i}").write_bytes(trees.real_bytes(8 * MIB, skip=(10 + i) * MIB))
    mounted = mount(origin.url, cache_size="48M", min_free="0%")
    assert do("warm", "--pin", mounted / "pinned").code == 0
    for again in range(2):
        for i in range(12):
            assert (mounted / f"other-{i}").read_bytes() == trees.real_bytes(8 * MIB, skip=(10 + i) * MIB)
        mounted.down()
        mounted.up()
    assert mounted.status()["bytes_cached"] <= 48 * MIB
    below = ask("cache", "stats", mounted / "pinned", "--files")[0]["mounts"][0]["below"]
    assert below["bytes_cached"] == len(pinned) and below["files_pinned"] == 1
    drop_page_cache()
    origin.stop()
    assert (mounted / "pinned").read_bytes() == pinned


def test_the_new_version_of_a_pinned_file_is_pinned(served, mount, do, ask, files):
    mounted = mount(served.url, ttl=0)
    read_all(mounted, files)
    do("pin", mounted / "a.bin")
    newer = trees.other_version(files["a.bin"])
    trees.replace(served.tree / "a.bin", newer, minutes=2)
    assert (mounted / "a.bin").read_bytes() == newer
    wait_until(lambda: cached(mounted) == in_pages(*map(len, files.values())), "it is stored")
    answer, _ = ask("evict", mounted)
    assert [s["path"] for s in answer["stayed"]] == [str(mounted / "a.bin")]
    assert ask("cache", "stats", mounted)[0]["mounts"][0]["files_pinned"] == 1
    mounted.down()
    mounted.up()
    assert do("evict", mounted / "a.bin").code == 1


# --- warm ---


def test_what_is_warm_is_read_without_the_server(served, mount, do, files):
    mounted = mount(served.url)
    (mounted / "a.bin").read_bytes()
    done = do("warm", mounted)
    assert done.code == 0, done.output
    assert "16 MiB of 5 files are cached, 11 MiB were fetched" in done.output
    assert served.sent_once(sum(map(len, files.values())))
    served.stop()
    mounted.down()
    mounted.up()
    for name, content in files.items():
        assert (mounted / name).read_bytes() == content, name


def test_what_is_warm_already_is_not_read(served, mount, do, ask, files):
    mounted = mount(served.url)
    assert do("warm", mounted).code == 0
    before = served.file_bytes()
    answer, code = ask("warm", mounted / "d")
    assert code == 0
    assert answer["bytes_fetched"] == 0 and answer["files"] == 4 and answer["files_complete"] == 4
    assert served.file_bytes() == before


def test_of_a_file_that_is_there_in_part_the_rest_is_fetched(origin, mount, ask):
    content = trees.real_bytes(40 * MIB)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, speculate="off")
    with open(mounted / "file", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 20 * MIB) == content[20 * MIB : 20 * MIB + 1000]
        assert os.pread(file.fileno(), 1000, 5 * MIB) == content[5 * MIB : 5 * MIB + 1000]
    wait_until(lambda: cached(mounted) > 0, "something is stored")
    time.sleep(0.5)
    there = cached(mounted)
    answer, code = ask("warm", mounted / "file")
    assert code == 0
    assert answer["bytes_fetched"] == len(content) - there
    assert origin.sent_once(len(content))


def test_bytes_that_only_the_page_cache_has_are_fetched(served, mount, do, files):
    mounted = mount(served.url, passthrough="off")
    with open(mounted / "a.bin", "rb") as file:
        assert file.read() == files["a.bin"]
        wait_until(lambda: cached(mounted) == in_pages(len(files["a.bin"])), "it is stored")
        wait_until(lambda: do("evict", mounted / "a.bin").code == 0, "nobody reads it at the moment")
        assert cached(mounted) == 0
        done = do("warm", mounted / "a.bin")
        assert done.code == 0, done.output
        assert cached(mounted) == in_pages(len(files["a.bin"]))


def test_many_small_files(origin, mount, do):
    (origin.tree / "d").mkdir()
    for i in range(1100):
        (origin.tree / "d" / f"f{i}").write_bytes(b"%d" % i * (i % 50))
    mounted = mount(origin.url)
    done = do("warm", mounted, "--pin")
    assert done.code == 0, done.output
    assert "of 1100 files are cached" in done.output and "all are pinned" in done.output
    origin.stop()
    for i in range(0, 1100, 7):
        assert (mounted / "d" / f"f{i}").read_bytes() == b"%d" % i * (i % 50)
    assert do("unpin", mounted).output == "unpinned 1100 files\n"


def test_what_does_not_fit_is_refused_before_anything_is_fetched(served, mount, do, ask):
    mounted = mount(served.url, cache_size="8M", min_free="0%")
    done = do("warm", "--pin", mounted)
    assert done.code == 1
    assert "16 MiB do not fit" in done.output and "cache-size is 8.0 MiB" in done.output
    assert served.file_bytes() == 0
    answer, code = ask("warm", mounted)
    assert code == 1 and "do not fit" in answer["error"]
    assert do("warm", mounted / "d/b.bin").code == 0, "a part of it fits"
    assert ask("cache", "stats", mounted)[0]["mounts"][0]["files_pinned"] == 0


def test_what_is_pinned_elsewhere_leaves_less_room(served, mount, do):
    mounted = mount(served.url, cache_size="16M", min_free="0%")
    assert do("warm", "--pin", mounted / "d/e/big").code == 0
    done = do("warm", mounted / "a.bin", mounted / "d/b.bin")
    assert done.code == 1
    assert "do not fit" in done.output and "of which 9.0 MiB are pinned" in done.output


def test_what_failed_is_named_and_the_rest_is_there(make_origin, tree, mount, do, ask):
    for name in ("good", "bad", "closed"):
        (tree / name).write_bytes(trees.real_bytes(MIB, skip=len(name) * MIB))
    origin = make_origin(tree, directives="location ~ /(bad|closed)$ { return 403; }")
    mounted = mount(origin.url)
    done = do("warm", mounted)
    assert done.code == 1
    assert f"{mounted / 'bad'}: Permission denied" in done.output and str(mounted / "closed") in done.output
    answer, code = ask("warm", mounted)
    assert code == 1
    assert answer["files_failed"] == 2 and answer["files_complete"] == 1
    assert sorted(f["path"] for f in answer["failed"]) == [str(mounted / "bad"), str(mounted / "closed")]
    origin.stop()
    assert (mounted / "good").read_bytes() == trees.real_bytes(MIB, skip=4 * MIB)


def test_progress_shows_bytes_rate_and_files_on_a_terminal(make_origin, tree, mount, wormhole, need):
    need("script")
    for i in range(4):
        (tree / f"f{i}").write_bytes(trees.real_bytes(2 * MIB, skip=i * MIB))
    mounted = mount(make_origin(tree, directives="limit_rate 1m;").url, connections=4)
    done = run("script", "-qec", f"'{wormhole}' warm '{mounted.path}'", "/dev/null",
               env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    assert done.code == 0, done.output
    assert "/4 files" in done.output and "8.0 MiB" in done.output and "B/s" in done.output and "ETA" in done.output


@pytest.mark.parametrize("server", ["slow", "silent"])
def test_ctrl_c_ends_it_cleanly(make_origin, range_server, tree, mount, wormhole, server):
    content = trees.real_bytes(30 * MIB)
    if server == "slow":
        (tree / "file").write_bytes(content)
        url = make_origin(tree, directives="limit_rate 16k;").url
    else:
        range_server.put("file", content)
        range_server.behave("file", stall_after=100_000)
        url = range_server.url
    mounted = mount(url, connections=4)
    warming = subprocess.Popen([wormhole, "warm", mounted.path, "--pin"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    assert warming.poll() is None
    warming.send_signal(signal.SIGINT)
    _, output = warming.communicate(timeout=10)
    assert warming.returncode == 128 + signal.SIGINT
    assert "interrupted" in output


def test_after_ctrl_c_it_goes_on_where_it_was(make_origin, tree, mount, wormhole, ask):
    names = [f"f{i:02}" for i in range(40)]
    for name in names:
        (tree / name).write_bytes(trees.real_bytes(100_000))
    origin = make_origin(tree, directives="limit_rate 50k;")  # 1 s for each file
    mounted = mount(origin.url)
    warming = subprocess.Popen([wormhole, "warm", "-j", "2", mounted.path], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    wait_until(lambda: cached(mounted) >= 300_000, "some are there", 30)
    warming.send_signal(signal.SIGINT)
    assert warming.wait(10) == 128 + signal.SIGINT
    there = cached(mounted)
    answer, code = ask("warm", mounted)
    assert code == 0 and answer["files_complete"] == len(names)
    assert answer["bytes_fetched"] <= 100_000 * len(names) - there * 100_000 // in_pages(100_000)


def test_the_daemon_goes_away_meanwhile(make_origin, tree, mount, wormhole):
    (tree / "file").write_bytes(trees.real_bytes(30 * MIB))
    mounted = mount(make_origin(tree, directives="limit_rate 16k;").url, connections=4)
    warming = subprocess.Popen([wormhole, "warm", mounted.path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
    time.sleep(2)
    mounted.kill()
    _, output = warming.communicate(timeout=20)
    assert warming.returncode == 1, output


# --- cache stats ---


def test_stats_tell_what_the_cache_holds(served, mount, do, ask, files):
    mounted = mount(served.url, cache_size="1G")
    (mounted / "a.bin").read_bytes()
    (mounted / "d/b.bin").read_bytes()
    with open(mounted / "d/e/big", "rb", buffering=0) as file:
        os.pread(file.fileno(), 10, 5 * MIB)
    do("pin", mounted / "a.bin")
    (mounted / "d/e/small").read_bytes()
    wait_until(lambda: cached(mounted) > 7 * MIB, "it is stored")
    (m,) = ask("cache", "stats", mounted)[0]["mounts"]
    assert m["cache_size"] == 1 << 30 and m["files_pinned"] == 1 and m["bytes_evicted"] == 0
    assert m["small_queue_bytes"] + m["main_queue_bytes"] == m["bytes_cached"]
    assert m["holds"] < m["cache_size"] and m["mountpoint"] == str(mounted.path)
    assert "files_complete" not in m
    assert do("evict", mounted / "d/b.bin").code == 0
    (m,) = ask("cache", "stats", mounted / "d", "--files")[0]["mounts"]
    assert m["bytes_evicted"] == 2 * MIB
    assert m["files_complete"] == 2 and m["files_partial"] == 1
    assert m["below"]["files"] == 4 and m["below"]["files_partial"] == 1 and m["below"]["files_pinned"] == 0
    assert m["below"]["files_complete"] == 2, "small, and the empty one"
    text = do("cache", "stats", mounted, "--files").output
    assert "queues" in text and "pinned    1 files" in text and "2 complete, 1 partial" in text
    assert str(mounted.path) in do("cache", "stats").output


# --- errors ---

COMMANDS = [["evict"], ["pin"], ["unpin"], ["warm"], ["cache", "stats"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_path_that_is_in_no_mount(work, do, command):
    done = do(*command, work)
    assert done.code == 1
    assert f"{work}: not inside a mount of wormhole" in done.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_path_that_is_not_there(served, mount, do, command):
    mounted = mount(served.url)
    done = do(*command, mounted / "nothing")
    assert done.code == 1
    assert f"{mounted / 'nothing'}: No such file" in done.output


def test_without_a_path_it_is_wrong_usage(do):
    for command in (["evict"], ["pin"], ["unpin"], ["warm"], ["cache"]):
        assert do(*command).code == 2, command


def test_no_daemon_answers(served, mount, do):
    mounted = mount(served.url)
    socket = Path(f"/run/wormhole/{mounted.pid}.sock") if os.geteuid() == 0 else None
    if socket is None:
        pytest.skip("the socket of another user than root is elsewhere")
    hidden = socket.with_suffix(".hidden")
    socket.rename(hidden)
    try:
        done = do("evict", mounted / "a.bin")
    finally:
        hidden.rename(socket)
    assert done.code == 1
    assert f"no daemon answers for the mount on {mounted.path}" in done.output


def test_a_mount_whose_daemon_was_killed(served, mount, do):
    mounted = mount(served.url)
    os.kill(mounted.pid, signal.SIGKILL)
    wait_until(lambda: "has no daemon any more" in do("evict", mounted / "a.bin").output, "it is gone")
    assert do("evict", mounted / "a.bin").code == 1
    mounted.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("allowed", [True, False])
def test_a_mount_of_another_user(served, mount, wormhole, allowed):
    mounted = mount(served.url, allow_other=allowed)
    done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", wormhole, "pin", mounted / "a.bin",
               env={**os.environ, "XDG_RUNTIME_DIR": "/tmp"})
    assert done.code == 1
    assert "belongs to the user root" in done.output


def test_through_another_name_of_the_mount(served, mount, do, work, files):
    if os.geteuid() != 0:
        pytest.skip("needs root to bind")
    mounted = mount(served.url)
    other = work / "other name"
    other.mkdir()
    subprocess.run(["mount", "--bind", mounted.path / "d", other], check=True)
    try:
        assert do("warm", other).code == 0
        wait_until(lambda: cached(mounted) == in_pages(*(len(c) for n, c in files.items() if n != "a.bin")), "d is cached")
    finally:
        subprocess.run(["umount", other], check=True)


@pytest.mark.parametrize("request_line", [b'{"do": 1}', b'{"do": null}', b"{}", b"[]", b"no JSON",
                                          b'{"do": "pin", "files": 7}'])
def test_a_request_that_is_none_is_refused_and_the_daemon_goes_on(served, mount, request_line):
    mounted = mount(served.url)
    if os.geteuid() != 0:
        pytest.skip("the socket of another user than root is elsewhere")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"/run/wormhole/{mounted.pid}.sock")
        client.sendall(request_line + b"\n")
        with client.makefile() as answer:
            assert "error" in json.loads(answer.readline())
    assert mounted.status()["pid"] == mounted.pid
