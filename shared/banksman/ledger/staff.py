"""Staff: people come, change and go. Who may vote on what is in `people`, the rules for a change in `roster`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

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
        ON CONFLICT (lower(email)) WHERE removed_at IS NULL DO UPDATE
        SET name = EXCLUDED.name, roles = EXCLUDED.roles, groups = EXCLUDED.groups
        RETURNING {COLUMNS}
        """,
        (ids.new(), email, name, list(roles), list(groups)),
    ).fetchone()
    assert row is not None
    return person_of(row)


def hold(conn: Connection) -> datetime:
    """One change of people at a time, until the transaction ends; and what time it is."""
    row = conn.execute("SELECT pg_advisory_xact_lock(%s), clock_timestamp()", (_LOCK,)).fetchone()
    assert row is not None
    return row[1]


def mark_fresh(conn: Connection, person_id: PersonId, fresh: Mapping[str, tuple[datetime, datetime]]) -> Person:
    """Write what was given lately, and from when on it counts everywhere."""
    kept = {group: [at.isoformat(), until.isoformat()] for group, (at, until) in fresh.items()}
    row = conn.execute(
        f"UPDATE people SET fresh = %s WHERE id = %s RETURNING {COLUMNS}", (Jsonb(kept), person_id)
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


def enable(conn: Connection, person_id: PersonId) -> bool:
    """Disabled → in good standing; False when the person was not disabled, or is removed."""
    return (
        conn.execute(
            """
            UPDATE people
            SET disabled_at = NULL
            WHERE id = %s AND disabled_at IS NOT NULL AND removed_at IS NULL
            """,
            (person_id,),
        ).rowcount
        == 1
    )


def remove(conn: Connection, person_id: PersonId) -> bool:
    """Anybody → removed, with every key and token; False when that was so already. The row stays: votes name it."""
    return (
        conn.execute(
            """
            WITH removed AS (
                UPDATE people
                SET removed_at = clock_timestamp(), disabled_at = COALESCE(disabled_at, clock_timestamp())
                WHERE id = %(id)s AND removed_at IS NULL
                RETURNING id
            ), revoked AS (
                UPDATE keys
                SET revoked_at = clock_timestamp()
                WHERE person_id IN (SELECT id FROM removed) AND revoked_at IS NULL
            )
            SELECT FROM removed
            """,
            {"id": person_id},
        ).fetchone()
        is not None
    )


def everybody(conn: Connection) -> Sequence[Person]:
    """All people but the removed, disabled ones too, by address."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM people WHERE removed_at IS NULL ORDER BY lower(email)").fetchall()
    return [person_of(row) for row in rows]


def addresses(conn: Connection) -> Mapping[PersonId, str]:
    """The addresses of all people, of the removed too; of two with one address, whoever has it now comes last."""
    rows = conn.execute("SELECT id, email FROM people ORDER BY removed_at NULLS LAST").fetchall()
    return {PersonId(person_id): email for person_id, email in rows}


def by_email(conn: Connection, email: str) -> Person | None:
    """The person of this address, if any; somebody removed has none."""
    row = conn.execute(
        f"SELECT {COLUMNS} FROM people WHERE lower(email) = lower(%s) AND removed_at IS NULL", (email,)
    ).fetchone()
    return None if row is None else person_of(row)


def was_removed(conn: Connection, email: str) -> bool:
    """Whether somebody of this address was removed."""
    row = conn.execute(
        "SELECT FROM people WHERE lower(email) = lower(%s) AND removed_at IS NOT NULL LIMIT 1", (email,)
    ).fetchone()
    return row is not None


def removed(conn: Connection, person_id: PersonId) -> bool:
    """Whether a person is removed."""
    row = conn.execute("SELECT removed_at IS NOT NULL FROM people WHERE id = %s", (person_id,)).fetchone()
    return row is not None and row[0]


_LOCK = 0x70656F70
