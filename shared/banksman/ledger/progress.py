"""How far a batch has come: its pace, whom it waits for, and what it has used. Reads only.

What the runs of a batch delegated counts where it waits for people and where it uses something up; how many runs a
batch has counts those alone that were submitted with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import LiteralString

from banksman.ids import BatchId
from banksman.ledger import Connection
from banksman.states import Tier


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
        SELECT count(*) FILTER (WHERE finished_at > clock_timestamp() - %(window)s::interval),
               least(%(window)s::interval, clock_timestamp() - batches.created_at), clock_timestamp()
        FROM batches
        LEFT JOIN runs ON batch_id = batches.id
        WHERE batches.id = %(batch)s
        GROUP BY batches.created_at
        """,
        {"window": window, "batch": batch_id},
    ).fetchone()
    assert row is not None
    return Pace(*row)


def used(conn: Connection, batch_id: BatchId) -> Used:
    """What the batch's runs and those below them have used so far."""
    row = conn.execute(
        f"""
        {_FAMILY}
        SELECT count(*), sum((usage ->> 'requests')::numeric), sum((usage ->> 'input_tokens')::numeric),
               sum((usage ->> 'output_tokens')::numeric), sum((usage ->> 'tool_calls')::numeric),
               sum((usage ->> 'cost')::numeric), count(usage ->> 'cost')
        FROM family
        """.encode(),
        (batch_id,),
    ).fetchone()
    assert row is not None
    runs, *counted, cost, priced = row
    return Used(runs, *(int(number or 0) for number in counted), cost=cost, priced=priced)


def waiting(conn: Connection, batch_id: BatchId) -> Sequence[Waiting]:
    """The open requests of the batch's runs and those below them, by tier and by who may decide."""
    rows = conn.execute(
        f"""
        {_FAMILY}
        SELECT tier, audience, count(*), min(expires_at)
        FROM requests
        JOIN family ON run_id = member
        WHERE state = 'open'
        GROUP BY tier, audience
        ORDER BY min(expires_at)
        """.encode(),
        (batch_id,),
    ).fetchall()
    return [Waiting(Tier(tier), sorted(groups), count, first_at) for tier, groups, count, first_at in rows]


_FAMILY: LiteralString = """
        WITH RECURSIVE family (member, usage) AS (
            SELECT id, usage
            FROM runs
            WHERE batch_id = %s
            UNION ALL
            SELECT runs.id, runs.usage
            FROM runs
            JOIN family ON parent_id = member
        )"""
