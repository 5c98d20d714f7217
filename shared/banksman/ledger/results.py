"""What came of the runs of a batch, some at a time, in the order of their lines or of their ends. Reads only.

A place in either order is a number (a line; or an end, in microseconds since 1970) and the run's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from banksman import ledger, vault
from banksman.digest import Json
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection
from banksman.states import RunStatus

Place = tuple[int, UUID]
START: Place = (-1, UUID(int=0))
LATE = timedelta(seconds=ledger.IDLE_SECONDS + 5)
"""An end may be committed so much later than its own time says, so much newer ones are held back."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_COLUMNS = """turn, key, id, agent, status, output, error, metadata, usage, started_at, finished_at"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run so far, and its place in the order that was asked for."""

    line: int
    key: str | None
    run_id: RunId
    agent: str
    status: RunStatus
    output: str
    """As JSON, as is `metadata`: whoever streams both as they are need not read them."""
    error: str | None
    metadata: str
    usage: Mapping[str, Json]
    started_at: datetime | None
    finished_at: datetime | None
    place: Place


def by_line(conn: Connection, batch_id: BatchId, after: Place, *, limit: int) -> Sequence[Result]:
    """Every run as it stands, in the order of the lines."""
    rows = conn.execute(
        f"""
        SELECT {_COLUMNS}
        FROM runs
        WHERE batch_id = %s AND (turn, id) > (%s, %s)
        ORDER BY turn, id
        LIMIT %s
        """,
        (batch_id, *after, limit),
    ).fetchall()
    return [_result(row, (row[0], row[2])) for row in rows]


def by_end(conn: Connection, batch_id: BatchId, after: Place, *, limit: int) -> Sequence[Result]:
    """The runs that are over, in the order in which they ended: who comes back with the last place misses none. So
    while others are still to end, what ended in the last `LATE` is held back.
    """
    rows = conn.execute(
        f"""
        SELECT {_COLUMNS}
        FROM runs
        WHERE batch_id = %(batch)s AND finished_at IS NOT NULL AND (finished_at, id) > (%(at)s, %(id)s)
          AND (finished_at < statement_timestamp() - %(late)s OR NOT EXISTS (
                SELECT FROM runs
                WHERE batch_id = %(batch)s AND status IN ('queued', 'running', 'waiting', 'stuck')))
        ORDER BY finished_at, id
        LIMIT %(limit)s
        """,
        {
            "batch": batch_id,
            "at": _EPOCH + max(after[0], 0) * _MICROSECOND,
            "id": after[1],
            "late": LATE,
            "limit": limit,
        },
    ).fetchall()
    return [_result(row, ((row[10] - _EPOCH) // _MICROSECOND, row[2])) for row in rows]


def _result(row: Sequence[Any], place: Place) -> Result:
    line, key, run_id, agent, status, output, error, metadata, usage, started_at, finished_at = row
    return Result(
        line=line,
        key=key,
        run_id=RunId(run_id),
        agent=agent,
        status=RunStatus(status),
        output="null" if output is None else vault.open_sealed(output, ("runs.output", run_id)).decode(),
        error=None if error is None else vault.open_sealed(error, ("runs.error", run_id)).decode(),
        metadata=vault.open_sealed(metadata, ("runs.metadata", run_id)).decode(),
        usage=usage,
        started_at=started_at,
        finished_at=finished_at,
        place=place,
    )
