"""Fills a database with runs that wait and runs that are over.

The first thousand of each are made by the ledger's own statements, one move after the other. The others are copies of
those rows, made inside PostgreSQL: every id is moved into the past by a step for each copy, and every time with it.
Content is plain, because a sealed value belongs to its own row alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from banksman import ids, ledger
from banksman.ids import BatchId, NoticeId, PersonId, RunId, VoteId
from banksman.ledger import audit, batches, decisions, executions, requests, runs, snapshots, staff, votes
from banksman.records import Decision, Event, NewRequest, NewRun, Rung, Snapshot, Vote
from banksman.signing import Signed
from banksman.states import RequestState, Tier, Verdict
from tests.gateway.scenes import asking, bound, sha256

UNIT = 1000
"""So many runs are made by the ledger's statements, of each sort, and copied."""
LEASE = timedelta(hours=1)
_STEP = 60
"""Seconds by which each copy lies before the one before it."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is there, and a batch of `UNIT` runs of each sort."""

    reviewers: Sequence[PersonId]
    parked: BatchId
    finished: BatchId


def begin(conn: ledger.Connection, unit: int = UNIT) -> Crowd:
    """Two reviewers, `unit` parked and `unit` finished runs, half of each in a batch, move by move."""
    people = [
        staff.upsert(conn, f"{name}@example.org", name=name.title(), groups=groups).id
        for name, groups in (("ana", ("finance",)), ("ben", ()))
    ]
    made = [BatchId(ids.new()), BatchId(ids.new())]
    for batch in made:
        batches.create(conn, batch, name=None, requester="bot@example.org", requester_id=None)
        submitted = [_new(number) for number in range(unit)]
        batches.load(conn, batch, submitted[: unit // 2], actor="key_x")
        for new in submitted[unit // 2 :]:
            runs.create(conn, new, hint=timedelta())
            audit.append(conn, Event("key_x", "run.submitted", new.id, body={"agent": new.agent}))
        for number, new in enumerate(submitted):
            request, claim = _park(conn, new.id, number, people)
            if batch == made[1]:
                _finish(conn, new.id, number, request, people[0], claim)
        conn.commit()
    return Crowd(people, *made)


def _new(number: int) -> NewRun:
    requester = ("carol@example.org", "dora@example.org", "ana@example.org")[number % 3]
    return NewRun(RunId(ids.new()), "plain", "Refund what is due. " * 10, requester, line=number, tags=["refunds"])


def _asked(number: int, run_id: RunId, people: Sequence[PersonId]) -> NewRequest:
    asked = asking(
        tool=("write_file", "refund", "send_mail", "execute", "delete_record")[number % 5],
        arguments={"path": f"/out/{number}.txt", "content": f"line {number}\n" * 20},
        tier=(Tier.LOW, Tier.MEDIUM, Tier.HIGH)[number % 3],
        approvals=2 if number % 3 == 2 else 1,
        groups={"finance": 1} if number % 4 == 0 else {},
        expires_after=36 * 3600 + number * 300,
        escalation=(Rung(24 * 3600, ("admins",)),),
    )
    return bound(asked, run_id, [(NoticeId(ids.new()), person) for person in people])


def _park(conn: ledger.Connection, run_id: RunId, number: int, people: Sequence[PersonId]) -> tuple[NewRequest, int]:
    claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
    assert claim is not None
    said = json.dumps([{"kind": "request", "parts": [{"content": "Refund what is due. " * 10}]}]).encode()
    for seq in range(2):
        assert snapshots.save(conn, run_id, claim.fence, Snapshot(seq, 0, seq, said, b'{"workspace": {}}'))
    request = _asked(number, run_id, people)
    assert runs.park(conn, run_id, claim.fence, version="1", usage={"requests": 1, "input_tokens": 900})
    requests.open_request(conn, run_id, 0, request)
    told = {"tool": request.tool, "tier": request.requirement.tier.value, "digest": request.digest.hex()}
    audit.append(
        conn,
        Event("worker:1", "run.claimed", run_id, body={"segment": 0, "attempt": 1}),
        Event("worker:1", "request.opened", run_id, request.id, told),
        Event("worker:1", "run.parked", run_id, body={"segment": 0, "attempt": 1}),
    )
    return request, claim.fence


def _finish(
    conn: ledger.Connection, run_id: RunId, number: int, request: NewRequest, voter: PersonId, fence: int
) -> None:
    vote = Vote(VoteId(ids.new()), request.id, 1, request.digest, Verdict.APPROVE, "session", voter, None, None, None,
                b"\x01" * 32, mac="k1:" + "0" * 43, created_at=None)  # fmt: skip
    assert votes.cast(conn, vote)
    statement = json.dumps({"request": ids.show("req", request.id), "arguments": "x" * 700}).encode()
    signed = Signed(statement, b"\x02" * 64, "k1")
    decision = Decision(request.id, 1, RequestState.APPROVED, signed, datetime.now(UTC) + LEASE)
    assert decisions.settle(conn, decision)
    segment = runs.wake(conn, run_id, hint=timedelta())
    assert segment is not None
    claim = runs.claim(conn, run_id, segment, owner="w", lease=LEASE)
    assert claim is not None
    assert executions.start(conn, run_id, claim.fence, step=1, call_id=request.call_id, attempt=1, tool=request.tool,
                            digest=request.digest, request_id=request.id, voters={}, start_by=None)  # fmt: skip
    assert executions.finish(conn, run_id, claim.fence, step=1, call_id=request.call_id, attempt=1,
                             outcome="returned", result=b'"written"')  # fmt: skip
    snapshots.keep_blobs(conn, run_id, {sha256(b"%d" % number): b"line\n" * 20})
    assert snapshots.save(conn, run_id, claim.fence, Snapshot(2, 1, 2, b'[{"kind": "response"}]', b"{}"))
    usage = {"requests": 2, "input_tokens": 1900, "output_tokens": 200, "tool_calls": 1, "cost": "0.0031"}
    assert runs.finish(conn, run_id, claim.fence, output="done", version="1", usage=usage)
    audit.append(
        conn,
        Event(f"per_{voter.hex}", "request.approved", run_id, request.id, {"revision": 1, "kid": "k1"}),
        *(
            Event(f"worker:{claim.fence}", action, run_id, request.id, {"tool": request.tool, "step": 1})
            for action in ("execution.started", "execution.finished")
        ),
        Event(f"worker:{claim.fence}", "run.finished", run_id, body={"segment": 1, "attempt": 1}),
    )
    conn.execute(
        "UPDATE notices SET state = 'sent', due_at = NULL, sent_at = now() WHERE request_id = %s", (request.id,)
    )


# In the order in which they refer to each other; what makes a copy of each column, where it is not copied as it is.
_IDS = {
    "batches": {"id"},
    "runs": {"id", "batch_id"},
    "snapshots": {"run_id"},
    "blobs": {"run_id"},
    "requests": {"id", "run_id"},
    "revisions": {"request_id"},
    "votes": {"id", "request_id"},
    "decisions": {"request_id"},
    "executions": {"run_id", "request_id"},
    "notices": {"id", "request_id"},
    "audit_events": {"run_id", "request_id"},
}
_LATER = {"expires_at", "start_by", "due_at"}
_CHOSEN = """
    SELECT id FROM runs
    WHERE (status = 'finished') = (SELECT bool_and(status = 'finished') FROM runs WHERE batch_id = %(batch)s)"""
_WHICH = {
    "batches": "id = %(batch)s",
    "runs": "id IN (SELECT id FROM chosen)",
    **dict.fromkeys(("snapshots", "blobs", "executions", "audit_events"), "run_id IN (SELECT id FROM chosen)"),
    "requests": "run_id IN (SELECT id FROM chosen)",
    **dict.fromkeys(
        ("revisions", "votes", "decisions", "notices"),
        "request_id IN (SELECT id FROM requests WHERE run_id IN (SELECT id FROM chosen))",
    ),
}


def copy(conn: psycopg.Connection, crowd: Crowd, parked: int, finished: int, say: Say, at_once: int = 50) -> None:
    """What `begin` made of each sort, so many times more. Indexes that keep no constraint are made anew at the end.

    `conn` is a superuser's, in autocommit: foreign keys and triggers rest meanwhile.
    """
    conn.execute("SET session_replication_role = replica")
    conn.execute("SET maintenance_work_mem = '512MB'")
    conn.execute(
        """
        CREATE OR REPLACE FUNCTION pg_temp.moved(id uuid, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
        RETURN (lpad(to_hex(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint - n * 60000::bigint),
                     12, '0') || substr(replace(id::text, '-', ''), 13))::uuid
        """
    )
    indexes = conn.execute(
        """
        SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indrelid
        WHERE relname = ANY(%s) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        """,
        (list(_IDS),),
    ).fetchall()
    for batch in (crowd.parked, crowd.finished):
        conn.execute(f"CREATE TEMP TABLE chosen_{batch.hex} AS {_CHOSEN}".encode(), {"batch": batch})
        conn.execute(f"ANALYZE chosen_{batch.hex}".encode())
        for table, which in _WHICH.items():
            rows = which.replace("chosen", f"chosen_{batch.hex}")
            conn.execute(
                f"CREATE TEMP TABLE {table}_{batch.hex} AS SELECT * FROM {table} WHERE {rows}".encode(),
                {"batch": batch},
            )
    for name, _ in indexes:
        conn.execute(f"DROP INDEX {name}".encode())
    for batch, copies in ((crowd.parked, parked), (crowd.finished, finished)):
        for start in range(copies, 0, -at_once):
            with conn.transaction():
                for table in _IDS:
                    _copy(conn, table, batch, start, max(start - at_once, 0) + 1, ended=batch == crowd.finished)
            say(f"copied {copies - max(start - at_once, 0):,} of {copies:,}")
    for name, definition in indexes:
        say(f"index {name}")
        conn.execute(definition.encode())
    conn.execute("SET session_replication_role = origin")


def _copy(conn: psycopg.Connection, table: str, batch: BatchId, first: int, last: int, *, ended: bool) -> None:
    columns = _columns(conn, table)
    made = ", ".join(_made(column, kind, _IDS[table], ended) for column, kind in columns)
    conn.execute(
        f"""
        INSERT INTO {table} ({", ".join(name for name, _ in columns)})
        SELECT {made} FROM generate_series(%s, %s, -1) AS n, {table}_{batch.hex}
        """.encode(),
        (first, last),
    )


def _columns(conn: psycopg.Connection, table: str) -> list[tuple[str, str]]:
    return conn.execute(
        """
        SELECT attname, atttypid::regtype::text
        FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
          AND attidentity = '' AND NOT (attrelid = 'audit_events'::regclass AND attname = 'xid')
        ORDER BY attnum
        """,
        (table,),
    ).fetchall()


def _made(column: str, kind: str, names: set[str], finished: bool) -> str:
    if column in names:
        return f"pg_temp.moved({column}, n)"
    if kind == "timestamp with time zone":
        # What waits is to be looked at later, spread over days.
        later = not finished and column in _LATER
        return (
            f"{column} + mod(n, 5000) * interval '1 minute'" if later else f"{column} - n * interval '{_STEP} seconds'"
        )
    return column
