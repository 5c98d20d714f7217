"""Groups: open requests of one agent for one tool with arguments of one shape, which are looked at side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from banksman import vault
from banksman.ids import RequestId
from banksman.ledger import Connection, inbox
from banksman.records import Person
from banksman.states import Kind, Tier


@dataclass(frozen=True, slots=True)
class Group:
    """Requests that somebody may decide together: how many, and until when the first of them."""

    agent: str
    tool: str
    shape: bytes
    count: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """One request of a group, with what a vote on it must name."""

    id: RequestId
    kind: Kind
    tier: Tier
    agent: str
    tool: str
    revision: int
    digest: bytes
    action: bytes
    context: bytes
    requester: str
    expires_at: datetime


_TOGETHER = "kind = 'approval' AND tier <> 'high'"


def of_person(conn: Connection, person: Person, *, limit: int) -> Sequence[Group]:
    """Groups of two and more that this person may decide, the largest first. Tier high is decided one by one."""
    rows = conn.execute(
        f"""
        SELECT requests.agent, tool, shape, count(*), min(expires_at)
        FROM requests
        JOIN runs ON runs.id = requests.run_id
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision
        WHERE {inbox.MINE} AND {_TOGETHER}
        GROUP BY requests.agent, tool, shape
        HAVING count(*) > 1
        ORDER BY count(*) DESC, min(expires_at)
        LIMIT %(limit)s
        """.encode(),
        {**inbox.values(person), "limit": limit},
    ).fetchall()
    return [Group(*row) for row in rows]


def members(conn: Connection, person: Person, *, agent: str, tool: str, shape: bytes, limit: int) -> Sequence[Member]:
    """The requests of a group, nearest deadline first."""
    where = f"{_TOGETHER} AND requests.agent = %(agent)s AND tool = %(tool)s AND shape = %(shape)s"
    return _members(conn, person, where, {"agent": agent, "tool": tool, "shape": shape, "limit": limit})


def named(conn: Connection, person: Person, request_ids: Sequence[RequestId]) -> Sequence[Member]:
    """Those of these requests that this person may decide, of every kind and tier, nearest deadline first."""
    wanted = {"ids": list(request_ids), "limit": len(request_ids)}
    return _members(conn, person, "requests.id = ANY(%(ids)s)", wanted)


def _members(conn: Connection, person: Person, where: str, wanted: Mapping[str, object]) -> Sequence[Member]:
    rows = conn.execute(
        f"""
        SELECT requests.id, kind, tier, requests.agent, tool, requests.revision, digest, action, context, requester,
               expires_at
        FROM requests
        JOIN runs ON runs.id = requests.run_id
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision
        WHERE {inbox.MINE} AND {where}
        ORDER BY expires_at, requests.id
        LIMIT %(limit)s
        """.encode(),
        {**inbox.values(person), **wanted},
    ).fetchall()
    return [
        Member(
            RequestId(request_id),
            Kind(kind),
            Tier(tier),
            agent,
            tool,
            revision,
            digest,
            vault.open_sealed(action, ("revisions.action", request_id, revision)),
            vault.open_sealed(context, ("requests.context", request_id)),
            requester,
            expires_at,
        )
        for request_id, kind, tier, agent, tool, revision, digest, action, context, requester, expires_at in rows
    ]
