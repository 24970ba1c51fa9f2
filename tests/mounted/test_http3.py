"""The versions of HTTP, on a server that speaks all of them: what was asked for is used, and whole files come right."""

import pytest
from support import trees
from support.mounting import run

MIB = 1 << 20


@pytest.fixture(scope="module")
def content() -> bytes:
    return trees.real_bytes(32 * MIB + 77)


@pytest.fixture
def caddy(make_caddy, tree, content):
    (tree / "file").write_bytes(content)
    return make_caddy(tree)


def protocols_of(caddy, path: str = "/file") -> set[str]:
    return {r.protocol for r in caddy.requests() if r.path == path and r.range}


# libcurl connects by TCP as well when QUIC takes more than 200 ms, as it does on a busy machine.
OVER_QUIC = ({"HTTP/3.0"}, {"HTTP/3.0", "HTTP/2.0"})


@pytest.mark.parametrize("http, seen", [("1.1", ({"HTTP/1.1"},)), ("2", ({"HTTP/2.0"},)), ("3", OVER_QUIC)],
                         ids=["1.1", "2", "3"])
def test_a_file_comes_by_the_version_that_was_asked_for(caddy, mount, certificates, content, http, seen):
    mounted = mount(caddy.url + "file", ca=certificates.authority, http=http)
    assert (mounted / "file").read_bytes() == content
    assert protocols_of(caddy) in seen


def test_http_3_is_learnt_from_the_server_and_tried(caddy, mount, certificates, content):
    mounted = mount(caddy.url, ca=certificates.authority)
    assert (mounted / "file").read_bytes() == content
    assert {"HTTP/2.0", "HTTP/3.0"} <= protocols_of(caddy)


def test_http_3_is_not_tried_where_it_is_not_offered(make_caddy, tree, mount, certificates, content):
    (tree / "file").write_bytes(content)
    caddy = make_caddy(tree, protocols=("h1", "h2"))
    mounted = mount(caddy.url, ca=certificates.authority)
    assert (mounted / "file").read_bytes() == content
    assert protocols_of(caddy) == {"HTTP/2.0"}
    assert mounted.status()["fetches_retried"] == 0


def test_what_was_learnt_of_a_server_survives_a_remount(caddy, mount, certificates, content):
    (caddy.tree / "later").write_bytes(content)
    mounted = mount(caddy.url, ca=certificates.authority, limit_rate="32M")  # so that there is time to measure
    assert (mounted / "file").read_bytes() == content
    mounted.down()
    mounted.up()
    known = mounted.status()
    assert known["link_bytes_per_second"] > 0 and known["link_round_trip_ms"] > 0
    assert (mounted / "later").read_bytes() == content
    assert (mounted / "file").read_bytes() == content


def test_a_tree_is_read_over_http_3(make_caddy, tree, mount, certificates):
    trees.copy_real_tree(tree, files=100, bytes_at_most=4 << 20)
    caddy = make_caddy(tree)
    mounted = mount(caddy.url, ca=certificates.authority, http=3)
    assert run("diff", "-r", tree, mounted.path).output == ""
    assert {r.protocol for r in caddy.requests() if r.range} in OVER_QUIC


def test_http_3_of_a_plain_server_is_http_1(origin, mount, content):
    (origin.tree / "file").write_bytes(content)
    mounted = mount(origin.url, http=3)
    assert (mounted / "file").read_bytes() == content
    assert {r.protocol for r in origin.requests()} == {"HTTP/1.1"}
