"""Executions: a tool call is written before it starts, and again once its result is known, by the journal alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banksman import vault
from banksman.ids import GrantId, PersonId, RequestId, RunId
from banksman.ledger import Connection, aftermath, audit
from banksman.records import Event, Execution
from banksman.states import RunStatus

_COLUMNS = "step, call_id, attempt, tool, digest, fence, state, outcome, result, request_id, started_at, finished_at"


def start(
    conn: Connection,
    run_id: RunId,
    fence: int,
    *told: Event,
    step: int,
    call_id: str,
    attempt: int,
    tool: str,
    digest: bytes,
    request_id: RequestId | None,
    voters: Mapping[PersonId, str],
    grant_id: GrantId | None = None,
    start_by: str | None,
) -> bool:
    """Nothing → started, while the lease holds and nobody started this attempt; under a request, only while its
    approval stands, `start_by` has not passed and every one of its voters still has the role that they voted by.
    """
    started = audit.tell(
        conn,
        """
            INSERT INTO executions (run_id, step, call_id, attempt, tool, digest, request_id, grant_id, fence)
            SELECT id, %(step)s, %(call)s, %(attempt)s, %(tool)s, %(digest)s, %(request)s, %(grant)s, fence
            FROM runs
            WHERE id = %(run)s
              AND fence = %(fence)s
              AND status = 'running'
              AND due_at > clock_timestamp()
              AND cancel_at IS NULL
              AND (%(request)s::uuid IS NULL OR EXISTS (
                    SELECT FROM requests WHERE id = %(request)s AND run_id = %(run)s AND state = 'approved'))
              AND (%(start_by)s::timestamptz IS NULL OR %(start_by)s::timestamptz > clock_timestamp())
              AND cardinality(%(voters)s::uuid[]) = (
                    SELECT count(*) FROM people
                    JOIN unnest(%(voters)s, %(roles)s::text[]) AS voted (person, role) ON person = id
                    WHERE disabled_at IS NULL AND role = ANY(roles))
            ON CONFLICT DO NOTHING
            RETURNING attempt
            """,
        {
            "run": run_id,
            "fence": fence,
            "step": step,
            "call": call_id,
            "attempt": attempt,
            "tool": tool,
            "digest": digest,
            "request": request_id,
            "grant": grant_id,
            "voters": list(voters),
            "roles": list(voters.values()),
            "start_by": start_by,
        },
        *told,
    )
    return started is not None


def finish(
    conn: Connection,
    run_id: RunId,
    fence: int,
    *told: Event,
    step: int,
    call_id: str,
    attempt: int,
    outcome: str,
    result: bytes,
) -> bool:
    """Started → finished, by the attempt that started it, which may say so even after it lost its lease.

    The run's row is held, so that of this and the run's end whoever comes second sees what the first one wrote.
    """
    row = audit.tell(
        conn,
        """
        UPDATE executions
        SET state = 'finished', outcome = %(outcome)s, result = %(result)s, finished_at = clock_timestamp()
        WHERE run_id = %(run)s AND step = %(step)s AND call_id = %(call)s AND attempt = %(attempt)s
          AND fence = %(fence)s AND state = 'started'
        RETURNING (SELECT status FROM runs WHERE id = run_id FOR NO KEY UPDATE)
        """,
        {
            "outcome": outcome,
            "result": vault.seal(result, ("executions.result", run_id, step, call_id, attempt)),
            "run": run_id,
            "step": step,
            "call": call_id,
            "attempt": attempt,
            "fence": fence,
        },
        *told,
    )
    if row is not None and row[0] == RunStatus.CANCELLED:
        aftermath.tell(conn, [run_id])
    return row is not None


def of_run(conn: Connection, run_id: RunId, *, step: int | None = None) -> Sequence[Execution]:
    """Every execution of a run, or of one step of it, oldest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM executions WHERE run_id = %s AND step = COALESCE(%s, step) ORDER BY started_at",
        (run_id, step),
    ).fetchall()
    return [_execution(run_id, row) for row in rows]


def _execution(run_id: RunId, row: Sequence[Any]) -> Execution:
    (step, call_id, attempt, tool, digest, fence, state, outcome, result, request_id, started_at, finished_at) = row
    return Execution(
        step=step,
        call_id=call_id,
        attempt=attempt,
        tool=tool,
        digest=digest,
        fence=fence,
        state=state,
        outcome=outcome,
        result=None
        if result is None
        else vault.open_sealed(result, ("executions.result", run_id, step, call_id, attempt)),
        request_id=None if request_id is None else RequestId(request_id),
        started_at=started_at,
        finished_at=finished_at,
    )
