"""Runs: each function is one move of `states.RUN_MOVES`, guarded so that only the states it may leave are left.

A worker's writes carry its fence. A write whose fence is no longer the row's returns False and has changed nothing:
another worker holds the run, and whatever the first one was about to say must be dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from banksman import digest, vault
from banksman.digest import Json
from banksman.errors import NotFound
from banksman.ids import PersonId, RunId, show
from banksman.ledger import Connection, aftermath, audit
from banksman.records import Cap, Claim, Due, Event, NewRun, Run
from banksman.states import RunStatus


def create(conn: Connection, run: NewRun, *, hint: timedelta) -> Run:
    """Nothing → queued. The wake-up goes out right after the commit; `hint` later the dispatcher looks for itself."""
    row = conn.execute(
        f"""
        INSERT INTO runs (id, agent, requester, requester_id, tags, priority, prompt, metadata, finish_by,
                          dispatched, due_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, true, clock_timestamp() + %s)
        RETURNING {COLUMNS}
        """,
        (
            run.id,
            run.agent,
            run.requester,
            run.requester_id,
            list(run.tags),
            run.priority,
            vault.seal(run.prompt.encode(), ("runs.prompt", run.id)),
            vault.seal(digest.canonical(dict(run.metadata)), ("runs.metadata", run.id)),
            run.finish_by,
            hint,
        ),
    ).fetchone()
    assert row is not None
    return of_row(row)


def claim(conn: Connection, run_id: RunId, segment: int, *, owner: str, lease: timedelta) -> Claim | None:
    """Queued → running, or running past its lease → running anew. The row it returns is the answer to “was it me?”.

    Nobody claims a run of a paused agent, or one that came with a batch that is paused or was cancelled.
    """
    row = conn.execute(
        """
        UPDATE runs
        SET status = 'running',
            fence = fence + 1,
            owner = %(owner)s,
            attempts = attempts + 1,
            dispatched = true,
            due_at = clock_timestamp() + %(lease)s,
            started_at = COALESCE(started_at, statement_timestamp())
        WHERE id = %(id)s
          AND segment = %(segment)s
          AND cancel_at IS NULL
          AND (status = 'queued' OR (status = 'running' AND due_at < clock_timestamp()))
          AND NOT EXISTS (SELECT FROM agents WHERE name = runs.agent AND paused_at IS NOT NULL)
          AND NOT EXISTS (
                SELECT FROM batches
                WHERE batches.id = COALESCE(batch_id, CASE WHEN parent_id IS NOT NULL THEN batch_above(runs.id) END)
                  AND (cancelled_at IS NOT NULL OR paused_at IS NOT NULL))
        RETURNING fence, attempts, agent, prompt, requester, requester_id, usage, parent_id, EXISTS (
            SELECT FROM delegations WHERE delegations.parent_id = %(id)s AND delegations.segment = %(segment)s - 1),
            COALESCE(batch_id, CASE WHEN parent_id IS NOT NULL THEN batch_above(parent_id) END), tags,
            started_at = statement_timestamp()
        """,
        {"id": run_id, "segment": segment, "owner": owner, "lease": lease},
    ).fetchone()
    return None if row is None else Claim(run_id, segment, *row)


def prompt(claim: Claim) -> str:
    """What the agent of a claimed run is asked to do."""
    return vault.open_sealed(claim.prompt, ("runs.prompt", claim.run_id)).decode()


def beat(conn: Connection, held: Mapping[RunId, int], *, lease: timedelta) -> dict[RunId, str]:
    """Extend the leases of every run in `held` (run → fence). `ours`, `stop` when somebody asked for that, `busy` when
    somebody else has the row in hand and it could not be extended now; a run that is missing from the answer is lost,
    as is every one whose lease is over: a heartbeat that was delivered late must not revive what its worker gave up.
    """
    # Rows in others' hands are passed over: one of them must not cost all the others their leases.
    conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{lease.total_seconds() * 1000 / 6:.0f}ms",))
    rows = conn.execute(
        """
        WITH held AS (SELECT * FROM unnest(%s::uuid[], %s::bigint[]) AS held (id, fence)), mine AS (
            SELECT runs.id FROM runs JOIN held USING (id, fence) WHERE status = 'running' AND due_at > clock_timestamp()
            FOR NO KEY UPDATE OF runs SKIP LOCKED
        ), beaten AS (
            UPDATE runs SET due_at = clock_timestamp() + %s FROM mine WHERE runs.id = mine.id
            RETURNING runs.id, CASE WHEN cancel_at IS NULL THEN 'ours' ELSE 'stop' END AS said
        )
        SELECT id, COALESCE(said, 'busy') FROM runs JOIN held USING (id, fence) LEFT JOIN beaten USING (id)
        WHERE status = 'running' AND due_at > clock_timestamp()
        """,
        (list(held), list(held.values()), lease),
    ).fetchall()
    return dict(rows)


def park(conn: Connection, run_id: RunId, fence: int, *told: Event, version: str, usage: Mapping[str, Json]) -> bool:
    """Running → waiting, while the lease holds; the segment is over, and nobody asked for the run to stop."""
    return _ended(
        conn,
        """
        UPDATE runs
        SET status = 'waiting', segment = segment + 1, attempts = 0, owner = NULL, dispatched = false, due_at = NULL,
            elsewhere = 0, agent_version = %(version)s, usage = %(usage)s
        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' AND due_at > clock_timestamp()
          AND cancel_at IS NULL
        """,
        {"id": run_id, "fence": fence, "version": version, "usage": Jsonb(dict(usage))},
        *told,
    )


def finish(
    conn: Connection, run_id: RunId, fence: int, *told: Event, output: Json, version: str, usage: Mapping[str, Json]
) -> bool:
    """Running → finished, with the agent's answer, while the lease holds and nobody asked for it to stop."""
    return _ended(
        conn,
        """
        UPDATE runs
        SET status = 'finished', segment = segment + 1, owner = NULL, due_at = NULL, finished_at = clock_timestamp(),
            agent_version = %(version)s, output = %(output)s, usage = %(usage)s, error = NULL
        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' AND due_at > clock_timestamp()
          AND cancel_at IS NULL
        """,
        {
            "id": run_id,
            "fence": fence,
            "version": version,
            "output": vault.seal(json.dumps(output).encode(), ("runs.output", run_id)),
            "usage": Jsonb(dict(usage)),
        },
        *told,
    )


