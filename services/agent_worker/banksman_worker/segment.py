"""One segment of a run: claim, load, converse, and then park or finish in one transaction.

Claim, load and commit run in the task's own thread; only the conversation runs on the process's event loop. Nothing of
a parked run stays here. Whatever is written carries the claim's fence, so a segment that lost its run writes nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_ai import DeferredToolRequests
from pydantic_ai.exceptions import (
    AgentRunError,
    FallbackExceptionGroup,
    ModelAPIError,
    ModelHTTPError,
    ModelRequestRejectedError,
    UserError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python

from banksman import digest, ids, ledger, logs
from banksman.digest import Json
from banksman.errors import BanksmanError, LostLease, NotGenuine, Unavailable, Ungateable
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import Connection, audit, executions, people, requests, runs, snapshots
from banksman.policy import Policy
from banksman.records import Claim, Event, Execution, NewRequest, Settled, Snapshot
from banksman.signing import Verifier
from banksman.states import Kind, RequestState
from banksman.wire import Wire
from banksman_worker import conversation, deep
from banksman_worker.agents import Loaded
from banksman_worker.conversation import Conversation
from banksman_worker.gate import Draft, Gate, Key, Resolved, denial
from banksman_worker.journal import Journal
from banksman_worker.lease import Lease, Leases
from banksman_worker.leash import Leash
from banksman_worker.workspace import Workspace

_USAGE: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)
_BACK_OFF = timedelta(seconds=2)

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What every segment of this process shares."""

    name: str
    pool: ledger.Pool
    wire: Wire
    loop: asyncio.AbstractEventLoop
    executor: concurrent.futures.Executor
    leases: Leases
    agents: Mapping[str, Loaded]
    policy: Policy
    verifier: Verifier
    lease: timedelta
    desk: threading.Semaphore
    """So many threads may claim, load or commit at once. More would only pull at the interpreter's one lock."""

    def hop(self, work: Callable[[], Any]) -> Awaitable[Any]:
        """Do blocking work beside the event loop."""
        return self.loop.run_in_executor(self.executor, work)


@dataclass(slots=True)
class Segment:
    """What was loaded of one claimed segment."""

    claim: Claim
    loaded: Loaded
    conversation: Conversation
    workspace: Workspace
    stored: set[str]
    resolved: Mapping[Key, Resolved]
    usage: RunUsage
    gate: Gate
    deps: Any

    @property
    def resuming(self) -> bool:
        """Whether the results that the run waited for have yet to be used."""
        return bool(self.resolved) and self.conversation.segment < self.claim.segment

    def state(self, usage: RunUsage) -> dict[str, Json]:
        """What a snapshot says beside the messages."""
        deep.keep(self.deps, self.workspace)
        return {"workspace": self.workspace.manifest(), **self.workspace.state(), "usage": _counts(usage)}


