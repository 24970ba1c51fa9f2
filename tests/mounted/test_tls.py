"""HTTPS: the server is who its certificate says, or the mount says why not."""

import pytest
from support import trees
from support.connections import watched
from support.mounting import run
from support.origin import Certificates

MIB = 1 << 20


@pytest.fixture
def filled(tree):
    trees.copy_real_tree(tree, files=150, bytes_at_most=4 << 20)
    (tree / "large").write_bytes(trees.real_bytes(10 * MIB))
    return tree


@pytest.fixture
def secure(make_origin, filled, certificates):
    return make_origin(filled, certificates=certificates)


def test_a_tree_is_read_over_http_2(secure, mount, certificates):
    mounted = mount(secure.url, ca=certificates.authority)
    assert run("diff", "-r", secure.tree, mounted.path).output == ""
    assert {r.protocol for r in secure.requests()} == {"HTTP/2.0"}


@pytest.mark.parametrize("choice, seen", [("1.1", "HTTP/1.1"), ("2", "HTTP/2.0"), ("auto", "HTTP/2.0")])
def test_the_protocol_can_be_chosen(secure, mount, certificates, choice, seen):
    mounted = mount(secure.url, ca=certificates.authority, http=choice)
    assert (mounted / "large").read_bytes() == (secure.tree / "large").read_bytes()
    assert {r.protocol for r in secure.requests()} == {seen}


def test_a_large_file_is_fetched_over_several_connections(make_origin, filled, mount, certificates):
    secure = make_origin(filled, certificates=certificates, directives="limit_rate 2m;")
    mounted = mount(secure.url, ca=certificates.authority, connections=4)
    with watched(secure.port) as most:
        assert (mounted / "large").read_bytes() == (secure.tree / "large").read_bytes()
    assert 1 <= most.connections <= 4 + 1, "the listing may have one of its own"
    assert len({r.connection for r in secure.requests() if r.path == "/large"}) > 1
    assert secure.sent_once(10 * MIB)


def test_an_unknown_authority_is_a_clear_error(secure, make_mount):
    result = make_mount(secure.url).try_up()
    assert result.code != 0
    assert "certificate" in result.output.lower()
    assert "ca=" in result.output  # what to do
    assert not secure.requests()


def test_a_wrong_authority_is_a_clear_error(secure, make_mount, tmp_path):
    other = Certificates.create(tmp_path / "other")
    result = make_mount(secure.url, ca=other.authority).try_up()
    assert result.code != 0
    assert "certificate" in result.output.lower()


def test_a_wrong_host_name_is_a_clear_error(make_origin, make_mount, tree, tmp_path):
    elsewhere = Certificates.create(tmp_path / "elsewhere", address="127.0.0.99")
    origin = make_origin(tree, certificates=elsewhere)
    result = make_mount(origin.url, ca=elsewhere.authority).try_up()
    assert result.code != 0
    assert "certificate" in result.output.lower()


@pytest.mark.parametrize("content", [None, b"this is no certificate\n"], ids=["missing", "malformed"])
def test_a_ca_file_that_cannot_be_used_is_named(secure, make_mount, tmp_path, content):
    authority = tmp_path / "ca-file.pem"
    if content is not None:
        authority.write_bytes(content)
    result = make_mount(secure.url, ca=authority).try_up()
    assert result.code != 0
    assert str(authority) in result.output


def test_https_of_a_plain_server_is_a_clear_error(origin, make_mount):
    result = make_mount(origin.url.replace("http:", "https:"), timeout=5).try_up()
    assert result.code != 0
    assert result.output.strip()


def test_it_survives_a_remount_and_a_stopped_server(secure, mount, certificates):
    mounted = mount(secure.url, ca=certificates.authority)
    assert run("diff", "-r", secure.tree, mounted.path).output == ""
    mounted.down()
    secure.stop()
    mounted.up()
    assert run("diff", "-r", secure.tree, mounted.path).output == ""


def test_get_checks_certificates_as_well(secure, wormhole, certificates, work):
    refused = run(wormhole, "get", secure.url + "large", "-o", work / "refused")
    assert refused.code != 0
    assert "certificate" in refused.output.lower()
    fetched = run(wormhole, "get", secure.url + "large", "-o", work / "fetched", "--ca", certificates.authority)
    assert fetched.code == 0, fetched.output
    assert (work / "fetched").read_bytes() == (secure.tree / "large").read_bytes()
