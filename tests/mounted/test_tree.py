"""The tree in the mount is the tree on the server: names, kinds, sizes, times. Nothing in it can be changed."""

import ctypes
import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from support import trees
from support.mounting import Mount
from support.origin import Origin


def same_trees(left: Path, right: Path) -> None:
    compared = subprocess.run(["diff", "-r", left, right], capture_output=True, text=True, errors="replace")
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, "", "")


# --- names ---


def test_a_tree_of_real_files_is_the_same_on_both_sides(origin, mount):
    trees.copy_real_tree(origin.tree, files=1200, bytes_at_most=40 << 20)
    same_trees(origin.tree, mount(origin.url).path)


def test_odd_names_are_listed_and_readable(origin, mount):
    count = trees.write_odd_names(origin.tree / "odd")
    mounted = mount(origin.url)
    names = os.listdir(os.fsencode(mounted / "odd"))
    assert len(names) == count
    assert set(names) == set(os.listdir(os.fsencode(origin.tree / "odd")))
    for name in names:
        assert Path(os.fsdecode(os.path.join(os.fsencode(mounted / "odd"), name))).read_bytes() == name


@pytest.mark.parametrize("name", ["with space", "100%", "a&b", "a#b", "a?b", "日本語", "a:b", "it's"])
def test_directories_with_odd_names_are_entered(origin, mount, name):
    inner = origin.tree / name / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text(name)
    assert (mount(origin.url) / name / "inner/file").read_text() == name


def test_names_with_a_leading_dot_are_shown_when_the_server_lists_them(range_server, mount):
    range_server.put(".hidden", b"here")
    mounted = mount(range_server.url)
    assert os.listdir(mounted.path) == [".hidden"]
    assert (mounted / ".hidden").read_bytes() == b"here"


def test_ten_thousand_entries_are_one_listing(origin, mount):
    directory = origin.tree / "many"
    directory.mkdir()
    for i in range(10_000):
        (directory / f"entry {i:05}").write_bytes(b"%d" % i)
    mounted = mount(origin.url)
    assert sorted(os.listdir(mounted / "many")) == sorted(os.listdir(directory))
    assert sum(entry.stat().st_size for entry in os.scandir(mounted / "many")) == sum(
        entry.stat().st_size for entry in os.scandir(directory))
    assert [r.path for r in origin.requests()].count("/many/") == 1
    assert origin.file_bytes() == 0
    assert (mounted / "many/entry 07654").read_bytes() == b"7654"


def test_an_empty_directory_is_empty(origin, mount):
    (origin.tree / "empty").mkdir()
    mounted = mount(origin.url)
    assert os.listdir(mounted / "empty") == []
    assert os.listdir(mounted.path) == ["empty"]


def test_an_empty_root_can_be_mounted(origin, mount):
    assert os.listdir(mount(origin.url).path) == []


# --- what a URL may name ---


def test_a_url_without_its_slash_is_the_directory(origin, mount):
    (origin.tree / "dir").mkdir()
    (origin.tree / "dir/file").write_text("x")
    assert (mount(origin.url + "dir") / "file").read_text() == "x"


def test_a_redirected_directory_is_read_where_it_really_is(make_origin, tree, mount):
    (tree / "real/sub").mkdir(parents=True)
    (tree / "real/sub/file").write_text("x")
    origin = make_origin(tree, directives="location = /moved/ { return 302 /real/; }")
    mounted = mount(origin.url + "moved/")
    assert os.listdir(mounted.path) == ["sub"]
    assert (mounted / "sub/file").read_text() == "x"


def test_a_redirected_file_has_the_bytes_of_its_target(range_server, mount):
    content = trees.real_bytes(300_000)
    range_server.put("link", content)  # listed with this size, served from elsewhere
    range_server.put("elsewhere/target", content)
    range_server.behave("link", redirect=range_server.url + "elsewhere/target")
    assert (mount(range_server.url) / "link").read_bytes() == content


@pytest.mark.parametrize("name", ["file.bin", "with space & %.bin"])
def test_the_url_of_a_file_is_a_directory_with_that_file(origin, mount, name):
    content = trees.real_bytes(200_000)
    (origin.tree / name).write_bytes(content)
    (origin.tree / "other").write_bytes(b"not shown")
    quoted = name.replace("%", "%25").replace(" ", "%20").replace("&", "%26")
    mounted = mount(origin.url + quoted)
    assert os.listdir(mounted.path) == [name]
    assert (mounted / name).stat().st_size == len(content)
    assert (mounted / name).read_bytes() == content


