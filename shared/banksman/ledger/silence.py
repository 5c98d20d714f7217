"""Silence: requests that nobody has decided, and what the gateway's sweep does to them, a guarded move for each step.

Whoever makes one of these moves holds the run's row (`runs.lock`). Each is made only while the request is open and due,
so of two sweeps that come together the second finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from banksman import ids, vault
from banksman.ids import NoticeId, PersonId, RequestId, RunId
from banksman.ledger import Connection
from banksman.ledger.requests import decision_of
from banksman.records import Decision


@dataclass(frozen=True, slots=True)
class Reached:
    """How far an open request has come when it is due: ages from its opening, by the database's clock."""

    since: timedelta
    age: timedelta
    over: bool
    """Whether its deadline has passed."""


def due(
    conn: Connection, after: tuple[RunId, RequestId] | None = None, *, limit: int = 100
) -> Sequence[tuple[RunId, RequestId]]:
    """The next `limit` open requests that must be looked at, with their runs, in the order of these."""
    return conn.execute(
        """
        SELECT run_id, id
        FROM requests
        WHERE state = 'open' AND due_at <= statement_timestamp()
          AND (%(run)s::uuid IS NULL OR (run_id, id) > (%(run)s, %(request)s::uuid))
        ORDER BY run_id, id
        LIMIT %(limit)s
        """,
        {"run": after and after[0], "request": after and after[1], "limit": limit},
    ).fetchall()


def reached(conn: Connection, request_id: RequestId) -> Reached | None:
    """How far the request has come; None when it is not due, or not open any more."""
    row = conn.execute(
        """
        SELECT due_at - created_at, now - created_at, expires_at <= now
        FROM requests, clock_timestamp() AS now
        WHERE id = %s AND state = 'open' AND due_at <= now
        """,
        (request_id,),
    ).fetchone()
    return None if row is None else Reached(*row)


def expire(conn: Connection, request_id: RequestId) -> bool:
    """Open → expired, once its deadline has passed. Expired is not denied: nobody said anything."""
    return (
        conn.execute(
            """
            UPDATE requests
            SET state = 'expired', settled_at = clock_timestamp(), due_at = NULL
            WHERE id = %s AND state = 'open' AND expires_at <= clock_timestamp()
            """,
            (request_id,),
        ).rowcount
        == 1
    )


def extend(conn: Connection, request_id: RequestId, length: timedelta) -> tuple[datetime, int] | None:
    """Open past its deadline → open, the deadline moved on by as many lengths as it takes; with its mailed links.

    The new deadline, and how often it has moved in all.
    """
    row = conn.execute(
        """
        WITH moved AS (
            UPDATE requests
            SET expires_at = expires_at + %(length)s * missed.lengths, extended = extended + missed.lengths
            FROM (
                SELECT id, 1 + floor(extract(epoch FROM clock_timestamp() - expires_at)
                                     / extract(epoch FROM %(length)s::interval))::integer AS lengths
                FROM requests
                WHERE id = %(id)s
            ) AS missed
            WHERE requests.id = missed.id AND state = 'open' AND expires_at <= clock_timestamp()
            RETURNING requests.id, revision, expires_at, extended
        ), mailed AS (
            UPDATE notices
            SET expires_at = moved.expires_at
            FROM moved
            WHERE notices.request_id = moved.id AND notices.revision = moved.revision
        )
        SELECT expires_at, extended FROM moved
        """,
        {"id": request_id, "length": max(length, timedelta(seconds=1))},
    ).fetchone()
    return None if row is None else (row[0], row[1])


