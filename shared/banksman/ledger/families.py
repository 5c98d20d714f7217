"""Delegation: a run that hands a task to another agent waits for a child run, and reads the result from its row.

A child is a run like any other, with requests of its own, and may have children itself. Whoever needs several rows of a
family holds the ancestors' first, and of the others those with the lower ids; whoever stops a run holds all that is
alive below it before anything is written (`hold`). However a child ends, its row is unreported until somebody has
looked at its parent: at once the worker that ended it, else the dispatcher.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

from banksman import digest, vault
from banksman.ids import RequestId, RunId
from banksman.ledger import Connection, runs
from banksman.records import Child, Delegation, Run
from banksman.states import RunStatus

MOST_DEEP = 50
"""So many generations below a submitted run may there be: an agent that delegates to itself for ever is a mistake."""


def send_out(conn: Connection, parent_id: RunId, segment: int, task: Delegation, *, hint: timedelta) -> None:
    """Nothing → queued, for the parent's requester; or → failed at once, when the task can be given to nobody."""
    row = conn.execute(
        """
        SELECT COALESCE((SELECT depth FROM delegations WHERE child_id = %s), 0),
               EXISTS (SELECT FROM agents WHERE name = %s)
        """,
        (parent_id, task.agent),
    ).fetchone()
    assert row is not None
    above, known = row
    why = None if known else f"There is no agent {task.agent!r}: no worker brings one."
    if above >= MOST_DEEP:
        why = f"There are {above} runs above this one already, each delegated by the one before."
    conn.execute(
        """
        WITH born AS (
            INSERT INTO runs (id, agent, requester, requester_id, tags, priority, prompt, metadata, finish_by,
                              parent_id, dispatched, status, due_at, finished_at, error)
            SELECT %(id)s, %(agent)s, requester, requester_id, tags, priority, %(prompt)s, %(metadata)s, finish_by,
                   id, %(error)s::bytea IS NULL,
                   CASE WHEN %(error)s::bytea IS NULL THEN 'queued' ELSE 'failed' END,
                   CASE WHEN %(error)s::bytea IS NULL THEN clock_timestamp() + %(hint)s END,
                   CASE WHEN %(error)s::bytea IS NOT NULL THEN clock_timestamp() END,
                   %(error)s
            FROM runs
            WHERE id = %(parent)s
        )
        INSERT INTO delegations (child_id, parent_id, segment, step, call_id, depth)
        VALUES (%(id)s, %(parent)s, %(segment)s, %(step)s, %(call)s, %(depth)s)
        """,
        {
            "id": task.child_id,
            "agent": task.agent,
            "prompt": vault.seal(task.prompt.encode(), ("runs.prompt", task.child_id)),
            "metadata": vault.seal(digest.canonical({}), ("runs.metadata", task.child_id)),
            "error": None if why is None else vault.seal(why.encode(), ("runs.error", task.child_id)),
            "parent": parent_id,
            "segment": segment,
            "step": task.step,
            "call": task.call_id,
            "depth": above + 1,
            "hint": hint,
        },
    )


def sent_out(conn: Connection, parent_id: RunId, segment: int) -> Sequence[Child]:
    """What a run delegated in the pause before `segment`, as it stands now."""
    rows = conn.execute(
        """
        SELECT child_id, step, call_id, agent, status, output, error
        FROM delegations
        JOIN runs ON runs.id = child_id
        WHERE delegations.parent_id = %s AND delegations.segment = %s
        ORDER BY child_id
        """,
        (parent_id, segment - 1),
    ).fetchall()
    return [
        Child(
            run_id=RunId(child),
            step=step,
            call_id=call_id,
            agent=agent,
            status=RunStatus(status),
            output=None if output is None else json.loads(vault.open_sealed(output, ("runs.output", child))),
            error=None if error is None else vault.open_sealed(error, ("runs.error", child)).decode(),
        )
        for child, step, call_id, agent, status, output, error in rows
    ]


def living(conn: Connection, parent_ids: Sequence[RunId]) -> Sequence[RunId]:
    """The children of held runs that are not over, each held with everything alive below it (`hold`)."""
    rows = conn.execute(
        """
        SELECT id
        FROM runs
        WHERE parent_id = ANY(%s) AND status NOT IN ('finished', 'failed', 'cancelled')
        ORDER BY id
        """,
        (list(parent_ids),),
    ).fetchall()
    children = [RunId(row[0]) for row in rows]
    if children:
        hold(conn, children)
    return children


