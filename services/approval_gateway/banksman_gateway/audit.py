"""The audit log over HTTP: to read, as it is hashed; the signed heads over it; and proofs. It changes nothing.

For auditors and administrators, and for keys with the scope `audit:read`. Each line of the log is the exact canonical
text that its leaf was hashed from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, Field, StringConstraints

from banksman import ids, records
from banksman.errors import InvalidInput, NotAllowed, NotFound
from banksman.ids import RequestId, RunId
from banksman.ledger import seals, trail
from banksman.ledger.seals import Row
from banksman.ledger.trail import Wanted
from banksman.sealing import heads, leaf, proof, tree
from banksman.sealing.store import Stored
from banksman_gateway import door, problems
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToRead
from banksman_gateway.intake import PRINTABLE, Body, StrictRoute
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=StrictRoute, responses=problems.ALSO)

AUDITORS = frozenset({"admin", "auditor"})
MOST = 10_000

Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})")


class Filter(Body):
    """Which events, and from where on."""

    actor: Word | None = None
    action: Word | None = None
    run_id: str | None = None
    request_id: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=MOST)] = 1000
    cursor: str | None = Field(None, description="`Next-Cursor` of the answer before: go on after it.")


class Span(Body):
    """Which heads."""

    after: Annotated[int, Field(ge=0, lt=2**63, description="Heads after the one of this number.")] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Sizes(Body):
    """Two sizes of the log."""

    first: Annotated[int, Field(ge=1, lt=2**63)]
    second: Annotated[int, Field(ge=1, lt=2**63)]


class Head(Shape):
    """A head as it was signed: the exact text, its Ed25519 signature in base64url, and the key's name."""

    statement: str
    signature: str
    kid: str


class Proof(Shape):
    """A request's events, each with its path to the head's root (RFC 9162, section 2.1.3)."""

    request_id: str
    head: Head
    events: Sequence[Any]
    unsealed: int


class Consistency(Shape):
    """That the log of `second` events begins with the one of `first` (RFC 9162, section 2.1.4), hashes in hex."""

    first: int
    second: int
    path: Sequence[str]


def must_audit(person: records.Person | None) -> records.Person:
    """The auditor or administrator, or `NotAllowed`."""
    if person is None or person.roles.isdisjoint(AUDITORS):
        raise NotAllowed("Only an auditor or an administrator reads the audit log.")
    return person


def wanted_of(
    *,
    actor: str | None,
    action: str | None,
    run_id: str | None,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Wanted:
    """What the ledger looks for."""
    return Wanted(
        actor=actor or None,
        action=action or None,
        run_id=RunId(ids.read("run", run_id)) if run_id else None,
        request_id=RequestId(ids.read("req", request_id)) if request_id else None,
        since=since,
        until=until,
    )


def cursor_of(text: str) -> tuple[int, int]:
    """A place in the log, as `Next-Cursor` spells it."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidInput("This cursor is none that the audit log gave.")
    return int(match[1]), int(match[2])


def cursor_at(row: Row) -> str:
    """The place of an event in the log, as `cursor_of` reads it."""
    return f"{row[1]}-{row[0]}"


@router.get(
    "", response_class=Response, responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}
)
def read_log(wanted: Annotated[Filter, Query()], way: ToRead) -> Response:
    """Events in their order, one on each line. `Next-Cursor` names the place to go on from; without it, that is all."""
    which = wanted_of(**wanted.model_dump(exclude={"limit", "cursor"}))
    cursor = None if wanted.cursor is None else cursor_of(wanted.cursor)
    with way.enter() as (conn, caller):
        _enter(caller)
        rows = trail.read(conn, which, cursor=cursor, limit=wanted.limit)
    body = b"".join(leaf.entry(row) + b"\n" for row in rows)
    response = Response(body, media_type="application/x-ndjson")
    if len(rows) == wanted.limit:
        response.headers["Next-Cursor"] = cursor_at(rows[-1])
    return response


@router.get("/heads", response_model=Page[Head])
def list_heads(wanted: Annotated[Span, Query()], way: ToRead) -> Response:
    """Signed heads in their order. Keep them where the database's owner cannot reach them."""
    with way.enter() as (conn, caller):
        _enter(caller)
        found = seals.heads(conn, after=wanted.after, limit=wanted.limit)
    more = str(heads.read(found[-1]).number) if len(found) == wanted.limit else None
    page = Page[Head](items=[Head.model_validate(heads.to_json(item)) for item in found], next_cursor=more)
    return door.respond(200, door.to_bytes(page))


@router.get("/consistency", response_model=Consistency)
def prove_consistency(wanted: Annotated[Sizes, Query()], way: ToRead) -> Response:
    """The proof that between two heads the log only grew, for whoever kept the first."""
    with way.enter() as (conn, caller):
        _enter(caller)
        newest = seals.newest_head(conn)
        size = 0 if newest is None else heads.read(newest).size
        if not wanted.first <= wanted.second <= size:
            raise NotFound(f"The sealed log has {size} events: ask for first ≤ second ≤ {size}.")
        path = tree.consistency(wanted.first, wanted.second, Stored(conn).hash_of)
    shown = Consistency(first=wanted.first, second=wanted.second, path=[step.hex() for step in path])
    return door.respond(200, door.to_bytes(shown))


@router.get("/prove/{request_id}", response_model=Proof)
def prove_request(
    request_id: Annotated[str, Path(examples=["req_0192f0c1a2b37c4d8e5f60718293a4b5"])], way: ToRead
) -> Response:
    """A request's events with their paths to the newest head: `banksman audit verify --proof` checks it offline."""
    wanted = RequestId(ids.read("req", request_id))
    with way.enter() as (conn, caller):
        _enter(caller)
        found = proof.prove(conn, wanted)
    return door.respond(200, json.dumps(found).encode())


def _enter(caller: Caller) -> None:
    caller.must("audit:read")
    if caller.person is not None:
        must_audit(caller.person)
