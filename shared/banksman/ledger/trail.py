"""The audit log as auditors read it: by who, what, which run or request, and when; below the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from banksman.ids import RequestId, RunId
from banksman.ledger import Connection
from banksman.ledger.seals import EVENT, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which events; what is None leaves none out."""

    actor: str | None = None
    action: str | None = None
    run_id: RunId | None = None
    request_id: RequestId | None = None
    since: datetime | None = None
    until: datetime | None = None


def read(
    conn: Connection, wanted: Wanted, *, cursor: tuple[int, int] | None, newest_first: bool = False, limit: int
) -> Sequence[Row]:
    """Events beyond a place, in their order or the newest first."""
    conditions: list[LiteralString] = ["xid < audit_horizon()"]
    values: list[Any] = []
    chosen: list[tuple[LiteralString, Any]] = [
        ("actor = %s", wanted.actor),
        ("action = %s", wanted.action),
        ("run_id = %s", wanted.run_id),
        ("request_id = %s", wanted.request_id),
        ("at >= %s", wanted.since),
        ("at < %s", wanted.until),
    ]
    for condition, value in chosen:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if cursor is not None:
        conditions.append("(xid, id) < (%s::text::xid8, %s)" if newest_first else "(xid, id) > (%s::text::xid8, %s)")
        values += [str(cursor[0]), cursor[1]]
    # Of the column: `xid` alone would be the number that is selected, which no index is in the order of.
    order: LiteralString = "audit_events.xid DESC, id DESC" if newest_first else "audit_events.xid, id"
    return conn.execute(
        f"SELECT {EVENT} FROM audit_events WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT %s", [*values, limit]
    ).fetchall()


def actions(conn: Connection) -> Sequence[str]:
    """Every kind of event that there is, found by hopping along the index."""
    rows = conn.execute(
        """
        WITH RECURSIVE hop AS (
            (SELECT action FROM audit_events ORDER BY action LIMIT 1)
            UNION ALL
            SELECT (SELECT action FROM audit_events WHERE action > hop.action ORDER BY action LIMIT 1)
            FROM hop
            WHERE hop.action IS NOT NULL
        )
        SELECT action FROM hop WHERE action IS NOT NULL
        """
    ).fetchall()
    return [row[0] for row in rows]
