"""Figures: how people decide, what each rule asks for, and what somebody's votes of a day came to. Reads only.

Ids are UUIDv7 and sort by age, so a span of time is a span of ids: what is older is never read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from banksman import ids, quorum
from banksman.ids import NoticeId, PersonId, RequestId, RunId
from banksman.ledger import Connection, staff
from banksman.records import Person
from banksman.states import RequestState, RunStatus, Verdict

_CALLS: Mapping[str, str] = MappingProxyType(
    {
        "started": "may have happened: nobody knows yet",
        "returned": "ran",
        "retry": "ran, and asked the model to try again",
        "failed": "failed",
        "deferred": "went on elsewhere",
    }
)
RECEIPT_LIFE = timedelta(days=7)
"""How long a receipt's mail is worth sending after the time it covers."""

HASTY = timedelta(seconds=3)
"""A vote this soon after the same person's vote before it is too fast to have read anything."""


def became(verdict: Verdict, outcome: str | None) -> str:
    """What became of the call that a vote was on, in words."""
    if outcome is not None:
        return _CALLS[outcome]
    if verdict is Verdict.ANSWER:
        return "no call"
    return "has not run" if verdict in (Verdict.APPROVE, Verdict.DENY) else "has not run again"


@dataclass(frozen=True, slots=True)
class OfPerson:
    """How one reviewer decides. `open` and `expired` count what they could have decided, by their groups of today."""

    person: Person
    open: int
    votes: int
    agreed: int
    """How many of the votes approved, answered, or let a call be made again."""
    median: timedelta | None
    """From the opening of a request to the vote on it."""
    streak: int
    """The longest row of votes each of which came within `HASTY` of the one before; 0 where none did."""
    expired: int


@dataclass(frozen=True, slots=True)
class OfRule:
    """What one rule of one policy asked for, and what became of it. `median` is from the opening to the decision."""

    policy: str
    rule: str
    opened: int
    states: Mapping[RequestState, int]
    median: timedelta | None


@dataclass(frozen=True, slots=True)
class Line:
    """One vote on a receipt, and what it came to."""

    at: datetime
    verdict: Verdict
    request_id: RequestId
    state: RequestState
    run_id: RunId
    status: RunStatus
    agent: str
    tool: str
    outcome: str | None
    """Of the call: `returned`, `failed`, `retry`, `deferred`, `started` while nobody knows, None where it never ran."""


def of_people(conn: Connection, since: datetime, until: datetime) -> Sequence[OfPerson]:
    """Everybody who votes, or did in this time, by address."""
    rows = conn.execute(
        """
        WITH said AS (
            SELECT votes.id, person_id, verdict IN ('approve', 'answer', 'happened', 'rerun') AS agrees,
                   votes.created_at - requests.created_at AS took,
                   votes.created_at - lag(votes.created_at) OVER one <= %(hasty)s AS hasty
            FROM votes
            JOIN requests ON requests.id = votes.request_id
            WHERE votes.id >= %(first)s AND votes.created_at >= %(since)s AND votes.created_at < %(until)s
              AND person_id IS NOT NULL
              AND NOT EXISTS (SELECT FROM withdrawals WHERE vote_id = votes.id)
            WINDOW one AS (PARTITION BY person_id ORDER BY votes.id)
        ), rows_of_hasty AS (
            SELECT person_id, count(*) + 1 AS length
            FROM (SELECT person_id, hasty, count(*) FILTER (WHERE hasty IS NOT TRUE)
                                               OVER (PARTITION BY person_id ORDER BY id) AS part
                  FROM said) AS parted
            WHERE hasty
            GROUP BY person_id, part
        )
        SELECT person_id, count(*), count(*) FILTER (WHERE agrees),
               percentile_cont(0.5) WITHIN GROUP (ORDER BY took),
               COALESCE((SELECT max(length) FROM rows_of_hasty WHERE rows_of_hasty.person_id = said.person_id), 0)
        FROM said
        GROUP BY person_id
        """,
        _span(since, until) | {"hasty": HASTY},
    ).fetchall()
    said = {PersonId(row[0]): row[1:] for row in rows}
    waiting = _by_audience(conn, "state = 'open' AND expires_at > clock_timestamp()", {})
    passed = "state = 'expired' AND settled_at >= %(since)s AND settled_at < %(until)s"
    expired = _by_audience(conn, passed, {"since": since, "until": until})
    found: list[OfPerson] = []
    for person in staff.everybody(conn):
        standing = quorum.standing(person)
        if not standing and person.id not in said:
            continue
        votes, agreed, median, streak = said.get(person.id, (0, 0, None, 0))
        found.append(
            OfPerson(
                person=person,
                open=_for(standing, waiting),
                votes=votes,
                agreed=agreed,
                median=median,
                streak=streak,
                expired=_for(standing, expired),
            )
        )
    return found


