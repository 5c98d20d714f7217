"""A head: the sealer's signed statement that the log has so many events, with this root.

Heads form a chain: each names the hash of the one before. A head also says how far the log was complete when it was
made (`cursor`), the first transaction id that was not given out yet (`ceiling`), and which PostgreSQL it lived in.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from operator import index
from typing import Any

from banksman import signing
from banksman.digest import Json
from banksman.errors import InvalidInput, NotGenuine
from banksman.signing import Signed, Signer, Verifier

NONE_BEFORE = bytes(32)


@dataclass(frozen=True, slots=True)
class Head:
    """What a head states."""

    number: int
    size: int
    root: bytes
    at: str
    previous: bytes
    cursor: tuple[int, int]
    ceiling: int
    home: int

    def short(self) -> dict[str, Json]:
        """The head as a receipt names it."""
        return {"number": self.number, "size": self.size, "root": self.root.hex(), "at": self.at}

    def in_words(self) -> str:
        """The head in a line, for a mail."""
        return f"number {self.number}, {self.size} events, root {self.root.hex()}"


def sign(signer: Signer, head: Head) -> Signed:
    """A head → its signed statement."""
    statement: dict[str, Json] = {
        "number": head.number,
        "size": head.size,
        "root": head.root.hex(),
        "at": head.at,
        "previous": head.previous.hex(),
        "cursor": list(head.cursor),
        "ceiling": head.ceiling,
        "home": head.home,
    }
    return signer.sign(statement, "head")


def verify(verifier: Verifier, signed: Signed) -> Head:
    """The head behind a signature that holds; `NotGenuine` otherwise."""
    return _head(verifier.verify(signed, "head"))


def read(signed: Signed) -> Head:
    """What a stored head states, unverified: for whoever only shows it, and for the sealer, which re-checks by root."""
    try:
        return _head(json.loads(signed.statement))
    except (ValueError, RecursionError):
        raise NotGenuine("This is no statement of a sealer.") from None


def after(signed: Signed, number: int) -> Head:
    """What a stored head states, where it comes after this number; `NotGenuine` where the log's heads go back."""
    head = read(signed)
    if head.number <= number:
        raise NotGenuine(
            f"Head {head.number} of the audit log stands after head {number}: heads were removed or replaced. "
            "`banksman audit verify` says where."
        )
    return head


def fingerprint(signed: Signed) -> bytes:
    """What the next head names as the one before it."""
    return sha256(signed.statement).digest()


def to_json(signed: Signed) -> dict[str, Json]:
    """A head as it is anchored and handed out: exact bytes, signature and key."""
    return {"statement": signed.statement.decode(), "signature": signing.base64url(signed.signature), "kid": signed.kid}


def from_json(value: Any) -> Signed:
    """A head that was handed out; `InvalidInput` for anything else."""
    match value:
        case {"statement": str() as statement, "signature": str() as signature, "kid": str() as kid}:
            with suppress(ValueError):
                return Signed(statement.encode(), signing.unbase64(signature, 64), kid)
        case _:
            pass
    raise InvalidInput("This is no signed head: one has a statement, a signature and a kid.")


def _head(statement: Any) -> Head:
    try:
        number, size, ceiling, home = (index(statement[name]) for name in ("number", "size", "ceiling", "home"))
        xid, last = map(index, statement["cursor"])
        return Head(
            number=number,
            size=size,
            root=bytes.fromhex(statement["root"]),
            at=statement["at"],
            previous=bytes.fromhex(statement["previous"]),
            cursor=(xid, last),
            ceiling=ceiling,
            home=home,
        )
    except (KeyError, TypeError, ValueError):
        raise NotGenuine("This is no statement of a sealer.") from None
