"""Beginning and end of a mount: it is up when the command returns, what is wrong has a clear message and loses nothing,
and no end leaves a daemon, a lock or a waiting reader behind."""

import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import trees
from support.mounting import (Mount, Result, daemons_of, is_alive, is_mounted, mounts_below, run, threads_stuck,
                              wait_until)

MIB = 1 << 20


@pytest.fixture
def simple(origin):
    (origin.tree / "dir").mkdir()
    (origin.tree / "dir/file").write_text("content")
    return origin


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def assert_refused(mount: Mount, result: Result, *words: str) -> None:
    """It says so, in a few lines, and nothing is left behind."""
    assert result.code != 0, result.output
    for word in words:
        assert word.lower() in result.output.lower(), result.output
    assert 0 < len(result.output.strip().splitlines()) <= 6, result.output
    assert not is_mounted(mount.directory)
    assert daemons_of(mount.directory) == []


# --- up ---


def test_mount_returns_when_the_mount_is_usable(simple, make_mount):
    for _ in range(5):
        mounted = make_mount(simple.url)
        assert mounted.try_up().code == 0
        # At once, without waiting for anything.
        assert (mounted / "dir/file").read_text() == "content"


def test_mount_leaves_nobody_who_holds_the_callers_pipe(simple, make_mount):
    mounted = make_mount(simple.url)
    command = [mounted.wormhole, "mount", mounted.url, mounted.directory, "-o", mounted.option_string()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # reads to the end of both pipes
    assert done.returncode == 0, done.stderr
    mounted.pid = mounted.status()["pid"]
    assert (mounted / "dir/file").read_text() == "content"


def test_the_daemon_stands_apart_from_its_caller(simple, mount):
    pid = mount(simple.url).pid
    assert os.getsid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}


def test_threads_have_names(simple, mount):
    mounted = mount(simple.url)
    (mounted / "dir/file").read_text()
    names = {(t / "comm").read_text().strip() for t in Path(f"/proc/{mounted.pid}/task").iterdir()}
    assert len(names) >= 4, names


def test_a_foreground_mount_stays_and_ends_with_its_mount(simple, make_mount, wormhole, work):
    mounted = make_mount(simple.url)
    with open(work / "output", "wb") as output:
        process = subprocess.Popen([wormhole, "mount", simple.url, mounted.directory, "-o", mounted.option_string(),
                                    "--foreground"], stdout=output, stderr=output)
    wait_until(mounted.is_up, "it is mounted")
    assert (mounted / "dir/file").read_text() == "content"
    assert run("umount", mounted.directory).code == 0
    assert process.wait(20) == 0, (work / "output").read_text()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["mount", "--help"], ["umount", "--help"],
                                       ["status", "--help"], ["get", "--help"], ["host", "--help"]])
def test_help_and_version_are_everywhere(wormhole, arguments):
    done = run(wormhole, *arguments)
    assert done.code == 0
    assert done.output.strip()


def test_options_of_fstab_are_accepted(simple, mount):
    mounted = mount(simple.url, ro=True, nosuid=True, nodev=True, noexec=True, _netdev=True, noatime=True, nofail=True,
                    noauto=True, **{"x-systemd.automount": True, "x-systemd.idle-timeout": "10min"})
    assert (mounted / "dir/file").read_text() == "content"


# --- not up ---


def test_an_unreachable_host_is_refused(make_mount):
    mount = make_mount("http://127.0.0.1:9/data/", timeout=5)
    assert_refused(mount, mount.try_up(), "127.0.0.1")


def test_an_unknown_host_name_is_refused(make_mount):
    mount = make_mount("http://no-such-host.invalid/", timeout=5)
    assert_refused(mount, mount.try_up(), "no-such-host.invalid")


def test_a_server_that_says_nothing_is_refused_in_time(origin, make_mount):
    mount = make_mount(origin.url, timeout=2)
    origin.pause()
    result = mount.try_up()
    origin.resume()
    assert_refused(mount, result, "127.0.0.1")
    assert result.seconds < 6


@pytest.mark.parametrize("path, word", [("missing/", "404"), ("missing", "404"), ("forbidden/", "403")])
def test_a_url_that_the_server_refuses_is_refused(make_origin, tree, make_mount, path, word):
    origin = make_origin(tree, directives="location /forbidden/ { return 403; }")
    mount = make_mount(origin.url + path)
    assert_refused(mount, mount.try_up(), word, origin.url + path)


