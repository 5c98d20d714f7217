"""Requests: what waits for a person. Whoever moves one holds the run's row first (`runs.lock`, or `hold` here)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from banksman import quorum, silence, vault
from banksman.errors import NotFound
from banksman.ids import PersonId, RequestId, RunId, show
from banksman.ledger import Connection, lasting
from banksman.records import Decision, NewRequest, Request, Requirement, Settled
from banksman.signing import Signed
from banksman.states import Kind, RequestState, Tier


def open_request(conn: Connection, run_id: RunId, segment: int, new: NewRequest) -> None:
    """Nothing → open, with the first revision, the tool's schema, and one notice for each reviewer to tell."""
    conn.execute(
        """
        WITH known AS (
            INSERT INTO schemas (hash, body) VALUES (%(schema_hash)s, %(schema)s)
            ON CONFLICT (hash) DO NOTHING
        ), opened AS (
            INSERT INTO requests (id, run_id, segment, step, call_id, kind, agent, tool, tier, audience, shape,
                                  schema_hash, requirement, context, expires_at, due_at, created_at)
            VALUES (%(id)s, %(run)s, %(segment)s, %(step)s, %(call)s, %(kind)s, %(agent)s, %(tool)s, %(tier)s,
                    %(audience)s, %(shape)s, %(schema_hash)s, %(requirement)s, %(context)s,
                    statement_timestamp() + %(expires)s, statement_timestamp() + %(due)s, statement_timestamp())
            RETURNING expires_at
        ), revised AS (
            INSERT INTO revisions (request_id, revision, action, digest)
            VALUES (%(id)s, 1, %(action)s, %(digest)s)
        )
        INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)
        SELECT notice, 'request', person, %(id)s, 1, clock_timestamp(), expires_at
        FROM opened, unnest(%(notices)s::uuid[], %(people)s::uuid[]) AS told (notice, person)
        """,
        {
            "id": new.id,
            "run": run_id,
            "segment": segment,
            "step": new.step,
            "call": new.call_id,
            "kind": new.kind,
            "agent": new.agent,
            "tool": new.tool,
            "tier": new.requirement.tier,
            "audience": sorted(quorum.audience(new.requirement, timedelta())),
            "shape": new.shape,
            "schema": vault.seal(new.schema, ("schemas.body", new.schema_hash.hex())),
            "schema_hash": new.schema_hash,
            "requirement": Jsonb(new.requirement.as_json()),
            "context": vault.seal(new.context, ("requests.context", new.id)),
            "expires": timedelta(seconds=new.requirement.expires_after),
            "due": silence.first(new.requirement) if new.reachable else timedelta(),
            "action": vault.seal(new.action, ("revisions.action", new.id, 1)),
            "digest": new.digest,
            "notices": [notice for notice, _ in new.notify],
            "people": [person for _, person in new.notify],
        },
    )


def hold(conn: Connection, request_id: RequestId) -> Request:
    """The request as it stands, with its run's row held until the transaction ends: deciding starts here.

    Two people who decide the last two requests of a run meet at the row, one after the other.
    """
    conn.execute("SELECT FROM runs WHERE id = (SELECT run_id FROM requests WHERE id = %s) FOR UPDATE", (request_id,))
    return get(conn, request_id)


def revise(
    conn: Connection, request_id: RequestId, revision: int, *, action: bytes, digest: bytes, author: PersonId
) -> None:
    """Open at the revision before → open at this one: a person edited what is asked."""
    conn.execute(
        """
        WITH revised AS (
            INSERT INTO revisions (request_id, revision, action, digest, author_id)
            VALUES (%(id)s, %(revision)s, %(action)s, %(digest)s, %(author)s)
        )
        UPDATE requests
        SET revision = %(revision)s
        WHERE id = %(id)s AND state = 'open' AND revision = %(revision)s - 1
        """,
        {
            "id": request_id,
            "revision": revision,
            "action": vault.seal(action, ("revisions.action", request_id, revision)),
            "digest": digest,
            "author": author,
        },
    )


def cancel_open(conn: Connection, run_ids: Sequence[RunId]) -> Sequence[tuple[RunId, RequestId]]:
    """Open → cancelled, every one of runs that are over."""
    rows = conn.execute(
        """
        UPDATE requests
        SET state = 'cancelled', settled_at = clock_timestamp(), due_at = NULL
        WHERE run_id = ANY(%s) AND state = 'open'
        RETURNING run_id, id
        """,
        (list(run_ids),),
    ).fetchall()
    return sorted(rows)


def supersede(conn: Connection, request_ids: Sequence[RequestId]) -> None:
    """Open or approved → superseded: the call is asked again because something under it changed."""
    conn.execute(
        """
        UPDATE requests
        SET state = 'superseded', settled_at = COALESCE(settled_at, clock_timestamp()), due_at = NULL
        WHERE id = ANY(%s) AND state IN ('open', 'approved')
        """,
        (list(request_ids),),
    )


