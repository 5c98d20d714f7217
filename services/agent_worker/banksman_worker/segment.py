"""One segment of a run: claim, load, converse, and then park or finish in one transaction.

Claim, load and commit run in the task's own thread; only the conversation runs on the process's event loop. Nothing of
a parked run stays here. Whatever is written carries the claim's fence, so a segment that lost its run writes nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.run import AgentRunResult
from pydantic_ai.usage import RunUsage

from banksman import ids, ledger
from banksman.errors import LostLease, NotHere
from banksman.ids import RunId
from banksman.ledger import audit, caps, runs
from banksman.records import Claim
from banksman_worker import ending, resuming, steps, stored
from banksman_worker.gate import Gate
from banksman_worker.journal import Journal
from banksman_worker.lease import Lease, clock
from banksman_worker.leash import Begins, Leash
from banksman_worker.parts import USAGE, Segment, Worker
from banksman_worker.workspace import Workspace


def advance(worker: Worker, run_id: RunId, segment: int) -> None:
    """Carry a run on by one segment; a message about anything but its current segment does nothing."""
    claimed_at = clock()
    with worker.desk, ledger.transaction(worker.pool) as conn:
        if not caps.admit(conn, run_id, segment, worker.caps):
            return
        claim = runs.claim(conn, run_id, segment, owner=worker.name, lease=worker.lease)
        if claim is None:
            return
        audit.append(conn, ending.event(claim, "run.resumed" if segment else "run.started"))
    with worker.leases.holding(claim, claimed_at) as lease:
        try:
            with worker.desk:
                loaded = _load(worker, claim)
            result = _converse(worker, loaded, lease)
            with worker.desk:
                ending.commit(worker, loaded, result)
        except (LostLease, concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            ending.stopped(worker, claim, lease, error)
        except Exception as error:  # noqa: BLE001  the edge of the task: whatever broke, the row says it
            ending.broke(worker, claim, lease, error)


def _load(worker: Worker, claim: Claim) -> Segment:
    loaded = worker.agents.get(claim.agent)
    if loaded is None:
        raise NotHere(f"No agent {claim.agent!r} on this worker; it has {', '.join(sorted(worker.agents))}.")
    found = stored.read(worker.pool, claim)
    workspace = Workspace.restore(ids.show("run", claim.run_id), found.manifest, found.blobs, found.talk.state)
    resolved = {(item.step, item.call_id): resuming.resolve(worker.verifier, item) for item in found.settled}
    known = {(item.step, item.call_id): item for item in sorted(found.earlier, key=lambda item: item.attempt)}
    gate = Gate(claim, loaded, worker.policy, workspace, resolved, known)
    usage = USAGE.validate_python(found.talk.state.get("usage", {}))
    deps = loaded.deps_for(workspace)
    return Segment(claim, loaded, found.talk, workspace, set(found.blobs), resolved, usage, gate, deps, found.children)


def _converse(worker: Worker, segment: Segment, lease: Lease) -> AgentRunResult[Any]:
    """Run the agent on the loop, from this thread."""

    async def talk() -> AgentRunResult[Any]:
        lease.task = asyncio.current_task()
        if lease.stopped is not None:
            raise asyncio.CancelledError
        try:
            async with steps.limited(worker.step_limit) as begins:
                return await _run_agent(worker, segment, lease, begins)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"The agent tried to end the process ({error!r}).") from error

    future = asyncio.run_coroutine_threadsafe(talk(), worker.loop)
    return future.result()


async def _run_agent(worker: Worker, segment: Segment, lease: Lease, begins: Begins) -> AgentRunResult[Any]:
    claim, talk = segment.claim, segment.conversation

    async def save(messages: Sequence[ModelMessage], usage: RunUsage) -> None:
        await worker.hop(lambda: ending.save(worker, segment, messages, usage))

    journal = Journal(segment.gate, worker.pool, worker.verifier, worker.hop, lease)
    leash = Leash(segment.gate, journal, save, begins, lambda: talk.lacks(segment.state()), segment.resuming)
    results = resuming.results(segment) if segment.resuming else None
    return await segment.loaded.agent.run(
        runs.prompt(claim) if not talk.messages else None,
        model=segment.loaded.model,
        output_type=segment.loaded.output_type,
        message_history=talk.messages or None,
        deferred_tool_results=results,
        conversation_id=ids.show("run", claim.run_id),
        deps=segment.deps,
        usage=segment.usage,
        usage_limits=segment.loaded.usage_limits,
        workspace=segment.workspace,
        capabilities=[leash],
    )
