"""wormhole index: what it writes is what b3sum and minisign say, again and again, and whatever interrupts it."""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support import trees
from support.mounting import run, wait_until
from support.origin import free_port

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def index(wormhole, tree):
    def do(*arguments, expect: int = 0, **popen) -> dict:
        """Indexes the tree, and returns what --json says."""
        done = subprocess.run([wormhole, "index", *map(str, arguments or [tree]), "--json", "-q"], capture_output=True,
                              text=True, timeout=120, check=False, **popen)
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}

    return do


@pytest.fixture
def check(index, tree):
    def do(*arguments, expect: int = 0) -> list[tuple[str, str]]:
        said = index("--check", tree, *arguments, expect=expect)
        return [(one["kind"], one["path"]) for one in said.get("differences_named", [])]

    return do


@pytest.fixture
def keys(need, work) -> Path:
    minisign = need("minisign")
    directory = work / "keys"
    directory.mkdir()
    for name in ("one", "other"):
        assert run(minisign, "-G", "-W", "-p", directory / f"{name}.pub", "-s", directory / f"{name}.key").code == 0
    return directory


def manifest_files(tree: Path) -> set[str]:
    return {p.name for p in (tree / ".wormhole").iterdir()}


def age(path: Path, seconds: int = 1000) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_a_real_tree_is_as_its_manifest_says(index, check, tree):
    trees.copy_real_tree(tree, files=400, bytes_at_most=30 * MIB)
    trees.write_odd_names(tree / "odd")
    (tree / "link").symlink_to("../out of here")
    trees.write_real_file(tree / "large", 9 * MIB + 7)
    said = index()
    files = [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink() and ".wormhole" not in p.parts]
    assert said["files"] == len(files)
    assert said["bytes"] == sum(p.stat().st_size for p in files)
    assert check() == []


def test_pages_and_head_are_named_by_what_b3sum_says(index, tree, need):
    b3sum = need("b3sum")
    trees.write_real_file(tree / "file", MIB)
    said = index()
    pages = run(b3sum, "--no-names", tree / ".wormhole" / said["pages"]).output.strip()
    assert said["pages"] == "pages-" + pages[:32]
    head = run(b3sum, "--no-names", tree / ".wormhole/manifest").output.strip()
    assert head == said["manifest"]
    assert (tree / ".wormhole" / f"manifest-{head}").read_bytes() == (tree / ".wormhole/manifest").read_bytes()
    assert manifest_files(tree) == {"manifest", f"manifest-{head}", said["pages"]}


def test_only_what_changed_is_read_again(index, check, tree):
    for name in "abc":
        trees.write_real_file(tree / name, 300 * KIB)
        age(tree / name)
    first = index()
    assert first["hashed_files"] == 3
    trees.write_real_file(tree / "b", 200 * KIB)
    second = index()
    assert (second["hashed_files"], second["hashed_bytes"]) == (1, 200 * KIB)
    assert second["sequence"] > first["sequence"]
    assert check() == []
    assert index(tree, "--rehash")["hashed_files"] == 3


def test_the_same_tree_has_the_same_pages(index, tree):
    trees.copy_real_tree(tree, files=50, bytes_at_most=5 * MIB)
    first = index(tree, "-j", "1")
    second = index(tree, "-j", "3", "--rehash")
    assert first["pages"] == second["pages"]
    assert first["manifest"] != second["manifest"]


def test_each_kind_of_difference_is_named(index, check, tree):
    for name in ("same", "gone", "longer", "other", "mode", "time"):
        (tree / name).write_bytes(b"x" * 100_000)
    (tree / "dir").mkdir()
    (tree / "dir/below").touch()
    (tree / "link").symlink_to("a")
    index()
    (tree / "gone").unlink()
    (tree / "longer").write_bytes(b"x" * 100_001)
    before = (tree / "other").stat()
    with open(tree / "other", "r+b") as file:
        file.seek(70_000)
        file.write(b"y")
    os.utime(tree / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "mode").chmod(0o600)
    age(tree / "time")
    shutil.rmtree(tree / "dir")
    (tree / "link").unlink()
    (tree / "link").symlink_to("b")
    (tree / "new").touch()
    assert set(check(expect=3)) == {("missing", "gone"), ("size", "longer"), ("content", "other"), ("mode", "mode"),
                                    ("time", "time"), ("missing", "dir"), ("target", "link"), ("extra", "new")}