def test_a_directory_that_is_not_listed_is_refused(range_server, make_mount):
    range_server.put("site/", b"<html><head><title>Welcome</title></head><body><p>Hello.</p></body></html>")
    mount = make_mount(range_server.url + "site/")
    assert_refused(mount, mount.try_up(), "list")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/", "127.0.0.1/data", "", "http://", "http:///x",
                                 "gopher:x", "http://[::1", "http://host:port/"])
def test_a_url_that_is_none_is_refused(make_mount, url):
    mount = make_mount(url)
    assert_refused(mount, mount.try_up(), "http")


def test_a_missing_mountpoint_is_refused(simple, make_mount, work):
    mount = make_mount(simple.url, directory=work / "nowhere")
    assert_refused(mount, mount.try_up(), str(work / "nowhere"))
    assert not (work / "nowhere").exists()


def test_a_mountpoint_that_is_a_file_is_refused(simple, make_mount, work):
    (work / "file").write_text("precious")
    mount = make_mount(simple.url, directory=work / "file")
    assert_refused(mount, mount.try_up(), str(work / "file"), "directory")
    assert (work / "file").read_text() == "precious"


def test_a_mountpoint_that_is_not_empty_is_refused(simple, make_mount, work):
    (work / "full").mkdir()
    (work / "full/mine").write_text("precious")
    mount = make_mount(simple.url, directory=work / "full")
    assert_refused(mount, mount.try_up(), str(work / "full"), "empty")
    assert (work / "full/mine").read_text() == "precious"


def test_a_mountpoint_that_is_mounted_already_is_refused(simple, mount, make_mount):
    first = mount(simple.url)
    second = make_mount(simple.url, directory=first.directory)
    result = second.try_up()
    assert result.code != 0
    assert "already" in result.output.lower() and str(first.directory) in result.output
    assert (first / "dir/file").read_text() == "content"
    assert len(mounts_below(first.directory)) == 1
    second.pid = None


def test_an_unknown_option_is_named(simple, make_mount):
    mount = make_mount(simple.url, chache_size="1G")
    assert_refused(mount, mount.try_up(), "chache-size")


@pytest.mark.parametrize("option, value", [("cache_size", "much"), ("memory", "-1"), ("ttl", "soon"), ("timeout", "x"),
                                           ("connections", "0"), ("http", "7"), ("offline", "maybe"),
                                           ("log_level", "loud")])
def test_a_malformed_option_is_named(simple, make_mount, option, value):
    mount = make_mount(simple.url, **{option: value})
    assert_refused(mount, mount.try_up(), option.replace("_", "-"))


# --- caches that are not ours ---


def test_a_cache_that_cannot_be_written_is_refused(simple, make_mount, work):
    if os.geteuid() == 0:
        directory = Path("/proc/wormhole-cache")  # even root cannot write there
    else:
        (work / "locked").mkdir(mode=0o555)
        directory = work / "locked/cache"
    mount = make_mount(simple.url, cache=directory)
    assert_refused(mount, mount.try_up(), str(directory))


def test_a_cache_that_is_a_file_is_refused(simple, make_mount, work):
    (work / "file").write_text("precious")
    mount = make_mount(simple.url, cache=work / "file")
    assert_refused(mount, mount.try_up(), str(work / "file"))
    assert (work / "file").read_text() == "precious"


def test_a_directory_of_somebody_else_is_no_cache(simple, make_mount, work):
    foreign = work / "photos"
    (foreign / "2026").mkdir(parents=True)
    (foreign / "2026/picture.jpg").write_bytes(b"precious")
    (foreign / "notes.txt").write_bytes(b"precious too")
    before = snapshot(foreign)
    mount = make_mount(simple.url, cache=foreign)
    assert_refused(mount, mount.try_up(), str(foreign))
    assert snapshot(foreign) == before


def test_an_empty_directory_becomes_a_cache(simple, mount, work):
    (work / "empty").mkdir()
    mounted = mount(simple.url, cache=work / "empty")
    assert (mounted / "dir/file").read_text() == "content"
    assert any((work / "empty").iterdir())


def test_a_cache_of_another_format_is_refused_and_kept(simple, mount):
    mounted = mount(simple.url)
    assert (mounted / "dir/file").read_text() == "content"
    mounted.down()
    mark = mounted.cache / "FORMAT"
    mark.write_text(re.sub(r"\d+", "987654", mark.read_text()))
    before = snapshot(mounted.cache)
    assert_refused(mounted, mounted.try_up(), str(mounted.cache), "987654", "cache=")
    after = snapshot(mounted.cache)
    assert {name: after.get(name) for name in before} == before


