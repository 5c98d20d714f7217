"""People, as a run meets them: who may vote on what. Who comes and goes is in `staff`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from banksman import ids, quorum
from banksman.errors import NotFound
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.records import Person, Requirement

COLUMNS = "id, email, name, roles, groups, disabled_at IS NOT NULL, fresh"


def get(conn: Connection, person_id: PersonId) -> Person:
    """The person, or `NotFound`."""
    row = conn.execute(f"SELECT {COLUMNS} FROM people WHERE id = %s", (person_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no person {ids.show('per', person_id)}.")
    return person_of(row)


def named(conn: Connection, person_ids: Collection[PersonId]) -> dict[PersonId, Person]:
    """Several people by id."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM people WHERE id = ANY(%s)", (list(person_ids),)).fetchall()
    return {PersonId(row[0]): person_of(row) for row in rows}


def who_may_decide(
    conn: Connection, requirement: Requirement, *, except_for: PersonId | None, age: timedelta = timedelta()
) -> Sequence[Person]:
    """The people whom a requirement calls after this time, in good standing, without the requester; and who stands in
    for them while they are away.
    """
    rows = conn.execute(
        """
        SELECT id, email, name, roles,
               groups || ARRAY(SELECT unnest(lent.groups) FROM lent
                               WHERE stand_in_id = id AND absent_id IS DISTINCT FROM %(except)s),
               disabled_at IS NOT NULL, fresh
        FROM people
        WHERE disabled_at IS NULL AND id IS DISTINCT FROM %(except)s
        ORDER BY id
        """,
        {"except": except_for},
    ).fetchall()
    audience = quorum.audience(requirement, age)
    return [person for person in map(person_of, rows) if not audience.isdisjoint(quorum.standing(person))]


def person_of(row: Sequence[Any]) -> Person:
    """The person behind a row of `COLUMNS`."""
    person_id, email, name, roles, groups, disabled, fresh = row
    given = {group: (datetime.fromisoformat(at), datetime.fromisoformat(until)) for group, (at, until) in fresh.items()}
    return Person(PersonId(person_id), email, name, frozenset(roles), frozenset(groups), disabled, given)
