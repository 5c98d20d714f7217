"""The gate: no tool of an agent runs before this has seen its validated arguments and let it through.

A tool whose author wants approval (`requires_approval`, `interrupt_on`) never reaches the point where arguments are
known, so `prepare` turns such tools into ordinary ones and remembers the flag; then every call comes by here. A call is
let through because policy allows it, or because a signed decision covers exactly this action: same run, step, tool,
schema, effective arguments, files referred to, author's version and requirement. Anything else becomes a request.

The gate only looks. That a decision is used at most once, under a lease that still holds, is the journal's business,
in one transaction with the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, SkipToolExecution
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ToolsetTool
from pydantic_core import to_jsonable_python

from banksman import digest, ids, policy
from banksman.digest import Json
from banksman.errors import InvalidInput, NotGenuine, Ungateable
from banksman.ids import RequestId, RunId
from banksman.policy import Effects, Policy
from banksman.records import Claim, Delegation, Event, Execution, Grant, Requirement, Settled
from banksman.states import Kind, RequestState
from banksman_worker import agents, conversation, faults, results
from banksman_worker.agents import Loaded
from banksman_worker.operands import Operands
from banksman_worker.workspace import Workspace

MAX_OPEN = 20
"""So many requests may be open for one run; more in one turn go back to the model."""

_FLAG = "banksman_flagged"
_IN_WORDS = {
    "agent_version": "the agent's version",
    "operands": "a file that it refers to",
    "proposed": "what the model had written",
    "schema": "the tool's schema",
    "sensitive": "which of its arguments are secret",
}
Key = tuple[int, str]
"""A call within its run: the step and the tool call's id."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """How a call that the run waited for came out, its decision verified; `doubt` says why one could not be."""

    settled: Settled
    statement: Mapping[str, Json] | None
    doubt: str | None = None

    @property
    def forged(self) -> bool:
        """Whether it stands there as people's decision, and is none that can be verified."""
        said = self.settled.state in (RequestState.APPROVED, RequestState.DENIED, RequestState.ANSWERED)
        return said and self.statement is None


