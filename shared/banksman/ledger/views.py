"""Reads for pages and the API: as clever as they need to be, a few statements for a whole page, never one per row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from banksman import ids, vault
from banksman.digest import Json
from banksman.ids import PersonId, RemarkId, RequestId, RunId
from banksman.ledger import Connection, audit, votes
from banksman.ledger.requests import decision_of
from banksman.records import Decision, Event, Looking, Remark, Request, Vote
from banksman.states import Kind, RequestState, Tier


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another request of the same pause."""

    id: RequestId
    kind: Kind
    tool: str
    state: RequestState
    action: bytes


@dataclass(frozen=True, slots=True)
class Revision:
    """One exact version of what was asked; `by` is the editor's address, None the agent itself."""

    revision: int
    action: bytes
    digest: bytes
    by: str | None


@dataclass(frozen=True, slots=True)
class Company:
    """Who else is at a request: those who look at it just now, and what people wrote below it."""

    looking: Sequence[Looking]
    remarks: Sequence[Remark]


@dataclass(frozen=True, slots=True)
class Around:
    """What belongs to a request without being in its row; revisions only where somebody edited."""

    siblings: Sequence[Sibling]
    decision: Decision | None
    votes: Sequence[tuple[Vote, str]]
    revisions: Sequence[Revision]
    company: Company


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a run's timeline."""

    at: datetime
    who: str
    what: str
    request_id: RequestId | None
    detail: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended before a request of it was decided: `cancelled` or `failed`, by whom, when."""

    what: str
    who: str
    at: datetime


def around(conn: Connection, page: Sequence[Request], *, remarks: bool = True) -> dict[RequestId, Around]:
    """Siblings, votes, decisions and earlier revisions of a whole page of requests."""
    siblings = _siblings(conn, page)
    cast, decisions = _votes_and_decisions(conn, [request.id for request in page])
    revisions = _revisions(conn, [request.id for request in page if request.revision > 1])
    others = company(conn, [request.id for request in page], remarks=remarks)
    return {
        request.id: Around(
            siblings=[found for found in siblings[request.run_id, request.segment] if found.id != request.id],
            decision=decisions.get(request.id),
            votes=cast[request.id],
            revisions=revisions[request.id],
            company=others[request.id],
        )
        for request in page
    }


def _siblings(conn: Connection, page: Sequence[Request]) -> defaultdict[tuple[UUID, int], list[Sibling]]:
    pauses = {(request.run_id, request.segment) for request in page}
    rows = conn.execute(
        """
        SELECT requests.run_id, requests.segment, id, kind, tool, state, requests.revision, action
        FROM requests
        JOIN revisions ON request_id = id AND revisions.revision = requests.revision
        JOIN unnest(%s::uuid[], %s::integer[]) AS pause (run_id, segment) USING (run_id, segment)
        ORDER BY id
        """,
        ([run_id for run_id, _ in pauses], [segment for _, segment in pauses]),
    ).fetchall()
    found: defaultdict[tuple[UUID, int], list[Sibling]] = defaultdict(list)
    with vault.leniently():
        for run_id, segment, request_id, kind, tool, state, revision, action in rows:
            opened = vault.open_sealed(action, ("revisions.action", request_id, revision))
            found[run_id, segment].append(Sibling(RequestId(request_id), Kind(kind), tool, RequestState(state), opened))
    return found


def _votes_and_decisions(
    conn: Connection, request_ids: Sequence[RequestId]
) -> tuple[defaultdict[RequestId, list[tuple[Vote, str]]], dict[RequestId, Decision]]:
    """In one statement, since no decision is without a vote."""
    rows = conn.execute(
        f"""
        SELECT {votes.COLUMNS},
               COALESCE(people.email, keys.name),
               decisions.revision, decisions.verdict, statement, signature, kid, start_by, decisions.created_at
        FROM votes
        LEFT JOIN people ON people.id = votes.person_id
        LEFT JOIN keys ON keys.id = votes.key_id
        LEFT JOIN decisions_now AS decisions ON decisions.request_id = votes.request_id
        WHERE votes.request_id = ANY(%s)
        ORDER BY votes.id
        """,
        (list(request_ids),),
    ).fetchall()
    cast: defaultdict[RequestId, list[tuple[Vote, str]]] = defaultdict(list)
    decisions: dict[RequestId, Decision] = {}
    for row in rows:
        *said, by, revision, verdict, statement, signature, kid, start_by, created_at = row
        vote = votes.of_row(said)
        cast[vote.request_id].append((vote, by))
        if revision is not None and vote.request_id not in decisions:
            decided = (revision, verdict, statement, signature, kid, start_by, created_at)
            decisions[vote.request_id] = decision_of(vote.request_id, decided)
    return cast, decisions


def _revisions(conn: Connection, request_ids: Sequence[RequestId]) -> defaultdict[RequestId, list[Revision]]:
    found: defaultdict[RequestId, list[Revision]] = defaultdict(list)
    if not request_ids:
        return found
    rows = conn.execute(
        """
        SELECT request_id, revision, action, digest, email
        FROM revisions
        LEFT JOIN people ON people.id = author_id
        WHERE request_id = ANY(%s)
        ORDER BY request_id, revision
        """,
        (list(request_ids),),
    ).fetchall()
    for request_id, revision, action, digest, by in rows:
        opened = vault.open_sealed(action, ("revisions.action", request_id, revision))
        found[RequestId(request_id)].append(Revision(revision, opened, digest, by))
    return found


def company(conn: Connection, request_ids: Sequence[RequestId], *, remarks: bool = True) -> dict[RequestId, Company]:
    """Who looks at open requests just now, and what people wrote below these requests, oldest first."""
    rows = conn.execute(
        """
        SELECT request_id, person_id, name, until_at, NULL::uuid AS remark, NULL::bytea AS body
        FROM lookings
        JOIN people ON people.id = person_id
        JOIN requests ON requests.id = request_id
        WHERE request_id = ANY(%(ids)s) AND until_at > clock_timestamp() AND state = 'open' AND disabled_at IS NULL
        UNION ALL
        SELECT request_id, person_id, email, remarks.created_at, remarks.id, body
        FROM remarks
        JOIN people ON people.id = person_id
        WHERE request_id = ANY(%(ids)s) AND %(remarks)s
        ORDER BY 4, 5
        """,
        {"ids": list(request_ids), "remarks": remarks},
    ).fetchall()
    looking: defaultdict[UUID, list[Looking]] = defaultdict(list)
    said: defaultdict[UUID, list[Remark]] = defaultdict(list)
    for request_id, person, who, at, remark, body in rows:
        if remark is None:
            looking[request_id].append(Looking(PersonId(person), who, at))
        else:
            text = vault.open_sealed(body, ("remarks.body", remark)).decode()
            said[request_id].append(Remark(RemarkId(remark), RequestId(request_id), who, text, at))
    return {request_id: Company(looking[request_id], said[request_id]) for request_id in request_ids}


def runs_and_tiers(conn: Connection, request_ids: Sequence[RequestId]) -> dict[RequestId, tuple[RunId, Tier]]:
    """Of each request that exists, its run and its tier."""
    rows = conn.execute("SELECT id, run_id, tier FROM requests WHERE id = ANY(%s)", (list(request_ids),)).fetchall()
    return {RequestId(row[0]): (RunId(row[1]), Tier(row[2])) for row in rows}


def state(conn: Connection, run_id: RunId) -> Mapping[str, Json]:
    """The run's own state as of its last snapshot: workspace, todos, uploads; empty before the first."""
    row = conn.execute(
        "SELECT seq, state FROM snapshots WHERE run_id = %s ORDER BY seq DESC LIMIT 1", (run_id,)
    ).fetchone()
    return {} if row is None else json.loads(vault.open_sealed(row[1], ("snapshots.state", run_id, row[0])))


