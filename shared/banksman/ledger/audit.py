"""The audit log: events written in the transaction of the move that they tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from banksman.ids import RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Event

_WRITE = """
    INSERT INTO audit_events (actor, action, run_id, request_id, body)
    SELECT event ->> 0, event ->> 1, (event ->> 2)::uuid, (event ->> 3)::uuid, event -> 4
"""


COLUMNS = """audit_events.actor, action, audit_events.run_id, audit_events.request_id, body, at,
       audit_events.xid::text::bigint, audit_events.id"""


def append(conn: Connection, *events: Event) -> None:
    """Write events; they stand or fall with the transaction they are written in."""
    if events:
        conn.execute(f"{_WRITE} FROM jsonb_array_elements(%s) AS event", (_rows(events),))


def tell(conn: Connection, move: LiteralString, values: Mapping[str, object], *events: Event) -> Any:
    """Make one guarded move and write the events that tell it, in one statement; the row that it returns, or None."""
    statement: LiteralString = f"""
        WITH moved AS ({move}), told AS ({_WRITE} FROM moved, jsonb_array_elements(%(told)s) AS event)
        SELECT * FROM moved
    """
    return conn.execute(statement, {**values, "told": _rows(events)}).fetchone()


def _rows(events: Sequence[Event]) -> Jsonb:
    rows = [(event.actor, event.action, event.run_id, event.request_id, dict(event.body)) for event in events]
    return Jsonb(rows, dumps=lambda rows: json.dumps(rows, default=UUID.__str__))


def since(
    conn: Connection, cursor: tuple[int, int], *, run_id: RunId | None = None, requests: bool = False, limit: int = 200
) -> Sequence[Event]:
    """Events after a cursor (of one run, or of requests alone), oldest first, below the horizon of running
    transactions, so that none is ever skipped.
    """
    rows = conn.execute(
        f"""
        SELECT {COLUMNS}
        FROM audit_events
        WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s)
          AND xid < audit_horizon()
          AND (%(run)s::uuid IS NULL OR run_id = %(run)s)
          AND (request_id IS NOT NULL OR NOT %(requests)s)
        ORDER BY audit_events.xid, audit_events.id
        LIMIT %(limit)s
        """,
        {"xid": str(cursor[0]), "id": cursor[1], "run": run_id, "requests": requests, "limit": limit},
    ).fetchall()
    return [of_row(row) for row in rows]


def horizon(conn: Connection) -> tuple[int, int]:
    """The cursor of now: everything below it can be read, nothing below it is still to come."""
    row = conn.execute("SELECT audit_horizon()::text::bigint").fetchone()
    assert row is not None
    return (row[0], 0)


def of_run(conn: Connection, run_id: RunId) -> Sequence[Event]:
    """Everything that happened to a run, in order, for its timeline."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM audit_events WHERE run_id = %s ORDER BY audit_events.xid, audit_events.id", (run_id,)
    ).fetchall()
    return [of_row(row) for row in rows]


def of_row(row: Sequence[Any]) -> Event:
    """The event behind a row of `COLUMNS`."""
    actor, action, run_id, request_id, body, at, xid, number = row
    return Event(actor, action, run_id, request_id and RequestId(request_id), body, at, (xid, number))
