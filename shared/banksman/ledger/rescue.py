"""Rescue: what a person may say of a stuck run, each one move of `states.RUN_MOVES`."""

from __future__ import annotations

from banksman.ids import RunId
from banksman.ledger import Connection
from banksman.ledger.runs import sealed_error


def retry(conn: Connection, run_id: RunId) -> bool:
    """Stuck → waiting with fresh attempts; the caller then wakes it (`runs.wake`)."""
    return (
        conn.execute(
            "UPDATE runs SET status = 'waiting', attempts = 0 WHERE id = %s AND status = 'stuck'", (run_id,)
        ).rowcount
        == 1
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
