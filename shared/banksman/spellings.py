"""What a path, a web address or an amount says, however it is spelt; and nothing where two readers could differ.

These are the functions that a policy's conditions call. Each reads its text strictly and raises `Unclear` for whatever
another program might read differently: a condition that cannot be worked out is asked about, never guessed. What is
clear and simply elsewhere is False.
"""

from __future__ import annotations

import math
import posixpath
import re
from ipaddress import ip_address

from banksman.digest import Json

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?")
_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}\.[0-9]{3}")
# Of other schemes nobody knows whether the host is where they lead: javascript://… and file://… have one for show.
_URL = re.compile(r"(?i:https?|wss?)://([^/?#]*)(?:[/?#].*)?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MOST = 2**53


class Unclear(ValueError):
    """Two readers could take this for two different things. The message never repeats the text."""


def path_within(path: Json, folder: Json) -> bool:
    """Whether an absolute path lies below a folder once `.` and `..` are worked out. The folder itself does not.

    Letters count as they are written: the workspace tells `/Work` from `/work`, and has no links to follow.
    """
    base = _normal(folder, "the folder")
    found = _normal(path, "the path")
    return found != base and found.startswith(base.rstrip("/") + "/")


def host_within(url: Json, domain: Json) -> bool:
    """Whether a web address leads to this host or to a name below it."""
    if not isinstance(domain, str) or not _is_name(domain):
        raise Unclear("the domain is not a name like example.org, in small letters")
    host = _host(url)
    return host == domain or host.endswith("." + domain)


def amount(value: Json) -> float:
    """A number, or the number that a plain decimal text such as `-12.50` says."""
    if isinstance(value, str):
        # Some write a thousand as 1.000 and some mean one by it.
        if not _NUMBER.fullmatch(value) or _THOUSANDS.fullmatch(value):
            raise Unclear("the text is not an amount that everybody reads alike")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unclear("the value is not an amount")
    if not math.isfinite(value) or abs(value) > _MOST:
        raise Unclear("the number is not a finite amount")
    return float(value)


def _normal(path: Json, what: str) -> str:
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        raise Unclear(f"{what} is not absolute")
    if "\\" in path or not path.isprintable():
        raise Unclear(f"{what} holds a backslash or an invisible character")
    return posixpath.normpath(path)


def _host(url: Json) -> str:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        raise Unclear("the address is no text, or holds a character that programs read differently")
    match = _URL.fullmatch(url)
    if match is None:
        raise Unclear("the address does not begin with http://, https://, ws:// or wss://")
    authority: str = match[1]
    if "@" in authority or "%" in authority:
        raise Unclear("the address names a user, or spells its host with %")
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Unclear("the address has no host that everybody reads alike")
        _check_port(rest[1:] if rest else None)
        return _address(host)
    host, colon, port = authority.partition(":")
    _check_port(port if colon else None)
    host = host.lower().removesuffix(".")
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return _address(host)
    if not _is_name(host):
        raise Unclear("the address has no host that everybody reads alike")
    return host


def _check_port(port: str | None) -> None:
    if port is not None and (not _PORT.fullmatch(port) or int(port) > 65535):
        raise Unclear("the address has a port that is none")


def _address(text: str) -> str:
    """An IP address is below no name; 127.1 and 0x7f.1 are addresses to some programs and names to others."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise Unclear("the host is a number that programs read differently") from None


def _is_name(text: str) -> bool:
    labels = text.split(".")
    fits = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return fits and not _NUMERIC.fullmatch(labels[-1])