# --- attributes ---


def test_sizes_times_modes_and_owner_are_right(origin, mount):
    (origin.tree / "dir").mkdir()
    file = origin.tree / "dir/file"
    file.write_bytes(b"x" * 12345)
    os.utime(file, (1234567890, 1234567890))
    mounted = mount(origin.url)
    seen = (mounted / "dir/file").stat()
    assert seen.st_size == 12345
    assert abs(seen.st_mtime - 1234567890) < 60  # nginx lists minutes
    assert stat.S_IFMT(seen.st_mode) == stat.S_IFREG
    assert stat.S_IMODE(seen.st_mode) == 0o444
    assert (seen.st_uid, seen.st_gid) == (os.geteuid(), os.getegid())
    assert seen.st_nlink >= 1
    for directory in (mounted.path, mounted / "dir"):
        assert stat.S_IFMT(directory.stat().st_mode) == stat.S_IFDIR
        assert stat.S_IMODE(directory.stat().st_mode) == 0o555


def test_the_blocks_of_a_file_are_those_of_its_size(origin, mount):
    (origin.tree / "file").write_bytes(b"x" * 100_000)
    mounted = mount(origin.url)
    counted = subprocess.run(["du", "-B1", "--apparent-size", mounted / "file"], capture_output=True, text=True)
    assert counted.stdout.split()[0] == "100000"
    assert (mounted / "file").stat().st_blocks * 512 >= 100_000


def test_an_inode_number_is_of_one_file_and_stays(origin, mount):
    for i in range(50):
        (origin.tree / f"file{i}").write_text("x")
    mounted = mount(origin.url)
    first = {name: (mounted / name).stat().st_ino for name in os.listdir(mounted.path)}
    assert len(set(first.values())) == 50
    listed = {entry.name: entry.inode() for entry in os.scandir(mounted.path)}
    assert listed == first
    mounted.down()
    mounted.up()
    assert {name: (mounted / name).stat().st_ino for name in first} == first


def test_entry_kinds_are_listed_without_a_stat(origin, mount):
    (origin.tree / "dir").mkdir()
    (origin.tree / "file").write_text("x")
    kinds = {entry.name: entry.is_dir() for entry in os.scandir(mount(origin.url).path)}
    assert kinds == {"dir": True, "file": False}


def test_what_is_not_there_is_enoent_and_asks_once(origin, mount):
    (origin.tree / "file").write_text("x")
    mounted = mount(origin.url)
    os.listdir(mounted.path)
    origin.forget()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            (mounted / "nothing").stat()
    assert origin.requests() == []  # the listing says it all
    with pytest.raises(NotADirectoryError):
        (mounted / "file/below").stat()


def test_access_allows_reading_and_nothing_else(origin, mount):
    (origin.tree / "dir").mkdir()
    (origin.tree / "dir/file").write_text("x")
    mounted = mount(origin.url)
    assert os.access(mounted / "dir/file", os.R_OK)
    assert os.access(mounted / "dir", os.R_OK | os.X_OK)
    assert not os.access(mounted / "dir/file", os.W_OK)
    assert not os.access(mounted / "dir/file", os.X_OK)
    assert not os.access(mounted / "dir", os.W_OK)


def test_statfs_never_asks_the_network(origin, mount):
    mounted = mount(origin.url)
    origin.forget()
    assert os.statvfs(mounted.path).f_namemax == 255
    assert origin.requests() == []
    origin.stop()
    assert os.statvfs(mounted.path).f_bsize > 0
    assert subprocess.run(["df", mounted.path], capture_output=True, timeout=10).returncode == 0


def test_the_mount_table_says_what_it_is(origin, mount):
    mounted = mount(origin.url)
    line = next(l for l in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mounted.path} " in l)
    options, _, rest = line.partition(" - ")
    kind, source, _ = rest.split(" ", 2)
    assert kind == "fuse.wormhole"
    assert source == origin.url
    assert {"ro", "nosuid", "nodev"} <= set(options.split()[5].split(","))


# --- writing ---

