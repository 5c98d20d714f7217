"""`seal` and `open_sealed`: the one doorway through which content becomes bytes in PostgreSQL and comes back.

A sealed value begins with a version byte. 0: the content follows as it is. 1: it is encrypted by AES-256-GCM with a
data key of its own, and the row that it belongs to is part of the seal, so that a value which was moved to another row
or column does not open. The data key stands beside it, wrapped (RFC 3394) by a key of the ring:

    1 | kid, 8 bytes padded with NUL | wrapped data key, 40 bytes | content and tag

So a key is rotated by wrapping 32 bytes anew, without touching the content. A data key seals one value, once: its nonce
is constant. A process takes its ring once, as it starts. Without one it seals as version 0. With one, plain bytes do
not open, or who can write to the database could put them in place of what is sealed; the word `plain` in the ring lets
them, as long as something is left from before there was a key.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from banksman.errors import ConfigurationError, NotGenuine, NotHere
from banksman.signing import unbase64

Row = tuple[str, *tuple[UUID | int | str, ...]]

PLAIN = "plain"
"""What a ring names beside its keys while bytes that were stored without any have to open."""
HEAD = 49
"""So many bytes of a value of version 1 say which key opens it; the rest stays as it is when keys are rotated."""
_PLAIN = b"\x00"
_SEALED = b"\x01"
_NAME = 9
_TAG = 16
_NONCE = bytes(12)
_DOMAIN = "banksman/vault/v1"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ring:
    """Keys that wrap data keys: the first seals, all open. `plain` says that bytes without a seal open as well."""

    keys: Mapping[str, bytes] = field(repr=False)
    plain: bool = True

    @classmethod
    def read(cls, text: str) -> Ring:
        """From the setting `kid:base64url`, newest first, separated by commas; empty for none."""
        keys: dict[str, bytes] = {}
        items = [item for item in map(str.strip, text.split(",")) if item]
        for item in items:
            kid, _, raw = item.partition(":")
            if item == PLAIN:
                continue
            if not re.fullmatch("[a-z0-9]{1,8}", kid) or kid in keys or kid == PLAIN:
                raise ConfigurationError(
                    "BANKSMAN_VAULT_KEYS must read `kid:key`, each kid once and of 1 to 8 characters of a-z and 0-9."
                )
            try:
                keys[kid] = unbase64(raw)
            except ValueError:
                raise ConfigurationError(f"BANKSMAN_VAULT_KEYS: key {kid!r} is not 32 bytes in base64url.") from None
        return cls(keys, PLAIN in items or not keys)

    @property
    def current(self) -> str | None:
        """The name of the key that seals, if there is one."""
        return next(iter(self.keys), None)


UNREAD = "cannot be read"
_WORDS = frozenset({"runs.prompt", "runs.error", "votes.reason", "remarks.body", "blobs.body", "endpoints.url"})
_unread: ContextVar[list[str] | None] = ContextVar("unread", default=None)
_ring = Ring({})


def use(keys: str) -> None:
    """Seal and open with the keys of the setting from now on; that there are none is said."""
    global _ring  # noqa: PLW0603  one ring for each process, taken as it starts, as its logging is
    _ring = Ring.read(keys)
    if not _ring.keys:
        log.warning("Content is stored unencrypted: BANKSMAN_VAULT_KEYS is not set.")


def prefix(kid: str) -> bytes:
    """What every value begins with that is sealed under a key."""
    return _SEALED + kid.encode().ljust(_NAME - 1, b"\0")


def seal(body: bytes, row: Row) -> bytes:
    """Content → what is stored in `row`, named by column and key, as `("runs.prompt", run_id)`."""
    kid = _ring.current
    if kid is None:
        return _PLAIN + body
    key = secrets.token_bytes(32)
    return prefix(kid) + aes_key_wrap(_ring.keys[kid], key) + AESGCM(key).encrypt(_NONCE, body, _bound(row))


def open_sealed(stored: bytes, row: Row) -> bytes:
    """What is stored in `row` → content. Changed, moved, or plain where all is sealed: `NotGenuine`; under a key that
    is not here: `NotHere`. Under `leniently` that is said in the place of the content.
    """
    try:
        return _opened(stored, row)
    except (NotGenuine, NotHere) as error:
        unread = _unread.get()
        if unread is None:
            raise
        unread.append(str(error))
        log.error("A stored value cannot be read: %s", error)  # noqa: TRY400  where it happened says nothing
        return _instead(row, str(error))


@contextmanager
def leniently() -> Generator[list[str]]:
    """For what is only looked at: one value that cannot be read does not keep the others from being shown.

    What could not be read, and why; in its place stand a few words, or JSON that says so.
    """
    unread: list[str] = []
    token = _unread.set(unread)
    try:
        yield unread
    finally:
        _unread.reset(token)


def _instead(row: Row, why: str) -> bytes:
    words = f"{UNREAD}: {why}"
    if row[0] in _WORDS:
        return words.encode()
    if row[0] == "snapshots.state":
        return b"{}"
    said: dict[str, object] = {UNREAD: why}
    if row[0] == "revisions.action":
        said["arguments"] = {UNREAD: why}  # of no digest that anybody could vote on
    return json.dumps([said] if row[0] == "snapshots.messages" else said).encode()


def _opened(stored: bytes, row: Row) -> bytes:
    if stored[:1] == _PLAIN:
        if _ring.plain:
            return stored[1:]
        raise NotGenuine(
            f"{_name(row)} is not encrypted, and all that is stored here is: somebody put it there. If it was stored"
            f" before there was a key, add `{PLAIN}` to BANKSMAN_VAULT_KEYS until `banksman keys reseal` is done."
        )
    key = _unwrapped(stored[:HEAD], row)
    try:
        return AESGCM(key).decrypt(_NONCE, stored[HEAD:], _bound(row))
    except InvalidTag:
        raise NotGenuine(
            f"{_name(row)} does not open: the value was changed, or belongs to another row or column. Nothing was done "
            "with it."
        ) from None


def reseal(head: bytes, row: Row) -> bytes:
    """The first `HEAD` bytes of a value of version 1 → what stands in their place once the current key wraps it."""
    kid = _ring.current
    assert kid is not None
    return prefix(kid) + aes_key_wrap(_ring.keys[kid], _unwrapped(head, row))


def length(stored: int, version: int) -> int:
    """How many bytes of content a sealed value of `stored` bytes holds, given its version byte."""
    return stored - (HEAD + _TAG if version else len(_PLAIN))


def _unwrapped(head: bytes, row: Row) -> bytes:
    if head[:1] != _SEALED or len(head) != HEAD:
        raise NotGenuine(f"{_name(row)} is sealed in a way this release cannot open.")
    kid = head[1:_NAME].rstrip(b"\0").decode("ascii", "replace")
    if kid not in _ring.keys:
        raise NotHere(
            f"{_name(row)} is sealed with the key {kid!r}, which this process does not have. Give it to all services "
            "in BANKSMAN_VAULT_KEYS and restart this one."
        )
    try:
        return aes_key_unwrap(_ring.keys[kid], head[_NAME:])
    except InvalidUnwrap:
        raise NotGenuine(
            f"{_name(row)} does not open: its data key was changed, or {kid!r} is another key here."
        ) from None


def _bound(row: Row) -> bytes:
    # No text of PostgreSQL's holds a NUL, so two rows never read alike.
    return "\0".join((_DOMAIN, *map(str, row))).encode()


def _name(row: Row) -> str:
    return f"{row[0]} of {row[1]}"