def test_a_cache_in_use_is_refused_and_its_holder_named(simple, mount, make_mount):
    first = mount(simple.url)
    second = make_mount(simple.url, cache=first.cache)
    assert_refused(second, second.try_up(), str(first.cache), str(first.pid))
    assert (first / "dir/file").read_text() == "content"


def test_a_cache_of_a_killed_daemon_is_free(simple, mount):
    mounted = mount(simple.url)
    mounted.kill()
    mounted.up()
    assert (mounted / "dir/file").read_text() == "content"


def test_a_dead_mount_is_named_and_not_covered(simple, mount):
    mounted = mount(simple.url)
    os.kill(mounted.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(mounted.pid), "the daemon is gone")
    result = run(mounted.wormhole, "mount", mounted.url, mounted.directory, "-o", mounted.option_string(), timeout=20)
    if result.code == 0:  # it may as well clean up after its predecessor
        mounted.pid = mounted.status()["pid"]
        assert (mounted / "dir/file").read_text() == "content"
    else:
        assert "umount" in result.output  # what to do
        mounted.pid = None
        mounted.detach()
    assert len(mounts_below(mounted.directory)) <= 1


def test_umount_cleans_up_after_a_dead_daemon(simple, mount):
    mounted = mount(simple.url)
    os.kill(mounted.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(mounted.pid), "the daemon is gone")
    mounted.down()


# --- down ---


def test_umount_ends_the_daemon_before_it_returns(simple, mount):
    mounted = mount(simple.url)
    (mounted / "dir/file").read_text()
    pid = mounted.pid
    assert run(mounted.wormhole, "umount", mounted.directory).code == 0
    assert not is_alive(pid)
    mounted.assert_clean_end()


def test_the_systems_umount_ends_the_daemon(simple, mount):
    mounted = mount(simple.url)
    (mounted / "dir/file").read_text()
    pid = mounted.pid
    assert run("umount", mounted.directory).code == 0
    wait_until(lambda: not is_alive(pid), "the daemon ends")
    mounted.assert_clean_end()


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(origin, mount, signal_):
    content = trees.real_bytes(10 * MIB)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    assert (mounted / "file").read_bytes() == content
    os.kill(mounted.pid, signal_)
    wait_until(lambda: not is_alive(mounted.pid), "the daemon ends")
    mounted.assert_clean_end()
    origin.forget()
    mounted.up()
    assert (mounted / "file").read_bytes() == content
    assert origin.file_bytes() == 0  # nothing that was cached is lost


def test_a_busy_mount_is_not_unmounted(simple, mount):
    mounted = mount(simple.url)
    with open(mounted / "dir/file") as stream:
        result = run(mounted.wormhole, "umount", mounted.directory, timeout=20)
        assert result.code != 0
        assert "busy" in result.output.lower()
        assert stream.read() == "content"
    mounted.down()


def test_umount_of_what_is_no_mount_is_an_error(wormhole, work):
    (work / "plain").mkdir()
    for directory in (work / "plain", work / "nowhere"):
        result = run(wormhole, "umount", directory)
        assert result.code != 0
        assert str(directory) in result.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else, whose daemons nobody else asks")
def test_status_does_not_take_a_silent_daemon_for_none(wormhole, work):
    program = Path(shutil.copy2(wormhole, work / "wormhole"))  # where everybody can reach it
    sockets = work / "run/wormhole"
    sockets.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sockets / f"{os.getpid()}.sock"))
        listener.listen()
        for path in (*sockets.iterdir(), sockets, sockets.parent):
            os.chown(path, 65534, 65534)
        for place in ([], ["/proc"]):
            done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "status", *place,
                       env={**os.environ, "XDG_RUNTIME_DIR": str(sockets.parent)})
            assert (done.code, done.output) == (1, f"wormhole: the daemon with pid {os.getpid()} does not answer\n")


def test_status_of_what_is_no_mount_is_an_error(wormhole, work):
    assert run(wormhole, "status", work).code != 0


