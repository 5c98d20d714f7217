"""Lists of runs and of requests, by filters and page by page (keyset), each filter finding its index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from banksman import digest, vault
from banksman.digest import Json
from banksman.errors import BanksmanError
from banksman.ids import PersonId, RequestId, RunId
from banksman.ledger import Connection, requests, runs
from banksman.records import Request, Run
from banksman.states import Kind, RequestState, RunStatus


def of_runs(
    conn: Connection,
    *,
    status: RunStatus | None = None,
    agent: str | None = None,
    batch_id: UUID | None = None,
    parent_id: RunId | None = None,
    requester_id: PersonId | None = None,
    before: RunId | None = None,
    limit: int = 50,
) -> Sequence[Run]:
    """Runs, newest first, from `before` on. Only the filters that are given are in the statement, so each finds
    its index.
    """
    wanted: dict[str, object | None] = {
        "status = %(status)s": status,
        "agent = %(agent)s": agent,
        "batch_id = %(batch)s": batch_id,
        "parent_id = %(parent)s": parent_id,
        "requester_id = %(requester)s": requester_id,
        "id < %(before)s": before,
    }
    given = " AND ".join(clause for clause, value in wanted.items() if value is not None) or "true"
    rows = conn.execute(
        f"""
        SELECT {runs.COLUMNS}
        FROM runs
        WHERE {given}
        ORDER BY id DESC
        LIMIT %(limit)s
        """.encode(),
        {
            "status": status,
            "agent": agent,
            "batch": batch_id,
            "parent": parent_id,
            "requester": requester_id,
            "before": before,
            "limit": limit,
        },
    ).fetchall()
    return [runs.of_row(row) for row in rows]


def of_requests(
    conn: Connection,
    *,
    state: RequestState | None = None,
    kind: Kind | None = None,
    run_id: RunId | None = None,
    agent: str | None = None,
    batch_id: UUID | None = None,
    requester_id: PersonId | None = None,
    after: RequestId | None = None,
    limit: int = 50,
) -> Sequence[Request]:
    """Requests, oldest first, after `after`. Only the filters that are given are in the statement, and the state is
    spelled out in it, so that the list of open requests reads its own small index however many are settled.
    """
    wanted: dict[str, object | None] = {
        f"state = '{state}'": state,
        "kind = %(kind)s": kind,
        "requests.run_id = %(run)s": run_id,
        "requests.agent = %(agent)s": agent,
        "batch_id = %(batch)s": batch_id,
        "requester_id = %(requester)s": requester_id,
        "requests.id > %(after)s": after,
    }
    given = " AND ".join(clause for clause, value in wanted.items() if value is not None) or "true"
    rows = conn.execute(
        f"{requests.SELECT} WHERE {given} ORDER BY requests.id LIMIT %(limit)s".encode(),
        {
            "kind": kind,
            "run": run_id,
            "agent": agent,
            "batch": batch_id,
            "requester": requester_id,
            "after": after,
            "limit": limit,
        },
    ).fetchall()
    return [requests.of_row(row) for row in rows]


def siblings(conn: Connection, request: Request) -> Sequence[Request]:
    """The requests of the same pause, this one among them: the run resumes when all are settled."""
    rows = conn.execute(
        f"{requests.SELECT} WHERE requests.run_id = %s AND requests.segment = %s ORDER BY requests.id",
        (request.run_id, request.segment),
    ).fetchall()
    return [requests.of_row(row) for row in rows]


def revisions(conn: Connection, request_id: RequestId) -> Sequence[tuple[int, bytes, PersonId | None]]:
    """Every revision of a request: its number, its action's bytes and who edited it (None: the agent)."""
    rows = conn.execute(
        "SELECT revision, action, author_id FROM revisions WHERE request_id = %s ORDER BY revision", (request_id,)
    ).fetchall()
    return [
        (number, vault.open_sealed(action, ("revisions.action", request_id, number)), author)
        for number, action, author in rows
    ]


def revised_at(conn: Connection, request: Request) -> datetime:
    """Since when the request is asked as it is now."""
    row = conn.execute(
        "SELECT created_at FROM revisions WHERE request_id = %s AND revision = %s", (request.id, request.revision)
    ).fetchone()
    assert row is not None
    return row[0]


def before(conn: Connection, request_id: RequestId) -> Json:
    """What was approved by a request that is asked again, so that people are shown the difference."""
    old = requests.get(conn, request_id)
    try:
        action = digest.parse(old.action, limit=4 * digest.MAX_BYTES)
    except BanksmanError:
        return None
    files = digest.parse(old.context, limit=digest.MAX_CONTEXT_BYTES).get("files")
    schema = digest.parse(requests.schema(conn, old.schema_hash))
    return {
        **{name: action.get(name) for name in ("arguments", "operands", "agent_version")},
        "schema": schema,
        "files": files,
    }
