"""What became of notices, for whoever looks: lists, dead ones to be sent once more, tests, and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from banksman import ids
from banksman.errors import NotFound
from banksman.ids import NoticeId, PersonId, RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Told

_SHOWN = """CASE WHEN notices.state <> 'due' THEN notices.state
                    WHEN notices.last_error IS NOT NULL THEN 'failed'
                    WHEN notices.held IS NOT NULL THEN 'held'
                    ELSE 'due' END"""
"""As people see them: `held` waits for a summary or for the end of quiet hours, `failed` waits to be tried again."""


def listed(
    conn: Connection,
    *,
    state: str | None = None,
    request_id: RequestId | None = None,
    run_id: RunId | None = None,
    person_id: PersonId | None = None,
    before: NoticeId | None = None,
    limit: int = 50,
) -> Sequence[Told]:
    """Notices, newest first. Only the filters that are given are in the statement, so each finds its index."""
    wanted: dict[str, object | None] = {
        f"{_SHOWN} = %(state)s": state,
        # Said once more as the partial indexes say it.
        "notices.state = 'dead'": state if state == "dead" else None,
        "notices.state IN ('due', 'claimed')": state if state in ("due", "held", "failed", "claimed") else None,
        "notices.request_id = %(request)s": request_id,
        "requests.run_id = %(run)s": run_id,
        "notices.person_id = %(person)s": person_id,
        "notices.id < %(before)s": before,
    }
    given = " AND ".join(clause for clause, value in wanted.items() if value is not None) or "true"
    rows = conn.execute(
        f"{_SELECT} WHERE {given} ORDER BY notices.id DESC LIMIT %(limit)s".encode(),
        {"state": state, "request": request_id, "run": run_id, "person": person_id, "before": before, "limit": limit},
    ).fetchall()
    return [_told(row) for row in rows]


def get(conn: Connection, notice_id: NoticeId) -> Told:
    """One notice, or `NotFound`."""
    row = conn.execute(f"{_SELECT} WHERE notices.id = %s", (notice_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no notice {ids.show('ntc', notice_id)}.")
    return _told(row)


def resend(conn: Connection, notice_id: NoticeId | None, *, limit: int) -> Sequence[NoticeId]:
    """Dead → due, with all of its attempts again; without an id the oldest that are dead."""
    rows = conn.execute(
        """
        UPDATE notices
        SET state = 'due', due_at = clock_timestamp(), attempts = 0, last_error = NULL, held = NULL
        WHERE id IN (
            SELECT id FROM notices WHERE state = 'dead' AND (%(one)s::uuid IS NULL OR id = %(one)s)
            ORDER BY id
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        {"one": notice_id, "limit": limit},
    ).fetchall()
    return [NoticeId(row[0]) for row in rows]


def test(conn: Connection, notice_id: NoticeId, person_id: PersonId, channel: str, *, lifetime: timedelta) -> None:
    """Nothing → due: a message that says that it arrived."""
    conn.execute(
        """
        INSERT INTO notices (id, kind, person_id, channel, due_at, expires_at)
        VALUES (%s, 'test', %s, %s, clock_timestamp(), clock_timestamp() + %s)
        """,
        (notice_id, person_id, channel, lifetime),
    )


def tests_of_late(conn: Connection, person_id: PersonId, *, within: timedelta) -> int:
    """How many tests somebody was sent lately."""
    row = conn.execute(
        """
        SELECT count(*) FROM notices
        WHERE kind = 'test' AND person_id = %s AND created_at > clock_timestamp() - %s
        """,
        (person_id, within),
    ).fetchone()
    assert row is not None
    return row[0]


@dataclass(frozen=True, slots=True)
class Counts:
    """Notices by state (`sent` within the last hour), webhooks by state, and endpoints that are disabled."""

    notices: Mapping[str, int]
    webhooks: Mapping[str, int]
    disabled: int


def counts(conn: Connection) -> Counts:
    """How much waits, and how much was given up; of endpoints that are there still."""
    notices = conn.execute(
        f"""
        SELECT {_SHOWN}, count(*) FROM notices WHERE state IN ('due', 'claimed') GROUP BY 1
        UNION ALL
        SELECT 'dead', count(*) FROM notices WHERE state = 'dead'
        UNION ALL
        SELECT 'sent', count(*) FROM notices WHERE sent_at > clock_timestamp() - interval '1 hour'
        """
    ).fetchall()
    webhooks = conn.execute(
        """
        SELECT state, count(*) FROM deliveries WHERE state IN ('due', 'claimed') GROUP BY 1
        UNION ALL
        SELECT 'dead', count(*)
        FROM deliveries
        JOIN endpoints ON endpoints.id = endpoint_id
        WHERE state = 'dead' AND removed_at IS NULL
        """
    ).fetchall()
    row = conn.execute("SELECT count(*) FROM endpoints WHERE disabled_at IS NOT NULL AND removed_at IS NULL").fetchone()
    assert row is not None
    return Counts(dict(notices), dict(webhooks), row[0])


_SELECT = f"""
        SELECT notices.id, notices.kind, notices.person_id, email, notices.channel, request_id, requests.run_id,
               {_SHOWN}, notices.attempts, notices.last_error,
               CASE WHEN notices.state = 'due' THEN notices.held END, notices.due_at, notices.sent_at,
               notices.created_at
        FROM notices
        JOIN people ON people.id = notices.person_id
        LEFT JOIN requests ON requests.id = notices.request_id"""


def _told(row: Sequence[Any]) -> Told:
    notice, kind, person, email, channel, request, run, *rest = row
    return Told(
        NoticeId(notice),
        kind,
        PersonId(person),
        email,
        channel,
        request and RequestId(request),
        run and RunId(run),
        *rest,
    )