@pytest.fixture
def held_readers(range_server, mount) -> Iterator[tuple[Mount, list[subprocess.Popen]]]:
    """Four processes that wait for bytes which the server holds back."""
    range_server.put_formula("file", 64 * MIB)
    mounted = mount(range_server.url, timeout=120)
    (mounted / "file").stat()
    range_server.hold("file")
    script = "import os,sys; os.pread(os.open(sys.argv[1], os.O_RDONLY), 100, int(sys.argv[2]))"
    readers = [subprocess.Popen(["/usr/bin/python3", "-c", script, mounted / "file", str(i * 16 * MIB)],
                                stderr=subprocess.PIPE) for i in range(4)]
    range_server.wait_for_requests("file", 1)
    time.sleep(0.3)
    yield mounted, readers
    for reader in readers:
        reader.kill()
        reader.communicate()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_though_readers_wait(held_readers, how):
    mounted, readers = held_readers
    os.kill(mounted.pid, getattr(signal, how))
    wait_until(lambda: not is_alive(mounted.pid), "the daemon ends", 15)
    for reader in readers:
        assert reader.wait(10) != 0  # with an error, not with bytes
    assert not threads_stuck([r.pid for r in readers], seconds=0.5)
    mounted.detach()  # in case the mount was busy and only detached
    mounted.assert_clean_end()


def test_a_lazy_umount_ends_when_its_readers_do(held_readers):
    mounted, readers = held_readers
    assert run("umount", "-l", mounted.directory).code == 0
    for reader in readers:
        reader.kill()
        assert reader.wait(10) == -signal.SIGKILL
    wait_until(lambda: not is_alive(mounted.pid), "the daemon ends", 15)
    mounted.assert_clean_end()


def test_a_waiting_reader_can_be_killed_and_the_rest_goes_on(held_readers, range_server):
    mounted, readers = held_readers
    readers[0].kill()
    assert readers[0].wait(10) == -signal.SIGKILL
    range_server.release("file")
    for reader in readers[1:]:
        assert reader.wait(20) == 0
    readers[0].wait()


# --- kill -9 ---


