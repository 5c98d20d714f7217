"""API keys over HTTP: made, listed and revoked by administrators. No key can vote, whatever its scopes.

The text of a key is in one answer and nowhere else: it is not kept under an Idempotency-Key either.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from banksman import ids, records, scopes, tokens
from banksman.digest import Json
from banksman.errors import Conflict, NotFound
from banksman.ids import KeyId, PersonId
from banksman.ledger import Connection, audit, people
from banksman.ledger import keys as rows
from banksman.records import Event
from banksman_gateway import door, problems
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, Name, StrictRoute
from banksman_gateway.people import enter, managing, must_look, must_manage
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute, responses=problems.ALSO)

MOST_DAYS = 365

KeyPath = Annotated[str, Path(examples=["key_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class Key(Shape):
    """A key or a personal token as it is kept; `key` is its text, in the answer to its making alone."""

    id: str
    kind: str
    name: str
    scopes: Sequence[str]
    owner: str | None
    live: bool
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    key: str | None = None


class NewKey(Body):
    """What the key is called and opens, whose it is, and for how long."""

    name: Name
    scopes: Annotated[list[Annotated[str, Field(max_length=40)]], Field(min_length=1, max_length=20)]
    owner: str | None = Field(None, description="The person (per_…) who is the requester of what it submits.")
    days: Annotated[int, Field(ge=1, le=MOST_DAYS, strict=True)] = 90


def make(
    conn: Connection, actor: str, *, name: str, opens: Sequence[str], owner: PersonId | None, days: int
) -> tuple[records.StoredKey, str]:
    """Nothing → a key, and its text, this once."""
    wanted = scopes.of_a_key(opens)
    if owner is not None and (person := people.get(conn, owner)).disabled:
        raise Conflict(f"{person.email} is disabled and can own no key.")
    rows.must_have_room(conn, name)
    minted = tokens.mint("key")
    lifetime = timedelta(days=days)
    key_id = rows.store(conn, minted, kind="key", name=name, scopes=wanted, person=owner, lifetime=lifetime)
    made = rows.get(conn, key_id)
    body: dict[str, Json] = {
        "key": ids.show("key", key_id),
        "scopes": sorted(made.scopes),
        "owner": None if owner is None else ids.show("per", owner),
        "expires_at": made.expires_at.isoformat(),
    }
    audit.append(conn, Event(actor, "key.made", body=body))
    return made, minted.text


def revoke(conn: Connection, actor: str, key_id: KeyId) -> records.StoredKey:
    """Valid → revoked, at once and for good; as it is when it was already."""
    rows.get(conn, key_id)
    if rows.revoke(conn, key_id):
        audit.append(conn, Event(actor, "key.revoked", body={"key": ids.show("key", key_id)}))
    return rows.get(conn, key_id)


def shape(found: records.StoredKey, text: str | None = None) -> Key:
    """A key's shape."""
    return Key(
        id=ids.show("key", found.id),
        kind={"key": "key", "tok": "token"}[found.kind],
        name=found.name,
        scopes=sorted(found.scopes),
        owner=found.owner,
        live=found.live,
        created_at=found.created_at,
        expires_at=found.expires_at,
        revoked_at=found.revoked_at,
        last_used_at=found.last_used_at,
        key=text,
    )


@router.get("", response_model=Page[Key])
def list_keys(way: ToRead) -> Response:
    """Every key and personal token, oldest first; never their texts. For administrators and auditors."""
    with way.enter() as (conn, caller):
        enter(caller, must_look)
        found = rows.everything(conn)
    return door.respond(200, door.to_bytes(Page[Key](items=[shape(key) for key in found])))


@router.post("", status_code=201, response_model=Key)
def make_key(new: NewKey, way: ToAct) -> Response:
    """Make a key. Its text is in this answer alone; a repetition under an Idempotency-Key has it no more."""
    owner = None if new.owner is None else PersonId(ids.read("per", new.owner))
    with managing(way) as (conn, caller):
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        made, text = make(conn, caller.actor, name=new.name, opens=new.scopes, owner=owner, days=new.days)
        way.answer(conn, caller, 201, shape(made))
    return door.respond(201, door.to_bytes(shape(made, text)))


@router.get("/{key_id}", response_model=Key)
def get_key(key_id: KeyPath, way: ToRead) -> Response:
    """One key or token, never its text."""
    wanted = KeyId(ids.read("key", key_id))
    with way.enter() as (conn, caller):
        enter(caller, must_look)
        found = rows.get(conn, wanted)
    return door.respond(200, door.to_bytes(shape(found)))


@router.post("/{key_id}/revoke", response_model=Key)
def revoke_key(key_id: KeyPath, way: ToAct) -> Response:
    """Revoke a key or a token at once, for good. Everybody may revoke their own tokens."""
    wanted = KeyId(ids.read("key", key_id))
    with way.enter() as (conn, caller):
        caller.must("people")
        found = rows.get(conn, wanted)
        if caller.person is None or found.kind != "tok" or found.owner != caller.person.email:
            if caller.person is not None and caller.person.roles.isdisjoint({"admin", "auditor"}):
                raise NotFound(f"There is no key {key_id}.")
            must_manage(caller.person)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        return way.answer(conn, caller, 200, shape(revoke(conn, caller.actor, wanted)))
