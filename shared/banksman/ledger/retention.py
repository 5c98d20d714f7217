"""What is over goes: whole runs after a while (`step`), or the content of one at once (`erase`).

A family, which is a run with everything that it delegated, goes together or not at all, and only when all of it is
over. Rows are removed by the role `banksman_keeper`, that no service has; PostgreSQL lets it remove nothing of a run
that is not over. The audit log says of each run that it went, and keeps everything that it said before: its events hold
ids, names, states and digests, never what was said or done.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID

import psycopg

from banksman import digest, ids, ledger, vault
from banksman.digest import Json
from banksman.errors import ConfigurationError, Conflict, NotFound
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection, audit, runs
from banksman.records import Event
from banksman.states import FINAL, RunStatus

ROLE = "banksman_keeper"
ACTOR = "keeper"
LEAST = timedelta(days=1)
"""So long is kept at least: an answer under an Idempotency-Key may be asked for again."""
_APART = timedelta(minutes=10)
"""So far may the clock that made an id be ahead of PostgreSQL's."""

Place = tuple[RunStatus, RunId | None]
START: Place = (RunStatus.FINISHED, None)
_NEXT = {RunStatus.FINISHED: RunStatus.FAILED, RunStatus.FAILED: RunStatus.CANCELLED}


@dataclass(frozen=True, slots=True)
class Gone:
    """What one step removed, and where to go on; None: that was all."""

    after: Place | None
    runs: int
    batches: int
    looked_at: int
    """How many submitted runs it looked at."""
    held_back: int
    """How many of those stay for now, because of something newer of theirs."""


@contextmanager
def keeping(url: str, *, name: str) -> Generator[Connection]:
    """One transaction with the keeper's rights, for its own URL or for the database owner's."""
    with ledger.once(url, name=name) as conn:
        try:
            conn.execute("SELECT set_config('role', %s, true)", (ROLE,))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
            raise ConfigurationError(
                f"{conn.info.user} may not act as {ROLE}. Use that role's own URL, or the database owner's after "
                f"`banksman migrate`; a superuser lets another role in by GRANT {ROLE} TO {conn.info.user};"
            ) from None
        yield conn


def now(conn: Connection) -> datetime:
    """PostgreSQL's time."""
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


def counted(conn: Connection, before: datetime) -> Mapping[RunStatus, int]:
    """How many submitted runs had ended before a moment, by how."""
    rows = conn.execute(
        """
        SELECT status, count(*)
        FROM runs
        WHERE status IN ('finished', 'failed', 'cancelled') AND id < %s AND finished_at < %s AND parent_id IS NULL
        GROUP BY status
        """,
        (ids.first_of(before + _APART), before),
    ).fetchall()
    return {RunStatus(status): count for status, count in rows}


def step(conn: Connection, after: Place, before: datetime, *, limit: int) -> Gone:
    """Over since before a moment → gone: the next `limit` submitted runs with all they delegated, and the batches that
    this leaves empty. One that somebody holds, or that something newer hangs on, stays for the next time.
    """
    status, last = after
    found = conn.execute(
        """
        SELECT id
        FROM runs
        WHERE status = %(status)s AND (%(last)s::uuid IS NULL OR id > %(last)s) AND id < %(newest)s
          AND finished_at < %(before)s AND parent_id IS NULL
        ORDER BY id
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
        """,
        {"status": status, "last": last, "newest": ids.first_of(before + _APART), "before": before, "limit": limit},
    ).fetchall()
    tops = [RunId(row[0]) for row in found]
    going = _going(conn, tops, before)
    batches: Sequence[BatchId] = _remove(conn, going) if going else ()
    audit.append(
        conn,
        *(Event(ACTOR, "run.purged", run_id, body={"status": ended}) for run_id, ended in going.items()),
        *(Event(ACTOR, "batch.purged", body={"batch": ids.show("bat", batch)}) for batch in batches),
    )
    on: Place | None = (status, tops[-1]) if len(tops) == limit else None
    if on is None and status in _NEXT:
        on = (_NEXT[status], None)
    held_back = sum(top not in going for top in tops)
    return Gone(on, runs=len(going), batches=len(batches), looked_at=len(tops), held_back=held_back)


def remove_messages(conn: Connection, before: datetime, *, limit: int) -> int:
    """Messages about no request (codes, receipts, trials) that were over before a moment → gone; how many."""
    return conn.execute(
        """
        DELETE FROM notices
        WHERE id IN (
            SELECT id
            FROM notices
            WHERE request_id IS NULL AND created_at < %s AND state IN ('sent', 'dead', 'dropped')
            ORDER BY created_at
            LIMIT %s)
        """,
        (before, limit),
    ).rowcount


