"""Mailed links: a way to a request for one reviewer, and the typed code that goes with it.

Both are derived by HMAC-SHA256 from the notice, so nothing secret is stored and a repeated mail is the same mail.
The MAC covers what the notice's row says (reviewer, request, revision, purpose): reading the database mints nothing,
and writing to it re-points nothing. Opening a link decides nothing: mail scanners follow links and submit forms.
The typed code shows that a person read the mail. It does not show who.

Token: `bk1.<kid>.<notice id, 22 characters>.<MAC, 43 characters>`, base64url without padding, one spelling only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from banksman import digest
from banksman.errors import ConfigurationError, NotGenuine
from banksman.signing import base64url, unbase64

_TOKEN = re.compile(r"bk1\.([a-z0-9]{1,8})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")
_UNIFORM = "This link is not valid. Sign in to see what waits for you."


@dataclass(frozen=True, slots=True)
class Pointer:
    """A well-formed token, not yet verified: which notice it claims to come from."""

    kid: str
    notice: UUID
    mac: str


class LinkKeys:
    """The gateway's link keys: the first mints, all verify."""

    def __init__(self, masters: Mapping[str, bytes]) -> None:
        self._first = next(iter(masters))
        self._keys = {(kid, use): _derive(raw, use, kid) for kid, raw in masters.items() for use in _USES}

    @classmethod
    def read(cls, text: str) -> LinkKeys:
        """From the setting `kid:base64url`, newest first, separated by commas."""
        masters: dict[str, bytes] = {}
        for item in filter(None, map(str.strip, text.split(","))):
            kid, _, raw = item.partition(":")
            try:
                masters[kid] = unbase64(raw)
            except ValueError:
                raise ConfigurationError(
                    f"BANKSMAN_LINK_KEYS: key {kid[:20]!r} is not 32 bytes in base64url."
                ) from None
        if not masters or not all(re.fullmatch("[a-z0-9]{1,8}", kid) for kid in masters):
            raise ConfigurationError(
                "BANKSMAN_LINK_KEYS must read `kid:key`, kid being 1 to 8 characters of a-z and 0-9."
            )
        return cls(masters)

    def token(self, notice: UUID, binding: Mapping[str, digest.Json]) -> str:
        """The token for a notice, bound to what its row says."""
        mac = base64url(self._mac(self._first, "link", notice, binding))
        return f"bk1.{self._first}.{base64url(notice.bytes)}.{mac}"

    def verify(self, pointer: Pointer, binding: Mapping[str, digest.Json]) -> None:
        """Nothing, when the token was minted here for exactly this binding; else one uniform `NotGenuine`."""
        if (pointer.kid, "link") not in self._keys:
            raise NotGenuine(_UNIFORM)
        expected = base64url(self._mac(pointer.kid, "link", pointer.notice, binding))
        if not hmac.compare_digest(expected, pointer.mac):
            raise NotGenuine(_UNIFORM)

    def code(self, notice: UUID, binding: Mapping[str, digest.Json], *, digits: int) -> str:
        """The typed code of a notice, by the newest key."""
        return self._code(self._first, notice, binding, digits)

    def code_holds(self, typed: str, notice: UUID, binding: Mapping[str, digest.Json], *, digits: int) -> bool:
        """Whether a typed code is the notice's, by any key; spaces and dashes are ignored."""
        plain = re.sub(r"[\s-]", "", typed).encode("utf-8", "replace")
        found = False
        for kid, use in self._keys:
            if use == "code":
                found |= hmac.compare_digest(self._code(kid, notice, binding, digits).encode(), plain)
        return found

    def form_token(self, session: bytes) -> str:
        """The token that a session's forms carry against cross-site posting."""
        return base64url(hmac.digest(self._keys[self._first, "form"], session, "sha256"))

    def form_token_holds(self, token: str, session: bytes) -> bool:
        """Whether a form came from a page of this session."""
        sent = token.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(base64url(hmac.digest(key, session, "sha256")).encode(), sent)
            for (_, use), key in self._keys.items()
            if use == "form"
        )

    def mark(self, vote: UUID, said: Mapping[str, digest.Json]) -> str:
        """The gateway's mark on a vote, bound to everything that its row says."""
        return f"{self._first}.{base64url(self._mac(self._first, 'vote', vote, said))}"

    def mark_holds(self, mark: str, vote: UUID, said: Mapping[str, digest.Json]) -> bool:
        """Whether a vote was written here, by any key, and says what it said then."""
        kid, _, mac = mark.partition(".")
        if (kid, "vote") not in self._keys:
            return False
        return hmac.compare_digest(base64url(self._mac(kid, "vote", vote, said)).encode(), mac.encode())

    def _code(self, kid: str, notice: UUID, binding: Mapping[str, digest.Json], digits: int) -> str:
        raw = int.from_bytes(self._mac(kid, "code", notice, binding)[:8])
        return f"{raw % 10**digits:0{digits}d}"

    def _mac(self, kid: str, use: str, notice: UUID, binding: Mapping[str, digest.Json]) -> bytes:
        text = b"banksman/link/v1\0" + digest.canonical({"notice": notice.hex, "use": use, **binding})
        return hmac.digest(self._keys[kid, use], text, hashlib.sha256)


_USES = ("link", "code", "form", "vote")


def point(token: str) -> Pointer:
    """The notice that a token claims to come from; malformed ones get the same answer as forged ones."""
    match = _TOKEN.fullmatch(token) if len(token) <= 128 and token.isascii() else None
    if match is None:
        raise NotGenuine(_UNIFORM)
    try:
        return Pointer(match[1], UUID(bytes=unbase64(match[2], 16)), match[3])
    except ValueError:
        raise NotGenuine(_UNIFORM) from None


def _derive(master: bytes, use: str, kid: str) -> bytes:
    info = f"banksman/{use}/v1/{kid}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master)
