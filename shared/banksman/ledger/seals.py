"""The audit log's seal: leaves, kept nodes and signed heads, written by the sealer and read by whoever checks.

A position in the tree is given once, in the order of (xid, id) below the horizon of running transactions, so that what
commits late comes after what was sealed, never in between, and nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from banksman.ids import RequestId
from banksman.ledger import Connection
from banksman.signing import Signed

_TURN = 0x7365616C

Row = tuple[int, int, str, str, str, "str | None", "str | None", str]
"""An event for hashing: id, xid, time (UTC, microseconds), actor, action, run and request (hex), body as JSON."""

Node = tuple[int, int, bytes]
"""A kept node: tier, number, hash."""

EVENT: LiteralString = """audit_events.id, audit_events.xid::text::bigint,
               to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), actor, action,
               replace(run_id::text, '-', ''), replace(request_id::text, '-', ''), body::text"""
"""Sort by `audit_events.xid`: a bare `xid` is the number that is selected here, which no index is in the order of, so
that every part that is read would be sorted out of all that is left."""


@dataclass(frozen=True, slots=True)
class Home:
    """The PostgreSQL that the log lives in since event `floor`, from place `xid` on; whether it is this one."""

    number: int
    xid: int
    floor: int
    here: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by the database: events below the horizon are complete, no transaction has begun from the ceiling on."""

    at: str
    horizon: int
    ceiling: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A sealed event's leaf, with the event as it is now; None where it is gone."""

    position: int
    xid: int
    id: int
    hash: bytes
    event: Row | None


def take_turn(conn: Connection) -> bool:
    """Whether this transaction may seal: one at a time in a database."""
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_TURN,)).fetchone()
    return row is not None and row[0]


def home(conn: Connection) -> Home | None:
    """Where the log lives, by the last migration."""
    row = conn.execute(
        """
        SELECT number, xid::text::bigint, floor,
               cluster = (SELECT system_identifier FROM pg_control_system())
        FROM audit_homes
        ORDER BY number DESC
        LIMIT 1
        """
    ).fetchone()
    return None if row is None else Home(*row)


def now(conn: Connection) -> Moment:
    """The horizon, the ceiling and the time of one snapshot."""
    row = conn.execute(
        """
        SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               audit_horizon()::text::bigint, audit_ceiling()::text::bigint
        """
    ).fetchone()
    assert row is not None
    return Moment(*row)


def unsealed(conn: Connection, cursor: tuple[int, int], *, horizon: int, limit: int) -> Sequence[Row]:
    """Events after a place and below the horizon, in their order: along the index, also while PostgreSQL has not
    counted the table yet and would rather sort all of it.
    """
    conn.execute("SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)")
    return conn.execute(
        f"""
        SELECT {EVENT}
        FROM audit_events
        WHERE (xid, id) > (%s::text::xid8, %s) AND xid < %s::text::xid8
        ORDER BY audit_events.xid, audit_events.id
        LIMIT %s
        """,
        (str(cursor[0]), cursor[1], str(horizon), limit),
    ).fetchall()


def strays(conn: Connection, floor: int, *, limit: int) -> Sequence[Row]:
    """Events that came with the log from another PostgreSQL and were not sealed there."""
    return conn.execute(
        f"""
        SELECT {EVENT}
        FROM audit_events
        WHERE id <= %s AND NOT EXISTS (SELECT FROM audit_leaves WHERE audit_leaves.id = audit_events.id)
        ORDER BY id
        LIMIT %s
        """,
        (floor, limit),
    ).fetchall()


def append(
    conn: Connection, position: int, rows: Sequence[Row], hashes: Sequence[bytes], nodes: Sequence[Node]
) -> None:
    """Write leaves from a position on, and the nodes that they complete."""
    with conn.cursor() as cursor:
        with cursor.copy("COPY audit_leaves (position, xid, id, hash) FROM STDIN") as copy:
            copy.write(
                "".join(
                    f"{place}\t{row[1]}\t{row[0]}\t\\\\x{leaf.hex()}\n"
                    for place, (row, leaf) in enumerate(zip(rows, hashes, strict=True), position)
                )
            )
        cursor.executemany("INSERT INTO audit_nodes (tier, number, hash) VALUES (%s, %s, %s)", nodes)


def put_head(conn: Connection, number: int, size: int, signed: Signed) -> None:
    """Keep a signed head."""
    conn.execute(
        "INSERT INTO audit_heads (number, size, statement, signature, kid) VALUES (%s, %s, %s, %s, %s)",
        (number, size, signed.statement, signed.signature, signed.kid),
    )


def newest_head(conn: Connection) -> Signed | None:
    """The last head."""
    found = heads(conn, newest_first=True, limit=1)
    return found[0] if found else None