def hold(conn: Connection, run_ids: Sequence[RunId]) -> None:
    """Hold these runs and everything alive that they delegated, to any depth, until the transaction ends.

    They are taken in the order of their ids, which is the order of their births: ancestors come first. A child may be
    born while this waits, so it looks again until it finds nobody new.
    """
    held: set[RunId] = set()
    while True:
        rows = conn.execute(
            """
            WITH RECURSIVE family AS (
                SELECT unnest(%s::uuid[]) AS id
                UNION
                SELECT runs.id
                FROM runs
                JOIN family ON parent_id = family.id
                WHERE status NOT IN ('finished', 'failed', 'cancelled')
            )
            SELECT id
            FROM runs
            JOIN family USING (id)
            ORDER BY id
            FOR UPDATE OF runs
            """,
            (list(run_ids),),
        ).fetchall()
        found = {RunId(row[0]) for row in rows}
        if found <= held:
            return
        held |= found


def below(conn: Connection, run_id: RunId, *, limit: int) -> Sequence[tuple[int, Run]]:
    """Everything that a run delegated, to any depth: how many generations below it, and the run, each right after the
    one that delegated it.
    """
    rows = conn.execute(
        f"""
        WITH RECURSIVE family (member, path) AS (
            SELECT runs.id, ARRAY[runs.id]
            FROM runs
            WHERE parent_id = %s
            UNION ALL
            SELECT runs.id, path || runs.id
            FROM runs
            JOIN family ON parent_id = member
        )
        SELECT cardinality(path), {runs.COLUMNS}
        FROM family
        JOIN runs ON runs.id = member
        ORDER BY path
        LIMIT %s
        """.encode(),
        (run_id, limit),
    ).fetchall()
    return [(depth, runs.of_row(row)) for depth, *row in rows]


def root(conn: Connection, run_id: RunId) -> RunId:
    """The run that somebody submitted, from which this one was delegated in the end; itself where it was submitted."""
    row = conn.execute(
        """
        WITH RECURSIVE above AS (
            SELECT id, parent_id FROM runs WHERE id = %s
            UNION
            SELECT runs.id, runs.parent_id FROM runs JOIN above ON runs.id = above.parent_id
        )
        SELECT id FROM above WHERE parent_id IS NULL
        """,
        (run_id,),
    ).fetchone()
    assert row is not None
    return RunId(row[0])


def hold_whole(conn: Connection, request_id: RequestId) -> None:
    """Hold every living run of the family that a request belongs to, from the submitted one down."""
    row = conn.execute("SELECT run_id FROM requests WHERE id = %s", (request_id,)).fetchone()
    if row is not None:
        hold(conn, [root(conn, RunId(row[0]))])


def unreported(conn: Connection, *, limit: int = 100) -> Sequence[RunId]:
    """Parents of children that ended and were not reported."""
    rows = conn.execute(
        """
        SELECT DISTINCT parent_id
        FROM (
            SELECT parent_id
            FROM runs
            WHERE parent_id IS NOT NULL AND NOT reported AND status IN ('finished', 'failed', 'cancelled')
            LIMIT %s
        ) AS ended
        """,
        (limit,),
    ).fetchall()
    return [RunId(row[0]) for row in rows]


def report(conn: Connection, parent_id: RunId, *, hint: timedelta) -> int | None:
    """Ended and not yet reported → reported, every such child of a parent, which is woken if it waits for nothing more;
    the segment to publish, or None.

    The parent's row is held before anything is asked about it. So of a last child and a last vote, or of two last
    children, whoever comes second sees what the first one did. One parent is a transaction: nobody holds two.
    """
    runs.lock(conn, parent_id)
    # Before the parent is woken: a child that ends in between stays unreported, and is looked at again.
    conn.execute(
        """
        WITH ended AS (
            SELECT id
            FROM runs
            WHERE parent_id = %s AND NOT reported AND status IN ('finished', 'failed', 'cancelled')
            ORDER BY id
            FOR UPDATE
        )
        UPDATE runs SET reported = true FROM ended WHERE runs.id = ended.id
        """,
        (parent_id,),
    )
    return runs.wake(conn, parent_id, hint=hint)
