"""People over HTTP: who may sign in and what they may do. Administrators change it, auditors look."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from banksman import ids, records
from banksman.errors import NotAllowed
from banksman.ids import PersonId
from banksman.ledger import Connection, roster, staff
from banksman.ledger import people as rows
from banksman_gateway import door, problems
from banksman_gateway.auth import Caller
from banksman_gateway.door import Once, ToAct, ToRead
from banksman_gateway.intake import Body, Name, StrictRoute
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/people", tags=["people"], route_class=StrictRoute, responses=problems.ALSO)

PersonPath = Annotated[str, Path(examples=["per_0192f0c1a2b37c4d8e5f60718293a4b5"])]
Words = Annotated[list[Name], Field(max_length=roster.MOST_GROUPS)]


class Person(Shape):
    """Somebody who may sign in. What they were given lately counts for earlier requests from `counts_from` on."""

    id: str
    email: str
    name: str
    roles: Sequence[str]
    groups: Sequence[str]
    disabled: bool
    counts_from: dict[str, datetime]


class NewPerson(Body):
    """Whom to let in, and as what."""

    email: Annotated[str, Field(max_length=254)]
    name: Annotated[str, Field(max_length=100)] = ""
    roles: Words = Field(default_factory=lambda: ["reviewer"])
    groups: Words = Field(default_factory=list[str])


class Changes(Body):
    """What to change; what is left out stays."""

    name: Name | None = None
    roles: Words | None = None
    groups: Words | None = None


def must_manage(person: records.Person | None) -> records.Person:
    """The administrator, or `NotAllowed`."""
    if person is None or "admin" not in person.roles:
        raise NotAllowed("Only an administrator manages people and keys.")
    return person


def must_look(person: records.Person | None) -> records.Person:
    """The administrator or auditor, or `NotAllowed`."""
    if person is None or person.roles.isdisjoint({"admin", "auditor"}):
        raise NotAllowed("Only an administrator or an auditor sees people and keys.")
    return person


def enter(caller: Caller, check: Callable[[records.Person | None], records.Person]) -> str:
    """The name in the audit log of a caller who passes the check, with a token that opens this."""
    caller.must("people")
    return ids.show("per", check(caller.person).id)


@contextmanager
def managing(way: Once) -> Generator[tuple[Connection, Caller]]:
    """A transaction and the administrator in it, looked at again once nobody else can change people any more."""
    with way.enter() as (conn, caller):
        enter(caller, must_manage)
        staff.hold(conn)
        still = way.identify(conn)
        enter(still, must_manage)
        yield conn, still


def shape(found: records.Person) -> Person:
    """A person's shape."""
    return Person(
        id=ids.show("per", found.id),
        email=found.email,
        name=found.name,
        roles=sorted(found.roles),
        groups=sorted(found.groups),
        disabled=found.disabled,
        counts_from={group: until for group, (_, until) in found.fresh.items()},
    )


@router.get("", response_model=Page[Person])
def list_people(way: ToRead) -> Response:
    """Everybody, disabled people too, by address. For administrators and auditors."""
    with way.enter() as (conn, caller):
        enter(caller, must_look)
        found = staff.everybody(conn)
    return door.respond(200, door.to_bytes(Page[Person](items=[shape(person) for person in found])))


@router.post("", status_code=201, response_model=Person)
def add_person(new: NewPerson, way: ToAct) -> Response:
    """Let somebody sign in."""

    def add(conn: Connection, actor: str) -> records.Person:
        return roster.add(
            conn,
            actor,
            new.email,
            name=new.name,
            roles=new.roles,
            groups=new.groups,
            membership=way.here.settings.membership,
        )

    return _act(way, add, status=201)


@router.get("/{person_id}", response_model=Person)
def get_person(person_id: PersonPath, way: ToRead) -> Response:
    """One person; somebody removed can still be read."""
    wanted = PersonId(ids.read("per", person_id))
    with way.enter() as (conn, caller):
        enter(caller, must_look)
        found = rows.get(conn, wanted)
    return door.respond(200, door.to_bytes(shape(found)))


@router.post("/{person_id}/change", response_model=Person)
def change_person(person_id: PersonPath, changes: Changes, way: ToAct) -> Response:
    """Another name, other roles or groups. Who is changed is signed out everywhere."""
    wanted = PersonId(ids.read("per", person_id))

    def change(conn: Connection, actor: str) -> records.Person:
        return roster.change(
            conn,
            actor,
            wanted,
            name=changes.name,
            roles=changes.roles,
            groups=changes.groups,
            membership=way.here.settings.membership,
        )

    return _act(way, change)


@router.post("/{person_id}/disable", response_model=Person)
def disable_person(person_id: PersonPath, way: ToAct) -> Response:
    """Shut somebody out at once: sessions, tokens, keys, links, and votes on calls that have not started."""
    wanted = PersonId(ids.read("per", person_id))
    return _act(way, lambda conn, actor: roster.disable(conn, actor, wanted))


@router.post("/{person_id}/enable", response_model=Person)
def enable_person(person_id: PersonPath, way: ToAct) -> Response:
    """Let somebody in again who was disabled."""
    wanted = PersonId(ids.read("per", person_id))
    membership = way.here.settings.membership
    return _act(way, lambda conn, actor: roster.enable(conn, actor, wanted, membership=membership))


@router.post("/{person_id}/remove", response_model=Person)
def remove_person(person_id: PersonPath, way: ToAct) -> Response:
    """Take somebody off every list, for good; their keys are revoked. Votes and the audit log still name them."""
    wanted = PersonId(ids.read("per", person_id))
    return _act(way, lambda conn, actor: roster.remove(conn, actor, wanted))


@router.post("/{person_id}/sign-out", response_model=Person)
def sign_out_person(person_id: PersonPath, way: ToAct) -> Response:
    """End every browser session of somebody; anybody may do that to themselves."""
    wanted = PersonId(ids.read("per", person_id))
    with way.enter() as (conn, caller):
        caller.must("people")
        if caller.person is None or caller.person.id != wanted:
            must_manage(caller.person)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = rows.get(conn, wanted)
        roster.sign_out(conn, caller.actor, wanted)
        return way.answer(conn, caller, 200, shape(found))


def _act(way: Once, move: Callable[[Connection, str], records.Person], *, status: int = 200) -> Response:
    with managing(way) as (conn, caller):
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        return way.answer(conn, caller, status, shape(move(conn, caller.actor)))
