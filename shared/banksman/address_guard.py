"""The guard of outgoing calls: which URLs may be called at all, and which addresses may be connected to.

Somebody who may name a URL could otherwise let us call what only we can reach: a cloud's metadata service, a database
without a password, our own broker. Three things stop that. A URL has one plain spelling, or it is refused: forms such
as `127.1`, `0x7f000001` or `①②⑦.0.0.1`, which resolvers read as this machine, never get as far as a resolver. Every
address that a name resolves to must be a public one by the table below (`ipaddress.is_global` calls several public
that are not: 6to4 and NAT64 addresses of this machine, multicast, site-local). And the connection goes to the very
address that was looked at, so that a name that resolves differently a moment later changes nothing.

The operator may name hosts for which none of this holds (`BANKSMAN_WEBHOOK_ALLOW`).
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from banksman.errors import BanksmanError, InvalidInput

PORTS = frozenset({443, 8443})
_MOST = 2000
_HOST = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_ALLOWED = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_URL = re.compile(r"[!-~]+")
# Names that mean something inside one network only, and names that mean nothing at all.
_INSIDE = (".internal", ".local", ".localhost", ".localdomain", ".lan", ".home", ".corp", ".intranet", ".private",
           ".home.arpa", ".in-addr.arpa", ".ip6.arpa", ".test", ".invalid", ".example", ".onion", ".alt")  # fmt: skip

# IPv4 is public but for these: IANA's special-purpose registry, multicast, and what is left of the classes.
_CLOSED_4 = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # A cloud's own service for the machines in it, at a public address.
        "168.63.129.16/32",
    )
)
# IPv6 is closed but for what is given out (2000::/3), without what in it leads elsewhere: Teredo and the other
# protocols of 2001::/23, documentation, and 6to4, which carries any IPv4 address.
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int, float], Sequence[str]]


class Blocked(BanksmanError):
    """An address that is not called; the text says why, and what an operator could do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads, in its one plain spelling."""

    host: str
    port: int
    path: str
    tls: bool
    free: bool
    """Whether the operator named the host: then it may be anywhere."""

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"


def allowed(words: Sequence[str]) -> frozenset[tuple[str, int | None]]:
    """The setting's hosts, each with its port or for all ports; `InvalidInput` names one that is none."""
    found: set[tuple[str, int | None]] = set()
    for word in words:
        match = _ALLOWED.fullmatch(word)
        if match is None:
            raise InvalidInput(f"BANKSMAN_WEBHOOK_ALLOW: {word[:60]!r} is not a host like hooks.lan or 10.0.0.7:8080.")
        found.add((match[1].strip("[]").lower(), int(match[2][1:]) if match[2] else None))
    return frozenset(found)


def target(url: str, free: frozenset[tuple[str, int | None]] = frozenset()) -> Target:
    """Where a URL leads, or `InvalidInput` with the reason why it may not be called."""
    if not _URL.fullmatch(url) or len(url) > _MOST or "\\" in url or "#" in url:
        raise InvalidInput("A webhook's URL is written in printable ASCII, without blanks, backslashes and #fragment.")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise InvalidInput("This is not a URL like https://hooks.example.org/banksman.") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InvalidInput("A webhook's URL begins with https:// and names a host.")
    if "@" in parts.netloc:
        raise InvalidInput("A webhook's URL holds no user and no password: its signature says who calls.")
    tls = parts.scheme == "https"
    port = port or (443 if tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if (host, port) in free or (host, None) in free:
        return Target(host, port, path, tls, free=True)
    if not tls:
        raise InvalidInput("A webhook's URL begins with https://. " + _ASK)
    if port not in PORTS:
        raise InvalidInput(f"A webhook goes to port 443 or 8443, not to {port}. " + _ASK)
    check_host(host)
    return Target(host, port, path, tls, free=False)


_ASK = "An operator may name the host in BANKSMAN_WEBHOOK_ALLOW."


def check_host(host: str) -> None:
    """Nothing, for a name in its one plain spelling that may be public, or a public address; else `InvalidInput`."""
    literal = _literal(host)
    if literal is not None:
        if not is_public(literal):
            raise InvalidInput(f"{host} is no public address. " + _ASK)
        return
    if not _HOST.fullmatch(host):
        raise InvalidInput(f"{host[:80]!r} is not a full host name like hooks.example.org. " + _ASK)
    if host.endswith(_INSIDE):
        raise InvalidInput(f"{host[:80]!r} is a name of some network's inside. " + _ASK)


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may have this address, and nothing else is meant by it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    return address.scope_id is None and address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


def addresses(where: Target, *, within: float, resolve: Resolve | None = None) -> Sequence[str]:
    """What the host resolves to now, every address of it looked at; `Blocked` when one of them is not public."""
    found = (resolve or lookup)(where.host, where.port, within)
    if not found:
        raise Blocked(f"{where.host} has no address.")
    if not where.free:
        for text in found:
            if (address := _literal(text)) is None or not is_public(address):
                raise Blocked(f"{where.host} resolves to {text}, which is no public address. " + _ASK)
    return found


def lookup(host: str, port: int, within: float) -> Sequence[str]:
    """A name's addresses. The system's resolver knows no deadline, so it is waited for from outside."""
    found: list[str] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed.append(OSError(str(error)))
        else:
            found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))

    asking = threading.Thread(target=ask, name="resolver", daemon=True)
    asking.start()
    asking.join(within)
    if failed:
        raise failed[0]
    if asking.is_alive():
        raise TimeoutError(f"The name {host} was not resolved in time.")
    return found


def connect(where: Target, *, until: float, resolve: Resolve | None = None) -> socket.socket:
    """A connection to an address that was looked at, before the monotonic clock shows `until`."""
    last: OSError | None = None
    for address in addresses(where, within=_left(until), resolve=resolve):
        try:
            return socket.create_connection((address, where.port), timeout=_left(until))
        except OSError as error:
            last = error
    raise last or OSError("no address")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("The time for the call is up.")
    return left


def _literal(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
