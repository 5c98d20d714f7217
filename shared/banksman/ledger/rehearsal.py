"""Past requests as the rules would have seen them, in pages: for replays and drafts, never on a run's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from banksman import vault
from banksman.ids import BatchId, PersonId, RequestId, RunId
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
        f"{_SELECT} WHERE requests.id > %s AND kind = 'approval' ORDER BY requests.id LIMIT %s", (after, limit)
    ).fetchall()
    return [_past(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Said:
    """One decision that a person brought about, and what the call looked like."""

    request_id: RequestId
    agent: str
    tool: str
    shape: bytes
    state: RequestState
    as_asked: bool
    """Whether the call was decided as its agent had proposed it."""


def decided_by(conn: Connection, person_id: PersonId, *, limit: int) -> Sequence[Said]:
    """The tool calls that a person decided last, newest first, where the decision was as the person voted."""
    rows = conn.execute(
        """
        SELECT requests.id, agent, tool, shape, state, requests.revision = 1
        FROM (
            SELECT request_id, revision, verdict
            FROM votes
            WHERE person_id = %s AND verdict IN ('approve', 'deny')
              AND NOT EXISTS (SELECT FROM withdrawals WHERE vote_id = votes.id)
            ORDER BY id DESC
            LIMIT %s
        ) AS said
        JOIN requests ON requests.id = said.request_id AND requests.revision = said.revision
        WHERE kind = 'approval' AND state = CASE verdict WHEN 'approve' THEN 'approved' ELSE 'denied' END
        ORDER BY settled_at DESC, requests.id DESC
        """,
        (person_id, limit),
    ).fetchall()
    return [
        Said(RequestId(request_id), agent, tool, shape, RequestState(state), as_asked)
        for request_id, agent, tool, shape, state, as_asked in rows
    ]


def named(conn: Connection, request_ids: Sequence[RequestId]) -> Sequence[Past]:
    """Past requests by their ids."""
    rows = conn.execute(f"{_SELECT} WHERE requests.id = ANY(%s) ORDER BY requests.id", (list(request_ids),)).fetchall()
    return [_past(row) for row in rows]


_SELECT = """
    SELECT requests.id, requests.run_id, requests.agent, tool, state, requirement, action, context, requester, tags,
           COALESCE(batch_id, CASE WHEN runs.parent_id IS NOT NULL THEN batch_above(runs.parent_id) END)
    FROM requests
    JOIN runs ON runs.id = requests.run_id
    JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = 1
"""


def _past(row: Sequence[Any]) -> Past:
    request_id, run_id, agent, tool, state, requirement, action, context, requester, tags, batch_id = row
    return Past(
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
