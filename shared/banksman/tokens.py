"""API keys and personal tokens: how they are made, recognised and hashed.

`bk_<kind>_<id>_<secret>_<check>`: a leaked one is found by its prefix, a mistyped one by its checksum before any
look-up. The secret has 256 bits, so a plain SHA-256 of it is enough at rest.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"bk_(key|tok)_([0-9a-z]{12})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class Minted:
    """A new credential: `text` is shown once, the rest is stored."""

    text: str = field(repr=False)
    handle: str
    secret_hash: bytes = field(repr=False)


def mint(kind: str) -> Minted:
    """A new credential of kind `key` (a machine's) or `tok` (a person's)."""
    handle = secrets.token_hex(6)
    secret = _base62(secrets.token_bytes(32), 43)
    body = f"bk_{kind}_{handle}_{secret}"
    return Minted(f"{body}_{_checksum(body)}", handle, _hash(secret))


def read(text: str) -> tuple[str, bytes] | None:
    """The handle and the hash of the secret behind a credential's text; None when it cannot be one."""
    match = _FORM.fullmatch(text) if len(text) <= 128 else None
    if match is None:
        return None
    body, _, check = text.rpartition("_")
    if not hmac.compare_digest(check, _checksum(body)):
        return None
    return match[2], _hash(match[3])


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")).to_bytes(4), 6)


def _base62(raw: bytes, width: int) -> str:
    number, letters = int.from_bytes(raw), ""
    for _ in range(width):
        number, index = divmod(number, 62)
        letters = _ALPHABET[index] + letters
    return letters