def heads(conn: Connection, *, after: int = 0, newest_first: bool = False, limit: int) -> Sequence[Signed]:
    """Heads after a number, in their order or the newest first."""
    order: LiteralString = "DESC" if newest_first else "ASC"
    rows = conn.execute(
        f"SELECT statement, signature, kid FROM audit_heads WHERE number > %s ORDER BY number {order} LIMIT %s",
        (after, limit),
    ).fetchall()
    return [Signed(*row) for row in rows]


def head_of(conn: Connection, number: int) -> Signed | None:
    """One head."""
    row = conn.execute("SELECT statement, signature, kid FROM audit_heads WHERE number = %s", (number,)).fetchone()
    return None if row is None else Signed(*row)


def hashes(conn: Connection, tier: int, start: int, end: int) -> Sequence[bytes]:
    """The leaves (tier 0) or kept nodes of a range, in their order."""
    if tier == 0:
        rows = conn.execute(
            "SELECT hash FROM audit_leaves WHERE position >= %s AND position < %s ORDER BY position", (start, end)
        )
    else:
        rows = conn.execute(
            "SELECT hash FROM audit_nodes WHERE tier = %s AND number >= %s AND number < %s ORDER BY number",
            (tier, start, end),
        )
    return [row[0] for row in rows]


def leaves(conn: Connection, start: int, end: int) -> Sequence[Leaf]:
    """The leaves of a range of positions, each with its event, looked up one by one.

    A join would read all events for every range once there are so many that this seems cheaper: OFFSET 0 forbids it.
    """
    rows = conn.execute(
        f"""
        SELECT position, audit_leaves.xid::text::bigint, audit_leaves.id, hash, event.*
        FROM audit_leaves
        LEFT JOIN LATERAL (
            SELECT {EVENT}
            FROM audit_events
            WHERE audit_events.xid = audit_leaves.xid AND audit_events.id = audit_leaves.id
            OFFSET 0
        ) AS event ON true
        WHERE position >= %s AND position < %s
        ORDER BY position
        """,
        (start, end),
    ).fetchall()
    return [
        Leaf(position, xid, number, leaf, None if event[0] is None else tuple(event))
        for position, xid, number, leaf, *event in rows
    ]


def last_position(conn: Connection) -> int:
    """The position of the last leaf; -1 where there is none."""
    row = conn.execute("SELECT coalesce(max(position), -1) FROM audit_leaves").fetchone()
    assert row is not None
    return row[0]


def left_out(conn: Connection, cursor: tuple[int, int], *, came: int, since: datetime, limit: int) -> Sequence[Row]:
    """Events at or before a place that have no leaf: in an honest log none, up to where it is sealed, but events up to
    `came` that were written from `since` on.
    """
    return conn.execute(
        f"""
        SELECT {EVENT}
        FROM audit_events
        LEFT JOIN audit_leaves ON audit_leaves.id = audit_events.id AND audit_leaves.xid = audit_events.xid
        WHERE (audit_events.xid, audit_events.id) <= (%s::text::xid8, %s) AND position IS NULL
          AND NOT (audit_events.id <= %s AND at >= %s)
        ORDER BY audit_events.xid, audit_events.id
        LIMIT %s
        """,
        (str(cursor[0]), cursor[1], came, since, limit),
    ).fetchall()


def loose(conn: Connection, cursor: tuple[int, int], *, limit: int) -> Sequence[Row]:
    """Events after a place that have no leaf, in their order, as far as the log is complete."""
    return conn.execute(
        f"""
        SELECT {EVENT}
        FROM audit_events
        WHERE (xid, id) > (%s::text::xid8, %s)
          AND xid < audit_horizon()
          AND NOT EXISTS (SELECT FROM audit_leaves WHERE audit_leaves.id = audit_events.id)
        ORDER BY audit_events.xid, audit_events.id
        LIMIT %s
        """,
        (str(cursor[0]), cursor[1], limit),
    ).fetchall()


def waiting(conn: Connection, cursor: tuple[int, int]) -> int:
    """How many events wait for the seal, counted up to ten thousand."""
    row = conn.execute(
        """
        SELECT count(*)
        FROM (SELECT FROM audit_events WHERE (xid, id) > (%s::text::xid8, %s) LIMIT 10000) AS found
        """,
        (str(cursor[0]), cursor[1]),
    ).fetchone()
    assert row is not None
    return row[0]


def of_request(conn: Connection, request_id: RequestId) -> Sequence[tuple[int | None, Row]]:
    """A request's events in their order, each with its position; None where it is not sealed yet."""
    rows = conn.execute(
        f"""
        SELECT position, {EVENT}
        FROM audit_events
        LEFT JOIN audit_leaves ON audit_leaves.id = audit_events.id AND audit_leaves.xid = audit_events.xid
        WHERE request_id = %s
        ORDER BY audit_events.xid, audit_events.id
        """,
        (request_id,),
    ).fetchall()
    return [(row[0], row[1:]) for row in rows]