def advance(worker: Worker, run_id: RunId, segment: int) -> None:
    """Carry a run on by one segment; a message about anything but its current segment does nothing."""
    claimed_at = time.monotonic()
    with worker.desk, ledger.transaction(worker.pool) as conn:
        claim = runs.claim(conn, run_id, segment, owner=worker.name, lease=worker.lease)
        if claim is None:
            return
        audit.append(conn, _event(claim, "run.resumed" if segment else "run.started"))
    with worker.leases.holding(claim, claimed_at) as lease:
        try:
            with worker.desk:
                loaded = _load(worker, claim)
            result = _converse(worker, loaded, lease)
            with worker.desk:
                _commit(worker, loaded, result)
        except (LostLease, concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            _stopped(worker, claim, lease, error)
        except Exception as error:  # noqa: BLE001  the edge of the task: whatever broke, the row says it
            _broke(worker, claim, error)


def _load(worker: Worker, claim: Claim) -> Segment:
    loaded = worker.agents.get(claim.agent)
    if loaded is None:
        raise Unavailable(f"No agent {claim.agent!r} on this worker; it has {', '.join(sorted(worker.agents))}.")
    with ledger.transaction(worker.pool) as conn:
        talk = conversation.fold(snapshots.load(conn, claim.run_id))
        manifest = cast("dict[str, str]", talk.state.get("workspace", {}))
        blobs = snapshots.blobs(conn, claim.run_id, set(manifest.values()))
        waited_for: Sequence[Settled] = requests.settled(conn, claim.run_id, claim.segment) if claim.segment else ()
        # A first claim of a first segment has nothing behind it.
        fresh = claim.segment == 0 and claim.fence == 1
        earlier: Sequence[Execution] = () if fresh else executions.of_run(conn, claim.run_id)
    workspace = Workspace.restore(ids.show("run", claim.run_id), manifest, blobs, talk.state)
    resolved = {(item.step, item.call_id): _resolve(worker.verifier, item) for item in waited_for}
    known = {(item.step, item.call_id): item for item in sorted(earlier, key=lambda item: item.attempt)}
    gate = Gate(claim, loaded, worker.policy, workspace, resolved, known)
    usage = _USAGE.validate_python(talk.state.get("usage", {}))
    deps = loaded.deps_for(workspace)
    return Segment(claim, loaded, talk, workspace, set(blobs), resolved, usage, gate, deps)


def _resolve(verifier: Verifier, settled: Settled) -> Resolved:
    """The decision of a call, once its signature and what it is about are checked; otherwise why it does not count."""
    if settled.decision is None:
        return Resolved(settled, None, "It was settled without a signed decision.")
    try:
        statement = verifier.verify(settled.decision.signed)
        action = digest.parse(settled.action, what="The stored action", limit=4 * digest.MAX_BYTES)
        if statement["request"] != ids.show("req", settled.request_id):
            raise NotGenuine("The signed decision belongs to another request.")
        if statement["digest"] != digest.of_action(action).hex() or statement["verdict"] != settled.state.value:
            raise NotGenuine("The signed decision does not cover what is stored.")
    except BanksmanError as error:
        log.warning("A decision was refused.", request=ids.show("req", settled.request_id), error=str(error))
        return Resolved(settled, None, str(error))
    return Resolved(settled, statement)


def _converse(worker: Worker, segment: Segment, lease: Lease) -> AgentRunResult[Any]:
    """Run the agent on the loop, from this thread."""

    async def talk() -> AgentRunResult[Any]:
        lease.task = asyncio.current_task()
        if lease.stopped is not None:
            raise asyncio.CancelledError
        try:
            return await _run_agent(worker, segment, lease)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"The agent tried to end the process ({error!r}).") from error

    future = asyncio.run_coroutine_threadsafe(talk(), worker.loop)
    return future.result()


async def _run_agent(worker: Worker, segment: Segment, lease: Lease) -> AgentRunResult[Any]:
    claim, talk = segment.claim, segment.conversation

    async def save(messages: Sequence[ModelMessage], usage: RunUsage) -> None:
        await worker.hop(lambda: _save(worker, segment, messages, usage))

    journal = Journal(segment.gate, worker.pool, worker.verifier, worker.hop, lease.in_flight)
    leash = Leash(segment.gate, journal, save, segment.resuming)
    results = _results(segment) if segment.resuming else None
    return await segment.loaded.agent.run(
        claim.prompt if not talk.messages else None,
        model=segment.loaded.model,
        output_type=segment.loaded.output_type,
        message_history=talk.messages or None,
        deferred_tool_results=results,
        conversation_id=ids.show("run", claim.run_id),
        deps=segment.deps,
        usage=segment.usage,
        workspace=segment.workspace,
        capabilities=[leash],
    )


def _results(segment: Segment) -> DeferredToolResults:
    """What the run waited for, in the form the library takes: approvals with their effective arguments pinned."""
    response = next(item for item in reversed(segment.conversation.messages) if isinstance(item, ModelResponse))
    calls = {part.tool_call_id: part for part in response.parts if isinstance(part, ToolCallPart)}
    waiting = DeferredToolRequests()
    approvals: dict[str, ToolApproved | ToolDenied] = {}
    answers: dict[str, Any] = {}
    for resolved in segment.resolved.values():
        item = resolved.settled
        if item.kind in (Kind.QUESTION, Kind.EXTERNAL):
            waiting.calls.append(calls[item.call_id])
            answers[item.call_id] = _answer(resolved)
        else:
            waiting.approvals.append(calls[item.call_id])
            approvals[item.call_id] = _approval(resolved)
    return waiting.build_results(approvals=approvals, calls=answers)


def _answer(resolved: Resolved) -> Json:
    if resolved.statement is None or resolved.settled.state is not RequestState.ANSWERED:
        return denial(resolved)
    return resolved.statement["answer"]


