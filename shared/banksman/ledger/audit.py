"""The audit log: events written in the transaction of the move that they tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg.types.json import Jsonb

from banksman.ids import RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Event

_AT_ONCE = 1000
"""A statement takes 65,535 parameters. Written out, one event costs a third of what an array of one costs."""


def append(conn: Connection, *events: Event) -> None:
    """Write events; they stand or fall with the transaction they are written in."""
    for start in range(0, len(events), _AT_ONCE):
        part = events[start : start + _AT_ONCE]
        rows: list[LiteralString] = ["(%s, %s, %s, %s, %s)"] * len(part)
        conn.execute(
            f"INSERT INTO audit_events (actor, action, run_id, request_id, body) VALUES {', '.join(rows)}",
            [
                value
                for event in part
                for value in (event.actor, event.action, event.run_id, event.request_id, Jsonb(dict(event.body)))
            ],
        )


def since(
    conn: Connection, cursor: tuple[int, int], *, run_id: RunId | None = None, limit: int = 200
) -> Sequence[Event]:
    """Events after a cursor, oldest first, below the horizon of running transactions, so that none is ever skipped."""
    rows = conn.execute(
        """
        SELECT actor, action, run_id, request_id, body, at, xid::text::bigint, id
        FROM audit_events
        WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s)
          AND xid < audit_horizon()
          AND (%(run)s::uuid IS NULL OR run_id = %(run)s)
        ORDER BY audit_events.xid, audit_events.id
        LIMIT %(limit)s
        """,
        {"xid": str(cursor[0]), "id": cursor[1], "run": run_id, "limit": limit},
    ).fetchall()
    return [
        Event(actor, action, run, request and RequestId(request), body, at, (xid, number))
        for actor, action, run, request, body, at, xid, number in rows
    ]


def horizon(conn: Connection) -> tuple[int, int]:
    """The cursor of now: everything below it can be read, nothing below it is still to come."""
    row = conn.execute("SELECT audit_horizon()::text::bigint").fetchone()
    assert row is not None
    return (row[0], 0)


def of_run(conn: Connection, run_id: RunId) -> Sequence[Event]:
    """Everything that happened to a run, in order, for its timeline."""
    rows = conn.execute(
        """
        SELECT actor, action, request_id, body, at, xid::text::bigint, id
        FROM audit_events
        WHERE run_id = %s
        ORDER BY audit_events.xid, audit_events.id
        """,
        (run_id,),
    ).fetchall()
    return [
        Event(actor, action, run_id, request and RequestId(request), body, at, (xid, number))
        for actor, action, request, body, at, xid, number in rows
    ]
