"""Runs that come to no end by themselves: stuck ones and what a person may say of them, cancelled ones whose worker is
gone. Each function that moves a run is one move of `states.RUN_MOVES`.
"""

from __future__ import annotations

from collections.abc import Sequence

from banksman.ids import RunId
from banksman.ledger import Connection, aftermath
from banksman.ledger.runs import sealed_error


def retry(conn: Connection, run_id: RunId) -> bool:
    """Stuck → waiting with fresh attempts; the caller then wakes it (`runs.wake`)."""
    return (
        conn.execute(
            "UPDATE runs SET status = 'waiting', attempts = 0 WHERE id = %s AND status = 'stuck'", (run_id,)
        ).rowcount
        == 1
    )


def revive(conn: Connection, run_ids: Sequence[RunId]) -> None:
    """Failed or stuck → queued with fresh attempts, or → waiting while a request or a child run is open; the caller
    holds the rows. What its journal has as finished is not done again.
    """
    conn.execute(
        """
        WITH held AS (
            SELECT id, EXISTS (SELECT FROM requests WHERE run_id = runs.id AND state = 'open') OR EXISTS (
                SELECT FROM runs AS child
                WHERE child.parent_id = runs.id AND child.status NOT IN ('finished', 'failed', 'cancelled')) AS waits
            FROM runs
            WHERE id = ANY(%s) AND status IN ('failed', 'stuck')
        )
        UPDATE runs
        SET status = CASE WHEN waits THEN 'waiting' ELSE 'queued' END, attempts = 0, dispatched = false,
            due_at = CASE WHEN waits THEN NULL ELSE clock_timestamp() END, finished_at = NULL
        FROM held
        WHERE runs.id = held.id
        """,
        (list(run_ids),),
    )


def give_up(conn: Connection, run_id: RunId, *, error: str) -> bool:
    """Stuck → failed."""
    return (
        conn.execute(
            """
            UPDATE runs
            SET status = 'failed', finished_at = clock_timestamp(), error = %s
            WHERE id = %s AND status = 'stuck'
            """,
            (sealed_error(run_id, error), run_id),
        ).rowcount
        == 1
    )


def explain(conn: Connection, run_id: RunId, error: str) -> None:
    """Stuck, and nobody has said why: now the row does."""
    conn.execute(
        "UPDATE runs SET error = COALESCE(error, %s) WHERE id = %s AND status = 'stuck'",
        (sealed_error(run_id, error), run_id),
    )


def bury_cancelled(conn: Connection) -> Sequence[RunId]:
    """Asked to stop, and queued or past its lease → cancelled: its worker handed it back, or died, before it could."""
    rows = conn.execute(
        """
        WITH picked AS (
            SELECT id
            FROM runs
            WHERE status IN ('queued', 'running') AND cancel_at IS NOT NULL
              AND (status = 'queued' OR due_at <= statement_timestamp())
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        )
        UPDATE runs
        SET status = 'cancelled', fence = fence + 1, owner = NULL, due_at = NULL, finished_at = clock_timestamp()
        FROM picked
        WHERE runs.id = picked.id
        RETURNING runs.id
        """
    ).fetchall()
    buried = [RunId(row[0]) for row in rows]
    if buried:
        aftermath.tell(conn, buried)
    return buried
