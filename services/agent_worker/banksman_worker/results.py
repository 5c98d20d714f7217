"""What a tool returned: as JSON in the journal, and given to the model the same on the first run and on a replay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn, tool_return_content_ta

from banksman import digest
from banksman.digest import Json
from banksman.policy import Effects
from banksman.records import Execution
from banksman.states import Kind, RequestState
from banksman_worker.workspace import Changes

if TYPE_CHECKING:
    from banksman_worker.gate import Resolved

_RETURN: TypeAdapter[Any] = TypeAdapter(ToolReturn)
_CONTENT = cast("TypeAdapter[Any]", tool_return_content_ta)


def store(value: Any) -> tuple[dict[str, Json], Any]:
    """What is stored of a result, and what the model is given."""
    if isinstance(value, ToolReturn):
        kept = plain(value, _RETURN)
        try:
            return {"kind": "tool_return", "value": kept}, _RETURN.validate_python(kept)
        except ValueError:
            value = cast("Any", value.return_value)
    kept = plain(value)
    return {"kind": "value", "value": kept}, _CONTENT.validate_python(kept)


def put_off(asked: ApprovalRequired | CallDeferred) -> dict[str, Json]:
    """What is stored of a call whose body put it off, so that a replay puts it off again and does not run the body."""
    kind = "call_deferred" if isinstance(asked, CallDeferred) else "approval_required"
    return {"kind": kind, "value": plain(asked.metadata)}


def insisted(last: Execution) -> bool:
    """Whether an earlier attempt ended in its body's own wish for an approval."""
    return last.outcome == "deferred" and json.loads(last.result or b"{}").get("kind") == "approval_required"


def may_go_on(last: Execution, effects: Effects) -> bool:
    """Whether a call that its body had put off may simply run again: its author says that this does no harm."""
    return last.outcome == "deferred" and effects in ("harmless", "idempotent")


def give(result: Mapping[str, Json]) -> Any:
    """What the model is given of a stored result; what the tool had raised is raised again."""
    value = result.get("value")
    match result.get("kind"):
        case "retry":
            raise ModelRetry(str(value))
        case "failed":
            raise ToolFailed(str(value))
        case "error":
            raise RuntimeError(f"The tool had failed before: {value}")
        case "call_deferred":
            raise CallDeferred(metadata=cast("dict[str, Any] | None", value))
        case "approval_required":
            raise ApprovalRequired(metadata=cast("dict[str, Any] | None", value))
        case "tool_return":
            return _RETURN.validate_python(value)
        case _:
            return _CONTENT.validate_python(value)


def changes_of(result: Mapping[str, Json]) -> Changes:
    """What the call did to the run's workspace."""
    return Changes.from_json(result)


def with_note(value: Any, arguments: Json) -> Any:
    """A result that tells the model that a person changed what ran."""
    ran = digest.canonical(arguments).decode()
    note = f"A person changed the arguments of this call before approving it. It ran with: {ran}"
    if isinstance(value, ToolReturn):
        held = cast("ToolReturn[Any]", value)
        return replace(held, return_value=with_note(held.return_value, arguments))
    if isinstance(value, str):
        return f"{value}\n\n[{note}]"
    return {"result": value, "note": note}


def happened(statement: Mapping[str, Json]) -> str:
    """What the model is told of a call that a person knows to have happened."""
    told = statement.get("answer")
    words = told if isinstance(told, str) else json.dumps(told)
    return f"No result of this call was seen. A person checked that it did happen, and says: {words}"


def plain(value: Any, adapter: TypeAdapter[Any] = _CONTENT) -> Json:
    """A tool's result as JSON; what JSON cannot hold is kept as its text, because the tool has run by now."""
    try:
        return _clean(adapter.dump_python(value, mode="json"))
    except (ValueError, TypeError):
        return _clean(str(value))


def _clean(value: Json) -> Json:
    if isinstance(value, str):
        return digest.printable(value)
    if isinstance(value, list):
        return [_clean(item) for item in cast("list[Json]", value)]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in cast("dict[str, Json]", value).items()}
    return value


def denial(resolved: Resolved) -> str:
    """What the model is told about a call that was not approved."""
    statement = resolved.statement
    if resolved.forged:
        return f"This call was not executed, and no answer to it was used. {resolved.doubt}"
    if statement is not None:
        reason = statement["reason"]
        return str(reason) if reason else "A person denied this call. It was not executed."
    if resolved.settled.kind is Kind.OUTCOME:
        return (
            "No result of this call was seen, and nobody said in time whether it happened. Treat it as something that"
            " may have been done: do not repeat it."
        )
    if resolved.settled.state is RequestState.EXPIRED:
        return "Nobody decided in time, so this call was not executed. It was not denied either."
    return "This call was not executed: its request was cancelled before anybody decided. It was not denied."
