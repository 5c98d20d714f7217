"""How far a batch has come: its pace, whom it waits for, what it has used, and what happens to it. Reads only.

What the runs of a batch delegated counts where it waits for people, uses something up or something happens; how many
runs a batch has counts those alone that were submitted with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import LiteralString

from banksman.ids import BatchId, show
from banksman.ledger import Connection, audit
from banksman.records import Event
from banksman.states import Tier

_LINGERS = timedelta(minutes=10)
"""So long after its last run ended may something be told of a batch."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Open requests of one tier that the same groups may decide."""

    tier: Tier
    groups: Sequence[str]
    count: int
    first_at: datetime
    """The nearest deadline among them."""


@dataclass(frozen=True, slots=True)
class Used:
    """What the runs have used together. `priced` of `runs` have a cost in dollars; the others' is not known."""

    runs: int
    requests: int
    tokens_in: int
    tokens_out: int
    tool_calls: int
    cost: Decimal | None
    priced: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of the log, read through for what is said of one batch."""

    events: Sequence[Event]
    end: tuple[int, int]
    """The cursor to go on from."""
    more: bool
    """Whether the log goes on below the horizon."""
    over: bool
    """Whether the batch is, with nothing more to come."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many runs came to an end in the last while, and how long that while is."""

    ended: int
    span: timedelta
    now: datetime

    @property
    def per_minute(self) -> float:
        """How many end in a minute."""
        return self.ended / max(self.span / timedelta(minutes=1), 1 / 60)

    def until(self, left: int) -> datetime | None:
        """When as many more will have ended at this pace; None where nothing ended lately."""
        return self.now + left * self.span / self.ended if self.ended else None


def pace(conn: Connection, batch_id: BatchId, *, window: timedelta) -> Pace:
    """How fast the batch's runs came to their ends within the last `window`, or since it began if that is less."""
    row = conn.execute(
        """
        SELECT (SELECT count(*)
                FROM runs
                WHERE batch_id = %(batch)s AND finished_at > statement_timestamp() - %(window)s::interval),
               least(%(window)s::interval, clock_timestamp() - created_at), clock_timestamp()
        FROM batches
        WHERE id = %(batch)s
        """,
        {"window": window, "batch": batch_id},
    ).fetchone()
    assert row is not None
    return Pace(*row)


def used(conn: Connection, batch_id: BatchId) -> Used:
    """What the batch's runs and those below them have used so far."""
    row = conn.execute(
        f"""
        {_BELOW}
        SELECT count(*), sum((usage ->> 'requests')::numeric), sum((usage ->> 'input_tokens')::numeric),
               sum((usage ->> 'output_tokens')::numeric), sum((usage ->> 'tool_calls')::numeric),
               sum((usage ->> 'cost')::numeric), count(usage ->> 'cost')
        FROM (SELECT usage FROM runs WHERE batch_id = %(batch)s
              UNION ALL
              SELECT usage FROM runs JOIN below USING (id)) AS each
        """.encode(),
        {"batch": batch_id},
    ).fetchone()
    assert row is not None
    runs, *counted, cost, priced = row
    return Used(runs, *(int(number or 0) for number in counted), cost=cost, priced=priced)


def waiting(conn: Connection, batch_id: BatchId) -> Sequence[Waiting]:
    """The open requests of the batch's runs and those below them, by tier and by who may decide."""
    rows = conn.execute(
        f"""
        {_BELOW}
        SELECT tier, audience, count(*), min(expires_at)
        FROM requests
        JOIN (SELECT id FROM runs WHERE batch_id = %(batch)s AND status IN ('waiting', 'stuck', 'running')
              UNION ALL
              SELECT id FROM below) AS member ON run_id = member.id
        WHERE state = 'open'
        GROUP BY tier, audience
        ORDER BY min(expires_at)
        """.encode(),
        {"batch": batch_id},
    ).fetchall()
    return [Waiting(Tier(tier), sorted(groups), count, first_at) for tier, groups, count, first_at in rows]


# From what was delegated at all to whose it is: most runs of most batches delegate nothing.
_BELOW: LiteralString = """
        WITH RECURSIVE below (id) AS (
            SELECT child_id
            FROM delegations
            JOIN runs ON runs.id = delegations.parent_id
            WHERE batch_id = %(batch)s
            UNION ALL
            SELECT child_id
            FROM delegations
            JOIN below ON delegations.parent_id = below.id
        )"""


def news(conn: Connection, batch_id: BatchId, cursor: tuple[int, int], *, limit: int = 1000) -> Stretch:
    """What the next `limit` events of the log say of a batch and its runs; from (0, 0) on, beginning with the batch.

    The log is read through in its order, whatever it tells of, so that a look costs as much with 100,000 runs as with
    one. The first statement looks for the end, the later ones for events: what the first saw is below their horizon.
    """
    values = {"batch": batch_id, "shown": show("bat", batch_id), "limit": limit - 1}
    row = conn.execute(
        f"""
        SELECT CASE WHEN NOT EXISTS (
                   SELECT FROM runs
                   WHERE batch_id = %(batch)s AND status IN ('queued', 'running', 'waiting', 'stuck'))
               AND NOT EXISTS (SELECT {_SAID} WHERE audit_events.xid >= audit_horizon() AND {_OURS})
               THEN (SELECT max(finished_at) FROM runs WHERE batch_id = %(batch)s) END,
               (SELECT xid::text::bigint
                FROM audit_events
                WHERE run_id = (SELECT id FROM runs WHERE batch_id = %(batch)s ORDER BY turn, id LIMIT 1)
                ORDER BY audit_events.xid
                LIMIT 1)
        """,
        values,
    ).fetchone()
    assert row is not None
    finished_at, born = row
    horizon = audit.horizon(conn)
    after = cursor if cursor > (0, 0) or born is None else (born, 0)
    last = conn.execute(
        """
        SELECT xid::text::bigint, id, at
        FROM audit_events
        WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s) AND xid < %(horizon)s::text::xid8
        ORDER BY audit_events.xid, id
        OFFSET %(limit)s
        LIMIT 1
        """,
        {**values, "xid": str(after[0]), "id": after[1], "horizon": str(horizon[0])},
    ).fetchone()
    end = max(after, horizon if last is None else (last[0], last[1]))
    rows = conn.execute(
        f"""
        SELECT {audit.COLUMNS}
        {_SAID}
        WHERE (audit_events.xid, audit_events.id) > (%(xid)s::text::xid8, %(id)s)
          AND (audit_events.xid, audit_events.id) <= (%(end_xid)s::text::xid8, %(end_id)s) AND {_OURS}
        ORDER BY audit_events.xid, audit_events.id
        """,
        {**values, "xid": str(after[0]), "id": after[1], "end_xid": str(end[0]), "end_id": end[1]},
    ).fetchall()
    over = finished_at is not None and (last is None or last[2] > finished_at + _LINGERS)
    return Stretch([audit.of_row(row) for row in rows], end, last is not None and not over, over)


_SAID = "FROM audit_events LEFT JOIN runs ON runs.id = audit_events.run_id"
_OURS = """(runs.lot = %(batch)s
    OR audit_events.run_id IS NULL AND action LIKE 'batch.%%' AND body ->> 'batch' = %(shown)s)"""