def sizes(conn: Connection, run_id: RunId, names: Iterable[str]) -> dict[str, int]:
    """How many bytes each stored file content has, by its SHA-256 in hex."""
    rows = conn.execute(
        """
        SELECT encode(hash, 'hex'), octet_length(body), get_byte(body, 0)
        FROM blobs
        WHERE run_id = %s AND hash = ANY(%s)
        """,
        (run_id, [bytes.fromhex(name) for name in names]),
    ).fetchall()
    return {name: vault.length(stored, version) for name, stored, version in rows}


_ROWS_TELL_MORE = frozenset({"execution.started", "execution.finished", "notice.sent"})


def timeline(conn: Connection, run_id: RunId) -> Sequence[Happening]:
    """Everything that happened to a run, in order: the audit log's events, tool calls, and messages to reviewers."""
    events = audit.of_run(conn, run_id)
    who = _actors(conn, {event.actor for event in events})
    found = [_of_event(event, who) for event in events if event.action not in _ROWS_TELL_MORE]
    found += _executions(conn, run_id)
    found += _notices(conn, run_id)
    return sorted(found, key=lambda happening: happening.at)


def _of_event(event: Event, who: Mapping[str, str]) -> Happening:
    assert event.at is not None
    return Happening(event.at, who.get(event.actor, event.actor), event.action, event.request_id, event.body)


