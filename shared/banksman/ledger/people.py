"""People: who may sign in, and who may vote on what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from banksman import ids
from banksman.errors import NotFound
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.records import Person, Requirement

ROLES = ("reviewer", "operator", "admin", "auditor")

_COLUMNS = "id, email, name, roles, groups, disabled_at IS NOT NULL"


def upsert(
    conn: Connection, email: str, *, name: str, roles: Collection[str] = ("reviewer",), groups: Collection[str] = ()
) -> Person:
    """The person of this address, made or brought up to date."""
    row = conn.execute(
        f"""
        INSERT INTO people (id, email, name, roles, groups)
        VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (lower(email)) DO UPDATE
        SET name = EXCLUDED.name, roles = EXCLUDED.roles, groups = EXCLUDED.groups
        RETURNING {_COLUMNS}
        """,
        (ids.new(), email, name, list(roles), list(groups)),
    ).fetchone()
    assert row is not None
    return person_of(row)


def disable(conn: Connection, person_id: PersonId) -> bool:
    """In good standing → disabled, at once: what the person voted no longer counts for starts to come.

    False when the person was disabled already.
    """
    return (
        conn.execute(
            "UPDATE people SET disabled_at = clock_timestamp() WHERE id = %s AND disabled_at IS NULL", (person_id,)
        ).rowcount
        == 1
    )


def everybody(conn: Connection) -> Sequence[Person]:
    """All people, disabled ones too, by address."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM people ORDER BY lower(email)").fetchall()
    return [person_of(row) for row in rows]


def get(conn: Connection, person_id: PersonId) -> Person:
    """The person, or `NotFound`."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM people WHERE id = %s", (person_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no person {ids.show('per', person_id)}.")
    return person_of(row)


def by_email(conn: Connection, email: str) -> Person | None:
    """The person of this address, if any."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM people WHERE lower(email) = lower(%s)", (email,)).fetchone()
    return None if row is None else person_of(row)


def named(conn: Connection, person_ids: Collection[PersonId]) -> dict[PersonId, Person]:
    """Several people by id."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM people WHERE id = ANY(%s)", (list(person_ids),)).fetchall()
    return {PersonId(row[0]): person_of(row) for row in rows}


def who_may_decide(conn: Connection, requirement: Requirement, *, except_for: PersonId | None) -> Sequence[Person]:
    """The reviewers whom a requirement names, in good standing, without the requester."""
    rows = conn.execute(
        f"""
        SELECT {_COLUMNS}
        FROM people
        WHERE disabled_at IS NULL
          AND 'reviewer' = ANY(roles)
          AND (cardinality(%(groups)s::text[]) = 0 OR groups && %(groups)s::text[])
          AND id IS DISTINCT FROM %(except)s
        ORDER BY id
        """,
        {"groups": list(requirement.groups), "except": except_for},
    ).fetchall()
    return [person_of(row) for row in rows]


def person_of(row: Sequence[Any]) -> Person:
    """The person behind a row of (id, email, name, roles, groups, disabled)."""
    person_id, email, name, roles, groups, disabled = row
    return Person(PersonId(person_id), email, name, frozenset(roles), frozenset(groups), disabled)
