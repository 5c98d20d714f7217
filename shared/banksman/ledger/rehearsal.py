"""Past requests as the rules would have seen them, in pages: for replays and drafts, never on a run's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from banksman import vault
from banksman.ids import BatchId, RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Requirement
from banksman.states import RequestState


@dataclass(frozen=True, slots=True)
class Past:
    """A tool call that was asked about, as its agent proposed it, and what became of it."""

    id: RequestId
    run_id: RunId
    agent: str
    tool: str
    state: RequestState
    requirement: Requirement
    action: bytes
    context: bytes
    requester: str
    tags: Sequence[str]
    batch_id: BatchId | None


def since(conn: Connection, ago: timedelta) -> RequestId:
    """An id before every request that was opened within this time: ids begin with the moment of their making."""
    row = conn.execute(
        "SELECT GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - %s) * 1000)::bigint", (ago,)
    ).fetchone()
    assert row is not None
    return RequestId(UUID(int=row[0] << 80))


def page(conn: Connection, after: RequestId, *, limit: int) -> Sequence[Past]:
    """The next requests of kind approval, oldest first, each at its first revision."""
    rows = conn.execute(
        """
        SELECT requests.id, requests.run_id, requests.agent, tool, state, requirement, action, context, requester,
               tags, batch_id
        FROM requests
        JOIN runs ON runs.id = requests.run_id
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = 1
        WHERE requests.id > %s AND kind = 'approval'
        ORDER BY requests.id
        LIMIT %s
        """,
        (after, limit),
    ).fetchall()
    return [
        Past(
            id=RequestId(request_id),
            run_id=RunId(run_id),
            agent=agent,
            tool=tool,
            state=RequestState(state),
            requirement=Requirement.from_json(requirement),
            action=vault.open_sealed(action, ("revisions.action", request_id, 1)),
            context=vault.open_sealed(context, ("requests.context", request_id)),
            requester=requester,
            tags=tags,
            batch_id=None if batch_id is None else BatchId(batch_id),
        )
        for request_id, run_id, agent, tool, state, requirement, action, context, requester, tags, batch_id in rows
    ]
