"""Sign-in codes: notices that carry a code for the browser that asked for one."""

from __future__ import annotations

from datetime import timedelta

from banksman.ids import NoticeId, PersonId
from banksman.ledger import Connection


def create(conn: Connection, notice_id: NoticeId, person: PersonId, *, lifetime: timedelta) -> None:
    """Nothing → due: a code to type into the browser that asked for it."""
    conn.execute(
        """
        INSERT INTO notices (id, kind, person_id, due_at, expires_at)
        VALUES (%s, 'sign_in', %s, clock_timestamp(), clock_timestamp() + %s)
        """,
        (notice_id, person, lifetime),
    )


def recent(conn: Connection, person: PersonId, *, within: timedelta) -> int:
    """How many sign-in codes a person was sent lately."""
    row = conn.execute(
        """
        SELECT count(*)
        FROM notices
        WHERE kind = 'sign_in' AND person_id = %s AND created_at > clock_timestamp() - %s
        """,
        (person, within),
    ).fetchone()
    assert row is not None
    return row[0]