_FAMILY: LiteralString = """
        WITH RECURSIVE family (top, id, status, finished_at) AS (
            SELECT id, id, status, finished_at
            FROM runs
            WHERE id = ANY(%(tops)s)
            UNION ALL
            SELECT top, runs.id, runs.status, runs.finished_at
            FROM runs
            JOIN family ON parent_id = family.id
        )"""


def _going(conn: Connection, tops: Sequence[RunId], before: datetime) -> dict[RunId, str]:
    """Of these families each run with its end, where all of it is over and nothing that stays hangs on a standing grant
    that it gave.
    """
    rows = conn.execute(
        f"""
        {_FAMILY}
        SELECT id, status
        FROM family
        WHERE top NOT IN (
            SELECT top FROM family WHERE finished_at IS NULL OR finished_at >= %(before)s
            UNION ALL
            SELECT top
            FROM family
            JOIN requests ON run_id = family.id
            JOIN grants ON grants.request_id = requests.id
            WHERE grants.expires_at >= %(before)s AND revoked_at IS NULL
              OR EXISTS (SELECT FROM executions
                         WHERE grant_id = grants.id AND executions.run_id NOT IN (SELECT id FROM family)))
        ORDER BY id
        """.encode(),
        {"tops": list(tops), "before": before},
    ).fetchall()
    return {RunId(run_id): status for run_id, status in rows}


def _remove(conn: Connection, run_ids: Mapping[RunId, str]) -> Sequence[BatchId]:
    """All rows of these runs → gone, those that refer to others first; the batches that are empty now."""
    wanted = {"runs": list(run_ids)}
    _remove_of_requests(conn, wanted, "lookings", "remarks", "deliveries", "notices", "renewals", "decisions")
    _remove_of_runs(conn, wanted, "executions", "snapshots", "blobs", "deliveries")
    _remove_of_requests(conn, wanted, "grants", "votes", "revisions")
    _remove_of_runs(conn, wanted, "requests")
    conn.execute("DELETE FROM delegations WHERE child_id = ANY(%(runs)s)", wanted)
    left = conn.execute("DELETE FROM runs WHERE id = ANY(%(runs)s) RETURNING batch_id", wanted).fetchall()
    emptied = conn.execute(
        """
        DELETE FROM batches
        WHERE id = ANY(%s) AND NOT EXISTS (SELECT FROM runs WHERE batch_id = batches.id)
        RETURNING id
        """,
        (list({row[0] for row in left if row[0] is not None}),),
    ).fetchall()
    return [BatchId(row[0]) for row in emptied]


_ASKED: LiteralString = "(SELECT id FROM requests WHERE run_id = ANY(%(runs)s))"


def _remove_of_runs(conn: Connection, wanted: Mapping[str, object], *tables: LiteralString) -> None:
    for table in tables:
        conn.execute(f"DELETE FROM {table} WHERE run_id = ANY(%(runs)s)", wanted)


def _remove_of_requests(conn: Connection, wanted: Mapping[str, object], *tables: LiteralString) -> None:
    for table in tables:
        if table == "votes":
            conn.execute(
                f"DELETE FROM withdrawals WHERE vote_id IN (SELECT id FROM votes WHERE request_id IN {_ASKED})", wanted
            )
        conn.execute(f"DELETE FROM {table} WHERE request_id IN {_ASKED}", wanted)


def erase(conn: Connection, run_id: RunId, *, because: str | None = None) -> Sequence[RunId]:
    """Over → over and without content: the run and all that it delegated, whose ids come back.

    Prompt, metadata, tags, the caller's key, output, error, conversation, files, results, what was asked and answered,
    reasons, remarks, messages, votes and decisions go. Ids, states, times, tools and usage stay, and the audit log.
    """
    family = _held_family(conn, run_id)
    wanted = {"runs": family}
    _must_be_without_grants(conn, wanted)
    _forget_answers(conn, family)
    # Others' calls may name a grant that is over: its row stays then.
    conn.execute(f"DELETE FROM grants WHERE request_id IN {_ASKED} AND NOT EXISTS ({_USED})", wanted)
    for (grant,) in conn.execute(f"SELECT id FROM grants WHERE request_id IN {_ASKED}", wanted).fetchall():
        empty = vault.seal(b"{}", ("grants.statement", grant))
        conn.execute("UPDATE grants SET statement = %s WHERE id = %s", (empty, grant))
    _remove_of_requests(conn, wanted, "lookings", "remarks", "notices", "renewals", "decisions", "votes", "revisions")
    _remove_of_runs(conn, wanted, "snapshots", "blobs")
    for (request,) in conn.execute(_ASKED, wanted).fetchall():
        empty = vault.seal(b"{}", ("requests.context", request))
        conn.execute("UPDATE requests SET context = %s WHERE id = %s", (empty, request))
    conn.execute("UPDATE executions SET result = NULL WHERE run_id = ANY(%(runs)s) AND result IS NOT NULL", wanted)
    conn.execute("UPDATE deliveries SET last_error = NULL WHERE run_id = ANY(%(runs)s)", wanted)
    said = f"The content of this run was erased on {_day(now(conn))}."
    for member in family:
        conn.execute(
            """
            UPDATE runs
            SET prompt = %s, metadata = %s, output = NULL, error = %s, tags = '{}', key = NULL,
                erased_at = clock_timestamp()
            WHERE id = %s
            """,
            (
                vault.seal(b"", ("runs.prompt", member)),
                vault.seal(digest.canonical({}), ("runs.metadata", member)),
                runs.sealed_error(member, said),
                member,
            ),
        )
    body: dict[str, Json] = {} if because is None else {"because": because}
    audit.append(conn, *(Event(ACTOR, "run.erased", member, body=body) for member in family))
    return family