def of_rules(conn: Connection, since: datetime, until: datetime) -> Sequence[OfRule]:
    """Every rule that held a call in this time, the busiest first."""
    rows = conn.execute(
        """
        WITH asked AS (
            SELECT requirement ->> 'policy' AS policy, requirement ->> 'rule' AS rule, state, count(*) AS number
            FROM requests
            WHERE id >= %(first)s AND created_at >= %(since)s AND created_at < %(until)s
            GROUP BY 1, 2, 3
        ), took AS (
            SELECT requirement ->> 'policy' AS policy, requirement ->> 'rule' AS rule,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY settled_at - created_at) AS median
            FROM requests
            WHERE id >= %(first)s AND created_at >= %(since)s AND created_at < %(until)s
              AND state IN ('approved', 'denied', 'answered')
            GROUP BY 1, 2
        )
        SELECT policy, rule, sum(number)::bigint, jsonb_object_agg(state, number), max(median)
        FROM asked
        LEFT JOIN took USING (policy, rule)
        GROUP BY policy, rule
        ORDER BY 3 DESC, policy, rule
        LIMIT 500
        """,
        _span(since, until),
    ).fetchall()
    return [
        OfRule(policy, rule, opened, {RequestState(state): number for state, number in states.items()}, median)
        for policy, rule, opened, states, median in rows
    ]


def receipt(conn: Connection, person_id: PersonId, since: datetime, until: datetime) -> Sequence[Line]:
    """What one person's votes of this time came to, oldest first."""
    rows = conn.execute(
        """
        SELECT votes.created_at, verdict, requests.id, state, runs.id, runs.status, requests.agent, tool,
               (SELECT COALESCE(executions.outcome, executions.state)
                FROM executions
                WHERE executions.request_id = requests.id
                ORDER BY attempt DESC
                LIMIT 1)
        FROM votes
        JOIN requests ON requests.id = votes.request_id
        JOIN runs ON runs.id = requests.run_id
        WHERE person_id = %(person)s
          AND votes.id >= %(first)s AND votes.created_at >= %(since)s AND votes.created_at < %(until)s
          AND NOT EXISTS (SELECT FROM withdrawals WHERE vote_id = votes.id)
        ORDER BY votes.id
        """,
        _span(since, until) | {"person": person_id},
    ).fetchall()
    return [
        Line(at, Verdict(verdict), RequestId(request), RequestState(state), RunId(run), RunStatus(status), *rest)
        for at, verdict, request, state, run, status, *rest in rows
    ]


def queue_receipts(conn: Connection, *, hour: int) -> Sequence[NoticeId]:
    """A notice for each person who voted in the 24 hours up to the last time that it was `hour` (UTC), once."""
    row = conn.execute(
        """
        SELECT date_trunc('day', statement_timestamp() - make_interval(hours => %(hour)s), 'UTC')
               + make_interval(hours => %(hour)s)
        """,
        {"hour": hour},
    ).fetchone()
    assert row is not None
    until: datetime = row[0]
    people = conn.execute(
        """
        SELECT DISTINCT person_id
        FROM votes
        WHERE votes.id >= %(first)s AND created_at >= %(since)s AND created_at < %(until)s
          AND person_id IS NOT NULL
          AND NOT EXISTS (SELECT
                          FROM notices
                          WHERE kind = 'receipt' AND notices.person_id = votes.person_id AND expires_at = %(end)s)
        """,
        _span(until - timedelta(days=1), until) | {"end": until + RECEIPT_LIFE},
    ).fetchall()
    rows = conn.execute(
        """
        INSERT INTO notices (id, kind, person_id, due_at, expires_at)
        SELECT notice, 'receipt', person, clock_timestamp(), %(end)s
        FROM unnest(%(ids)s::uuid[], %(people)s::uuid[]) AS told (notice, person)
        ON CONFLICT (person_id, expires_at) WHERE kind = 'receipt' DO NOTHING
        RETURNING id
        """,
        {"end": until + RECEIPT_LIFE, "ids": [ids.new() for _ in people], "people": [row[0] for row in people]},
    ).fetchall()
    return [NoticeId(row[0]) for row in rows]


def _span(since: datetime, until: datetime) -> dict[str, Any]:
    """The smallest id of a minute before `since`, for clocks that differ; the times themselves are compared as well."""
    return {"first": ids.first_of(since - timedelta(minutes=1)), "since": since, "until": until}


def _by_audience(conn: Connection, where: str, values: Mapping[str, object]) -> Mapping[frozenset[str], int]:
    rows = conn.execute(
        f"SELECT audience, count(*) FROM requests WHERE {where} GROUP BY audience".encode(), values
    ).fetchall()
    return {frozenset(audience): number for audience, number in rows}


def _for(standing: Collection[str], counted: Mapping[frozenset[str], int]) -> int:
    return sum(number for audience, number in counted.items() if not audience.isdisjoint(standing))