def settled(conn: Connection, run_id: RunId, segment: int) -> Sequence[Settled]:
    """How everything that the run waited for before `segment` came out, in the order the model asked."""
    rows = conn.execute(
        """
        SELECT requests.id, requests.step, requests.call_id, requests.tool, requests.kind, requests.state,
               requests.requirement ->> 'on_expiry', requests.revision, revisions.action,
               decisions.revision, decisions.verdict, decisions.statement, decisions.signature, decisions.kid,
               decisions.start_by, decisions.created_at
        FROM requests
        JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision
        LEFT JOIN decisions_now AS decisions ON decisions.request_id = requests.id
        WHERE requests.run_id = %s AND requests.segment = %s
        ORDER BY requests.id
        """,
        (run_id, segment - 1),
    ).fetchall()
    return [
        Settled(
            request_id=RequestId(request_id),
            step=step,
            call_id=call_id,
            tool=tool,
            kind=Kind(kind),
            state=RequestState(state),
            on_expiry=on_expiry,
            action=vault.open_sealed(action, ("revisions.action", request_id, revision)),
            decision=None if decided[0] is None else decision_of(RequestId(request_id), decided),
        )
        for request_id, step, call_id, tool, kind, state, on_expiry, revision, action, *decided in rows
    ]


def decision_of(request_id: RequestId, row: Sequence[Any]) -> Decision:
    """The decision behind a row of (revision, verdict, statement, signature, kid, start_by, created_at)."""
    revision, verdict, statement, signature, kid, start_by, created_at = row
    body = vault.open_sealed(statement, ("decisions.statement", request_id))
    signed = Signed(body, signature, kid)
    return Decision(request_id, revision, RequestState(verdict), signed, start_by, created_at)


def last_deadline(conn: Connection, run_id: RunId) -> tuple[datetime, datetime]:
    """When the last of the run's open requests expires, and what time it is."""
    row = conn.execute(
        """
        SELECT GREATEST(max(expires_at), clock_timestamp()), clock_timestamp()
        FROM requests
        WHERE run_id = %s AND state = 'open'
        """,
        (run_id,),
    ).fetchone()
    assert row is not None
    return row[0], row[1]


SELECT = f"""
    SELECT requests.id, requests.run_id, requests.segment, step, call_id, kind, state, requests.agent, tool, tier,
           requirement, requests.revision, action, digest, author_id, schema_hash, context, requester, requester_id,
           expires_at, requests.created_at, settled_at, extended, unreachable_at,
           NOT {lasting.REQUEST},
           COALESCE(settled_at, clock_timestamp()) - requests.created_at
    FROM requests
    JOIN runs ON runs.id = requests.run_id
    JOIN revisions ON revisions.request_id = requests.id AND revisions.revision = requests.revision
"""


def get(conn: Connection, request_id: RequestId) -> Request:
    """The request as it stands, or `NotFound`."""
    row = conn.execute(f"{SELECT} WHERE requests.id = %s", (request_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no request {show('req', request_id)}.", request_id)
    return of_row(row)


def of_run(conn: Connection, run_id: RunId) -> Sequence[Request]:
    """Every request of a run, oldest first."""
    rows = conn.execute(f"{SELECT} WHERE requests.run_id = %s ORDER BY requests.id", (run_id,)).fetchall()
    return [of_row(row) for row in rows]


def schema(conn: Connection, schema_hash: bytes) -> bytes:
    """The JSON schema behind its hash."""
    row = conn.execute("SELECT body FROM schemas WHERE hash = %s", (schema_hash,)).fetchone()
    assert row is not None
    return vault.open_sealed(row[0], ("schemas.body", schema_hash.hex()))


def of_row(row: Sequence[Any]) -> Request:
    """The request behind a row of `SELECT`."""
    (request_id, run_id, segment, step, call_id, kind, state, agent, tool, tier, requirement, revision, action, digest,
     author_id, schema_hash, context, requester, requester_id, expires_at, created_at, settled_at,
     extended, unreachable_at, overdue, age) = row  # fmt: skip
    return Request(
        id=RequestId(request_id),
        run_id=RunId(run_id),
        segment=segment,
        step=step,
        call_id=call_id,
        kind=Kind(kind),
        state=RequestState(state),
        agent=agent,
        tool=tool,
        tier=Tier(tier),
        requirement=Requirement.from_json(requirement),
        revision=revision,
        action=vault.open_sealed(action, ("revisions.action", request_id, revision)),
        digest=digest,
        author_id=None if author_id is None else PersonId(author_id),
        schema_hash=schema_hash,
        context=vault.open_sealed(context, ("requests.context", request_id)),
        requester=requester,
        requester_id=None if requester_id is None else PersonId(requester_id),
        expires_at=expires_at,
        created_at=created_at,
        settled_at=settled_at,
        extended=extended,
        unreachable_at=unreachable_at,
        overdue=overdue,
        age=age,
    )