def test_a_damaged_manifest_is_found(index, check, tree):
    trees.write_real_file(tree / "file", MIB)
    said = index()
    pages = tree / ".wormhole" / said["pages"]
    content = bytearray(pages.read_bytes())
    content[len(content) // 2] ^= 1
    pages.write_bytes(content)
    done = index("--check", tree, expect=1)
    assert "damaged" in done["stderr"]
    # And does no harm to the next one.
    assert index()["hashed_files"] == 1
    assert check() == []


def test_one_of_the_future_is_not_replaced(index, tree):
    index()
    head = tree / ".wormhole/manifest"
    content = bytearray(head.read_bytes())
    content[8] = 9
    head.write_bytes(content)
    assert "format 9" in index(tree, expect=1)["stderr"]
    assert head.read_bytes() == content


def test_older_manifests_are_kept_as_long_as_asked(index, tree):
    for i in range(5):
        (tree / "file").write_text(str(i))
        said = index(tree, "--keep", "2")
    assert len([n for n in manifest_files(tree) if n.startswith("pages-")]) == 3
    assert said["pages"] in manifest_files(tree)
    index(tree, "--keep", "0")
    assert len(manifest_files(tree)) == 3


# --- signatures ---


def test_minisign_verifies_what_is_signed_here(index, check, tree, keys, need):
    (tree / "file").write_text("x")
    said = index(tree, "--sign", keys / "one.key")
    head = tree / ".wormhole/manifest"
    for signature in (f"{head}.minisig", f"{head}-{said['manifest']}.minisig"):
        done = run(need("minisign"), "-V", "-p", keys / "one.pub", "-m", head, "-x", signature)
        assert done.code == 0, done.output
        assert f"sequence:{said['sequence']}" in done.output
    assert run(need("minisign"), "-V", "-p", keys / "other.pub", "-m", head).code != 0
    assert check("--key", keys / "one.pub") == []
    assert check("--key", (keys / "one.pub").read_text().splitlines()[1]) == []


def test_what_minisign_signs_is_verified_here(index, check, tree, keys, need):
    (tree / "file").write_text("x")
    index()
    for kind in ("-H", "-l"):
        signed = run(need("minisign"), "-S", kind, "-s", keys / "one.key", "-m", tree / ".wormhole/manifest")
        assert signed.code == 0, signed.output
        assert check("--key", keys / "one.pub") == []


def test_a_signature_that_does_not_fit_is_refused(index, tree, keys):
    (tree / "file").write_text("x")
    index()
    assert "not signed" in index("--check", tree, "--key", keys / "one.pub", expect=1)["stderr"]
    index(tree, "--sign", keys / "one.key")
    assert "another key" in index("--check", tree, "--key", keys / "other.pub", expect=1)["stderr"]
    head = tree / ".wormhole/manifest"
    one = head.read_bytes()
    index(tree, "--mirror", "http://example.org/", "--sign", keys / "one.key", "--keep", "0")
    signature = Path(f"{head}.minisig").read_bytes()
    head.write_bytes(one)  # an older head, the signature of a newer one
    Path(f"{head}.minisig").write_bytes(signature)
    assert index("--check", tree, "--key", keys / "one.pub", expect=1)["stderr"]


def test_an_unsigned_manifest_does_not_keep_an_old_signature(index, tree, keys):
    (tree / "file").write_text("x")
    index(tree, "--sign", keys / "one.key")
    index()
    assert "manifest.minisig" not in manifest_files(tree)


@pytest.fixture(scope="module")
def encrypted_key(tmp_path_factory) -> Path:
    """Made once: each use of the password takes minisign's second and its gigabyte, on a busy machine many seconds."""
    minisign = shutil.which("minisign") or pytest.skip("minisign is not installed (tools/setup --test installs it)")
    work = tmp_path_factory.mktemp("encrypted")
    # minisign reads the password from its input when that is no terminal.
    made = subprocess.run([minisign, "-G", "-p", work / "k.pub", "-s", work / "k.key"],
                          input="secret word\nsecret word\n", text=True, capture_output=True, timeout=120, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return work / "k.key"


def test_an_encrypted_key_needs_its_password(index, check, tree, work, encrypted_key):
    (tree / "file").write_text("x")
    (work / "password").write_text("secret word\n")
    index(tree, "--sign", encrypted_key, "--password-file", work / "password")
    assert check("--key", encrypted_key.with_suffix(".pub")) == []
    said = index(tree, "--sign", encrypted_key, expect=2, start_new_session=True, stdin=subprocess.DEVNULL)
    assert "--password-file" in said["stderr"]


def test_the_password_is_asked_on_the_terminal_unseen(wormhole, tree, encrypted_key):
    (tree / "file").write_text("x")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(wormhole, [str(wormhole), "index", "-q", "--sign", str(encrypted_key), str(tree)])
    shown = b""
    while b"Password of" not in shown:
        shown += os.read(terminal, 1000)
    time.sleep(0.2)  # the echo is turned off behind the question
    os.write(terminal, b"a wrong one\n")
    try:
        while more := os.read(terminal, 1000):
            shown += more
    except OSError:
        pass  # that is how the end of a terminal looks
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1, shown
    assert b"the password is not that" in shown
    assert b"wrong one" not in shown
    assert not (tree / ".wormhole").exists()


# --- accidents ---


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_all_as_it_was(wormhole, index, check, tree, how):
    (tree / "file").write_text("x")
    index()
    before = {name: (tree / ".wormhole" / name).read_bytes() for name in manifest_files(tree)}
    for i in range(4):
        with open(tree / f"sparse-{i}", "wb") as file:
            file.truncate(40 << 30)
    working = subprocess.Popen([wormhole, "index", tree], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    working.send_signal(how)
    assert working.wait(10) == 128 + how
    assert {name: (tree / ".wormhole" / name).read_bytes() for name in manifest_files(tree)} == before
    for i in range(4):
        (tree / f"sparse-{i}").unlink()
    assert check() == []


def test_a_killed_one_leaves_nothing_that_the_next_does_not_remove(wormhole, index, check, tree):
    with open(tree / "sparse", "wb") as file:
        file.truncate(60 << 30)
    working = subprocess.Popen([wormhole, "index", tree], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    assert "written by another" in index(tree, expect=1)["stderr"]
    working.kill()
    working.wait(10)
    assert any(name.startswith(".new") for name in manifest_files(tree))
    (tree / "sparse").unlink()
    index()
    assert len(manifest_files(tree)) == 3
    assert check() == []


def test_an_interrupted_first_one_leaves_no_directory(wormhole, tree):
    with open(tree / "sparse", "wb") as file:
        file.truncate(60 << 30)
    working = subprocess.Popen([wormhole, "index", tree], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    working.send_signal(signal.SIGINT)
    assert working.wait(10) == 130
    assert not (tree / ".wormhole").exists()


def test_a_file_that_never_rests_is_left_out(index, tree):
    trees.write_real_file(tree / "quiet", MIB)
    with open(tree / "restless", "wb") as file:
        file.truncate(3 << 30)  # a second or so to hash
    age(tree / "restless")
    began = (tree / "restless").stat().st_mtime
    writer = subprocess.Popen(["python3", "-c", "import os, sys\nwhile True: os.utime(sys.argv[1])", tree / "restless"])
    try:
        wait_until(lambda: (tree / "restless").stat().st_mtime != began, "the file is touched")
        said = index(expect=3)
    finally:
        writer.kill()
        writer.wait()
    assert [one["path"] for one in said["left_out_named"]] == ["restless"]
    assert said["files"] == 1


def test_a_manifest_elsewhere_in_the_tree_is_not_part_of_it(index, tree):
    (tree / "file").write_text("x")
    (tree / "own").mkdir()
    for _ in range(2):
        said = index(tree, "-o", tree / "own")
        assert said["files"] == 1
    assert (tree / "own/manifest").exists() and not (tree / ".wormhole").exists()


@pytest.mark.parametrize("arguments", [["/nowhere/at/all"], ["/etc/passwd"], ["http://127.0.0.1:1/"],
                                       ["/tmp", "--key", "x"], ["/tmp", "--sign", "/nowhere/key"],
                                       ["/tmp", "--mirror", "nonsense"], ["--check", "/nowhere/at/all"],
                                       ["http://127.0.0.1:1/", "-o", "/nowhere/at/all"]])
def test_what_cannot_be_done_is_an_error(wormhole, arguments):
    done = run(wormhole, "index", *arguments, timeout=60)
    assert done.code in (1, 2)
    assert "wormhole index: " in done.output or "requires" in done.output.lower()


# --- of a URL ---


def test_the_manifest_of_a_url_says_what_its_listings_say(index, check, origin, tree, work):
    trees.copy_real_tree(tree, files=200, bytes_at_most=10 * MIB)
    trees.write_odd_names(tree / "odd")
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            path.chmod(0o755)
        else:
            path.chmod(0o644)
    said = index(origin.url, "-o", work / "made")
    files = [p for p in tree.rglob("*") if p.is_file()]
    assert said["files"] == len(files)
    assert said["bytes"] == sum(p.stat().st_size for p in files)
    assert not [r for r in origin.requests() if r.method == "HEAD"][1:], "sizes are in the listings"
    differences = [one for one in check("-o", work / "made", expect=3) if one[0] != "time"]  # nginx tells no seconds
    assert differences == []


def test_sizes_that_are_not_listed_are_asked_for(index, tree, work):
    for i in range(60):
        (tree / f"dir-{i % 7}").mkdir(exist_ok=True)
        (tree / f"dir-{i % 7}" / f"file {i}").write_bytes(b"x" * i * 1000)
    port = free_port()
    server = subprocess.Popen(["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", tree],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the server answers")
        said = index(f"http://127.0.0.1:{port}/", "-o", work / "made")
    finally:
        server.kill()
        server.wait()
    assert said["bytes"] == sum(p.stat().st_size for p in tree.rglob("*") if p.is_file())
