"""Who goes through a tree finds the next files, sizes and listings there already, and nobody else pays for that. What
counts is what the server was asked."""

import os
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from support.mounting import wait_until

SIZE = 10_000
LONG_AGO = 1_600_000_000
INEXACT = "location / { autoindex_exact_size off; }"


@pytest.fixture
def follow(mount):
    """A mount that asks for nothing a second time: a slow machine would be in the counts."""
    return partial(mount, hedge="off")


def content(name: str, size: int = SIZE) -> bytes:
    return (name.encode() + b"\n") * (size // (len(name) + 1) + 1)


def fill(directory: Path, names, size: int = SIZE) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    names = list(names)
    for name in names:
        (directory / name).write_bytes(content(name, size)[:size])
        os.utime(directory / name, (LONG_AGO, LONG_AGO))
    return names


def files(count: int) -> list[str]:
    return [f"file {i:04}.txt" for i in range(count)]


def read(directory: Path, names) -> None:
    for name in names:
        assert (directory / name).read_bytes() == content(name)[:SIZE], name


def counted(origin) -> Counter:
    """How many requests of each kind: "HEAD", "GET" of files, "list"."""
    return Counter("list" if r.path.endswith("/") else r.method for r in origin.requests())


def quiet(mounted) -> None:
    wait_until(lambda: mounted.status()["fetches_in_flight"] == 0, "nothing is under way")


def a_little_later(origin, mounted) -> Counter:
    time.sleep(0.3)
    quiet(mounted)
    return counted(origin)


# --- bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)], ids=["forwards", "backwards"])
def test_small_files_in_order_cost_one_get_each_and_no_head(origin, follow, order):
    names = fill(origin.tree, files(200))
    mounted = follow(origin.url)
    origin.forget()
    read(mounted.path, order(names))
    got = a_little_later(origin, mounted)
    assert got["HEAD"] == 0 and got["list"] == 0
    assert got["GET"] == 200
    status = mounted.status()
    assert status["files_ahead"] > 150
    assert status["bytes_ahead_unread"] == 0


def test_a_shells_order_is_found_out(origin, follow):
    """`*` is sorted without regard to case, the listing is not."""
    names = fill(origin.tree, [f"{'Ff'[i % 2]}ile-{i:03}" for i in range(100)])
    mounted = follow(origin.url)
    origin.forget()
    read(mounted.path, sorted(names, key=str.lower))
    assert a_little_later(origin, mounted) == {"GET": 100}
    assert mounted.status()["files_ahead"] > 70


def test_one_file_of_a_directory_fetches_no_crowd(origin, follow):
    names = fill(origin.tree, files(100))
    mounted = follow(origin.url)
    origin.forget()
    read(mounted.path, names[40:41])
    assert a_little_later(origin, mounted) == {"GET": 1}
    read(mounted.path, [names[10], names[70], names[30]])
    assert a_little_later(origin, mounted) == {"GET": 4}


def test_what_is_wasted_when_the_reader_stops_is_bounded(origin, follow):
    names = fill(origin.tree, files(400))
    mounted = follow(origin.url)
    origin.forget()
    read(mounted.path, names[:10])
    got = a_little_later(origin, mounted)
    assert got["GET"] <= 10 + 4 * 10
    assert mounted.status()["bytes_ahead_unread"] == (got["GET"] - 10) * SIZE


def test_who_skips_most_files_is_not_followed_for_long(origin, follow):
    names = fill(origin.tree, files(1000))
    mounted = follow(origin.url)
    read(mounted.path, names[:3])  # a begin that looks like a sequence
    origin.forget()
    read(mounted.path, names[100::20])
    assert a_little_later(origin, mounted)["GET"] < 2 * 45 + 20


def test_large_files_are_not_fetched_ahead(origin, follow):
    size = 2 << 20  # larger than any wire lets one ahead
    big = fill(origin.tree, (f"big {i}" for i in range(20)), size)
    mounted = follow(origin.url)
    origin.forget()
    for name in big[:4]:
        with open(mounted / name, "rb", buffering=0) as file:
            assert file.read(100) == content(name, size)[:100]
    got = {r.path for r in origin.requests()}
    assert got <= {f"/big%20{i}" for i in range(4)}


def test_speculate_off_fetches_what_is_asked_for(origin, follow):
    names = fill(origin.tree, files(50))
    for i in range(6):
        fill(origin.tree / f"d{i}", ["one"])
    mounted = follow(origin.url, speculate="off")
    origin.forget()
    read(mounted.path, names[:20])
    os.listdir(mounted / "d0"), os.listdir(mounted / "d1"), os.listdir(mounted / "d2")
    assert a_little_later(origin, mounted) == {"GET": 20, "list": 3}
    assert mounted.status()["files_ahead"] == 0


def test_a_tree_is_read_ahead_over_its_directories(origin, follow, work):
    for d in range(10):
        fill(origin.tree / f"d{d}", files(30))
    mounted = follow(origin.url)
    origin.forget()
    subprocess.run(["cp", "-r", f"{mounted.path}/.", work / "copy"], check=True)
    got = a_little_later(origin, mounted)
    assert got["GET"] == 300 and got["HEAD"] == 0 and got["list"] <= 11
    assert subprocess.run(["diff", "-r", origin.tree, work / "copy"]).returncode == 0
    assert mounted.status()["files_ahead"] > 200


def test_what_is_cached_is_not_fetched_again(origin, follow):
    names = fill(origin.tree, files(60))
    mounted = follow(origin.url)
    read(mounted.path, names)
    quiet(mounted)
    time.sleep(0.5)
    mounted.down()
    mounted.up()
    origin.forget()
    read(mounted.path, names)
    assert a_little_later(origin, mounted)["GET"] == 0


# --- versions -----------------------------------------------------------------------------------------------


def test_a_doubtful_small_file_is_opened_with_its_bytes_alone(origin, follow):
    """Written so lately that the listing cannot tell versions apart: without a version on record a HEAD is no use."""
    (origin.tree / "young").write_bytes(content("young")[:SIZE])
    mounted = follow(origin.url, ttl=3)
    time.sleep(3.2)
    os.listdir(mounted.path)  # listed a second time: now it is in doubt
    origin.forget()
    read(mounted.path, ["young"])
    got = a_little_later(origin, mounted)
    assert got["HEAD"] == 0 and got["GET"] == 1, origin.requests()


def test_a_doubtful_small_file_that_has_grown_is_opened_in_its_new_version(origin, follow):
    (origin.tree / "log").write_bytes(b"a" * 100)
    mounted = follow(origin.url, ttl=3)
    time.sleep(3.2)
    os.listdir(mounted.path)
    (origin.tree / "log").write_bytes(b"b" * 200)
    assert (mounted / "log").read_bytes() == b"b" * 200


def test_a_neighbour_that_changes_after_it_was_fetched_is_never_mixed(origin, follow):
    names = fill(origin.tree, files(100))
    mounted = follow(origin.url, ttl=1)
    read(mounted.path, names[:20])
    quiet(mounted)
    for name in names[20:]:
        (origin.tree / name).write_bytes(content("new " + name)[: SIZE + 1])
    time.sleep(1.2)
    for name in names[20:]:
        assert (mounted / name).read_bytes() == content("new " + name)[: SIZE + 1]


# --- sizes --------------------------------------------------------------------------------------------------


def test_inexact_sizes_are_asked_for_together(make_origin, tree, follow):
    names = fill(tree, files(150))
    origin = make_origin(tree, directives=INEXACT)
    mounted = follow(origin.url)
    origin.forget()
    said = subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True, text=True).stdout
    assert said.count(f" {SIZE} ") == 150
    assert counted(origin) == {"HEAD": 150}
    heads = origin.requests()
    at_once = max(sum(other.time - other.seconds <= r.time <= other.time for other in heads) for r in heads)
    print("at once:", at_once)
    origin.forget()
    subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True)
    read(mounted.path, names)
    assert a_little_later(origin, mounted) == {"GET": 150}


