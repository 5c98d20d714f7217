"""Delegation, from the worker's side: tasks become child runs as their parent parks, and come back as results."""

from __future__ import annotations

import contextlib

from banksman import ids, ledger
from banksman.digest import Json
from banksman.errors import Unavailable
from banksman.ids import RunId
from banksman.ledger import Connection, audit, families
from banksman.records import Child, Claim, Event
from banksman.states import RunStatus
from banksman_worker.parts import Segment, Worker


def send_out(conn: Connection, worker: Worker, segment: Segment) -> list[tuple[RunId, int]]:
    """Nothing → queued, a child run for each delegated task; what is returned is to be published after the commit."""
    claim, actor = segment.claim, f"worker:{segment.claim.fence}"
    for task in segment.gate.delegated.values():
        families.send_out(conn, claim.run_id, claim.segment, task, hint=worker.hint)
        child, parent = ids.show("run", task.child_id), ids.show("run", claim.run_id)
        call: dict[str, Json] = {"agent": task.agent, "step": task.step, "call": task.call_id}
        audit.append(
            conn,
            Event(actor, "run.delegated", claim.run_id, body={**call, "child": child}),
            Event(actor, "run.submitted", task.child_id, body={"agent": task.agent, "parent": parent}),
        )
    return [(task.child_id, 0) for task in segment.gate.delegated.values()]


def report(worker: Worker, claim: Claim) -> None:
    """A child run is over: its parent goes on, if that waits for nothing else. The dispatcher does it if this fails."""
    if claim.parent_id is None:
        return
    with contextlib.suppress(Unavailable):
        with ledger.transaction(worker.pool) as conn:
            segment = families.report(conn, claim.parent_id, hint=worker.hint)
        if segment is not None:
            worker.wire.run((claim.parent_id, segment))


def returned(child: Child) -> Json:
    """What the model is told of a task that it delegated."""
    if child.status is RunStatus.FINISHED:
        return child.output
    ended = "was cancelled" if child.status is RunStatus.CANCELLED else "failed"
    return f"The task was not done: {ids.show('run', child.run_id)} {ended}. {child.error or ''}".strip()
