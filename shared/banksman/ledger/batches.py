"""Batches: many runs submitted as one, loaded by COPY, and cancelled as one.

Cancelling marks the batch first, in a transaction of its own, and from then on no run of it is claimed. Then its runs
are stopped some at a time, in the order of their ids, and one that somebody else holds at that moment is left for the
next round (`SKIP LOCKED`): this waits for no run of the batch while it holds others. What they delegated was born after
every run of the batch, so it comes later in the order and is waited for (`families.hold`). Whoever finds a batch that
is marked and not swept goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from banksman import digest, ledger, vault
from banksman.errors import NotFound
from banksman.ids import BatchId, PersonId, RunId, show
from banksman.ledger import Connection, audit, families, rescue, stops
from banksman.records import Batch, Event, NewRun
from banksman.states import FINAL, RunStatus


def create(
    conn: Connection, batch_id: BatchId, *, name: str | None, requester: str, requester_id: PersonId | None
) -> None:
    """Nothing → a batch without runs; `load` brings them in the same transaction."""
    conn.execute(
        "INSERT INTO batches (id, name, requester, requester_id) VALUES (%s, %s, %s, %s)",
        (batch_id, name, requester, requester_id),
    )


def load(conn: Connection, batch_id: BatchId, runs: Sequence[NewRun], *, actor: str) -> None:
    """Nothing → queued and due, a part of a batch at a time. The dispatcher finds them: no wake-ups go out.

    Each run has an event of its own, so that its log is whole without the batch's; copied too, they cost little.
    """
    now = ledger.now(conn)
    with (
        conn.cursor() as cursor,
        cursor.copy(
            """
            COPY runs (id, agent, requester, requester_id, batch_id, tags, priority, prompt, metadata, finish_by,
                       key, turn, due_at)
            FROM STDIN
            """
        ) as copy,
    ):
        for run in runs:
            copy.write_row(
                (
                    run.id,
                    run.agent,
                    run.requester,
                    run.requester_id,
                    batch_id,
                    list(run.tags),
                    run.priority,
                    vault.seal(run.prompt.encode(), ("runs.prompt", run.id)),
                    vault.seal(digest.canonical(dict(run.metadata)), ("runs.metadata", run.id)),
                    run.finish_by,
                    run.key,
                    run.line,
                    now,
                )
            )
    with conn.cursor() as cursor, cursor.copy("COPY audit_events (actor, action, run_id, body) FROM STDIN") as copy:
        for run in runs:
            copy.write_row((actor, "run.submitted", run.id, _told(run.agent, run.requester)))


@lru_cache(maxsize=1024)
def _told(agent: str, requester: str) -> Jsonb:
    return Jsonb({"agent": agent, "requester": requester})


def get(conn: Connection, batch_id: BatchId) -> Batch:
    """The batch as it stands, or `NotFound`."""
    found = _counted(conn, "WHERE id = %s", (batch_id,))
    if not found:
        raise NotFound(f"There is no batch {show('bat', batch_id)}.", batch_id)
    return found[0]


def requester(conn: Connection, batch_id: BatchId) -> PersonId | None:
    """Who asked for a batch, if a person did; or `NotFound`."""
    row = conn.execute("SELECT requester_id FROM batches WHERE id = %s", (batch_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no batch {show('bat', batch_id)}.", batch_id)
    return row[0] and PersonId(row[0])


def listed(
    conn: Connection, *, requester_id: PersonId | None = None, before: BatchId | None = None, limit: int
) -> Sequence[Batch]:
    """Batches, newest first."""
    which = """WHERE (%(requester)s::uuid IS NULL OR requester_id = %(requester)s)
                AND (%(before)s::uuid IS NULL OR id < %(before)s)
              ORDER BY id DESC
              LIMIT %(limit)s"""
    return _counted(conn, which, {"requester": requester_id, "before": before, "limit": limit})


def _counted(conn: Connection, which: LiteralString, values: Sequence[Any] | Mapping[str, Any]) -> Sequence[Batch]:
    """These batches, newest first, each with how many of its runs are where."""
    rows = conn.execute(
        f"""
        SELECT page.*, counted.runs, counted.finished_at
        FROM (SELECT id, name, requester, requester_id, created_at, cancelled_at, paused_at, waits_for
              FROM batches
              {which}) AS page
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(status, number) AS runs,
                   (SELECT max(finished_at)
                    FROM runs
                    WHERE batch_id = page.id AND finished_at IS NOT NULL) AS finished_at
            FROM (SELECT status, count(*) AS number FROM runs WHERE batch_id = page.id GROUP BY status) AS each
        ) AS counted
        ORDER BY id DESC
        """,
        values,
    ).fetchall()
    found: list[Batch] = []
    for batch_id, name, requester, person, created_at, cancelled_at, paused_at, waits_for, runs, finished_at in rows:
        counts: Mapping[str, int] = runs or {}
        found.append(
            Batch(
                id=BatchId(batch_id),
                name=name,
                requester=requester,
                requester_id=None if person is None else PersonId(person),
                created_at=created_at,
                cancelled_at=cancelled_at,
                runs={status: counts.get(status.value, 0) for status in RunStatus},
                finished_at=finished_at if set(map(RunStatus, counts)) <= FINAL else None,
                paused_at=paused_at,
                waits_for=waits_for,
            )
        )
    return found


def mark(conn: Connection, batch_id: BatchId, actor: str) -> bool:
    """Not cancelled → cancelled: no run of it starts any more. False: it was already."""
    return (
        conn.execute(
            """
            UPDATE batches SET cancelled_at = clock_timestamp(), cancelled_by = %s
            WHERE id = %s AND cancelled_at IS NULL
            """,
            (actor, batch_id),
        ).rowcount
        == 1
    )


def pause(conn: Connection, batch_id: BatchId, actor: str) -> bool:
    """Not paused → paused: no segment of its runs starts, nor of what they delegated; what runs goes on to its next
    stop. False: it was already.
    """
    return (
        conn.execute(
            "UPDATE batches SET paused_at = clock_timestamp(), paused_by = %s WHERE id = %s AND paused_at IS NULL",
            (actor, batch_id),
        ).rowcount
        == 1
    )


def resume(conn: Connection, batch_id: BatchId) -> bool:
    """Paused → not paused: the dispatcher finds its runs where they were. False: it was not paused."""
    return (
        conn.execute(
            "UPDATE batches SET paused_at = NULL, paused_by = NULL WHERE id = %s AND paused_at IS NOT NULL", (batch_id,)
        ).rowcount
        == 1
    )


def retry(conn: Connection, batch_id: BatchId, actor: str) -> int | None:
    """Failed or stuck → queued with fresh attempts, or → waiting while it waits for something still: every run that
    nobody holds, but for those that a person has failed; how many. None for a batch that is cancelled: until the
    transaction ends nobody cancels it, so nothing is queued that whoever stops its runs has passed by.
    """
    live = conn.execute("SELECT FROM batches WHERE id = %s AND cancelled_at IS NULL FOR NO KEY UPDATE", (batch_id,))
    if live.fetchone() is None:
        return None
    rows = conn.execute(
        """
        SELECT id
        FROM runs
        WHERE batch_id = %s AND cancel_at IS NULL AND erased_at IS NULL AND status IN ('failed', 'stuck')
          AND NOT EXISTS (
            SELECT FROM audit_events WHERE run_id = runs.id AND action = 'run.failed' AND body ? 'because')
        ORDER BY id
        FOR UPDATE SKIP LOCKED
        """,
        (batch_id,),
    ).fetchall()
    held = [RunId(row[0]) for row in rows]
    rescue.revive(conn, held)
    audit.append(conn, *(Event(actor, "run.retried", run_id) for run_id in held))
    return len(held)


def press(conn: Connection, most_open: Mapping[str, int]) -> None:
    """Mark the batches that wait for reviewers: some of their requests are open for a group that has as many open as it
    is to have. They begin nothing new until it has fewer.
    """
    conn.execute(
        """
        WITH full_groups AS (
            SELECT name
            FROM unnest(%s::text[], %s::integer[]) AS each (name, most)
            WHERE most <= (
                SELECT count(*)
                FROM (SELECT FROM requests WHERE state = 'open' AND name = ANY(audience) LIMIT most) AS counted)
        ), waiting AS (
            SELECT COALESCE(batch_id, batch_above(runs.id)) AS id, array_agg(DISTINCT name ORDER BY name) AS names
            FROM full_groups
            JOIN requests ON state = 'open' AND name = ANY(audience)
            JOIN runs ON runs.id = run_id
            GROUP BY 1
        )
        UPDATE batches
        SET waits_for = COALESCE(waiting.names, '{}')
        FROM batches AS before
        LEFT JOIN waiting ON waiting.id = before.id
        WHERE batches.id = before.id AND (waiting.id IS NOT NULL OR before.waits_for <> '{}')
          AND before.waits_for <> COALESCE(waiting.names, '{}')
        """,
        (list(most_open), list(most_open.values())),
    )


def cancelling(conn: Connection) -> Sequence[BatchId]:
    """Batches that are cancelled and whose runs have not all been stopped or asked to stop."""
    rows = conn.execute(
        "SELECT id FROM batches WHERE cancelled_at IS NOT NULL AND swept_at IS NULL ORDER BY id"
    ).fetchall()
    return [BatchId(row[0]) for row in rows]


def stop_some(conn: Connection, batch_id: BatchId, after: RunId | None, *, limit: int = 500) -> RunId | None:
    """Queued, waiting or stuck → cancelled with their open requests, running → asked to stop: the next `limit` runs
    that nobody holds. Where to go on, or None at the end.
    """
    rows = conn.execute(
        """
        SELECT id, (SELECT cancelled_by FROM batches WHERE batches.id = %(batch)s)
        FROM runs
        WHERE batch_id = %(batch)s AND (%(after)s::uuid IS NULL OR id > %(after)s) AND cancel_at IS NULL
          AND status IN ('queued', 'running', 'waiting', 'stuck')
        ORDER BY id
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
        """,
        {"batch": batch_id, "after": after, "limit": limit},
    ).fetchall()
    if not rows:
        return None
    held, actor = [RunId(row[0]) for row in rows], str(rows[0][1])
    families.hold(conn, held)
    stops.stop(conn, held, actor)
    return held[-1] if len(held) == limit else None


def sweep(conn: Connection, batch_id: BatchId) -> bool:
    """Cancelled → swept, once no run of it is left to stop or to ask; whether that is so."""
    return (
        conn.execute(
            """
            UPDATE batches SET swept_at = COALESCE(swept_at, clock_timestamp())
            WHERE id = %(id)s AND cancelled_at IS NOT NULL AND NOT EXISTS (
                SELECT FROM runs
                WHERE batch_id = %(id)s AND cancel_at IS NULL AND status IN ('queued', 'running', 'waiting', 'stuck'))
            """,
            {"id": batch_id},
        ).rowcount
        == 1
    )
