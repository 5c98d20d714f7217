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