@dataclass(frozen=True, slots=True)
class Cleared:
    """A call that may start, and under what."""

    digest: bytes
    effects: Effects
    arguments: Mapping[str, Json]
    request_id: RequestId | None = None
    resolved: Resolved | None = None
    local: bool = False
    """One of our own tools on the run's own workspace, allowed without asking: it is not journaled, only re-run."""
    grant: Grant | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A request about to be opened when the run parks."""

    step: int
    call_id: str
    kind: Kind
    tool: str
    requirement: Requirement
    action: Mapping[str, Json]
    schema: Mapping[str, Json]
    context: Mapping[str, Json]
    replaces: RequestId | None = None


@dataclass(slots=True)
class Gate:
    """The gate of one segment."""

    claim: Claim
    loaded: Loaded
    policy: Policy
    workspace: Workspace
    resolved: Mapping[Key, Resolved]
    earlier: Mapping[Key, Execution] = field(default_factory=dict[Key, Execution])
    """What earlier attempts at this segment left in the journal."""
    drafts: dict[Key, Draft] = field(default_factory=dict[Key, Draft])
    delegated: dict[Key, Delegation] = field(default_factory=dict[Key, Delegation])
    """Tasks for other agents, each a child run once this one parks."""
    cleared: dict[Key, Cleared] = field(default_factory=dict[Key, Cleared])
    refusals: list[Event] = field(default_factory=list[Event])
    """Calls that were not executed, and why: written to the audit log with the next snapshot or the end."""
    tools: Mapping[str, ToolsetTool[Any]] = field(default_factory=dict[str, ToolsetTool[Any]])
    _seen: dict[Key, _Seen] = field(default_factory=dict[Key, "_Seen"])
    _refused: dict[Key, str] = field(default_factory=dict[Key, str])
    _files: Operands = field(init=False)

    def __post_init__(self) -> None:
        self._files = Operands(self.workspace)
        for key, resolved in self.resolved.items():
            if resolved.forged:
                self._note("decision.refused", key, resolved.settled.tool, resolved.doubt, resolved.settled.request_id)

    def prepare(self, tools: Sequence[ToolDefinition]) -> list[ToolDefinition]:
        """Bring flagged tools within reach, and make every tool with effects a barrier, so that calls of one turn
        start in the order the model gave them.
        """
        prepared: list[ToolDefinition] = []
        for tool in tools:
            if tool.kind == "external":
                prepared.append(tool)
                continue
            flagged = tool.kind == "unapproved" or tool.name in self.loaded.flagged
            metadata = {**(tool.metadata or {}), _FLAG: True} if flagged else tool.metadata
            barrier = tool.sequential or effects_of(tool) != "harmless"
            prepared.append(replace(tool, kind="function", metadata=metadata, sequential=barrier))
        return prepared

    def read_strictly(self, name: str, arguments: str | dict[str, Any]) -> None:
        """Send back argument text that two readers could read differently: of two equal keys pydantic takes the last,
        and whoever reads the conversation may take the first.
        """
        if not isinstance(arguments, str) or not arguments:
            return
        try:
            digest.parse(arguments, what=f"The argument text of {name}")
        except InvalidInput as error:
            raise ModelRetry(f"{error} Nothing ran.") from None

    async def pass_or_ask(
        self, ctx: RunContext[Any], call: ToolCallPart, tool: ToolDefinition, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """The arguments, unchanged, when the call may start; `ApprovalRequired` when a person must say so."""
        key = (conversation.step_of(ctx.messages), call.tool_call_id)
        seen = self._look(ctx, key, tool, arguments)
        if self._is_history(key, seen):
            return arguments
        resolved = self.resolved.get(key)
        if resolved is None:
            self._judge(key, seen)
        else:
            self._compare(key, seen, resolved)
        return arguments

    def _is_history(self, key: Key, seen: _Seen) -> bool:
        """Whether the call is over already, so that only the journal has something to say; one in doubt is asked.

        This comes before every comparison: what has happened, or may have, must not be asked about as if it had not.
        """
        last, resolved = self.earlier.get(key), self.resolved.get(key)
        if last is None or seen.effects == "workspace":
            return False
        if results.insisted(last) or results.may_go_on(last, seen.effects):
            return False
        if last.tool != seen.tool:
            raise NotGenuine(f"The journal has a call of {last.tool} under the id of one of {seen.tool}.")
        told = resolved is not None and resolved.settled.kind is Kind.OUTCOME and resolved.statement is not None
        happened = told and resolved is not None and resolved.settled.state is RequestState.ANSWERED
        if last.state == "finished" or happened:
            self.cleared[key] = Cleared(last.digest, seen.effects, seen.arguments, resolved=resolved)
            return True
        if told or seen.effects in ("harmless", "idempotent"):
            return False
        raise self.doubt(key)

    def refuse_edit(
        self, ctx: RunContext[Any], call: ToolCallPart, tool: ToolDefinition, error: ValidationError | ModelRetry
    ) -> bool:
        """Remember that the tool refused the arguments a person edited; False when nobody edited this call."""
        key = (conversation.step_of(ctx.messages), call.tool_call_id)
        resolved = self.resolved.get(key)
        if resolved is None or resolved.statement is None or not resolved.statement["edited"]:
            return False
        self._refused[key] = faults.without_values(error, tool.parameters_json_schema.get("properties", ()))
        return True

    def defer(self, ctx: RunContext[Any], call_id: str, metadata: Mapping[str, Any] | None) -> None:
        """The tool itself put the call off (`CallDeferred`): a question to a person, a task for another agent, or work
        done elsewhere.
        """
        seen, what = self._seen[conversation.step_of(ctx.messages), call_id], dict(metadata or {})
        if len(self.drafts) + len(self.delegated) >= MAX_OPEN:
            raise ModelRetry(f"{MAX_OPEN} calls of this turn wait already, which is too many at once.")
        if what.get("banksman") == "delegate":
            self._delegate(seen.key, **what)
            return
        question = what.get("banksman") == "question"
        because = "The agent asks." if question else "Work done elsewhere, to be reported when it is done."
        requirement = Requirement(rule="deferred", because=because, expires_after=self.policy.expires_after)
        extra: dict[str, Json] = digest.check(to_jsonable_python({"asked": what, "options": what.get("options")}))
        self._draft(seen, Kind.QUESTION if question else Kind.EXTERNAL, requirement, extra)

    def _delegate(self, key: Key, *, agent: str, task: str, own: bool = False, **_: object) -> None:
        name = f"{self.loaded.name}:{agent}" if own else agent
        self.delegated[key] = Delegation(RunId(ids.new()), name, task, *key)

    def insist(self, ctx: RunContext[Any], call_id: str) -> None:
        """The tool's body raised `ApprovalRequired`: its author wants this call asked."""
        seen = self._seen[conversation.step_of(ctx.messages), call_id]
        self._ask(replace(seen, flagged=True))

    def again(self, key: Key, why: str) -> ApprovalRequired:
        """The approval no longer counts, found out at the very start: the same call is asked again."""
        seen, resolved = self._seen[key], self.resolved.get(key)
        self._ask(seen, why_again=why, replaces=resolved.settled.request_id if resolved else None)
        return ApprovalRequired()

    def doubt(self, key: Key) -> ApprovalRequired:
        """A dead attempt started this call, and nobody knows whether it happened: a person must settle that."""
        seen, resolved = self._seen[key], self.resolved.get(key)
        self.cleared.pop(key, None)
        requirement = self._requirement(seen)
        if resolved is not None:
            original = digest.parse(resolved.settled.action, limit=4 * digest.MAX_BYTES)
            requirement = Requirement.from_json(original["requirement"])
            seen = replace(seen, operands=original["operands"])
        why = "The worker was lost while this call ran, or gave up waiting. Nobody knows whether it happened."
        if resolved is not None and resolved.doubt is not None:
            why = f"{why} What was said about it before does not count: {resolved.doubt}"
        self._draft(seen, Kind.OUTCOME, requirement, {"why_again": why})
        return ApprovalRequired()

    def external(self, call: ToolCallPart, step: int, tool: ToolDefinition | None, words: str) -> None:
        """A call of a tool that lives elsewhere altogether (pydantic-ai's external toolsets)."""
        arguments = digest.parse(call.args_as_json_str() or "{}", what=f"The arguments of {call.tool_name}")
        schema = dict(tool.parameters_json_schema) if tool else {}
        seen = _Seen(
            key=(step, call.tool_call_id),
            tool=call.tool_name,
            arguments=arguments,
            proposed=conversation.fingerprint(call),
            operands={},
            schema=schema,
            description=(tool.description or "") if tool else "",
            flagged=False,
            effects="harmless",
            local=False,
            said=words,
        )
        requirement = Requirement(
            rule="external", because="The tool lives elsewhere.", expires_after=self.policy.expires_after
        )
        self._draft(seen, Kind.EXTERNAL, requirement, {})

    def _look(self, ctx: RunContext[Any], key: Key, tool: ToolDefinition, arguments: dict[str, Any]) -> _Seen:
        if key in self._refused:  # the edit goes no further, and people are asked about the model's own call
            own = conversation.written(ctx.messages, key[1])
            arguments = self.tools[tool.name].args_validator.validate_python(own)
        plain = self._plain(tool.name, arguments)
        seen = _Seen(
            key=key,
            tool=tool.name,
            arguments=plain,
            proposed=conversation.proposed(ctx.messages, key[1]),
            operands=self._files.of(plain),
            schema=tool.parameters_json_schema,
            description=tool.description or "",
            flagged=bool((tool.metadata or {}).get(_FLAG)),
            effects=effects_of(tool),
            local=(tool.metadata or {}).get("banksman_local") is True,
            said=conversation.said(ctx.messages),
        )
        self._seen[key] = seen
        return seen

    def _plain(self, name: str, arguments: dict[str, Any]) -> dict[str, Json]:
        """The arguments as JSON, once it is known that JSON brings back exactly what would run."""
        try:
            plain = digest.check(to_jsonable_python(arguments), what=f"A call of {name}")
        except InvalidInput as error:
            raise ModelRetry(f"{error} Nothing ran.") from None
        except ValueError as error:
            raise Ungateable(f"A call of {name} has arguments that JSON cannot hold: {error}") from None
        body = digest.canonical(plain)
        if len(body) > digest.MAX_BYTES:
            raise ModelRetry(f"The arguments of {name} exceed {digest.MAX_BYTES:,} bytes. Nothing ran.")
        held = self.tools.get(name)
        if held is None and _is_plain(arguments):
            return plain
        try:
            back = held.args_validator.validate_python(plain) if held is not None else None
            same = back == arguments and digest.canonical(to_jsonable_python(back)) == body
        except ValueError:
            same = False
        if not same:
            raise Ungateable(
                f"The tool {name} cannot be asked about: its arguments do not survive a round trip through JSON, so"
                " something else would run than was shown. Give its parameters types that JSON holds."
            )
        return plain

    def _judge(self, key: Key, seen: _Seen) -> None:
        judgement = policy.judge(self.policy, self._call(seen))
        if judgement.verdict == "deny":
            raise self._refuse(seen, judgement.because)
        if judgement.verdict == "ask":
            self._ask(seen)
            raise ApprovalRequired
        local = seen.local and not seen.flagged and judgement.grant is None
        found = digest.of_action(self._action(seen))
        self.cleared[key] = Cleared(found, seen.effects, seen.arguments, local=local, grant=judgement.grant)

    def _compare(self, key: Key, seen: _Seen, resolved: Resolved) -> None:
        request_id = resolved.settled.request_id
        if key in self._refused:
            why = f"The tool refused the edited arguments: {self._refused[key]}"
            self._ask(seen, why_again=why, replaces=request_id)
            raise ApprovalRequired
        if resolved.statement is None:
            self._ask(seen, why_again=resolved.doubt or "The decision could not be verified.", replaces=request_id)
            raise ApprovalRequired
        genuine = digest.parse(resolved.settled.action, what="The stored action", limit=4 * digest.MAX_BYTES)
        requirement = Requirement.from_json(genuine["requirement"])
        operands = self._files.now(genuine["operands"], seen.arguments)
        now = self._action(replace(seen, operands=operands), requirement)
        found = digest.of_action(now)
        if found.hex() != resolved.statement["digest"]:
            differ = [_IN_WORDS.get(name, name) for name in sorted(now) if now[name] != genuine.get(name)]
            changed = ", ".join(differ) or "the decision"
            if resolved.settled.kind is Kind.OUTCOME:
                raise self.doubt(key)
            why = f"Since the approval this has changed: {changed}."
            self._ask(seen, why_again=why, replaces=request_id)
            raise ApprovalRequired
        self._hold_to_today(seen, resolved, requirement)
        self.cleared[key] = Cleared(found, seen.effects, seen.arguments, request_id, resolved)

    def _hold_to_today(self, seen: _Seen, resolved: Resolved, met: Requirement) -> None:
        """A decision counts as long as it would do today; a policy that is not stricter voids nothing."""
        today = policy.judge(self.policy, self._call(seen))
        if today.verdict == "deny":
            raise self._refuse(seen, today.because)
        more = policy.stricter(today.requirement, met) if today.requirement else None
        if more is not None:
            self._ask(seen, why_again=f"Today's policy asks for {more}.", replaces=resolved.settled.request_id)
            raise ApprovalRequired

    def _ask(self, seen: _Seen, *, why_again: str | None = None, replaces: RequestId | None = None) -> None:
        if len(self.drafts) >= MAX_OPEN:
            raise SkipToolExecution(
                f"Not executed: {MAX_OPEN} calls wait for a person already, which is too many at once. Call"
                " this again once they are decided."
            )
        if why_again is not None:
            self._note("execution.refused", seen.key, seen.tool, why_again, replaces)
        self._draft(seen, Kind.APPROVAL, self._requirement(seen), {"why_again": why_again}, replaces)
        self._files.propose(seen.tool, seen.arguments)

    def _refuse(self, seen: _Seen, why: str) -> SkipToolExecution:
        self._note("execution.refused", seen.key, seen.tool, why)
        return SkipToolExecution(f"Not executed: {why}")

    def _note(self, action: str, key: Key, tool: str, why: str | None, request_id: RequestId | None = None) -> None:
        body: dict[str, Json] = {"tool": tool, "step": key[0], "call": key[1], "why": digest.printable(why or "")}
        self.refusals.append(Event(f"worker:{self.claim.fence}", action, self.claim.run_id, request_id, body))

    def _draft(
        self,
        seen: _Seen,
        kind: Kind,
        requirement: Requirement,
        extra: Mapping[str, Json],
        replaces: RequestId | None = None,
    ) -> None:
        step, call_id = seen.key
        self.drafts[seen.key] = Draft(
            step=step,
            call_id=call_id,
            kind=kind,
            tool=seen.tool,
            requirement=requirement,
            action=self._action(seen, requirement),
            schema=seen.schema,
            context={
                "said": digest.printable(seen.said),
                "tool_description": seen.description,
                "files": {path: self._files.shown(path) for path in seen.operands},
                "judged": {"flagged": seen.flagged, "effects": seen.effects, "local": seen.local},
                **extra,
            },
            replaces=replaces,
        )

    def _requirement(self, seen: _Seen) -> Requirement:
        judgement = policy.judge(self.policy, self._call(seen))
        if judgement.requirement is not None:
            return judgement.requirement
        return Requirement(rule=judgement.rule, because=judgement.because, expires_after=self.policy.expires_after)

    def _call(self, seen: _Seen) -> policy.Call:
        return policy.Call(
            agent=self.loaded.name,
            tool=seen.tool,
            arguments=seen.arguments,
            flagged=seen.flagged,
            effects=seen.effects,
            requester=self.claim.requester,
            local=seen.local,
            tags=self.claim.tags,
            batch=ids.show("bat", self.claim.batch_id) if self.claim.batch_id else "",
            run=ids.show("run", self.claim.run_id),
            agent_version=self.loaded.version,
            schema=digest.of_schema(seen.schema).hex(),
            operands=seen.operands,
            files={path: self._files.shown(path) for path in seen.operands},
        )

    def _action(self, seen: _Seen, requirement: Requirement | None = None) -> dict[str, Json]:
        """What is hashed. Keep in step with docs/decisions: every name here is part of the wire."""
        step, call_id = seen.key
        return {
            "v": 1,
            "run": ids.show("run", self.claim.run_id),
            "step": step,
            "call": call_id,
            "tool": seen.tool,
            "schema": digest.of_schema(seen.schema).hex(),
            "arguments": seen.arguments,
            "proposed": seen.proposed,
            "operands": dict(seen.operands),
            "agent": self.loaded.name,
            "agent_version": self.loaded.version,
            "requirement": requirement.as_json() if requirement else None,
            **agents.sensitive(self.loaded, self.tools.get(seen.tool), seen.tool),
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """A call as it stood before the gate."""

    key: Key
    tool: str
    arguments: dict[str, Json]
    proposed: str
    """The hash of what the model itself wrote: a history in which that was changed is not what was approved."""
    operands: Mapping[str, Json]
    schema: Mapping[str, Json]
    description: str
    flagged: bool
    effects: Effects
    local: bool
    said: str


def effects_of(tool: ToolDefinition) -> Effects:
    """What the tool's author declared in its metadata, as `{"banksman": "harmless"}`; otherwise unknown."""
    if tool.tool_kind in ("tool-search", "capability-load"):
        return "harmless"  # pydantic-ai's own: they only show the model more of what the gate holds anyway
    declared = (tool.metadata or {}).get("banksman")
    return cast("Effects", declared) if declared in ("harmless", "workspace", "idempotent") else "unknown"


def _is_plain(value: object) -> bool:
    """Whether a value is JSON as it stands, so that no round trip could change it."""
    if isinstance(value, dict):
        return all(type(k) is str and _is_plain(v) for k, v in cast("dict[object, object]", value).items())
    if type(value) is list:
        return all(map(_is_plain, cast("list[object]", value)))
    return value is None or type(value) in (bool, int, float, str)