def test_nobody_who_looks_means_no_head(make_origin, tree, follow):
    names = fill(tree, files(50))
    origin = make_origin(tree, directives=INEXACT)
    mounted = follow(origin.url)
    origin.forget()
    assert sorted(os.listdir(mounted.path)) == names
    assert counted(origin) == {}
    assert (mounted / names[7]).stat().st_size == SIZE
    assert a_little_later(origin, mounted) == {"HEAD": 1}


def test_sizes_are_kept_over_a_remount(make_origin, tree, follow):
    fill(tree, files(150))
    origin = make_origin(tree, directives=INEXACT)
    mounted = follow(origin.url)
    subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True)
    mounted.down()
    mounted.up()
    origin.forget()
    subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True)
    assert counted(origin)["HEAD"] == 0


# --- listings -----------------------------------------------------------------------------------------------


def shallow(tree: Path, directories: int = 20, count: int = 5) -> None:
    for d in range(directories):
        fill(tree / f"d{d:02}", files(count))


def test_a_tree_is_listed_once_and_then_not_within_its_time_to_live(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url)
    origin.forget()
    first = subprocess.run(["ls", "-lR", mounted.path], check=True, capture_output=True).stdout
    assert counted(origin) == {"list": 20}
    origin.forget()
    assert subprocess.run(["ls", "-lR", mounted.path], check=True, capture_output=True).stdout == first
    assert counted(origin) == {}


def test_one_listing_does_not_crawl_the_server(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url)
    origin.forget()
    os.listdir(mounted.path)
    os.listdir(mounted / "d05")
    assert a_little_later(origin, mounted) == {"list": 1}
    os.listdir(mounted / "d15")
    assert a_little_later(origin, mounted) == {"list": 2}


def test_who_goes_into_the_first_directory_finds_a_few_more_there(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url)
    origin.forget()
    os.listdir(mounted.path)
    assert a_little_later(origin, mounted) == {}
    os.listdir(mounted / "d00")
    assert a_little_later(origin, mounted) == {"list": 5}
    os.listdir(mounted / "d15")
    assert a_little_later(origin, mounted) == {"list": 6}


def test_who_descends_finds_the_next_listings_there(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url)
    origin.forget()
    for directory in ("", "d00", "d01"):
        os.listdir(mounted / directory)
    assert a_little_later(origin, mounted) == {"list": 10}  # two of his, and eight ahead
    os.listdir(mounted / "d02")
    assert a_little_later(origin, mounted) == {"list": 15}  # twelve behind the third


def test_listings_that_are_not_believed_are_not_fetched_ahead(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url, ttl=0)
    origin.forget()
    for d in range(10):
        os.listdir(mounted / f"d{d:02}")
    asked = Counter(r.path for r in origin.requests() if r.path.endswith("/"))
    assert set(asked) <= {"/", *(f"/d{d:02}/" for d in range(10))}


def test_old_listings_are_renewed_ahead_too(origin, follow):
    shallow(origin.tree)
    mounted = follow(origin.url, ttl=2)
    subprocess.run(["ls", "-lR", mounted.path], check=True, capture_output=True)
    time.sleep(2.3)
    (origin.tree / "d19" / "added").write_bytes(b"new")
    origin.forget()
    said = subprocess.run(["ls", "-lR", mounted.path], check=True, capture_output=True, text=True).stdout
    assert "added" in said
    assert a_little_later(origin, mounted)["list"] == 21
