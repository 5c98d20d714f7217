"""Away: a person says from when until when they are not there, and who decides meanwhile (docs/decisions/0024)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, Field

from banksman import ids, quorum
from banksman.errors import Conflict, InvalidInput, NotAllowed
from banksman.ids import AbsenceId
from banksman.ledger import Connection, absences, audit, staff
from banksman.records import Absence, Event, Person
from banksman_gateway import door, problems, shapes
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, Name, StrictRoute

router = APIRouter(prefix="/v1/absences", tags=["absences"], route_class=StrictRoute, responses=problems.ALSO)

AbsencePath = Annotated[str, Path(examples=["abs_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class Away(Body):
    """From when (now, if it is not said) until when you are away, and who decides for your groups meanwhile."""

    stand_in: Annotated[Name, Field(description="The address of a reviewer.")]
    until_at: AwareDatetime
    from_at: AwareDatetime | None = None


def declare(
    conn: Connection, person: Person, stand_in: str, *, from_at: datetime | None, until_at: datetime
) -> Absence:
    """Nothing → an absence of this person."""
    if quorum.REVIEWERS not in quorum.standing(person):
        raise NotAllowed("Only a reviewer has groups to lend while away.")
    other = staff.by_email(conn, stand_in)
    if other is None or quorum.REVIEWERS not in quorum.standing(other) or other.id == person.id:
        raise InvalidInput(f"{stand_in[:100]!r} is no other reviewer here, so they cannot stand in for you.")
    absence = AbsenceId(ids.new())
    if not absences.declare(conn, absence, person.id, other.id, from_at=from_at, until_at=until_at):
        raise Conflict(
            "It must end after it begins and after now, within a year, and not overlap another absence of yours;"
            f" {absences.MOST_COMING} may be said beforehand.",
            {"coming": [ids.show("abs", one.id) for one in absences.coming(conn, person.id)]},
        )
    found = absences.get(conn, absence)
    _note(conn, person, "absence.declared", found)
    return found


def end(conn: Connection, person: Person, absence_id: AbsenceId) -> Absence:
    """Coming or live → ended at once: by whoever is away, by their stand-in, or by an administrator."""
    found = absences.get(conn, absence_id)
    if person.id not in (found.person.id, found.stand_in.id) and quorum.ADMINS not in quorum.standing(person):
        raise NotAllowed("Only whoever is away, their stand-in, or an administrator ends an absence.")
    if not absences.end(conn, absence_id):
        raise Conflict("This absence is over already.", {"ended_at": str(found.ended_at or found.until_at)})
    _note(conn, person, "absence.ended", found)
    return absences.get(conn, absence_id)


def seen_by(conn: Connection, person: Person) -> Sequence[Absence]:
    """What is coming or live of this person and of those for whom they stand in; for an administrator, of everybody."""
    return absences.coming(conn, None if quorum.ADMINS in quorum.standing(person) else person.id)


@router.get("", response_model=shapes.Page[shapes.Absence])
def list_absences(way: ToRead) -> Response:
    """Who is or will be away: yours and those for whom you stand in; for an administrator, all."""
    with way.enter() as (conn, caller):
        found = seen_by(conn, caller.must_be_person("is away"))
    page = shapes.Page[shapes.Absence](items=[shapes.absence(one) for one in found])
    return door.respond(200, door.to_bytes(page))


@router.post("", response_model=shapes.Absence)
def declare_absence(said: Away, way: ToAct) -> Response:
    """Say that you are away. Your stand-in votes for your groups meanwhile, and is told what you are told."""
    with way.enter() as (conn, caller):
        person = caller.must_be_person("is away")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = declare(conn, person, said.stand_in, from_at=said.from_at, until_at=said.until_at)
        return way.answer(conn, caller, 200, shapes.absence(found))


@router.delete("/{absence_id}", response_model=shapes.Absence)
def end_absence(absence_id: AbsencePath, way: ToAct) -> Response:
    """End an absence now. What the stand-in said for your groups alone counts no more."""
    with way.enter() as (conn, caller):
        person = caller.must_be_person("is away")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = end(conn, person, AbsenceId(ids.read("abs", absence_id)))
        return way.answer(conn, caller, 200, shapes.absence(found))


def _note(conn: Connection, person: Person, action: str, absence: Absence) -> None:
    body = {
        "absence": ids.show("abs", absence.id),
        "person": ids.show("per", absence.person.id),
        "stand_in": ids.show("per", absence.stand_in.id),
        "from": absence.from_at.isoformat(),
        "until": absence.until_at.isoformat(),
    }
    audit.append(conn, Event(ids.show("per", person.id), action, body=body))