def fail(conn: Connection, run_id: RunId, fence: int, *told: Event, error: str) -> bool:
    """Running → failed, with the reason that people read, while the lease holds."""
    return _ended(
        conn,
        """
        UPDATE runs
        SET status = 'failed', owner = NULL, due_at = NULL, finished_at = clock_timestamp(), error = %(error)s
        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' AND due_at > clock_timestamp()
        """,
        {"id": run_id, "fence": fence, "error": sealed_error(run_id, error)},
        *told,
    )


def stop(conn: Connection, run_id: RunId, fence: int) -> bool:
    """Running → cancelled, by the worker that holds it, because it was asked for; it tells what was under way."""
    stopped = _ended(
        conn,
        """
        UPDATE runs
        SET status = 'cancelled', owner = NULL, due_at = NULL, finished_at = clock_timestamp()
        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running' AND cancel_at IS NOT NULL
        """,
        {"id": run_id, "fence": fence},
    )
    if stopped:
        aftermath.tell(conn, [run_id])
    return stopped


def release(conn: Connection, held: Mapping[RunId, int]) -> int:
    """Running → queued, due at once and with its attempt given back: the worker drains. How many it still held."""
    return conn.execute(
        """
        WITH mine AS (
            SELECT id
            FROM runs
            JOIN unnest(%s::uuid[], %s::bigint[]) AS held (id, fence) USING (id, fence)
            WHERE status = 'running'
            ORDER BY id
            FOR NO KEY UPDATE OF runs
        )
        UPDATE runs
        SET status = 'queued', fence = fence + 1, owner = NULL, dispatched = false, due_at = clock_timestamp(),
            attempts = GREATEST(0, attempts - 1)
        FROM mine
        WHERE runs.id = mine.id
        """,
        (list(held), list(held.values())),
    ).rowcount


def postpone(
    conn: Connection, run_id: RunId, fence: int, *told: Event, error: str, delay: timedelta, counted: bool
) -> bool:
    """Running → queued, due after `delay`: it broke, or (not counted as an attempt) this worker cannot carry it. Then
    the delay doubles each time, up to a minute, and a run of which nothing was ever done has not begun.
    """
    return _ended(
        conn,
        """
        UPDATE runs
        SET status = 'queued', owner = NULL, dispatched = false, error = %(error)s,
            attempts = attempts - %(back)s::integer, elsewhere = elsewhere + %(back)s::integer,
            due_at = clock_timestamp() + CASE WHEN %(back)s
                THEN GREATEST(%(delay)s, LEAST(%(delay)s * 2 ^ LEAST(elsewhere, 9), interval '1 minute'))
                ELSE %(delay)s END,
            started_at = CASE WHEN NOT %(back)s OR segment > 0 OR attempts > 1
                OR EXISTS (SELECT FROM snapshots WHERE run_id = runs.id) THEN started_at END
        WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'
        """,
        {"id": run_id, "fence": fence, "delay": delay, "error": sealed_error(run_id, error), "back": not counted},
        *told,
    )


