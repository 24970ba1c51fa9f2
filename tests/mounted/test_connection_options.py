"""Options that say how a server is reached, and who we are: limits, interfaces, proxies, credentials; and what a file
costs in memory and in bytes that nobody asked for."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from support import trees
from support.connections import watched
from support.mounting import has_sanitizers, own_memory, run, wait_until
from support.origin import Certificates, free_port
from support.proxy import Proxy

BLOCK = 64 * 1024
MIB = 1 << 20


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(8 * MIB + 99)


@pytest.fixture
def served(tree, content) -> Path:
    """The tree, with a file in it."""
    (tree / "file").write_bytes(content)
    return tree


# --- options that cannot be meant ---


@pytest.mark.parametrize("option, value", [("connections", "257"), ("connections", "many"), ("http", "4"),
                                           ("mirror", "ftp://example.org/"), ("mirror", "example"), ("hedge", "1"),
                                           ("speculate", "a lot"), ("keep_warm", "yes"), ("limit_rate", "1"),
                                           ("limit_rate", "fast"), ("bind", ""), ("proxy", ""),
                                           ("proxy", "http://me:secret@127.0.0.1:1"), ("cert", "/nowhere"),
                                           ("key", "/nowhere"), ("netrc", "/nowhere"), ("token_file", "/nowhere"),
                                           ("header_file", "/nowhere")])
def test_a_malformed_option_is_named(make_mount, option, value):
    result = make_mount("http://127.0.0.1:1/", **{option: value}).try_up()
    assert result.code == 2
    assert option.replace("_", "-") in result.output


# --- how much, and from where ---


def test_no_more_comes_than_the_limit_allows(make_origin, served, mount, work, content):
    origin = make_origin(served)
    mounted = mount(origin.url, limit_rate="4M")
    copied = run("cp", mounted / "file", work / "copy")
    assert copied.code == 0, copied.output
    assert (work / "copy").read_bytes() == content
    assert copied.seconds >= len(content) / (4 * MIB) * 0.8
    assert copied.seconds < len(content) / (4 * MIB) * 2 + 2


@pytest.mark.parametrize("number", [1, 3])
def test_no_more_connections_are_used_than_allowed(make_origin, served, mount, content, number):
    origin = make_origin(served, directives="limit_rate 2m;")
    mounted = mount(origin.url, connections=number)
    with watched(origin.port) as most:
        assert (mounted / "file").read_bytes() == content
    assert 1 <= most.connections <= number + 1, "a listing has a connection of its own"
    assert len({r.connection for r in origin.requests() if r.range}) >= number


def test_the_number_of_connections_can_be_left_to_measuring(make_origin, served, mount, content):
    # nginx holds back what is more than a second's worth of a request: a small one comes at once.
    origin = make_origin(served, directives="limit_rate 100k;")
    mounted = mount(origin.url, connections="auto")
    assert (mounted / "file").read_bytes() == content
    assert len({r.connection for r in origin.requests() if r.range}) > 4


@pytest.mark.parametrize("addresses", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3"]], ids=len)
def test_requests_go_out_from_the_addresses_that_were_given(make_origin, served, mount, content, addresses):
    origin = make_origin(served, directives="limit_rate 4m;")
    mounted = mount(origin.url, bind=addresses)
    assert (mounted / "file").read_bytes() == content
    assert {r.client for r in origin.requests()} == set(addresses)


def test_requests_go_out_from_the_device_that_was_given(make_origin, served, mount, content):
    origin = make_origin(served)
    mounted = mount(origin.url, bind="lo")
    assert (mounted / "file").read_bytes() == content


@pytest.mark.parametrize("interface, said", [("nosuchdevice0", "nosuchdevice0"), ("192.0.2.1", "bind failed")])
def test_an_interface_that_is_not_there_is_a_clear_error(make_origin, served, make_mount, interface, said):
    origin = make_origin(served)
    result = make_mount(origin.url, bind=interface, timeout=5).try_up()
    assert result.code == 1
    assert said in result.output
    assert origin.requests() == []


# --- through a proxy ---


def without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def test_http_goes_through_the_proxy(make_origin, served, mount, content):
    origin = make_origin(served)
    with Proxy() as proxy:
        mounted = mount(origin.url, proxy=proxy.url, env=without_proxies())
        assert (mounted / "file").read_bytes() == content
        asked = origin.requests()
        assert len(proxy.log) >= len(asked) > 0
        assert {target for _, target in proxy.log} - {origin.url + ".wormhole/manifest"} == {origin.url, origin.url + "file"}
        mounted.down()


def test_https_goes_through_a_tunnel_of_the_proxy(make_origin, served, mount, content, certificates):
    origin = make_origin(served, certificates=certificates)
    with Proxy() as proxy:
        mounted = mount(origin.url, proxy=proxy.url, ca=certificates.authority, env=without_proxies())
        assert (mounted / "file").read_bytes() == content
        assert set(proxy.log) == {("CONNECT", f"127.0.0.1:{origin.port}")}
        mounted.down()


def test_a_proxy_of_the_environment_is_used(make_origin, served, mount, content):
    origin = make_origin(served)
    with Proxy() as proxy:
        mounted = mount(origin.url, env={**without_proxies(), "http_proxy": proxy.url})
        assert (mounted / "file").read_bytes() == content
        assert proxy.log
        mounted.down()


def test_a_proxy_that_is_not_there_is_a_clear_error(make_origin, served, make_mount):
    origin = make_origin(served)
    port = free_port()
    result = make_mount(origin.url, proxy=f"http://127.0.0.1:{port}", env=without_proxies(), timeout=5).try_up()
    assert result.code == 1
    assert str(port) in result.output or "proxy" in result.output.lower()
    assert origin.requests() == []


# --- certificates of our own ---


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Certificates:
    """What we show to a server, and who signed it."""
    return Certificates.create(tmp_path_factory.mktemp("ours"))


@pytest.fixture
def choosy(make_origin, served, certificates, ours):
    return make_origin(served, certificates=certificates,
                       directives=f"ssl_client_certificate {ours.authority}; ssl_verify_client on;")


def test_a_client_certificate_opens_the_server(choosy, mount, certificates, ours, content):
    mounted = mount(choosy.url, ca=certificates.authority, cert=ours.certificate, key=ours.key)
    assert (mounted / "file").read_bytes() == content


def test_certificate_and_key_may_be_one_file(choosy, mount, certificates, ours, content, work):
    both = work / "both.pem"
    both.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    mounted = mount(choosy.url, ca=certificates.authority, cert=both)
    assert (mounted / "file").read_bytes() == content


def test_without_its_certificate_a_mount_says_what_the_server_said(choosy, make_mount, certificates):
    result = make_mount(choosy.url, ca=certificates.authority).try_up()
    assert result.code == 1
    assert "400" in result.output  # nginx: no required SSL certificate was sent


def test_a_certificate_that_cannot_be_used_is_an_error(choosy, make_mount, certificates, ours, work):
    broken = work / "broken.pem"
    broken.write_text("this is no certificate\n")
    result = make_mount(choosy.url, ca=certificates.authority, cert=broken, key=ours.key).try_up()
    assert result.code == 1
    assert "certificate" in result.output.lower() or "X.509" in result.output


# --- secrets from files ---

SECRET = "s3cr3t-0f-0urs"
CREDENTIALS = {
    "token-file": (f"{SECRET}\n", f'if ($http_authorization != "Bearer {SECRET}") {{ return 401; }}', "401"),
    "header-file": (f"# of the build machine\n\nX-Api-Key: {SECRET}\nX-Team: tests\n",
                    f'if ($http_x_api_key != "{SECRET}") {{ return 403; }}'
                    'if ($http_x_team != tests) { return 403; }', "403"),
    "netrc": (f"machine 127.0.0.1 login me password {SECRET}\n",
              'if ($http_authorization != "Basic bWU6czNjcjN0LTBmLTB1cnM=") { return 401; }', "401"),
}


@pytest.fixture(params=CREDENTIALS)
def locked(request, make_origin, served, work):
    """A server that wants a secret, the option for it, and what it says without."""
    text, directives, refusal = CREDENTIALS[request.param]
    file = work / "secret"
    file.write_text(text)
    origin = make_origin(served, directives=f"{directives} if (-f {work}/closed) {{ return 401; }}")
    return origin, {request.param.replace("-", "_"): file}, refusal


def test_a_secret_opens_the_server(locked, mount, content):
    origin, option, _ = locked
    mounted = mount(origin.url, **option)
    assert (mounted / "file").read_bytes() == content
    assert {r.status for r in origin.requests()} <= {200, 206}


def test_without_the_secret_a_mount_says_what_the_server_said(locked, make_mount):
    origin, _, refusal = locked
    result = make_mount(origin.url).try_up()
    assert result.code == 1
    assert refusal in result.output


def test_a_secret_is_nowhere_to_be_seen(locked, mount, work, content):
    origin, option, _ = locked
    mounted = mount(origin.url, **option)
    fd = os.open(mounted / "file", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    assert os.pread(fd, 1000, MIB) == content[MIB : MIB + 1000]
    (work / "closed").touch()
    with pytest.raises(PermissionError):  # errors are told in full
        os.pread(fd, 1000, 6 * MIB)
    os.close(fd)
    secret = SECRET.encode()
    hidden = (secret, b"bWU6czNjcjN0LTBmLTB1cnM=")
    proc = Path(f"/proc/{mounted.pid}")
    seen = {name: (proc / name).read_bytes() for name in ("cmdline", "environ", "mountinfo")}
    seen["/proc/self/mountinfo"] = Path("/proc/self/mountinfo").read_bytes()
    seen["status"] = str(mounted.status()).encode()
    mounted.down()  # the log is complete, and so is the cache
    seen["log"] = mounted.log.read_bytes()
    seen |= {str(path): path.read_bytes() for path in mounted.cache.rglob("*")
             if path.is_file() and path.stat().st_size < MIB}
    assert b"401" in seen["log"]
    assert [name for name, text in seen.items() if any(s in text for s in hidden)] == []


@pytest.mark.parametrize("option, text", [("token_file", ""), ("token_file", "two words\n"),
                                          ("header_file", "no colon\n"), ("header_file", "X-Key: good\n: nameless\n")])
def test_a_file_of_secrets_that_cannot_be_used_is_named(make_origin, served, make_mount, work, option, text):
    file = work / "secret-file"
    file.write_text(text)
    origin = make_origin(served, directives='if ($http_authorization = "") { return 401; }')
    result = make_mount(origin.url, **{option: file}).try_up()
    assert result.code != 0
    assert str(file) in result.output
    assert "two words" not in result.output and "no colon" not in result.output


@pytest.mark.parametrize("kind", ["token-file", "header-file, Authorization", "netrc", "header-file"])
def test_a_secret_does_not_follow_a_redirect_to_another_server(make_origin, served, work, mount, content, kind):
    """The file is elsewhere, and elsewhere refuses whoever shows the secret."""
    elsewhere = make_origin(work / "elsewhere", directives='if ($http_authorization != "") { return 418; }'
                                                           'if ($http_x_api_key != "") { return 418; }')
    (work / "elsewhere/file").write_bytes(content)
    redirecting = f"location = /file {{ return 302 {elsewhere.url.replace('127.0.0.1', 'localhost')}file; }}"
    origin = make_origin(served, directives=redirecting)
    file = work / "secret"
    file.write_text({"token-file": SECRET, "header-file": f"X-Api-Key: {SECRET}",
                     "header-file, Authorization": f"Authorization: Bearer {SECRET}",
                     "netrc": f"machine 127.0.0.1 login me password {SECRET}"}[kind] + "\n")
    mounted = mount(origin.url, timeout=1, env=without_proxies(), **{kind.split(",")[0].replace("-", "_"): file})
    if kind == "header-file":  # such a redirect is not followed at all
        with pytest.raises(PermissionError):
            (mounted / "file").read_bytes()
        assert elsewhere.requests() == []
    else:
        assert (mounted / "file").read_bytes() == content
    assert 418 not in {r.status for r in elsewhere.requests()}


# --- guesses ---


@pytest.fixture(scope="module")
def large() -> bytes:
    return trees.real_bytes(32 * MIB)


def read_here_and_there(file: Path, content: bytes, times: int = 20) -> int:
    """Reads at places far from each other, in no order and not at the beginning. How many bytes their blocks have."""
    chance = random.Random(7)
    distance = len(content) // (times + 1)
    places = [i * distance // BLOCK * BLOCK + chance.randrange(BLOCK - 2000) for i in range(1, times + 1)]
    chance.shuffle(places)
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for at in places:
        assert os.pread(fd, 1000, at) == content[at : at + 1000]
    os.close(fd)
    return times * BLOCK


def test_without_guesses_a_random_reader_fetches_his_blocks_and_nothing_else(make_origin, tree, mount, large):
    (tree / "file").write_bytes(large)
    origin = make_origin(tree)
    mounted = mount(origin.url, speculate="off", hedge="off")
    assert origin.file_bytes() == 0
    fetched = read_here_and_there(mounted / "file", large)
    # Of the last one what he did not want may not have come when he closes the file.
    assert fetched - BLOCK < origin.file_bytes() <= fetched


def test_a_file_that_is_read_here_and_there_is_soon_there_as_a_whole(range_server, mount, large):
    range_server.put("file", large)
    range_server.behave("file", bytes_per_second=1_000_000)  # of each connection; so that the rate can be measured
    mounted = mount(range_server.url)
    fd = os.open(mounted / "file", os.O_RDONLY)  # guesses end with the last handle
    assert read_here_and_there(mounted / "file", large) < len(large) // 4
    wait_until(lambda: mounted.status()["bytes_cached"] == len(large), "all of it is cached", 20)
    os.close(fd)
    range_server.forget()
    assert (mounted / "file").read_bytes() == large
    assert range_server.requests("file") == []


# --- connections that are open before they are needed ---


def test_connections_are_open_before_they_are_needed(make_origin, served, mount, content):
    """Half as many again as the sixteen that a large file begins with."""
    origin = make_origin(served)
    mounted = mount(origin.url)
    wait_until(lambda: len({r.connection for r in origin.requests()}) == 24, "24 connections were opened")
    opened = {r.connection for r in origin.requests()}
    origin.forget()
    with open(mounted / "file", "rb") as file:
        assert file.read(1000) == content[:1000]
    assert {r.connection for r in origin.requests()} <= opened


def test_a_fixed_number_of_connections_is_all_that_is_opened(make_origin, served, mount, content):
    origin = make_origin(served)
    mounted = mount(origin.url, connections=3)
    wait_until(lambda: len({r.connection for r in origin.requests()}) == 3, "three connections were opened")
    with watched(origin.port) as most:
        assert (mounted / "file").read_bytes() == content
    assert 1 <= most.connections <= 3


def test_without_keep_warm_nothing_is_asked_for_that_nobody_wants(make_origin, served, mount, content):
    origin = make_origin(served)
    mounted = mount(origin.url, keep_warm="off")
    assert (mounted / "file").read_bytes() == content
    assert [r.path for r in origin.requests() if r.method == "HEAD"] == ["/"]  # what the URL is


# --- memory ---


def test_sixty_four_readers_stay_within_the_memory_that_was_given(make_origin, tree, mount, wormhole):
    if has_sanitizers(wormhole):
        pytest.skip("sanitizers have memory of their own")
    content = trees.real_bytes(16 * MIB)
    for i in range(64):
        (tree / f"{i}").write_bytes(content[i * 100_000 :][: 4 * MIB])
    origin = make_origin(tree)
    # The rings of io_uring have memory of their own (docs/TRANSPORT.md).
    mounted = mount(origin.url, memory="64M", transport="dev")
    readers = [subprocess.Popen(["cmp", mounted / f"{i}", tree / f"{i}"], stdout=subprocess.PIPE) for i in range(64)]
    most = 0
    deadline = time.monotonic() + 60
    while any(reader.poll() is None for reader in readers):
        assert time.monotonic() < deadline, "the readers do not end"
        most = max(most, own_memory(mounted.pid))
        time.sleep(0.01)
    assert [reader.communicate()[0] for reader in readers] == [b""] * 64
    assert [reader.returncode for reader in readers] == [0] * 64
    assert most < 128 * MIB
