"""Caps: at most so many runs of some agents are under way at once, over all workers.

The dispatcher sends no more wake-ups than there is room for (`runs.dispatch`). That alone would not hold: one goes out
too when a run is submitted or decided. So whoever is about to claim a run of a capped agent asks here first. A cap is
held until the claim is committed, so that two claims never take the last place.
"""

from __future__ import annotations

from collections.abc import Sequence

from banksman.ids import RunId
from banksman.ledger import Connection
from banksman.records import Cap


def admit(conn: Connection, run_id: RunId, segment: int, caps: Sequence[Cap]) -> bool:
    """Whether the caps let the run be claimed now. If not it is due again, and the dispatcher waits for room."""
    if not caps:
        return True
    row = conn.execute("SELECT agent FROM runs WHERE id = %s", (run_id,)).fetchone()
    if row is None or all(_has_room(conn, run_id, cap) for cap in caps if row[0] in cap.agents):
        return True
    conn.execute(
        """
        UPDATE runs SET dispatched = false, due_at = clock_timestamp()
        WHERE id = %s AND segment = %s AND status = 'queued' AND due_at < 'infinity'
        """,
        (run_id, segment),
    )
    return False


def _has_room(conn: Connection, run_id: RunId, cap: Cap) -> bool:
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"banksman.cap:{cap.name}",))
    # A statement of its own: what others claimed before they let the cap go is seen here.
    row = conn.execute(
        """
        SELECT count(*)
        FROM runs
        WHERE status = 'running' AND due_at > clock_timestamp() AND agent = ANY(%s) AND id <> %s
        """,
        (list(cap.agents), run_id),
    ).fetchone()
    assert row is not None
    return row[0] < cap.most
