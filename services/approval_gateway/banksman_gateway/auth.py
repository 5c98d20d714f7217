"""Who calls the JSON API: a bearer credential, looked up in the caller's own transaction and compared in constant time.

A machine's key may do what its scopes say and see everything that they open. A personal token acts as its person:
the person's roles decide, and the token's scopes, where it has any, narrow them. No cookie is ever read here.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from banksman import ids, tokens
from banksman.errors import NotAllowed, NotFound, NotSignedIn
from banksman.ids import PersonId
from banksman.ledger import Connection, keys
from banksman.records import Batch, Key, Person, Run
from banksman.scopes import Scope

READERS = frozenset({"reviewer", "operator", "admin", "auditor"})
STEWARDS = frozenset({"reviewer", "operator", "admin"})
"""Who may stop any run, or give a stuck one another chance: neither lets a gated call through."""

STEER = "Only the run's requester, a reviewer, an operator or an administrator may."

_NOBODY = bytes(32)
_UNIFORM = "Send a valid API key or personal token as `Authorization: Bearer …`."


@dataclass(frozen=True, slots=True)
class Caller:
    """A credential that was just checked."""

    key: Key

    @property
    def person(self) -> Person | None:
        """The person who acts; a machine's key acts for nobody, whoever owns it."""
        return self.key.person if self.key.kind == "tok" else None

    @property
    def actor(self) -> str:
        """The name in the audit log."""
        return ids.show("key", self.key.id) if self.person is None else ids.show("per", self.person.id)

    def has(self, *scopes: Scope) -> bool:
        """Whether one of these scopes is granted."""
        unlimited = self.person is not None and not self.key.scopes
        return unlimited or not self.key.scopes.isdisjoint(scopes)

    def must(self, *scopes: Scope) -> None:
        """`NotAllowed` unless one of these scopes is granted."""
        if not self.has(*scopes):
            raise NotAllowed(f"This credential lacks the scope {' or '.join(scopes)}.")

    def must_be_person(self, does: str) -> Person:
        """The person who acts, by a credential that may vote; `NotAllowed` for a machine."""
        if self.person is None:
            raise NotAllowed(f"A machine's key never {does}: people do, with a personal token.")
        self.must("votes")
        return self.person

    def only_own(self, scope: Scope) -> PersonId | None:
        """None for a reader who sees everything under this scope, else the person whose runs alone are shown."""
        self.must(scope)
        return own_only(self.person)

    def must_see(self, requester_id: PersonId | None, what: str) -> None:
        """`NotFound`, as if it did not exist, for who has no role and did not ask for this run."""
        must_see(self.person, requester_id, what)

    def must_steer(self, run: Run | Batch) -> None:
        """`NotAllowed` unless the caller may stop or retry this run, or stop this batch."""
        if self.person is not None:
            must_steer(self.person, run)


def must_see(person: Person | None, requester_id: PersonId | None, what: str) -> None:
    """`NotFound`, as if there were no such thing, where being the requester is a person's only way to see it and they
    are not.
    """
    own = own_only(person)
    if own is not None and own != requester_id:
        raise NotFound(f"There is no {what}.")


def may_steer(person: Person, run: Run | Batch) -> bool:
    """Whether this person may stop, retry or fail this run."""
    return person.id == run.requester_id or bool(person.roles & STEWARDS)


def must_steer(person: Person, run: Run | Batch) -> None:
    """`NotAllowed` unless this person may."""
    if not may_steer(person, run):
        raise NotAllowed(STEER)


def own_only(person: Person | None) -> PersonId | None:
    """The person, where being the requester is their only way to see a run."""
    return person.id if person is not None and not person.roles & READERS else None


def identify(conn: Connection, authorization: str | None) -> Caller:
    """The caller behind an `Authorization` header, or one uniform `NotSignedIn`."""
    kind, _, text = (authorization or "").partition(" ")
    read = tokens.read(text.strip()) if kind.lower() == "bearer" else None
    if read is None:
        raise NotSignedIn(_UNIFORM)
    handle, secret_hash = read
    found = keys.find(conn, handle)
    expected = _NOBODY if found is None else found[0]
    if not hmac.compare_digest(expected, secret_hash) or found is None:
        raise NotSignedIn(_UNIFORM)
    return Caller(found[1])
