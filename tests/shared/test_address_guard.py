"""The guard of outgoing calls: no spelling of an address that is not public gets through, nor a name that hides one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman import address_guard
from banksman.address_guard import Blocked, Target
from banksman.errors import InvalidInput

NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
    *("198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1"),
    *("64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1"),
    *("3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1"),
    "2606:4700::1%eth0",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]

REFUSED = [
    # Spellings that resolvers read as this machine.
    *("https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/"),
    *("https://0177.0.0.1/", "https://017700000001/", "https://127.0.0.1./", "https://0/", "https://[::]/"),
    *("https://①②⑦.0.0.1/", "https://127。0。0。1/", "https://ⓛocalhost/", "https://localhost/", "https://LOCALHOST/"),
    *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[fe80::1%25lo]/"),
    *("https://127.0.0.1.:443/", "https://%31%32%37.0.0.1/", "https://127%2e0%2e0%2e1/", "https://169.254.169.254/"),
    # Names of the inside.
    *("https://metadata.google.internal/", "https://printer.local/", "https://db/", "https://router.lan/"),
    *("https://x.localhost/", "https://1.0.0.127.in-addr.arpa/", "https://nas.home.arpa/"),
    # Two readers may read these differently.
    *("https://a.example.org@127.0.0.1/", "https://user:pw@hooks.acme.org/", "https://hooks.acme.org\\@127.0.0.1/"),
    *(
        "https://hooks.acme.org#@127.0.0.1/",
        "https:\\\\127.0.0.1/",
        "https://hooks.acme.org /",
        "https://a\t.acme.org/",
    ),
    *(
        "https://hooks.acme.org\r\nHost: x/",
        "https://hooks..acme.org/",
        "https://-a.acme.org/",
        "https://a_b.acme.org/",
    ),
    *("https://acme.org:443:80/", "https://acme.org:x/", "https://acme.org:99999/", "https://", "https:///x", ""),
    # Not a webhook's way.
    *("http://hooks.acme.org/", "https://hooks.acme.org:22/", "https://hooks.acme.org:6379/", "ftp://acme.org/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "//hooks.acme.org/", "hooks.acme.org"),
    "https://hooks.acme.org/" + "x" * 3000,
    "https://" + "a." * 200 + "org/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_is_not_plainly_a_public_https_address_is_refused_before_anything_is_resolved(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", never)

    with pytest.raises(InvalidInput):
        address_guard.target(url)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_of_the_inside_is_not_public(text: str) -> None:
    assert not address_guard.is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is(text: str) -> None:
    assert address_guard.is_public(ip_address(text))


@given(st.ip_addresses())
def test_what_the_standard_library_calls_closed_is_closed_here_too(address: IPv4Address | IPv6Address) -> None:
    closed = not address.is_global or address.is_multicast or address.is_reserved or address.is_loopback
    assert not (closed and address_guard.is_public(address))


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://Hooks.Acme.org", "hooks.acme.org", 443, "/"),
        ("https://hooks.acme.org:8443/a/b?c=d%20e", "hooks.acme.org", 8443, "/a/b?c=d%20e"),
        ("https://1.1.1.1/x", "1.1.1.1", 443, "/x"),
        ("https://[2606:4700::1111]/x", "2606:4700::1111", 443, "/x"),
    ],
)
def test_a_public_https_address_is_taken_apart(url: str, host: str, port: int, path: str) -> None:
    found = address_guard.target(url)

    assert (found.host, found.port, found.path, found.tls, found.free) == (host, port, path, True, False)


def resolving(*texts: str) -> address_guard.Resolve:
    def resolve(_host: str, _port: int, _within: float) -> Sequence[str]:
        return texts

    return resolve


HOOKS = address_guard.target("https://hooks.acme.org/")


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_a_name_that_resolves_to_the_inside_is_blocked_also_beside_a_public_address(text: str) -> None:
    with pytest.raises(Blocked, match="no public address"):
        address_guard.addresses(HOOKS, within=1, resolve=resolving("8.8.8.8", text))


def test_a_name_that_resolves_to_nothing_or_to_nonsense_is_blocked() -> None:
    for texts in ((), ("nonsense",), ("127.1",)):
        with pytest.raises(Blocked):
            address_guard.addresses(HOOKS, within=1, resolve=resolving(*texts))


def test_a_host_that_the_operator_named_may_be_anywhere() -> None:
    free = address_guard.allowed(["hooks.lan", "127.0.0.1:8080", "[::1]:9000"])

    assert address_guard.target("http://hooks.lan:1234/x", free).free
    assert address_guard.target("http://127.0.0.1:8080/", free).free
    assert address_guard.target("http://[::1]:9000/", free).authority == "[::1]:9000"
    for url in ("http://127.0.0.1:8081/", "https://other.lan/", "https://xhooks.lan/"):
        with pytest.raises(InvalidInput):
            address_guard.target(url, free)
    where = Target("hooks.lan", 80, "/", tls=False, free=True)
    assert address_guard.addresses(where, within=1, resolve=resolving("127.0.0.1")) == ("127.0.0.1",)


@pytest.mark.parametrize("word", ["", "http://x", "a b", "*", "10.0.0.0/8", "x:port"])
def test_what_is_no_host_is_refused_in_the_setting(word: str) -> None:
    with pytest.raises(InvalidInput, match="BANKSMAN_WEBHOOK_ALLOW"):
        address_guard.allowed([word])


def test_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[tuple[str, int]] = []

    def connect(where: tuple[str, int], timeout: float) -> socket.socket:
        went.append(where)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)

    address_guard.connect(HOOKS, until=time.monotonic() + 5, resolve=resolving("8.8.8.8")).close()

    assert went == [("8.8.8.8", 443)]


def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        over.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()

    with pytest.raises(TimeoutError, match="not resolved in time"):
        address_guard.connect(HOOKS, until=time.monotonic() + 0.2)

    over.set()
    assert time.monotonic() - began < 20
