"""The inbox: which open requests wait for this person, which for others, and what was settled last. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from banksman import quorum, vault
from banksman.ids import BatchId, RequestId, RunId
from banksman.ledger import Connection, searching
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


Queue = Literal["mine", "groups", "expiring", "escalated", "outcome", "resuming", "others", "done"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for in a queue. `text` is found in tool, agent or requester; an id is a request's, a run's or a
    batch's.
    """

    text: str = ""
    tier: Tier | None = None
    run_id: RunId | None = None
    request_id: RequestId | None = None
    batch_id: BatchId | None = None


def page(
    conn: Connection,
    person: Person,
    queue: Queue,
    wanted: Wanted,
    *,
    after: tuple[datetime, RequestId] | None = None,
    limit: int,
) -> Sequence[Item]:
    """One page of a queue: nearest deadline first, what is settled latest first; `after` is the last one's place."""
    matching = searching.find(conn, wanted.text, settled=queue in ("done", "resuming"))
    if not matching.any:
        return ()
    place, direction = ("settled_at", "DESC") if queue == "done" else ("expires_at", "ASC")
    narrowed: dict[str, tuple[str, object]] = {
        "tier": ("tier = %(tier)s", wanted.tier),
        "run": ("requests.run_id = %(run)s", wanted.run_id),
        "batch": ("batch_id = %(batch)s", wanted.batch_id),
        "text": (matching.where, wanted.text or None),
        "one": ("requests.id = %(one)s", wanted.request_id),
        "at": (f"({place}, requests.id) {'<' if queue == 'done' else '>'} (%(at)s, %(id)s)", after and after[0]),
    }
    # What is not looked for stands nowhere in the statement: PostgreSQL plans for the rest alone.
    where = [_QUEUES[queue], *(condition for condition, value in narrowed.values() if value is not None)]
    return _items(
        conn,
        " AND ".join(where),
        f"{place} {direction}, requests.id {direction}",
        person,
        {
            **{name: value for name, (_, value) in narrowed.items()},
            **matching.values,
            "limit": limit,
            "id": after and after[1],
        },
    )


def counts(conn: Connection, person: Person, *, most: int) -> dict[Queue, int]:
    """How much is in each queue but the settled ones, counted up to `most`."""
    each = [
        f"(SELECT count(*) FROM (SELECT FROM {_FROM if 'runs.' in where or 'revisions.' in where else 'requests'}"
        f" WHERE {where} LIMIT %(most)s) AS found)"
        for where in _COUNTED.values()
    ]
    row = conn.execute(f"SELECT {', '.join(each)}".encode(), values(person) | {"most": most}).fetchone()
    assert row is not None
    return {queue: int(count) for queue, count in zip(_COUNTED, row, strict=True)}


_FROM = """requests
        JOIN runs ON runs.id = requests.run_id
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision"""

_OPEN = "state = 'open' AND expires_at > statement_timestamp()"

_MAY = """(
          (audience && %(standing)s::text[]
           OR (audience && (SELECT array_agg(one) FROM lent, unnest(groups) AS one WHERE stand_in_id = %(person)s)
               AND %(reviews)s AND EXISTS (SELECT
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


UP = 10_000
"""So many of those that went up the ladder are looked at, the first ones first."""

MINE = f"{_OPEN} AND {_MAY}"
"""What a person may still decide, as a condition on `requests`, `runs` and `revisions`."""

_QUEUES: dict[Queue, str] = {
    "mine": MINE,
    "groups": f"{_OPEN} AND audience && %(groups)s::text[]",
    "expiring": f"{_OPEN} AND expires_at < statement_timestamp() + interval '1 hour' AND {_MAY}",
    "escalated": f"""{_OPEN} AND requests.id = ANY(ARRAY(
          SELECT up.id
          FROM requests AS up
          WHERE up.state = 'open' AND escalates_at(up.created_at, up.requirement) <= statement_timestamp()
          ORDER BY escalates_at(up.created_at, up.requirement)
          LIMIT {UP}))""",
    "outcome": f"{_OPEN} AND kind = 'outcome'",
    "resuming": """state IN ('approved', 'denied', 'answered', 'expired') AND status = 'queued' AND runs.segment > 0
          AND requests.segment = runs.segment - 1""",
    "others": f"{_OPEN} AND NOT {_MAY}",
    "done": "state <> 'open'",
}
_COUNTED: dict[Queue, str] = {queue: where for queue, where in _QUEUES.items() if queue != "done"}


def values(person: Person) -> dict[str, Any]:
    """What the conditions of this module ask of a person."""
    standing = quorum.standing(person)
    return {
        "person": person.id,
        "email": person.email,
        "standing": list(standing),
        "groups": list(standing - {quorum.REVIEWERS}),
        "reviews": quorum.REVIEWERS in standing,
    }


def _items(conn: Connection, where: str, order: str, person: Person, wanted: Mapping[str, object]) -> Sequence[Item]:
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
                     WHERE request_id = requests.id AND until_at > statement_timestamp() AND person_id <> %(person)s
                       AND disabled_at IS NULL),
               extended, unreachable_at, requirement, COALESCE(settled_at, statement_timestamp()) - requests.created_at
        FROM {_FROM}
        WHERE {where}
        ORDER BY {order}
        LIMIT %(limit)s
        """.encode(),
        {**values(person), **wanted},
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
