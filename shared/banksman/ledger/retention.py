"""What is over goes after a while, whole runs at a time.

A family, which is a run with everything that it delegated, goes together or not at all, and only when all of it is
over. Rows are removed by the role `banksman_keeper`, that no service has; PostgreSQL lets it remove nothing of a run
that is not over. The audit log says of each run that it went, and keeps everything that it said before: its events hold
ids, names, states and digests, never what was said or done.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID

import psycopg

from banksman import ids, ledger
from banksman.errors import ConfigurationError
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection, audit
from banksman.ledger.migrate import KEEPER
from banksman.records import Event
from banksman.states import RunStatus

ACTOR = "keeper"
LEAST = timedelta(days=1)
"""So long is kept at least: an answer under an Idempotency-Key may be asked for again."""
_APART = timedelta(minutes=10)
"""So far may the clock that made an id be ahead of PostgreSQL's."""

Place = tuple[RunStatus, RunId | None]
START: Place = (RunStatus.FINISHED, None)
_NEXT = {RunStatus.FINISHED: RunStatus.FAILED, RunStatus.FAILED: RunStatus.CANCELLED}


@dataclass(frozen=True, slots=True)
class Gone:
    """What one step removed, and where to go on; None: that was all."""

    after: Place | None
    runs: int
    batches: int
    looked_at: int
    """How many submitted runs it looked at."""
    held_back: int
    """How many of those stay for now, because of something newer of theirs."""


@contextmanager
def keeping(url: str, *, name: str) -> Generator[Connection]:
    """One transaction with the keeper's rights, for its own URL or for the database owner's."""
    with ledger.once(url, name=name) as conn:
        try:
            conn.execute("SELECT set_config('role', %s, true)", (KEEPER,))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
            raise ConfigurationError(
                f"{conn.info.user} may not act as {KEEPER}. Use that role's own URL, or the database owner's after "
                f"`banksman migrate`; a superuser lets another role in by GRANT {KEEPER} TO {conn.info.user};"
            ) from None
        yield conn


def counted(conn: Connection, before: datetime) -> Mapping[RunStatus, int]:
    """How many submitted runs had ended before a moment, by how."""
    rows = conn.execute(
        """
        SELECT status, count(*)
        FROM runs
        WHERE status IN ('finished', 'failed', 'cancelled') AND id < %s AND finished_at < %s AND parent_id IS NULL
        GROUP BY status
        """,
        (ids.first_of(before + _APART), before),
    ).fetchall()
    return {RunStatus(status): count for status, count in rows}


def step(conn: Connection, after: Place, before: datetime, *, limit: int) -> Gone:
    """Over since before a moment → gone: the next `limit` submitted runs with all they delegated, and the batches that
    this leaves empty. One that somebody holds, or that something newer hangs on, stays for the next time.
    """
    status, last = after
    found = conn.execute(
        """
        SELECT id
        FROM runs
        WHERE status = %(status)s AND (%(last)s::uuid IS NULL OR id > %(last)s) AND id < %(newest)s
          AND finished_at < %(before)s AND parent_id IS NULL
        ORDER BY id
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
        """,
        {"status": status, "last": last, "newest": ids.first_of(before + _APART), "before": before, "limit": limit},
    ).fetchall()
    tops = [RunId(row[0]) for row in found]
    going = _going(conn, tops, before)
    batches: Sequence[BatchId] = _remove(conn, going) if going else ()
    audit.append(
        conn,
        *(Event(ACTOR, "run.purged", run_id, body={"status": ended}) for run_id, ended in going.items()),
        *(Event(ACTOR, "batch.purged", body={"batch": ids.show("bat", batch)}) for batch in batches),
    )
    on: Place | None = (status, tops[-1]) if len(tops) == limit else None
    if on is None and status in _NEXT:
        on = (_NEXT[status], None)
    held_back = sum(top not in going for top in tops)
    return Gone(on, runs=len(going), batches=len(batches), looked_at=len(tops), held_back=held_back)


def remove_messages(conn: Connection, before: datetime, *, limit: int) -> int:
    """Messages about no request (codes, receipts, trials) that were over before a moment → gone; how many."""
    return conn.execute(
        """
        DELETE FROM notices
        WHERE id IN (
            SELECT id
            FROM notices
            WHERE request_id IS NULL AND created_at < %s AND state IN ('sent', 'dead', 'dropped')
            ORDER BY created_at
            LIMIT %s)
        """,
        (before, limit),
    ).rowcount


