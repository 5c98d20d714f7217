"""What a run waited for, brought back into its conversation: decisions once they are verified, and answers."""

from __future__ import annotations

from typing import Any

from pydantic_ai import DeferredToolRequests
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.tools import DeferredToolResults, ToolApproved, ToolDenied

from banksman import digest, ids, logs
from banksman.digest import Json
from banksman.errors import BanksmanError, NotGenuine
from banksman.records import Settled
from banksman.signing import Verifier
from banksman.states import Kind, RequestState
from banksman_worker import delegation
from banksman_worker.gate import Resolved
from banksman_worker.parts import Segment
from banksman_worker.results import denial

log = logs.get(__name__)


def resolve(verifier: Verifier, settled: Settled) -> Resolved:
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


def results(segment: Segment) -> DeferredToolResults:
    """What the run waited for, in the form the library takes: approvals with their effective arguments pinned."""
    response = next(item for item in reversed(segment.conversation.messages) if isinstance(item, ModelResponse))
    calls = {part.tool_call_id: part for part in response.parts if isinstance(part, ToolCallPart)}
    waiting = DeferredToolRequests()
    approvals: dict[str, ToolApproved | ToolDenied] = {}
    answers: dict[str, Any] = {}
    for resolved in segment.resolved.values():
        item = resolved.settled
        if item.call_id not in calls or calls[item.call_id].tool_name != item.tool:
            raise NotGenuine(f"The stored conversation no longer holds the call of {item.tool} that was decided on.")
        if item.kind in (Kind.QUESTION, Kind.EXTERNAL):
            waiting.calls.append(calls[item.call_id])
            answers[item.call_id] = _answer(resolved)
        else:
            waiting.approvals.append(calls[item.call_id])
            approvals[item.call_id] = _approval(resolved)
    for child in segment.children:
        if child.call_id not in calls:
            raise NotGenuine("The stored conversation no longer holds a call that was delegated.")
        waiting.calls.append(calls[child.call_id])
        answers[child.call_id] = delegation.returned(child)
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