def dispatch(
    conn: Connection,
    *,
    window: int,
    redispatch: timedelta,
    max_attempts: int,
    paused: Sequence[str] = (),
    caps: Sequence[Cap] = (),
) -> Sequence[Due]:
    """Queued or running, and due → queued with a wake-up to send, or stuck once its attempts are used up.

    One statement starts what waits, repairs lost wake-ups and takes runs from dead workers. At most `window` runs are
    out in the broker at a time, and no more of a cap's agents than it allows. Whatever has begun comes first, then by
    priority; among equals the lot that has the fewest out. A lot is an agent's runs of one batch, or all those without
    one; a lot that is held, for an operator or for reviewers, is passed over whole, however many runs it has.
    """
    # Not clock_timestamp() in the conditions: it is volatile, and no index is read by a bound that may move.
    rows = conn.execute(
        """
        WITH room AS (
            SELECT GREATEST(0, %(window)s - COALESCE(sum(sent), 0))::integer AS n FROM runs_away
        ), found AS (
            SELECT due.id, agent, fresh, due.priority, due.due_at, COALESCE(n, 0) + row_number() OVER (
                PARTITION BY agent, lot, fresh ORDER BY due.priority DESC, due.turn) AS place
            FROM runs_lots
            LEFT JOIN runs_away USING (agent, lot)
            CROSS JOIN LATERAL (
                SELECT id, priority, turn, due_at
                FROM runs
                WHERE runs.agent = runs_lots.agent AND runs.lot = runs_lots.lot AND (started_at IS NULL) = fresh
                  AND status IN ('queued', 'running') AND due_at < 'infinity'
                  AND due_at <= statement_timestamp() AND cancel_at IS NULL
                ORDER BY priority DESC, turn
                LIMIT (SELECT n FROM room)) AS due
            WHERE agent <> ALL(%(paused)s) AND NOT held
        ), caps AS (
            SELECT *, min(free) OVER (PARTITION BY agent) AS least
            FROM (SELECT cap, agent, most - COALESCE(sum(n) OVER (PARTITION BY cap), 0) AS free
                  FROM unnest(%(caps)s::integer[], %(capped)s::text[], %(most)s::integer[]) AS each (cap, agent, most)
                  LEFT JOIN (SELECT agent, sum(n) AS n FROM runs_away GROUP BY agent) AS busy USING (agent)) AS each
        ), beyond AS (
            SELECT id
            FROM (SELECT id, free, row_number() OVER (
                      PARTITION BY cap ORDER BY nth > least, fresh, priority DESC, place, due_at) AS number
                  FROM (SELECT *, row_number() OVER (
                            PARTITION BY agent ORDER BY fresh, priority DESC, place, due_at) AS nth
                        FROM found) AS ordered
                  JOIN caps USING (agent)) AS capped
            WHERE number > free
        ), picked AS (
            -- Whoever has moved the row meanwhile has given it another time.
            SELECT held.id
            FROM (SELECT id, due_at
                  FROM found
                  WHERE id NOT IN (SELECT id FROM beyond)
                  ORDER BY fresh, priority DESC, place, due_at
                  LIMIT (SELECT n FROM room)) AS first
            CROSS JOIN LATERAL (
                SELECT id FROM runs WHERE runs.id = first.id AND runs.due_at = first.due_at
                FOR UPDATE SKIP LOCKED) AS held
        )
        UPDATE runs
        SET status = CASE WHEN attempts >= %(max)s THEN 'stuck' ELSE 'queued' END,
            due_at = CASE WHEN attempts >= %(max)s THEN NULL ELSE clock_timestamp() + %(redispatch)s END,
            dispatched = attempts < %(max)s,
            owner = NULL,
            fence = fence + 1
        WHERE id = ANY(ARRAY(SELECT id FROM picked))
        RETURNING id, segment, status
        """,
        {
            "window": window,
            "redispatch": redispatch,
            "max": max_attempts,
            "paused": list(paused),
            "caps": [number for number, cap in enumerate(caps) for _ in cap.agents],
            "capped": [agent for cap in caps for agent in cap.agents],
            "most": [cap.most for cap in caps for _ in cap.agents],
        },
    ).fetchall()
    return [Due(RunId(run_id), segment, RunStatus(status)) for run_id, segment, status in rows]


