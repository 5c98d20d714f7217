"""Staff: people come, change and go. Who may vote on what is in `people`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from banksman import ids
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.ledger.people import COLUMNS, person_of
from banksman.records import Person

ROLES = ("reviewer", "operator", "admin", "auditor")


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
        RETURNING {COLUMNS}
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
    rows = conn.execute(f"SELECT {COLUMNS} FROM people ORDER BY lower(email)").fetchall()
    return [person_of(row) for row in rows]


def by_email(conn: Connection, email: str) -> Person | None:
    """The person of this address, if any."""
    row = conn.execute(f"SELECT {COLUMNS} FROM people WHERE lower(email) = lower(%s)", (email,)).fetchone()
    return None if row is None else person_of(row)