def _held_family(conn: Connection, run_id: RunId) -> list[RunId]:
    """A submitted run and all that it delegated, held; `Conflict` unless all of it is over."""
    row = conn.execute("SELECT parent_id, status FROM runs WHERE id = %s FOR UPDATE", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no run {ids.show('run', run_id)}.", run_id)
    if row[0] is not None:
        raise Conflict(
            "Another run delegated this one, and its conversation holds what came of it: erase that one.",
            {"parent": ids.show("run", row[0])},
        )
    below = conn.execute(f"{_FAMILY} SELECT id FROM family ORDER BY id".encode(), {"tops": [run_id]}).fetchall()
    held = conn.execute(
        "SELECT id, status FROM runs WHERE id = ANY(%s) ORDER BY id FOR UPDATE", ([row[0] for row in below],)
    ).fetchall()
    for member, status in held:
        if RunStatus(status) not in FINAL:
            raise Conflict(
                "Only what is over is erased: cancel it first, or wait for its end.",
                {"run": ids.show("run", member), "status": status},
            )
    return [RunId(member) for member, _ in held]


_USED: LiteralString = "SELECT FROM executions WHERE grant_id = grants.id AND executions.run_id <> ALL(%(runs)s)"


def _must_be_without_grants(conn: Connection, wanted: Mapping[str, object]) -> None:
    row = conn.execute(
        f"""
        SELECT id, expires_at
        FROM grants
        WHERE request_id IN {_ASKED} AND revoked_at IS NULL AND expires_at > clock_timestamp()
        LIMIT 1
        """,
        wanted,
    ).fetchone()
    if row is not None:
        raise Conflict(
            "A standing grant that was given on this run still lets calls through, and holds its arguments: revoke it"
            " first (`banksman grants revoke`), or wait until it is over.",
            {"grant": ids.show("gra", row[0]), "until": row[1].astimezone(UTC).isoformat(timespec="seconds")},
        )


def _forget_answers(conn: Connection, family: Sequence[RunId]) -> None:
    """Answers that are kept under an Idempotency-Key and name one of these runs, or what was asked or granted in it
    → gone. There is a day of them.
    """
    wanted = {"runs": family}
    asked = conn.execute(_ASKED, wanted).fetchall()
    given = conn.execute(f"SELECT id FROM grants WHERE request_id IN {_ASKED}", wanted).fetchall()
    names = [
        *(ids.show("run", member).encode() for member in family),
        *(ids.show("req", request).encode() for (request,) in asked),
        *(ids.show("gra", grant).encode() for (grant,) in given),
    ]
    naming: list[tuple[str, str]] = []
    with conn.cursor(name="answers") as rows:
        rows.itersize = 500
        rows.execute("SELECT actor, key, body FROM answers WHERE length(body) > 0")
        for actor, key, body in rows:
            opened = vault.open_sealed(body, ("answers.body", actor, key))
            if any(name in opened for name in names):
                naming.append((actor, key))
    for place in naming:
        conn.execute("DELETE FROM answers WHERE actor = %s AND key = %s", place)


def gone(conn: Connection, what: UUID) -> str | None:
    """What became of a run, a request or a batch that is not found: that it was purged or erased, and when."""
    row = conn.execute(
        """
        SELECT 'purged', at FROM audit_events WHERE run_id = %(what)s AND action = 'run.purged'
        UNION ALL
        SELECT 'purged', at
        FROM audit_events
        WHERE action = 'run.purged'
          AND run_id = (SELECT run_id FROM audit_events WHERE request_id = %(what)s AND run_id IS NOT NULL LIMIT 1)
        UNION ALL
        SELECT 'purged', at FROM audit_events WHERE action = 'batch.purged' AND body ->> 'batch' = %(batch)s
        UNION ALL
        SELECT 'erased', erased_at FROM requests JOIN runs ON runs.id = run_id WHERE requests.id = %(what)s
        LIMIT 1
        """,
        {"what": what, "batch": ids.show("bat", BatchId(what))},
    ).fetchone()
    if row is None or row[1] is None:
        return None
    return f"It was {row[0]} on {_day(row[1])}. The audit log says what was done, and by whom."


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