def wait(
    conn: Connection, request_id: RequestId, *, next_at: timedelta | None, audience: Collection[str], unreachable: bool
) -> bool:
    """Open and due → open and due at its next step or its deadline, for those whom the ladder has reached.

    A request that nobody may decide is looked at again before that: after a minute, later after a tenth of its age.
    """
    return (
        conn.execute(
            """
            UPDATE requests
            SET due_at = LEAST(expires_at, created_at + %(next)s::interval,
                               CASE WHEN %(unreachable)s THEN clock_timestamp()
                                    + GREATEST(interval '1 minute', (clock_timestamp() - created_at) / 10) END),
                audience = %(audience)s,
                unreachable_at = CASE WHEN %(unreachable)s THEN COALESCE(unreachable_at, clock_timestamp()) END
            WHERE id = %(id)s AND state = 'open' AND due_at <= clock_timestamp()
            """,
            {"id": request_id, "next": next_at, "audience": sorted(audience), "unreachable": unreachable},
        ).rowcount
        == 1
    )


def tell(conn: Connection, request_id: RequestId, kind: str, people: Collection[PersonId]) -> Sequence[NoticeId]:
    """Nothing → due: a notice of this kind to each of these people, unless one about it waits for them already."""
    rows = conn.execute(
        """
        INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)
        SELECT notice, %(kind)s, person, requests.id, requests.revision, clock_timestamp(), expires_at
        FROM requests, unnest(%(notices)s::uuid[], %(people)s::uuid[]) AS told (notice, person)
        WHERE requests.id = %(id)s AND state = 'open'
          AND NOT EXISTS (
                SELECT
                FROM notices
                WHERE request_id = requests.id AND revision = requests.revision AND person_id = person
                  AND notices.state IN ('due', 'claimed'))
        RETURNING notices.id
        """,
        {"id": request_id, "kind": kind, "notices": [ids.new() for _ in people], "people": list(people)},
    ).fetchall()
    return [NoticeId(row[0]) for row in rows]


def look_again(conn: Connection, groups: Collection[str]) -> None:
    """Open → due now: what nobody could decide, and some of what waits for groups that have lost somebody.

    Rows in others' hands are passed over, so that nobody waits for this and this waits for nobody.
    """
    conn.execute(
        """
        WITH picked AS (
            SELECT id
            FROM requests
            WHERE state = 'open' AND (unreachable_at IS NOT NULL OR audience && %s::text[])
            LIMIT 1000
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE requests
        SET due_at = LEAST(due_at, clock_timestamp())
        FROM picked
        WHERE requests.id = picked.id
        """,
        (list(groups),),
    )


def answering_keys(conn: Connection) -> bool:
    """Whether a machine's key may answer external work."""
    row = conn.execute(
        """
        SELECT
        FROM keys
        LEFT JOIN people ON people.id = person_id
        WHERE kind = 'key' AND 'requests:answer' = ANY(scopes) AND revoked_at IS NULL
          AND expires_at > clock_timestamp() AND disabled_at IS NULL
        LIMIT 1
        """
    ).fetchone()
    return row is not None


def short_lived(
    conn: Connection, run_id: RunId, segment: int, start_by: datetime
) -> Sequence[tuple[RequestId, Decision]]:
    """The approvals of a pause that would run out before this moment."""
    rows = conn.execute(
        """
        SELECT requests.id, decisions.revision, verdict, statement, signature, kid, start_by, decisions.created_at
        FROM requests
        JOIN decisions_now AS decisions ON decisions.request_id = requests.id
        WHERE run_id = %s AND segment = %s AND state = 'approved' AND start_by < %s
        ORDER BY requests.id
        """,
        (run_id, segment, start_by),
    ).fetchall()
    return [(RequestId(row[0]), decision_of(RequestId(row[0]), row[1:])) for row in rows]


def renew(conn: Connection, decision: Decision) -> None:
    """A decision → the same, signed again with a later `start_by`; the first one stays as it was."""
    conn.execute(
        """
        INSERT INTO renewals (request_id, start_by, statement, signature, kid)
        VALUES (%s, %s, %s, %s, %s)
        """,
        (
            decision.request_id,
            decision.start_by,
            vault.seal(decision.signed.statement, ("decisions.statement", decision.request_id)),
            decision.signed.signature,
            decision.signed.kid,
        ),
    )
