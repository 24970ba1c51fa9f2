"""wormhole get: one file, many ranges at once, whole or not at all."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import trees
from support.connections import watched
from support.mounting import run, wait_until

MIB = 1 << 20


@pytest.fixture
def content() -> bytes:
    return trees.real_bytes(20 * MIB + 321)


@pytest.fixture
def slow(make_origin, tree, content):
    """Slow enough to be interrupted."""
    (tree / "file").write_bytes(content)
    return make_origin(tree, directives="limit_rate 1m;")


@pytest.fixture
def fast(origin, content):
    (origin.tree / "file").write_bytes(content)
    return origin


def test_a_file_arrives_whole(fast, wormhole, work, content):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "out")
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == content
    # Nothing half-done is left.
    assert [p.name for p in work.iterdir() if p.name.startswith(("out", ".out"))] == ["out"]


def test_the_name_comes_from_the_url(origin, wormhole, work):
    (origin.tree / "a b%.txt").write_bytes(b"content")
    assert run(wormhole, "get", origin.url + "a%20b%25.txt", cwd=work).code == 0
    assert (work / "a b%.txt").read_bytes() == b"content"


def test_files_go_into_a_directory(origin, wormhole, work):
    for name in ("one", "two"):
        (origin.tree / name).write_text(name)
    (work / "into").mkdir()
    done = run(wormhole, "get", origin.url + "one", origin.url + "two", "-d", work / "into")
    assert done.code == 0, done.output
    assert {p.name: p.read_text() for p in (work / "into").iterdir()} == {"one": "one", "two": "two"}


def test_ranges_are_fetched_in_parallel_and_none_twice(fast, wormhole, work, content):
    with watched(fast.port) as most:
        assert run(wormhole, "get", fast.url + "file", "-o", work / "out", "-c", "4").code == 0
    ranges = [r for r in fast.requests() if r.range and r.status == 206]
    assert len(ranges) >= 4
    assert len({r.connection for r in ranges}) >= 2
    assert most.connections <= 5
    assert fast.sent_once(len(content))


def test_an_empty_file_arrives(origin, wormhole, work):
    (origin.tree / "empty").touch()
    assert run(wormhole, "get", origin.url + "empty", "-o", work / "out").code == 0
    assert (work / "out").read_bytes() == b""


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_goes_on_where_it_was(slow, wormhole, work, content, signal_):
    command = [wormhole, "get", slow.url + "file", "-o", work / "out", "-c", "4"]
    fetching = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(1.2)  # 4 connections at 1 MB/s
    fetching.send_signal(signal_)
    assert fetching.wait(10) != 0
    assert not (work / "out").exists() or (work / "out").read_bytes() != content
    first = slow.file_bytes()
    assert first > 2 * MIB
    done = run(*command)
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == content
    # What the server has sent may not have been read when it was interrupted, on a busy machine half of it.
    assert slow.file_bytes() < len(content) + first * 3 // 4, "what was there must not be fetched again"


def test_a_download_does_not_go_on_with_another_version(slow, wormhole, work, content):
    command = [wormhole, "get", slow.url + "file", "-o", work / "out", "-c", "4"]
    fetching = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    fetching.kill()
    fetching.wait()
    new = trees.other_version(content)
    trees.replace(slow.tree / "file", new, minutes=2)
    done = run(*command)
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == new


def test_a_change_under_way_is_never_mixed(slow, wormhole, work, content):
    fetching = subprocess.Popen([wormhole, "get", slow.url + "file", "-o", work / "out", "-c", "2"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    new = trees.other_version(content)
    trees.replace(slow.tree / "file", new, minutes=2)
    code = fetching.wait(60)
    if code == 0:
        assert (work / "out").read_bytes() in (content, new)
    else:
        assert not (work / "out").exists()


def test_the_right_checksum_is_accepted(fast, wormhole, work, content):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "out", "--sha256", hashlib.sha256(content).hexdigest())
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == content


def test_a_wrong_checksum_is_an_error_and_gives_no_file(fast, wormhole, work):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "out", "--sha256", "0" * 64)
    assert done.code != 0
    assert "sha256" in done.output.lower() or "checksum" in done.output.lower()
    assert not (work / "out").exists()


def test_a_malformed_checksum_is_refused_before_anything_is_fetched(fast, wormhole, work):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "out", "--sha256", "nonsense")
    assert done.code != 0
    assert fast.requests() == []


@pytest.mark.parametrize("path, word", [("missing", "404"), ("forbidden", "403")])
def test_a_refusal_says_what_came_back(make_origin, tree, wormhole, work, path, word):
    origin = make_origin(tree, directives="location = /forbidden { return 403; }")
    done = run(wormhole, "get", origin.url + path, "-o", work / "out")
    assert done.code != 0
    assert word in done.output and origin.url + path in done.output
    assert not (work / "out").exists()


def test_an_unreachable_server_is_an_error(origin, wormhole, work):
    origin.stop()
    done = run(wormhole, "get", origin.url + "file", "-o", work / "out")
    assert done.code != 0
    assert origin.url + "file" in done.output


def test_a_target_that_cannot_be_written_is_named(fast, wormhole, work):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "nowhere" / "out")
    assert done.code != 0
    assert str(work / "nowhere") in done.output


def test_a_server_without_ranges_is_read_in_order(range_server, wormhole, work, content):
    range_server.put("file", content)
    range_server.behave("file", ignore_range=1)
    done = run(wormhole, "get", range_server.url + "file", "-o", work / "out", "-c", "8")
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == content


def test_trouble_under_way_is_overcome(range_server, wormhole, work, content):
    range_server.put("file", content)
    range_server.behave("file", reset_after=200_000, times=3)
    done = run(wormhole, "get", range_server.url + "file", "-o", work / "out", "-c", "4")
    assert done.code == 0, done.output
    assert (work / "out").read_bytes() == content


def test_progress_shows_on_a_terminal(slow, wormhole, work, need):
    """script(1) is the terminal."""
    need("script")
    done = run("script", "-qec", f"'{wormhole}' get '{slow.url}file' -o '{work}/out' -c 8", "/dev/null",
               env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    assert done.code == 0, done.output
    assert "%" in done.output and "/s" in done.output


def test_without_a_terminal_it_is_quiet(fast, wormhole, work):
    done = run(wormhole, "get", fast.url + "file", "-o", work / "out")
    assert done.code == 0
    assert "\r" not in done.output


def test_the_file_is_there_only_when_it_is_complete(slow, wormhole, work, content):
    out: Path = work / "out"
    fetching = subprocess.Popen([wormhole, "get", slow.url + "file", "-o", out, "-c", "8"], stdout=subprocess.DEVNULL)
    while fetching.poll() is None:
        if out.exists():
            break
        time.sleep(0.01)
    wait_until(lambda: fetching.poll() is not None, "it ends", 60)
    assert out.read_bytes() == content