def wake(conn: Connection, run_id: RunId, *, hint: timedelta) -> int | None:
    """Waiting → queued, once no request is open and no child run is left; the segment to resume, or None."""
    row = conn.execute(
        """
        UPDATE runs
        SET status = 'queued', dispatched = true, due_at = clock_timestamp() + %(hint)s
        WHERE id = %(id)s
          AND status = 'waiting'
          AND NOT EXISTS (SELECT FROM requests WHERE run_id = %(id)s AND state = 'open')
          AND NOT EXISTS (
                SELECT FROM runs AS child
                WHERE child.parent_id = %(id)s AND child.status NOT IN ('finished', 'failed', 'cancelled'))
        RETURNING segment
        """,
        {"id": run_id, "hint": hint},
    ).fetchone()
    return None if row is None else row[0]


def cancel(conn: Connection, run_ids: Sequence[RunId], *, because: str | None = None) -> dict[RunId, RunStatus]:
    """Queued, waiting or stuck → cancelled; running → marked, and its worker stops it. One that is over is left out."""
    why = [None if because is None else sealed_error(run_id, because) for run_id in run_ids]
    rows = conn.execute(
        """
        UPDATE runs
        SET cancel_at = COALESCE(cancel_at, clock_timestamp()),
            status = CASE WHEN status = 'running' THEN status ELSE 'cancelled' END,
            due_at = CASE WHEN status = 'running' THEN due_at END,
            finished_at = CASE WHEN status = 'running' THEN NULL ELSE clock_timestamp() END,
            error = COALESCE(why.error, runs.error)
        FROM unnest(%s::uuid[], %s::bytea[]) AS why (id, error)
        WHERE runs.id = why.id AND status IN ('queued', 'running', 'waiting', 'stuck')
        RETURNING runs.id, status
        """,
        (list(run_ids), why),
    ).fetchall()
    stopped = {RunId(run_id): RunStatus(status) for run_id, status in sorted(rows)}
    aftermath.tell(conn, list(stopped))
    return stopped


def holds(conn: Connection, run_id: RunId, fence: int) -> bool:
    """Whether a claim still holds, lease and all."""
    row = conn.execute(
        """
        SELECT FROM runs
        WHERE id = %s AND fence = %s AND status = 'running' AND due_at > clock_timestamp() AND cancel_at IS NULL
        """,
        (run_id, fence),
    ).fetchone()
    return row is not None


def lock(conn: Connection, run_id: RunId) -> RunStatus:
    """Hold the run's row until the end of the transaction; whoever touches its requests does this first."""
    row = conn.execute("SELECT status FROM runs WHERE id = %s FOR UPDATE", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no run {show('run', run_id)}.", run_id)
    return RunStatus(row[0])


COLUMNS = """id, agent, agent_version, status, segment, attempts, requester, requester_id, batch_id, parent_id, tags,
       priority, prompt, metadata, output, error, usage, cancel_at, finish_by, created_at, started_at, finished_at,
       erased_at"""


def get(conn: Connection, run_id: RunId) -> Run:
    """The run as it stands, or `NotFound`."""
    row = conn.execute(f"SELECT {COLUMNS} FROM runs WHERE id = %s", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no run {show('run', run_id)}.", run_id)
    return of_row(row)


def of_row(row: Sequence[Any]) -> Run:
    """The run behind a row of `COLUMNS`."""
    (run_id, agent, version, status, segment, attempts, requester, requester_id, batch_id, parent_id, tags,
     priority, prompt, metadata, output, error, usage, cancel_at, finish_by, created_at, started_at,
     finished_at, erased_at) = row  # fmt: skip
    return Run(
        id=RunId(run_id),
        agent=agent,
        agent_version=version,
        status=RunStatus(status),
        segment=segment,
        attempts=attempts,
        requester=requester,
        requester_id=None if requester_id is None else PersonId(requester_id),
        batch_id=batch_id,
        parent_id=None if parent_id is None else RunId(parent_id),
        tags=tags,
        priority=priority,
        prompt=vault.open_sealed(prompt, ("runs.prompt", run_id)).decode(),
        metadata=digest.parse(vault.open_sealed(metadata, ("runs.metadata", run_id))),
        output=None if output is None else json.loads(vault.open_sealed(output, ("runs.output", run_id))),
        error=None if error is None else vault.open_sealed(error, ("runs.error", run_id)).decode(),
        usage=usage,
        cancel_at=cancel_at,
        finish_by=finish_by,
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at,
        erased_at=erased_at,
    )


def sealed_error(run_id: RunId, error: str) -> bytes:
    return vault.seal(error.encode("utf-8", "replace"), ("runs.error", run_id))


def _ended(conn: Connection, statement: LiteralString, values: Mapping[str, object], *told: Event) -> bool:
    return audit.tell(conn, f"{statement} RETURNING id", values, *told) is not None
