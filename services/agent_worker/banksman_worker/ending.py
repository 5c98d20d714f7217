"""How a segment ends: parked with its requests, finished, stopped, or broken; and the snapshots on the way there.

Each ending is one transaction that carries the claim's fence, so a segment that lost its run writes nothing. The
wake-ups go out once that stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic_ai import DeferredToolRequests
from pydantic_ai.messages import ModelMessage
from pydantic_ai.run import AgentRunResult
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python

from banksman import digest, ids, ledger, logs, quorum
from banksman.digest import Json
from banksman.errors import LostLease, NotGenuine, NotHere, TookTooLong, Unavailable, Ungateable
from banksman.ids import NoticeId, RequestId
from banksman.ledger import Connection, audit, lists, people, requests, runs, snapshots
from banksman.records import Claim, Event, NewRequest, Snapshot
from banksman.states import Kind
from banksman_worker import conversation, delegation, faults
from banksman_worker.gate import Draft
from banksman_worker.lease import Lease
from banksman_worker.parts import Segment, Worker, counts

_BACK_OFF = timedelta(seconds=2)

log = logs.get(__name__)


def save(worker: Worker, segment: Segment, messages: Sequence[ModelMessage], usage: RunUsage) -> None:
    with ledger.transaction(worker.pool) as conn:
        kept = _save_in(conn, segment, messages, usage)
    if kept is not None:
        segment.conversation.keep(messages, kept, segment=segment.claim.segment)


def _save_in(
    conn: Connection, segment: Segment, messages: Sequence[ModelMessage], usage: RunUsage
) -> dict[str, Json] | None:
    """Append what is new; the state that was stored, or None when nothing was."""
    audit.append(conn, *segment.gate.refusals)
    segment.gate.refusals.clear()
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


def commit(worker: Worker, segment: Segment, result: AgentRunResult[Any]) -> None:
    """Running → waiting with its requests, or → finished; the wake-ups go out once that stands."""
    output = result.output
    if isinstance(output, DeferredToolRequests):
        _draft_external(segment, output, result)
    # Not the output counts: where a response also answers, the library drops what of it is to be asked about.
    if segment.gate.drafts or segment.gate.delegated:
        _park(worker, segment, result)
    else:
        _finish(worker, segment, result, output)
    worker.wire.changed(run=segment.claim.run_id)


def _draft_external(segment: Segment, output: DeferredToolRequests, result: AgentRunResult[Any]) -> None:
    messages = result.all_messages()
    step = conversation.step_of(messages)
    for call in output.calls:
        if (step, call.tool_call_id) not in segment.gate.drafts.keys() | segment.gate.delegated.keys():
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
    usage = counts(result.usage)
    with ledger.transaction(worker.pool) as conn:
        _save_in(conn, segment, result.all_messages(), result.usage)
        replaced = [draft.replaces for draft in drafts if draft.replaces is not None]
        opened = [_new_request(conn, claim, segment.loaded.name, draft) for draft in drafts]
        again = (Event(f"worker:{claim.fence}", "request.superseded", claim.run_id, item) for item in replaced)
        told = [*again, *(_opened(claim, new) for new in opened), event(claim, "run.parked")]
        version = segment.loaded.version
        if not runs.park(conn, claim.run_id, claim.fence, *told, version=version, usage=usage):
            raise LostLease(f"{ids.show('run', claim.run_id)} is held by another worker.")
        if replaced:
            requests.supersede(conn, replaced)
        for new in opened:
            requests.open_request(conn, claim.run_id, claim.segment, new)
        children = delegation.send_out(conn, worker, segment)
    worker.wire.run(*children)
    worker.wire.deliver(notice for new in opened for notice, _ in new.notify)


def _new_request(conn: Connection, claim: Claim, agent: str, draft: Draft) -> NewRequest:
    """The draft with its bytes, and with the reviewers to tell; that there are none is said at once."""
    requester = claim.requester_id if draft.kind in (Kind.APPROVAL, Kind.OUTCOME) else None
    told = people.who_may_decide(conn, draft.requirement, except_for=requester)
    before = None if draft.replaces is None else lists.before(conn, draft.replaces)
    reachable = quorum.met(draft.requirement, [quorum.standing(person) for person in told], timedelta())
    context = {**draft.context, "before": before}
    if not reachable:
        log.warning("Nobody, or too few, may decide this request.", tool=draft.tool, run=ids.show("run", claim.run_id))
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
        reachable=reachable,
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
            event(claim, "run.finished"),
            output=digest.printable(plain) if isinstance(plain, str) else plain,
            version=segment.loaded.version,
            usage=counts(result.usage),
        )
        if not finished:
            raise LostLease(f"{ids.show('run', claim.run_id)} is held by another worker.")
    delegation.report(worker, claim)


def stopped(worker: Worker, claim: Claim, lease: Lease, error: BaseException) -> None:
    """The conversation was cut off: cancelled by a person, drained, or lost to another worker.

    The tools of a cancelled run are given a moment to end, under the heartbeat still; then the row says of each what
    became of it (`runs.stop`).
    """
    if lease.stopped in (None, "cancelled"):
        lease.let_tools_end(min(worker.cancel_grace, worker.lease / 2))
    with ledger.transaction(worker.pool) as conn:
        cancelled = runs.stop(conn, claim.run_id, claim.fence)
        if cancelled:
            audit.append(conn, event(claim, "run.cancelled"))
        elif lease.stopped == "drained" and runs.release(conn, {claim.run_id: claim.fence}):
            audit.append(conn, event(claim, "run.released"))
    if cancelled:
        delegation.report(worker, claim)
        worker.wire.changed(run=claim.run_id)
    elif lease.stopped != "drained":
        log.warning("A run was lost to another worker; nothing of this attempt counts.", error=str(error)[:200])


def broke(worker: Worker, claim: Claim, lease: Lease, error: Exception) -> None:
    """Running → queued for another attempt when the world was at fault, failed when the run itself cannot go on."""
    if isinstance(error, TookTooLong):
        lease.let_tools_end(min(worker.cancel_grace, worker.lease / 2))
    again, text, shown = faults.may_pass(error), faults.in_words(error), ids.show("run", claim.run_id)
    told = [event(claim, "run.postponed" if again else "run.failed")]
    if isinstance(error, NotGenuine):
        told.append(event(claim, "execution.refused", why=text))
    log.error("A segment broke.", run=shown, again=again, error=faults.for_the_log(error)[:1000])
    try:
        with ledger.transaction(worker.pool) as conn:
            if again:
                delay = _BACK_OFF * 2 ** min(claim.attempts - 1, 8)
                counted = not isinstance(error, NotHere)
                runs.postpone(conn, claim.run_id, claim.fence, *told, error=text, delay=delay, counted=counted)
            else:
                runs.fail(conn, claim.run_id, claim.fence, *told, error=text)
        if not again:
            delegation.report(worker, claim)
    except Unavailable:
        log.warning("PostgreSQL is away; the lease will run out.", run=shown)
        return
    worker.wire.changed(run=claim.run_id)


def _opened(claim: Claim, new: NewRequest) -> Event:
    body: dict[str, Json] = {
        "kind": new.kind.value,
        "tool": new.tool,
        "tier": new.requirement.tier.value,
        "digest": new.digest.hex(),
        "told": len(new.notify),
    }
    return Event(f"worker:{claim.fence}", "request.opened", claim.run_id, new.id, body)


def event(claim: Claim, action: str, **more: Json) -> Event:
    """An event of the worker that holds this claim."""
    body: dict[str, Json] = {"segment": claim.segment, "attempt": claim.attempts, **more}
    return Event(f"worker:{claim.fence}", action, claim.run_id, None, body)
