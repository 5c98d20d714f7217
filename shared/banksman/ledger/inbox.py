"""The inbox: which open requests wait for this person, which for others, and what was settled last. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from banksman import quorum, vault
from banksman.ids import RequestId, RunId
from banksman.ledger import Connection
from banksman.records import Person, Requirement
from banksman.states import Kind, RequestState, Tier


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the inbox."""

    id: RequestId
    run_id: RunId
    kind: Kind
    state: RequestState
    agent: str
    tool: str
    tier: Tier
    action: bytes
    requester: str
    expires_at: datetime
    created_at: datetime
    settled_at: datetime | None
    asked: int
    """How many requests the run paused for together."""
    decided: int
    """How many of those are settled."""
    looking: Sequence[str]
    """Who looks at it just now, by name, without whoever reads the inbox."""
    extended: int
    unreachable_at: datetime | None
    called: Sequence[str]
    """The groups whom the ladder has called in."""


def mine(conn: Connection, person: Person, *, limit: int) -> Sequence[Item]:
    """Open requests that this person may still decide, the one with the nearest deadline first."""
    return _items(conn, f"{_OPEN} AND {_MAY}", "expires_at, requests.id", person, limit)


def others(conn: Connection, person: Person, *, limit: int) -> Sequence[Item]:
    """Of the open requests with the nearest deadlines, those that wait for somebody else."""
    near = f"requests.id IN (SELECT id FROM requests WHERE {_OPEN} ORDER BY expires_at LIMIT 1000)"
    return _items(conn, f"{_OPEN} AND {near} AND NOT {_MAY}", "expires_at, requests.id", person, limit)


def settled(conn: Connection, person: Person, *, limit: int) -> Sequence[Item]:
    """The requests that were settled last."""
    return _items(conn, "state <> 'open'", "settled_at DESC", person, limit)


_OPEN = "state = 'open' AND expires_at > clock_timestamp()"

_MAY = """(
          (audience && %(standing)s::text[]
           OR (%(reviews)s AND EXISTS (SELECT
                                       FROM lent
                                       JOIN people ON people.id = absent_id
                                       WHERE lent.stand_in_id = %(person)s
                                         AND audience && lent.groups
                                         AND requester_id IS DISTINCT FROM absent_id
                                         AND lower(requester) <> lower(people.email)
                                         AND requester_id IS DISTINCT FROM %(person)s)))
          AND (kind IN ('question', 'external')
               OR (requester_id IS DISTINCT FROM %(person)s AND lower(requester) <> lower(%(email)s)))
          AND NOT (tier = 'high' AND revisions.author_id IS NOT DISTINCT FROM %(person)s)
          AND NOT EXISTS (SELECT
                          FROM votes
                          WHERE votes.request_id = requests.id
                            AND votes.revision = requests.revision
                            AND votes.person_id = %(person)s
                            AND NOT EXISTS (SELECT FROM withdrawals WHERE vote_id = votes.id)))"""


def _items(conn: Connection, where: str, order: str, person: Person, limit: int) -> Sequence[Item]:
    standing = quorum.standing(person)
    rows = conn.execute(
        f"""
        SELECT requests.id, requests.run_id, kind, state, requests.agent, tool, tier, requests.revision, action,
               requester, expires_at, requests.created_at, settled_at,
               (SELECT array[count(*), count(*) FILTER (WHERE together.state <> 'open')]
                FROM requests AS together
                WHERE together.run_id = requests.run_id AND together.segment = requests.segment),
               ARRAY(SELECT name
                     FROM lookings
                     JOIN people ON people.id = person_id
                     WHERE request_id = requests.id AND until_at > clock_timestamp() AND person_id <> %(person)s
                       AND disabled_at IS NULL),
               extended, unreachable_at, requirement, COALESCE(settled_at, clock_timestamp()) - requests.created_at
        FROM requests
        JOIN runs ON runs.id = requests.run_id
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision
        WHERE {where}
        ORDER BY {order}
        LIMIT %(limit)s
        """.encode(),
        {
            "person": person.id,
            "email": person.email,
            "standing": list(standing),
            "reviews": quorum.REVIEWERS in standing,
            "limit": limit,
        },
    ).fetchall()
    return [_item(row) for row in rows]


def _item(row: Sequence[Any]) -> Item:
    (request_id, run_id, kind, state, agent, tool, tier, revision, action, requester, expires_at, created_at,
     settled_at, (asked, decided), looking, extended, unreachable_at, requirement, age) = row  # fmt: skip
    return Item(
        id=RequestId(request_id),
        run_id=RunId(run_id),
        kind=Kind(kind),
        state=RequestState(state),
        agent=agent,
        tool=tool,
        tier=Tier(tier),
        action=vault.open_sealed(action, ("revisions.action", request_id, revision)),
        requester=requester,
        expires_at=expires_at,
        created_at=created_at,
        settled_at=settled_at,
        asked=asked,
        decided=decided,
        looking=looking,
        extended=extended,
        unreachable_at=unreachable_at,
        called=sorted(quorum.called(Requirement.from_json(requirement), age)),
    )