def _actors(conn: Connection, actors: Iterable[str]) -> dict[str, str]:
    """People's addresses and keys' names behind the actors of the audit log."""
    known = {actor: ids.read(actor[:3], actor) for actor in actors if actor[:4] in ("per_", "key_")}
    if not known:
        return {}
    rows = conn.execute(
        """
        SELECT id, email FROM people WHERE id = ANY(%(ids)s)
        UNION ALL
        SELECT id, name FROM keys WHERE id = ANY(%(ids)s)
        """,
        {"ids": list(known.values())},
    ).fetchall()
    names = dict(rows)
    return {actor: names[found] for actor, found in known.items() if found in names}


_SYSTEM = {
    "gateway": "the system, because nobody decided on another of its requests in time",
    "dispatcher": "the system, after its worker was gone",
}


def end_of(conn: Connection, request: Request) -> End:
    """Of a cancelled request: who ended its run, and when, as the audit log has it."""
    row = conn.execute(
        """
        SELECT actor, audit_events.at, status
        FROM runs
        LEFT JOIN audit_events ON run_id = runs.id AND request_id = %s AND action = 'request.cancelled'
        WHERE runs.id = %s
        ORDER BY xid, audit_events.id
        LIMIT 1
        """,
        (request.id, request.run_id),
    ).fetchone()
    assert row is not None
    actor, at, status = row
    who = _SYSTEM.get(actor or "", "the system") if actor is None or "_" not in actor else _actors(conn, {actor})[actor]
    assert request.settled_at is not None
    return End("failed" if status == "failed" else "cancelled", who, (at or request.settled_at).astimezone(UTC))


def _executions(conn: Connection, run_id: RunId) -> list[Happening]:
    rows = conn.execute(
        """
        SELECT step, call_id, attempt, executions.tool, outcome, executions.request_id, grant_id, email, started_at,
               finished_at
        FROM executions
        LEFT JOIN grants ON grants.id = grant_id
        LEFT JOIN people ON people.id = owner_id
        WHERE run_id = %s
        """,
        (run_id,),
    ).fetchall()
    found: list[Happening] = []
    for step, call_id, attempt, tool, outcome, request, grant, owner, started_at, finished_at in rows:
        call: dict[str, Json] = {"tool": tool, "step": step, "call_id": call_id, "attempt": attempt}
        request_id = request and RequestId(request)
        if grant is not None:
            call |= {"grant": ids.show("gra", grant), "owner": owner}
        # A call whose end is not known says so in the line of its start: there may never be another.
        begun = {**call, "state": "started" if finished_at is None else "finished"}
        found.append(Happening(started_at, "worker", "execution.started", request_id, begun))
        if finished_at is not None:
            ended = {**call, "outcome": outcome}
            found.append(Happening(finished_at, "worker", "execution.finished", request_id, ended))
    return found


def _notices(conn: Connection, run_id: RunId) -> list[Happening]:
    rows = conn.execute(
        """
        SELECT notices.id, notices.kind, request_id, email, channel, notices.state, attempts, sent_at, seen_at,
               used_at, notices.created_at, last_error, CASE WHEN notices.state = 'due' THEN held END
        FROM notices
        JOIN requests ON requests.id = notices.request_id
        JOIN people ON people.id = notices.person_id
        WHERE requests.run_id = %s
        """,
        (run_id,),
    ).fetchall()
    found: list[Happening] = []
    for (
        notice,
        kind,
        request,
        email,
        channel,
        state_,
        attempts,
        sent_at,
        seen_at,
        used_at,
        created_at,
        error,
        held,
    ) in rows:
        request_id = RequestId(request)
        detail: dict[str, Json] = {"notice": ids.show("ntc", notice), "kind": kind, "to": email, "channel": channel}
        queued = {**detail, "state": state_, "attempts": attempts}
        queued |= {name: value for name, value in (("last_error", error), ("held", held)) if value is not None}
        writer = "worker" if kind == "request" else "gateway"
        found.append(Happening(created_at, writer, "notice.queued", request_id, queued))
        if sent_at is not None:
            found.append(Happening(sent_at, "notifier", "notice.sent", request_id, detail))
        if seen_at is not None:
            found.append(Happening(seen_at, email, "link.opened", request_id, detail))
        if used_at is not None:
            found.append(Happening(used_at, email, "link.used", request_id, detail))
    return found


def news_of_run(
    conn: Connection, run_id: RunId, cursor: tuple[int, int], *, limit: int = 200
) -> tuple[Sequence[Event], bool]:
    """A run's events after a cursor, and whether it is over with nothing more to come.

    The first statement looks for the end, the second for events: what the first saw is below the second's horizon.
    """
    row = conn.execute(
        """
        SELECT finished_at IS NOT NULL AND NOT EXISTS (
                   SELECT FROM audit_events
                   WHERE run_id = runs.id AND xid >= audit_horizon())
        FROM runs
        WHERE id = %s
        """,
        (run_id,),
    ).fetchone()
    events = audit.since(conn, cursor, run_id=run_id, limit=limit)
    return events, row is not None and row[0] and len(events) < limit