@pytest.mark.parametrize("share", [0.05, 0.4, 0.75])
def test_every_byte_is_right_after_kill_9_in_the_middle_of_a_fill(make_origin, tree, mount, share):
    names = ("one", "two", "three")
    for i, name in enumerate(names):
        (tree / name).write_bytes(trees.real_bytes(8 * MIB + 1000 * i, skip=i * 8 * MIB))
    # Slow enough that there is a middle.
    origin = make_origin(tree, directives="limit_rate 130k;")
    total = sum((tree / name).stat().st_size for name in names)
    mounted = mount(origin.url, timeout=5)
    readers = [subprocess.Popen(["cat", mounted / name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for name in names]
    wait_until(lambda: mounted.status()["body_bytes_received"] > share * total, "it is filled so far", 60)
    mounted.kill()
    assert any(reader.wait(20) != 0 for reader in readers), "the kill came too late"
    mounted.up()
    for name in names:
        assert run("cmp", mounted / name, tree / name).output == ""
    mounted.down()
    mounted.up()  # and once more from what is now on the disk
    for name in names:
        assert run("cmp", mounted / name, tree / name).output == ""


def test_kill_9_again_and_again_never_gives_a_wrong_byte(make_origin, tree, mount):
    content = trees.real_bytes(48 * MIB)
    (tree / "file").write_bytes(content)
    origin = make_origin(tree, directives="limit_rate 8m;")
    mounted = mount(origin.url)
    for i in range(5):
        fd = os.open(mounted / "file", os.O_RDONLY)
        at = (i * 9 + 1) * MIB
        assert os.pread(fd, 100_000, at) == content[at : at + 100_000]
        time.sleep(0.1 * i)
        os.close(fd)
        mounted.kill()
        mounted.up()
    assert (mounted / "file").read_bytes() == content


def test_a_killed_daemon_keeps_most_of_what_it_had(origin, mount):
    """What was fetched well before the kill is not fetched again."""
    content = trees.real_bytes(32 * MIB)
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url)
    assert (mounted / "file").read_bytes() == content
    time.sleep(3)  # commits are batched by time
    mounted.kill()
    origin.forget()
    mounted.up()
    assert (mounted / "file").read_bytes() == content
    assert origin.file_bytes() < len(content) // 4


# --- mount(8) ---


@pytest.fixture
def mount_helper(wormhole) -> Iterator[None]:
    """mount(8) looks for helpers in /sbin only."""
    helper = Path("/sbin/mount.wormhole")
    if os.geteuid() != 0:
        pytest.skip("only root can put a helper into /sbin")
    if os.path.lexists(helper):
        if helper.resolve() != wormhole.resolve():
            pytest.skip(f"{helper} is another wormhole")
        yield
        return
    helper.symlink_to(wormhole)
    yield
    helper.unlink()


def test_mount_t_wormhole_mounts(simple, make_mount, mount_helper):
    mounted = make_mount(simple.url)
    done = run("mount", "-t", "wormhole", simple.url, mounted.directory, "-o",
               "ro,nosuid,nodev,noexec,_netdev," + mounted.option_string())
    assert done.code == 0, done.output
    mounted.pid = mounted.status()["pid"]
    assert (mounted / "dir/file").read_text() == "content"
    listed = run("findmnt", "-n", "-o", "FSTYPE,SOURCE", mounted.directory).output
    assert listed.split() == ["fuse.wormhole", simple.url]
    assert run("umount", mounted.directory).code == 0
    wait_until(lambda: not is_alive(mounted.pid), "the daemon ends")
    mounted.assert_clean_end()


def test_mount_t_wormhole_passes_failures_on(simple, make_mount, mount_helper):
    mounted = make_mount(simple.url + "missing/")
    done = run("mount", "-t", "wormhole", mounted.url, mounted.directory, "-o", mounted.option_string())
    assert_refused(mounted, done, "404")


def test_a_line_in_fstab_mounts(simple, make_mount, mount_helper, work):
    mounted = make_mount(simple.url)
    table = work / "fstab"
    table.write_text(f"{simple.url} {mounted.directory} wormhole noauto,_netdev,{mounted.option_string()} 0 0\n")
    done = run("mount", "--fstab", table, mounted.directory)
    assert done.code == 0, done.output
    mounted.pid = mounted.status()["pid"]
    assert (mounted / "dir/file").read_text() == "content"


# --- an ordinary user ---


@pytest.fixture
def open_device() -> Iterator[None]:
    """/dev/fuse as distributions have it: everybody may open it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    fusermount = shutil.which("fusermount3")
    if fusermount is None or not os.stat(fusermount).st_mode & stat.S_ISUID:
        pytest.skip("fusermount3 is not installed setuid root")
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", before)


@pytest.fixture
def user_mount(simple, make_mount, wormhole, work, open_device) -> Mount:
    """Prepared for the user nobody, in directories of his own, with a program that he can reach."""
    nobody = pwd.getpwnam("nobody")
    program = work / "wormhole"
    shutil.copy(wormhole, program)
    program.chmod(0o755)
    home = work / "home"
    home.mkdir()
    for directory in (home, home / "mnt", home / "run", home / "tmp"):
        directory.mkdir(exist_ok=True, mode=0o700)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    mount = make_mount(
        simple.url, directory=home / "mnt", cache=home / "cache",
        prefix=("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
        env={"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"),
             "TMPDIR": str(home / "tmp")})
    mount.wormhole = program
    mount.options["log"] = home / "log"
    return mount


def test_an_ordinary_user_mounts_and_unmounts(user_mount):
    user_mount.up()
    assert run(*user_mount.prefix, "cat", user_mount / "dir/file").output == "content"
    assert os.stat(f"/proc/{user_mount.pid}").st_uid == pwd.getpwnam("nobody").pw_uid
    seen = run(*user_mount.prefix, "stat", "-c", "%U %a", user_mount / "dir/file").output
    assert seen == "nobody 444\n"
    with pytest.raises(PermissionError):  # a mount is its user's alone, without allow_other
        os.stat(user_mount / "dir/file")
    user_mount.down()


def test_an_ordinary_users_daemon_ends_on_sigterm(user_mount):
    user_mount.up()
    assert run(*user_mount.prefix, "cat", user_mount / "dir/file").output == "content"
    os.kill(user_mount.pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(user_mount.pid), "the daemon ends")
    user_mount.assert_clean_end()


def test_an_ordinary_users_errors_are_clear(user_mount):
    user_mount.cache = Path("/var/not-allowed")
    assert_refused(user_mount, user_mount.try_up(), "/var/not-allowed")


def test_fusermount_ends_an_ordinary_users_mount(user_mount):
    user_mount.up()
    assert run(*user_mount.prefix, "fusermount3", "-u", user_mount.directory).code == 0
    wait_until(lambda: not is_alive(user_mount.pid), "the daemon ends")
    user_mount.assert_clean_end()


def test_root_opens_a_mount_to_others(simple, mount):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    mounted = mount(simple.url, allow_other=True)
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert run(*as_nobody, "cat", mounted / "dir/file").output == "content"
    assert run(*as_nobody, "touch", mounted / "dir/file").code != 0