def _approval(resolved: Resolved) -> ToolApproved | ToolDenied:
    if resolved.statement is None:
        if resolved.settled.state in (RequestState.APPROVED, RequestState.ANSWERED):
            return ToolApproved()  # the gate asks again, saying why it does not count
        return ToolDenied(denial(resolved))
    if resolved.settled.state is RequestState.DENIED:
        return ToolDenied(denial(resolved))
    return ToolApproved(override_args=resolved.statement["arguments"])


def _save(worker: Worker, segment: Segment, messages: Sequence[ModelMessage], usage: RunUsage) -> None:
    with ledger.transaction(worker.pool) as conn:
        kept = _save_in(conn, segment, messages, usage)
    if kept is not None:
        segment.conversation.keep(messages, kept, segment=segment.claim.segment)


def _save_in(
    conn: Connection, segment: Segment, messages: Sequence[ModelMessage], usage: RunUsage
) -> dict[str, Json] | None:
    """Append what is new; the state that was stored, or None when nothing was."""
    state = segment.state(usage)
    snapshot: Snapshot | None = segment.conversation.difference(messages, state, segment=segment.claim.segment)
    if snapshot is None:
        return None
    new = segment.workspace.changed_blobs(segment.stored)
    if new:
        snapshots.keep_blobs(conn, segment.claim.run_id, new)
        segment.stored.update(new)
    if not snapshots.save(conn, segment.claim.run_id, segment.claim.fence, snapshot):
        raise LostLease(f"{ids.show('run', segment.claim.run_id)} is held by another worker.")
    return state


def _commit(worker: Worker, segment: Segment, result: AgentRunResult[Any]) -> None:
    """Running → waiting with its requests, or → finished; the wake-ups go out once that stands."""
    output = result.output
    if isinstance(output, DeferredToolRequests):
        _draft_external(segment, output, result)
        _park(worker, segment, result)
    else:
        _finish(worker, segment, result, output)
    worker.wire.changed(run=segment.claim.run_id)


def _draft_external(segment: Segment, output: DeferredToolRequests, result: AgentRunResult[Any]) -> None:
    messages = result.all_messages()
    step = conversation.step_of(messages)
    for call in output.calls:
        if (step, call.tool_call_id) not in segment.gate.drafts:
            held = segment.gate.tools.get(call.tool_name)
            words = conversation.said(messages)
            segment.gate.external(call, step, held.tool_def if held else None, words)
    for call in output.approvals:
        if (step, call.tool_call_id) not in segment.gate.drafts:
            raise Ungateable(
                f"A hook of the agent asked for approval of {call.tool_name} where the gate could not see it. Flag the"
                " tool with requires_approval=True, or raise ApprovalRequired in its body."
            )


def _park(worker: Worker, segment: Segment, result: AgentRunResult[Any]) -> None:
    claim, drafts = segment.claim, list(segment.gate.drafts.values())
    usage = _counts(result.usage)
    with ledger.transaction(worker.pool) as conn:
        _save_in(conn, segment, result.all_messages(), result.usage)
        parked = runs.park(conn, claim.run_id, claim.fence, version=segment.loaded.version, usage=usage)
        if not parked:
            raise LostLease(f"{ids.show('run', claim.run_id)} is held by another worker.")
        replaced = [draft.replaces for draft in drafts if draft.replaces is not None]
        if replaced:
            requests.supersede(conn, replaced)
        opened = [_new_request(conn, claim, segment.loaded.name, draft) for draft in drafts]
        for new in opened:
            requests.open_request(conn, claim.run_id, claim.segment, new)
        again = (Event(f"worker:{claim.fence}", "request.superseded", claim.run_id, item) for item in replaced)
        audit.append(conn, *again, *(_opened(claim, new) for new in opened), _event(claim, "run.parked"))
    worker.wire.deliver(notice for new in opened for notice, _ in new.notify)


def _new_request(conn: Connection, claim: Claim, agent: str, draft: Draft) -> NewRequest:
    """The draft with its bytes, and with the reviewers to tell; that there are none is said at once."""
    requester = claim.requester_id if draft.kind in (Kind.APPROVAL, Kind.OUTCOME) else None
    told = people.who_may_decide(conn, draft.requirement, except_for=requester)
    context = {**draft.context, "nobody_may_decide": not told}
    if not told:
        log.warning("Nobody may decide this request.", tool=draft.tool, run=ids.show("run", claim.run_id))
    return NewRequest(
        id=RequestId(ids.new()),
        step=draft.step,
        call_id=draft.call_id,
        kind=draft.kind,
        agent=agent,
        tool=draft.tool,
        requirement=draft.requirement,
        action=digest.canonical(dict(draft.action)),
        digest=digest.of_action(draft.action),
        schema=digest.canonical(dict(draft.schema)),
        schema_hash=digest.of_schema(draft.schema),
        shape=digest.shape(draft.tool, draft.action["arguments"]),
        context=digest.canonical(context),
        notify=[(NoticeId(ids.new()), person.id) for person in told],
    )