WRITES = {
    "open for writing": lambda d: os.open(d / "file", os.O_WRONLY),
    "open for both": lambda d: os.open(d / "file", os.O_RDWR),
    "append": lambda d: os.open(d / "file", os.O_WRONLY | os.O_APPEND),
    "open and truncate": lambda d: os.open(d / "file", os.O_WRONLY | os.O_TRUNC),
    "create": lambda d: os.open(d / "new", os.O_WRONLY | os.O_CREAT),
    "unnamed file": lambda d: os.open(d, os.O_WRONLY | os.O_TMPFILE),
    "mkdir": lambda d: os.mkdir(d / "new"),
    "rmdir": lambda d: os.rmdir(d / "dir"),
    "unlink": lambda d: os.unlink(d / "file"),
    "rename": lambda d: os.rename(d / "file", d / "new"),
    "rename over": lambda d: os.rename(d / "file", d / "file2"),
    "link": lambda d: os.link(d / "file", d / "new"),
    "symlink": lambda d: os.symlink("file", d / "new"),
    "mknod": lambda d: os.mknod(d / "new", stat.S_IFREG | 0o644),
    "mkfifo": lambda d: os.mkfifo(d / "new"),
    "chmod": lambda d: os.chmod(d / "file", 0o644),
    "chmod of a directory": lambda d: os.chmod(d / "dir", 0o755),
    "chown": lambda d: os.chown(d / "file", os.geteuid(), os.getegid()),
    "truncate": lambda d: os.truncate(d / "file", 0),
    "utimens": lambda d: os.utime(d / "file", (1, 1)),
    "touch": lambda d: os.utime(d / "file"),
    "setxattr": lambda d: os.setxattr(d / "file", "user.x", b"y"),
    "removexattr": lambda d: os.removexattr(d / "file", "user.x"),
}


@pytest.fixture(scope="module")
def read_only(tmp_path_factory, wormhole):
    """One mount for all writes, for they change nothing."""
    work = tmp_path_factory.mktemp("read-only")
    tree = work / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "file").write_text("content")
    (tree / "file2").write_text("content")
    with Origin(tree, work / "origin") as origin:
        mounted = Mount(wormhole, origin.url, work)
        try:
            yield mounted.up()
            mounted.down()
        finally:
            mounted.remove()


@pytest.mark.parametrize("what", WRITES)
def test_every_write_is_erofs(read_only, what):
    with pytest.raises(OSError) as refused:
        WRITES[what](read_only.path)
    assert errno.errorcode[refused.value.errno] == "EROFS"
    assert sorted(os.listdir(read_only.path)) == ["dir", "file", "file2"]
    assert (read_only / "file").read_text() == "content"


# --- programs that walk ---


def test_find_and_du_see_what_they_see_at_the_origin(origin, mount):
    trees.copy_real_tree(origin.tree, files=500, bytes_at_most=10 << 20)
    mounted = mount(origin.url)

    def output(command: str, directory: Path) -> list[str]:
        done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return sorted(done.stdout.splitlines())

    for command in ("find . -type f -printf '%p %s\\n'", "find . -type d", "find . -name '*.h' -size +4k"):
        assert output(command, mounted.path) == output(command, origin.tree)
    sizes = "find . -type f -print0 | du -cb --files0-from=- | tail -1"
    assert output(sizes, mounted.path) == output(sizes, origin.tree)
    assert origin.file_bytes() == 0


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


def test_a_directory_is_read_on_from_any_remembered_place(origin, mount):
    for i in range(3000):
        (origin.tree / f"entry{i}").touch()
    mounted = mount(origin.url)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(mounted.path)))

    def next_name() -> bytes | None:
        entry = libc.readdir(stream)
        return Dirent.from_address(entry).name if entry else None

    places, names = [], []
    while True:
        places.append(libc.telldir(stream))
        name = next_name()
        if name is None:
            break
        names.append(name)
    assert len(names) == len(set(names)) == 3002  # with . and ..
    for position in (2999, 0, 1, 1500, 3001, 700):
        libc.seekdir(stream, ctypes.c_long(places[position]))
        assert next_name() == names[position]
    libc.rewinddir(stream)
    assert next_name() == names[0]
    libc.closedir(stream)


def test_a_directory_that_is_being_read_survives_a_change(origin, mount):
    for i in range(2000):
        (origin.tree / f"entry{i}").touch()
    mounted = mount(origin.url, ttl=0)
    with os.scandir(mounted.path) as listing:
        seen = [next(listing).name for _ in range(10)]
        (origin.tree / "entry1999").unlink()
        (origin.tree / "new").touch()
        os.stat(mounted / "entry5")
        seen += [entry.name for entry in listing]
    assert len(seen) == len(set(seen))
    assert {f"entry{i}" for i in range(1999)} <= set(seen)
