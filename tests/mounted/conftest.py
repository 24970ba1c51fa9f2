"""What the tests through the kernel stand on: a web server, mounts that are cleaned up whatever happens.

    WORMHOLE              the program to test; default build/release/wormhole
    WORMHOLE_BUILD_DIR    where range-server and page-toucher were built; default: where the program is
    WORMHOLE_TRANSPORT    what mounts have as transport= where a test does not say; uring needs the kernel's setting
    WORMHOLE_ENGINES      the option `engines` of all mounts that do not say it themselves
    WORMHOLE_TEST_TIMEOUT seconds after which a test counts as hanging
    WORMHOLE_REQUIRE_FUSE=1   a machine without /dev/fuse fails instead of skipping
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.caddy import CADDY, CaddyOrigin  # noqa: E402
from support.mounting import Mount, descendants, run, threads_stuck  # noqa: E402
from support.origin import Certificates, Origin  # noqa: E402
from support.range_server import RangeServer  # noqa: E402

PROJECT = Path(__file__).resolve().parents[2]

# A test that takes longer hangs; its daemons are killed, which ends every wait on their mounts.
WATCHDOG_SECONDS = float(os.environ.get("WORMHOLE_TEST_TIMEOUT", 150))

# What a test's item remembers: whether it failed, and its mounts.
FAILED = pytest.StashKey[bool]()
MOUNTS = pytest.StashKey[list]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.path.exists("/dev/fuse"):
        return
    if os.environ.get("WORMHOLE_REQUIRE_FUSE") == "1":
        raise pytest.UsageError("WORMHOLE_REQUIRE_FUSE=1, but this machine has no /dev/fuse")
    for item in items:
        if "mount" in item.fixturenames:
            item.add_marker(pytest.mark.skip(reason="no /dev/fuse: nothing can be mounted here"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.stash[FAILED] = report.failed
    if report.failed:
        for mount in item.stash.get(MOUNTS, []):
            report.sections.append((f"log of the mount of {mount.url}", mount.log_tail()))


@pytest.fixture(scope="session")
def wormhole() -> Path:
    program = Path(os.environ.get("WORMHOLE", PROJECT / "build/release/wormhole")).absolute()
    if not os.access(program, os.X_OK):
        pytest.fail(f"{program} is not there: build it, or say in WORMHOLE where it is")
    return program


@pytest.fixture(scope="session")
def support_program() -> Callable[[str], Path]:
    """Where a program of tests/support was built."""

    def find(name: str) -> Path:
        beside = Path(os.environ.get("WORMHOLE", PROJECT / "build/release/wormhole")).parent
        program = Path(os.environ.get("WORMHOLE_BUILD_DIR", beside)) / "tests/support" / name
        if not program.exists():
            pytest.fail(f"{program} is not there: build it, or say in WORMHOLE_BUILD_DIR where it is")
        return program

    return find


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory of this test's own. Not pytest's tmp_path: that is kept for a while, and these files are big."""
    directory = Path(tempfile.mkdtemp(prefix="wormhole-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def tree(work: Path) -> Path:
    """The directory that `origin` shows."""
    directory = work / "tree"
    directory.mkdir()
    return directory


@pytest.fixture
def make_origin(work: Path) -> Iterator[Callable[..., Origin]]:
    """nginx on a directory, with options of Origin; stopped in the end."""
    started: list[Origin] = []

    def make(tree: Path, **options) -> Origin:
        started.append(Origin(tree, work / f"origin-{len(started)}", **options))
        return started[-1].start()

    yield make
    for origin in started:
        origin.stop()


@pytest.fixture
def origin(make_origin, tree: Path) -> Origin:
    return make_origin(tree)


@pytest.fixture
def make_caddy(work: Path, certificates: Certificates) -> Iterator[Callable[..., CaddyOrigin]]:
    """Caddy on a directory, over TLS, with options of CaddyOrigin; stopped in the end."""
    if CADDY is None:
        pytest.skip("caddy is not installed (tools/setup --test installs it)")
    started: list[CaddyOrigin] = []

    def make(tree: Path, **options) -> CaddyOrigin:
        started.append(CaddyOrigin(tree, work / f"caddy-{len(started)}", certificates, **options))
        return started[-1].start()

    yield make
    for origin in started:
        origin.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def range_server(support_program) -> Iterator[RangeServer]:
    server = RangeServer(support_program("range-server"))
    yield server
    server.stop()


@pytest.fixture
def make_mount(mount) -> Callable[..., Mount]:
    """As `mount`, but not up yet."""
    return mount.prepare


@pytest.fixture
def mount(request, wormhole: Path, work: Path, monkeypatch) -> Iterator[Callable[..., Mount]]:
    """mount(url, **options) is a Mount that is up. In the end each that still is goes down, and must do so cleanly."""
    mounts: list[Mount] = []
    request.node.stash[MOUNTS] = mounts
    reports = work / "sanitizer"
    for tool in ("ASAN", "TSAN", "UBSAN"):  # a daemon has no stderr
        monkeypatch.setenv(f"{tool}_OPTIONS", f"{os.environ.get(f'{tool}_OPTIONS', '')}:log_path={reports}")

    def prepare(url: str, **options) -> Mount:
        mounts.append(Mount(wormhole, url, work, **{"transport": os.environ.get("WORMHOLE_TRANSPORT"), **options}))
        return mounts[-1]

    def make(url: str, **options) -> Mount:
        return prepare(url, **options).up()

    make.prepare = prepare

    def bite() -> None:
        print(f"watchdog: not finished after {WATCHDOG_SECONDS} s, kills the daemons", file=sys.stderr)
        for one in mounts:
            one.remove()

    watchdog = threading.Timer(WATCHDOG_SECONDS, bite)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield make
        if not request.node.stash.get(FAILED, True):
            stuck = threads_stuck([*descendants(os.getpid()), *(m.pid for m in mounts if m.pid)])
            assert not stuck, f"threads in D state: {stuck}"
            for one in reversed(mounts):
                if one.is_up():
                    one.down()
    finally:
        watchdog.cancel()
        for one in reversed(mounts):
            one.remove()
    found = [report.read_text() for report in work.glob("sanitizer.*")]
    assert not found, "\n".join(found)


@pytest.fixture
def need() -> Callable[[str], str]:
    """need("pv") is where the program is; skips when it is nowhere."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed (tools/setup --test installs it)")
        return path

    return find


@pytest.fixture
def index(wormhole):
    """index(tree, *options) writes the manifest of a tree and returns its hash."""

    def make(tree: Path, *options) -> str:
        done = run(wormhole, "index", tree, *options)
        assert done.code == 0, done.output
        heads = sorted((tree / ".wormhole").glob("manifest-*"), key=lambda p: p.stat().st_mtime_ns)
        return [h.name for h in heads if "." not in h.name][-1].removeprefix("manifest-")

    return make


@pytest.fixture
def file_system(work) -> Iterator[Callable[[str, int], Path]]:
    """file_system("tmpfs", size) is a directory with so little room; also "ext4" and "xfs", in a file behind a loop
    device."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounts: list[Path] = []

    def make(kind: str, size: int, image_in: Path = work) -> Path:
        directory = work / f"{kind}-{len(mounts)}"
        directory.mkdir()
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory]
        else:
            image = image_in / "image"
            with open(image, "wb") as file:
                file.truncate(size)
            mkfs = shutil.which(f"mkfs.{kind}", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
            if mkfs is None:
                pytest.skip(f"mkfs.{kind} is not installed")
            assert run(mkfs, "-q", *(["-F"] if kind == "ext4" else []), image).code == 0
            command = ["mount", "-o", "loop", image, directory]
        made = run(*command)
        if made.code != 0:
            pytest.skip(f"cannot be mounted here: {made.output}")
        mounts.append(directory)
        return directory

    yield make
    for directory in reversed(mounts):
        subprocess.run(["umount", "-l", str(directory)], capture_output=True)