def _finish(worker: Worker, segment: Segment, result: AgentRunResult[Any], output: Any) -> None:
    claim = segment.claim
    plain = to_jsonable_python(output, serialize_unknown=True)
    with ledger.transaction(worker.pool) as conn:
        _save_in(conn, segment, result.all_messages(), result.usage)
        finished = runs.finish(
            conn,
            claim.run_id,
            claim.fence,
            output=digest.printable(plain) if isinstance(plain, str) else plain,
            version=segment.loaded.version,
            usage=_counts(result.usage),
        )
        if not finished:
            raise LostLease(f"{ids.show('run', claim.run_id)} is held by another worker.")
        audit.append(conn, _event(claim, "run.finished"))


def _stopped(worker: Worker, claim: Claim, lease: Lease, error: BaseException) -> None:
    """The conversation was cut off: cancelled by a person, drained, or lost to another worker."""
    with ledger.transaction(worker.pool) as conn:
        cancelled = runs.stop(conn, claim.run_id, claim.fence)
        if cancelled:
            audit.append(conn, _event(claim, "run.cancelled"))
        elif lease.stopped == "drained":
            runs.release(conn, {claim.run_id: claim.fence})
            audit.append(conn, _event(claim, "run.released"))
    if cancelled:
        worker.wire.changed(run=claim.run_id)
    elif lease.stopped != "drained":
        log.warning("A run was lost to another worker; nothing of this attempt counts.", error=str(error)[:200])


def _broke(worker: Worker, claim: Claim, error: Exception) -> None:
    """Running → queued for another attempt when the world was at fault, failed when the run itself cannot go on."""
    again, text = _may_pass(error), _said_by(error)
    expected = isinstance(error, (BanksmanError, AgentRunError, FallbackExceptionGroup, UserError))
    shown = ids.show("run", claim.run_id)
    log.error("A segment broke.", run=shown, again=again, error=text[:500], exc_info=not expected)
    try:
        with ledger.transaction(worker.pool) as conn:
            if again:
                delay = _BACK_OFF * 2 ** min(claim.attempts - 1, 8)
                if runs.postpone(conn, claim.run_id, claim.fence, error=text, delay=delay):
                    audit.append(conn, _event(claim, "run.postponed"))
            elif runs.fail(conn, claim.run_id, claim.fence, error=text):
                audit.append(conn, _event(claim, "run.failed"))
    except Unavailable:
        log.warning("PostgreSQL is away; the lease will run out.", run=shown)
        return
    worker.wire.changed(run=claim.run_id)


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may fare better. What a model provider rejects, it rejects again."""
    if isinstance(error, FallbackExceptionGroup):
        return any(map(_may_pass, error.exceptions))
    if isinstance(error, ModelRequestRejectedError):
        return False
    return isinstance(error, (Unavailable, ModelAPIError, ConnectionError, TimeoutError))


def _said_by(error: BaseException) -> str:
    if isinstance(error, FallbackExceptionGroup):
        return " ".join(map(_said_by, error.exceptions))
    if isinstance(error, ModelHTTPError):
        return f"The provider of the model {error.model_name!r} answered HTTP {error.status_code}: {error.body}"
    if isinstance(error, ModelAPIError):
        return f"The provider of the model {error.model_name!r} cannot be used: {error}"
    return str(error) if isinstance(error, BanksmanError) else f"{type(error).__name__}: {error}"


def _counts(usage: RunUsage) -> dict[str, Json]:
    return _USAGE.dump_python(usage, mode="json", exclude_defaults=True)


def _opened(claim: Claim, new: NewRequest) -> Event:
    body: dict[str, Json] = {
        "kind": new.kind.value,
        "tool": new.tool,
        "tier": new.requirement.tier.value,
        "digest": new.digest.hex(),
        "told": len(new.notify),
    }
    return Event(f"worker:{claim.fence}", "request.opened", claim.run_id, new.id, body)


def _event(claim: Claim, action: str) -> Event:
    body: dict[str, Json] = {"segment": claim.segment, "attempt": claim.attempts}
    return Event(f"worker:{claim.fence}", action, claim.run_id, None, body)
