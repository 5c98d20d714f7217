"""Decisions, policies and grants as signed statements: Ed25519 (RFC 8032) over a domain prefix and canonical JSON.

The gateway alone holds a private key. Workers hold public keys from their configuration, never from the database,
each `current` (signs and verifies), `retired` (still verifies) or `revoked` (verifies no more).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from banksman import digest
from banksman.errors import ConfigurationError, NotGenuine

Purpose = Literal["decision", "policy", "grant", "head"]
"""What a statement is signed as. It is part of what is signed: none can be taken for one of another kind."""

_REMEMBERED = 1000
"""So many statements that were found genuine are known again."""

KeyStatus = Literal["current", "retired", "revoked"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement with its signature, as stored."""

    statement: bytes
    signature: bytes
    kid: str


class Signer:
    """Holds the gateway's private key and signs statements with it."""

    def __init__(self, kid: str, seed: bytes) -> None:
        self.kid = kid
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def read(cls, text: str, *, setting: str = "BANKSMAN_SIGNING_KEY") -> Signer:
        """From a setting `kid:base64url-seed`."""
        kid, _, seed = text.partition(":")
        try:
            return cls(kid, unbase64(seed))
        except ValueError:
            raise ConfigurationError(f"{setting} must read `kid:seed`, the seed being 32 bytes in base64url.") from None

    def sign(self, statement: Mapping[str, digest.Json], purpose: Purpose = "decision") -> Signed:
        """A statement → its canonical bytes and their signature."""
        body = digest.canonical(statement)
        return Signed(body, self._key.sign(_domain(purpose) + body), self.kid)

    def public(self) -> str:
        """The line for `BANKSMAN_VERIFY_KEYS` that lets a worker verify what this key signs."""
        return f"{self.kid}:current:{base64url(self._key.public_key().public_bytes_raw())}"


class Verifier:
    """Holds the public keys that this process trusts."""

    def __init__(self, keys: Mapping[str, tuple[KeyStatus, Ed25519PublicKey]]) -> None:
        self._keys = dict(keys)
        self._genuine: set[tuple[Purpose, str, bytes, bytes]] = set()

    @classmethod
    def read(cls, text: str, *, setting: str = "BANKSMAN_VERIFY_KEYS") -> Verifier:
        """From the setting `kid:current|retired|revoked:base64url-public-key`, separated by commas."""
        keys: dict[str, tuple[KeyStatus, Ed25519PublicKey]] = {}
        for item in filter(None, map(str.strip, text.split(","))):
            kid, _, rest = item.partition(":")
            status, _, public = rest.partition(":")
            if status not in ("current", "retired", "revoked"):
                raise ConfigurationError(
                    f"{setting}: key {kid!r} must be current, retired or revoked, not {status[:20]!r}."
                )
            try:
                keys[kid] = (status, Ed25519PublicKey.from_public_bytes(unbase64(public)))
            except ValueError:
                raise ConfigurationError(
                    f"{setting}: key {kid!r} is not a public key of 32 bytes in base64url."
                ) from None
        if not keys:
            raise ConfigurationError(f"{setting} names no key, so nothing could ever be verified.")
        return cls(keys)

    def listed(self) -> dict[str, tuple[KeyStatus, str]]:
        """Each key's state and public half, in the order of the setting."""
        return {kid: (status, base64url(key.public_bytes_raw())) for kid, (status, key) in self._keys.items()}

    def allow(self, signer: Signer) -> None:
        """Nothing, when workers with these keys take this signer's for current; a `ConfigurationError` otherwise."""
        status = self.listed().get(signer.kid, ("unknown", ""))[0]
        if status != "current":
            raise ConfigurationError(
                f"BANKSMAN_SIGNING_KEY is {signer.kid!r}, which BANKSMAN_VERIFY_KEYS calls {status}: nothing that it "
                "signs now may count. `banksman keys rotate` makes another."
            )
        if signer.public() not in (f"{kid}:{state}:{key}" for kid, (state, key) in self.listed().items()):
            raise ConfigurationError(
                f"BANKSMAN_SIGNING_KEY and BANKSMAN_VERIFY_KEYS have different keys of the name {signer.kid!r}."
            )

    def verify(self, signed: Signed, purpose: Purpose = "decision") -> dict[str, digest.Json]:
        """The statement, once its signature holds; `NotGenuine` otherwise."""
        status, key = self._keys.get(signed.kid, (None, None))
        if key is None:
            raise NotGenuine(f"The {purpose} is signed with key {signed.kid[:20]!r}, which this worker does not know.")
        if status == "revoked":
            raise NotGenuine(f"The {purpose} is signed with key {signed.kid!r}, which has been revoked.")
        # A run's decisions are verified as it resumes, and the same bytes again as each of its calls starts.
        seen = (purpose, signed.kid, signed.signature, hashlib.sha256(signed.statement).digest())
        if seen in self._genuine:
            return json.loads(signed.statement)
        try:
            key.verify(signed.signature, _domain(purpose) + signed.statement)
        except InvalidSignature:
            raise NotGenuine(f"The signature under the {purpose} does not hold for its text.") from None
        statement = digest.parse(signed.statement, what=f"The signed {purpose}", limit=4 * digest.MAX_BYTES)
        if len(self._genuine) >= _REMEMBERED:
            self._genuine.clear()
        self._genuine.add(seen)
        return statement


def _domain(purpose: Purpose) -> bytes:
    return f"banksman/{purpose}/v1".encode() + b"\0"


def base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def unbase64(text: str, length: int = 32) -> bytes:
    """The `length` bytes behind base64url without padding; one spelling only, else ValueError."""
    raw = base64.urlsafe_b64decode(text.encode("ascii") + b"==")
    if len(raw) != length or base64url(raw) != text:
        raise ValueError(f"not {length} bytes in canonical base64url")
    return raw
