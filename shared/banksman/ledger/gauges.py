"""What is counted of the state of things, for whoever watches: what waits, how long, and what has happened since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from banksman.ledger import Connection

_LOOKED_AT = 1000
"""Among so many runs that were decided and have not gone on, the longest wait is looked for."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Open requests of one kind and tier: how many, how many of them too few people may decide, the oldest's age."""

    kind: str
    tier: str
    number: int
    unreachable: int
    oldest: timedelta


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state of things at one moment."""

    runs: Mapping[str, int]
    """Runs that are not over, by status."""
    waiting: Sequence[Waiting]
    resuming: int
    """Runs that nothing is waited for any more and that no worker has taken up."""
    longest_resuming: timedelta
    """Since the last of its requests was settled."""
    sent: int
    """Queued runs whose wake-up is out."""
    due_lag: timedelta
    """How long the run that is next in line has been due, over all lots that are not held."""
    expired: int
    """Running, and past their leases: their workers are gone, and nobody has noticed yet."""


def read(conn: Connection) -> Gauges:
    """Everything of `Gauges`, each from an index over what is open."""
    runs = conn.execute(
        """
        SELECT status, count(*)
        FROM runs
        WHERE status IN ('queued', 'running', 'waiting', 'stuck')
        GROUP BY status
        """
    ).fetchall()
    waiting = conn.execute(
        """
        SELECT kind, tier, count(*), count(unreachable_at), clock_timestamp() - min(created_at)
        FROM requests
        WHERE state = 'open'
        GROUP BY kind, tier
        """
    ).fetchall()
    resuming = conn.execute(
        """
        WITH resuming AS (
            SELECT id FROM runs WHERE status = 'queued' AND segment > 0 AND due_at < 'infinity'
        )
        SELECT (SELECT count(*) FROM resuming), COALESCE(max(clock_timestamp() - settled_at), interval '0')
        FROM (SELECT id FROM resuming ORDER BY id LIMIT %s) AS few
        CROSS JOIN LATERAL (SELECT max(settled_at) AS settled_at FROM requests WHERE run_id = few.id) AS last
        """,
        (_LOOKED_AT,),
    ).fetchone()
    due = conn.execute(
        """
        SELECT (SELECT COALESCE(sum(sent), 0)::integer FROM runs_away),
               (SELECT COALESCE(max(statement_timestamp() - due.due_at), interval '0')
                FROM runs_lots
                CROSS JOIN LATERAL (
                    SELECT due_at
                    FROM runs
                    WHERE runs.agent = runs_lots.agent AND runs.lot = runs_lots.lot AND (started_at IS NULL) = fresh
                      AND status IN ('queued', 'running') AND due_at < 'infinity'
                      AND due_at <= statement_timestamp() AND cancel_at IS NULL
                    ORDER BY priority DESC, turn
                    LIMIT 1) AS due
                WHERE NOT held AND NOT EXISTS (
                    SELECT FROM agents WHERE name = runs_lots.agent AND paused_at IS NOT NULL)),
               (SELECT count(*) FROM runs WHERE status = 'running' AND due_at <= statement_timestamp())
        """
    ).fetchone()
    assert resuming is not None
    assert due is not None
    return Gauges(dict(runs), [Waiting(*row) for row in waiting], *resuming, *due)


def happened(conn: Connection, since: str | None) -> tuple[str, Mapping[str, int]]:
    """How many events of each action the audit log has from a place on, and the place to ask from the next time.

    The place is the horizon: below it nothing is still to come, so an event is counted once and none is missed.
    Without a place nothing is counted.
    """
    row = conn.execute("SELECT audit_horizon()::text").fetchone()
    assert row is not None
    rows = conn.execute(
        "SELECT action, count(*) FROM audit_events WHERE xid >= %s::xid8 AND xid < %s::xid8 GROUP BY action",
        (since or row[0], row[0]),
    ).fetchall()
    return row[0], dict(rows)


def unsealed(conn: Connection, place: tuple[int, int]) -> timedelta:
    """The age of the first event after a place of the log; nothing where there is none."""
    row = conn.execute(
        """
        SELECT clock_timestamp() - at
        FROM audit_events
        WHERE (xid, id) >= (%s::text::xid8, %s)
        ORDER BY xid, id
        LIMIT 1
        """,
        (str(place[0]), place[1] + 1),
    ).fetchone()
    return timedelta() if row is None else row[0]
