"""Programs that people run on a mount work on it as on a local directory."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support import trees
from support.mounting import run


@pytest.fixture
def real_tree(tree: Path) -> Path:
    trees.copy_real_tree(tree, files=400, bytes_at_most=12 << 20)
    return tree


def sh(command: str, **options) -> str:
    done = run("sh", "-c", command, timeout=100, **options)
    assert done.code == 0, done.output
    return done.output


def test_tar_packs_the_same_archive(real_tree, origin, mount, work):
    # Sorted, and without times: listings give minutes.
    pack = "tar --sort=name --mtime=@0 --owner=0 --group=0 --mode=0444 --numeric-owner -C '{}' -cf '{}' ."
    sh(pack.format(real_tree, work / "origin.tar"))
    sh(pack.format(mount(origin.url).path, work / "mount.tar"))
    sh(f"cmp '{work}/origin.tar' '{work}/mount.tar'")


def test_an_archive_is_unpacked_from_the_mount(real_tree, origin, mount, work):
    sh(f"tar -C '{real_tree}' -czf '{work}/a.tar.gz' . && mv '{work}/a.tar.gz' '{real_tree}' && mkdir '{work}/out'")
    sh(f"tar -C '{work}/out' -xzf '{mount(origin.url) / 'a.tar.gz'}'")
    sh(f"rm '{real_tree}/a.tar.gz' && diff -r '{real_tree}' '{work}/out'")


def test_checksums_made_at_the_origin_hold_on_the_mount(real_tree, origin, mount, work):
    sh(f"find . -type f -print0 | sort -z | xargs -0 sha256sum > '{work}/sums'", cwd=real_tree)
    sh(f"sha256sum --quiet --strict -c '{work}/sums'", cwd=mount(origin.url).path)


def test_diff_says_nothing_when_warm_and_cold(real_tree, origin, mount):
    mounted = mount(origin.url)
    for _ in range(2):
        assert sh(f"diff -r '{real_tree}' '{mounted.path}'") == ""


def test_parallel_checksums_are_right(real_tree, origin, mount, work):
    sh(f"find . -type f -print0 | sort -z | xargs -0 sha256sum | sort > '{work}/left'", cwd=real_tree)
    sh(f"find . -type f -print0 | xargs -0 -P 8 -n 5 sha256sum | sort > '{work}/right'", cwd=mount(origin.url).path)
    sh(f"cmp '{work}/left' '{work}/right'")


def test_git_clones_from_a_bare_repository(origin, mount, work, need):
    need("git")
    identity = "-c user.name=tester -c user.email=tester@example.org"
    sh(f"""
      git init -q source && cd source
      for i in 1 2 3 4 5 6 7 8; do
        cp -r /usr/share/doc/[a-c]*/copyright . 2>/dev/null; seq $i 2000 > numbers; mkdir -p d$i; seq $i > d$i/file
        git add -A && git {identity} commit -qm "commit $i"
      done
      git tag v1 && git branch side HEAD~3
      cd .. && git clone -q --bare source '{origin.tree}/project.git' && git -C '{origin.tree}/project.git' repack -qad
    """, cwd=work)
    mounted = mount(origin.url)
    # The mount belongs to the one who mounted, but be explicit: git is strict about owners.
    safe = "-c safe.directory=*"
    sh(f"git {safe} clone -q --no-hardlinks 'file://{mounted / 'project.git'}' '{work}/clone'")
    sh(f"git -C '{work}/clone' fsck --full --strict")
    commits = "log --all --format=%H | sort"
    assert sh(f"git -C '{work}/clone' {commits}") == sh(f"git -C '{work}/source' {commits}")
    sh(f"diff -r -x .git '{work}/source' '{work}/clone'")
    sh(f"git {safe} --git-dir='{mounted / 'project.git'}' fsck --full")
    sh(f"git {safe} --git-dir='{mounted / 'project.git'}' show v1 --stat")


@pytest.fixture
def database(tree: Path) -> Path:
    path = tree / "data.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table words (id integer primary key, word text, length int)")
        db.executemany("insert into words (word, length) values (?, ?)",
                       ((f"{i * 7919 % 100003:06} word", i % 97) for i in range(100_000)))
        db.execute("create index by_word on words (word)")
        db.commit()
    return path


@pytest.mark.parametrize("mode", ["immutable=1", "mode=ro"])
def test_sqlite_queries_a_database_read_only(database, origin, mount, need, mode):
    need("sqlite3")
    mounted = mount(origin.url)
    queries = ("pragma integrity_check; select count(*), sum(length) from words;"
               "select * from words where word like '0123%' order by word;"
               "select word from words where word = '054321 word';")
    expected = sh(f"sqlite3 'file:{database}?mode=ro' \"{queries}\"")
    assert sh(f"sqlite3 'file:{mounted / 'data.db'}?{mode}' \"{queries}\"") == expected
    with closing(sqlite3.connect(f"file:{mounted / 'data.db'}?{mode}", uri=True)) as db:
        assert db.execute("select length from words where id = 4711").fetchone() == (4710 % 97,)
        with pytest.raises(sqlite3.OperationalError):
            db.execute("delete from words")


def test_an_indexed_query_fetches_a_part_of_the_database(database, origin, mount):
    mounted = mount(origin.url)
    with closing(sqlite3.connect(f"file:{mounted / 'data.db'}?immutable=1", uri=True)) as db:
        assert db.execute("select count(*) from words where word = '054321 word'").fetchone() == (1,)
    assert 0 < origin.file_bytes() <= database.stat().st_size


def test_python_imports_from_the_mount(origin, mount, work):
    package = origin.tree / "lib/parcel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .deep import answer\n")
    (package / "deep.py").write_text("import json\n\ndef answer():\n    return json.dumps({'from': __name__})\n")
    mounted = mount(origin.url)
    env = {**os.environ, "PYTHONPATH": str(mounted / "lib")}
    assert sh(f"'{sys.executable}' -c 'import parcel; print(parcel.answer())'", env=env) == '{"from": "parcel.deep"}\n'


def test_a_shared_library_is_loaded_from_the_mount(origin, mount):
    library = next(Path("/lib").glob("*-linux-gnu/libz.so.1"), None)
    if library is None:
        pytest.skip("no libz on this machine")
    (origin.tree / "libz.so.1").write_bytes(library.read_bytes())
    mounted = mount(origin.url)
    script = f"import ctypes; print(ctypes.CDLL('{mounted / 'libz.so.1'}').crc32(0, b'wormhole', 8) & 0xffffffff)"
    expected = script.replace(str(mounted / "libz.so.1"), str(library))
    assert run(sys.executable, "-c", script).output == run(sys.executable, "-c", expected).output


def test_cp_archive_copies_the_tree(real_tree, origin, mount, work):
    sh(f"cp -a '{mount(origin.url).path}' '{work}/copy'")
    sh(f"diff -r '{real_tree}' '{work}/copy'")
    subprocess.run(["chmod", "-R", "u+w", work / "copy"], check=True)


def test_grep_finds_what_it_finds_at_the_origin(real_tree, origin, mount):
    command = "grep -rlI include . | sort"
    assert sh(command, cwd=mount(origin.url).path) == sh(command, cwd=real_tree)