FAMILY: LiteralString = """
        WITH RECURSIVE family (top, id, status, finished_at) AS (
            SELECT id, id, status, finished_at
            FROM runs
            WHERE id = ANY(%(tops)s)
            UNION ALL
            SELECT top, runs.id, runs.status, runs.finished_at
            FROM runs
            JOIN family ON parent_id = family.id
        )"""
"""These runs with all that they delegated."""


def _going(conn: Connection, tops: Sequence[RunId], before: datetime) -> dict[RunId, str]:
    """Of these families each run with its end, where all of it is over and nothing that stays hangs on a standing grant
    that it gave.
    """
    rows = conn.execute(
        f"""
        {FAMILY}
        SELECT id, status
        FROM family
        WHERE top NOT IN (
            SELECT top FROM family WHERE finished_at IS NULL OR finished_at >= %(before)s
            UNION ALL
            SELECT top
            FROM family
            JOIN requests ON run_id = family.id
            JOIN grants ON grants.request_id = requests.id
            WHERE grants.expires_at >= %(before)s AND revoked_at IS NULL
              OR EXISTS (SELECT FROM executions
                         WHERE grant_id = grants.id AND executions.run_id NOT IN (SELECT id FROM family)))
        ORDER BY id
        """.encode(),
        {"tops": list(tops), "before": before},
    ).fetchall()
    return {RunId(run_id): status for run_id, status in rows}


def _remove(conn: Connection, run_ids: Mapping[RunId, str]) -> Sequence[BatchId]:
    """All rows of these runs → gone, those that refer to others first; the batches that are empty now."""
    wanted = {"runs": list(run_ids)}
    remove_of_requests(conn, wanted, "lookings", "remarks", "deliveries", "notices", "renewals", "decisions")
    remove_of_runs(conn, wanted, "executions", "snapshots", "blobs", "deliveries")
    remove_of_requests(conn, wanted, "grants", "votes", "revisions")
    remove_of_runs(conn, wanted, "requests")
    conn.execute("DELETE FROM delegations WHERE child_id = ANY(%(runs)s)", wanted)
    left = conn.execute("DELETE FROM runs WHERE id = ANY(%(runs)s) RETURNING batch_id", wanted).fetchall()
    emptied = conn.execute(
        """
        DELETE FROM batches
        WHERE id = ANY(%s) AND NOT EXISTS (SELECT FROM runs WHERE batch_id = batches.id)
        RETURNING id
        """,
        (list({row[0] for row in left if row[0] is not None}),),
    ).fetchall()
    return [BatchId(row[0]) for row in emptied]


ASKED: LiteralString = "(SELECT id FROM requests WHERE run_id = ANY(%(runs)s))"
"""What these runs asked for."""


def remove_of_runs(conn: Connection, wanted: Mapping[str, object], *tables: LiteralString) -> None:
    """What stands in these tables of runs → gone."""
    for table in tables:
        conn.execute(f"DELETE FROM {table} WHERE run_id = ANY(%(runs)s)", wanted)


def remove_of_requests(conn: Connection, wanted: Mapping[str, object], *tables: LiteralString) -> None:
    """What stands in these tables of the requests of runs → gone."""
    for table in tables:
        if table == "votes":
            conn.execute(
                f"DELETE FROM withdrawals WHERE vote_id IN (SELECT id FROM votes WHERE request_id IN {ASKED})", wanted
            )
        conn.execute(f"DELETE FROM {table} WHERE request_id IN {ASKED}", wanted)


def gone(conn: Connection, what: UUID) -> str | None:
    """What became of a run, a request or a batch that is not found: that it was purged or erased, and when."""
    row = conn.execute(
        """
        SELECT 'purged', at FROM audit_events WHERE run_id = %(what)s AND action = 'run.purged'
        UNION ALL
        SELECT 'purged', at
        FROM audit_events
        WHERE action = 'run.purged'
          AND run_id = (SELECT run_id FROM audit_events WHERE request_id = %(what)s AND run_id IS NOT NULL LIMIT 1)
        UNION ALL
        SELECT 'purged', at FROM audit_events WHERE action = 'batch.purged' AND body ->> 'batch' = %(batch)s
        UNION ALL
        SELECT 'erased', erased_at FROM requests JOIN runs ON runs.id = run_id WHERE requests.id = %(what)s
        LIMIT 1
        """,
        {"what": what, "batch": ids.show("bat", BatchId(what))},
    ).fetchone()
    if row is None or row[1] is None:
        return None
    return f"It was {row[0]} on {day(row[1])}. The audit log says what was done, and by whom."


def day(moment: datetime) -> str:
    """When something went, as people are told."""
    return f"{moment.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
