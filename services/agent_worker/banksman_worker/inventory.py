"""Lists every tool that an agent would offer to its model, each with its gate, before any run is claimed.

The list is what a run would see, because it comes from a run: the agent starts with an empty workspace, and is stopped
in the place of its first model request. Its model is not called and no tool runs. Toolsets that must be reached to be
listed (MCP servers, functions that build a toolset) have a time limit; one that does not answer is listed by its own
name, since its tools are asked about anyway: the gate knows nothing of their effects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset, ToolsetTool, WrapperToolset

from banksman import digest, masks, policy
from banksman.digest import Json
from banksman.errors import BanksmanError, ConfigurationError, Ungateable
from banksman.policy import Effects, Judgement, Policy
from banksman_worker import agents, deep, refusals
from banksman_worker.agents import Loaded
from banksman_worker.workspace import Workspace

SECONDS_PER_TOOLSET = 5.0
SECONDS = 30.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as a model would be offered it, or a toolset that could not be listed."""

    agent: str
    name: str
    description: str
    effects: Effects
    flagged: bool
    schema: bytes
    """The hash of the arguments' JSON schema, which is part of what a person approves."""
    local: bool = False
    """Whether it is one of ours on the run's own workspace."""
    external: bool = False
    """Whether the call is answered from outside, and never runs here."""
    unlisted: str | None = None
    """Why the tools of this toolset could not be listed."""
    sensitive: Sequence[str] = ()
    """Its arguments that are secret."""
    trouble: str | None = None
    """Why no gate can hold it, and what to do."""

    def judgement(self, rules: Policy) -> Judgement:
        """What the gate would say of a call whose arguments are not known yet."""
        if self.external:
            return Judgement("ask", "external", "The answer comes from outside, over the API.")
        call = policy.Call(self.agent, self.name, {}, flagged=self.flagged, effects=self.effects, local=self.local)
        judged = policy.judge(rules, call)
        if self.unlisted is not None:
            return replace(judged, because=f"Its tools cannot be listed ({self.unlisted}). {judged.because}")
        if judged.verdict == "ask" and rules.allow_writes_below and self.name in policy.WRITERS:
            folders = ", ".join(rules.allow_writes_below)
            return replace(judged, because=f"{judged.because} Files below {folders} need nobody.")
        return judged

    def gate(self, rules: Policy) -> dict[str, Json]:
        """The tool and its gate as JSON, to be announced and shown."""
        judged = self.judgement(rules)
        return {
            "description": self.description,
            "effects": self.effects,
            "flagged": self.flagged,
            "local": self.local,
            "external": self.external,
            "listed": self.unlisted is None,
            "schema": self.schema.hex(),
            "verdict": judged.verdict,
            "tier": None if judged.requirement is None else judged.requirement.tier.value,
            "rule": judged.rule,
            "because": judged.because,
            "sensitive": list(self.sensitive),
        }


async def take(loaded: Loaded, *, per_toolset: float = SECONDS_PER_TOOLSET, within: float = SECONDS) -> list[Tool]:
    """Every tool of an agent; `Ungateable` at once if the agent is built in a way that no gate can hold."""
    troubles = refusals.of_agent(loaded.agent, harmless_output=loaded.harmless_output)
    if troubles:
        raise Ungateable(refusals.sentence(loaded.agent, loaded.name, troubles))
    looked = _Looked(per_toolset)
    workspace = Workspace("inventory")
    try:
        async with asyncio.timeout(within):
            await _start(loaded, workspace, looked)
    except TimeoutError:
        raise ConfigurationError(
            f"The agent {loaded.name!r} did not come to its first model request within {within:g} seconds, so its"
            " tools cannot be listed. Something in it waits: its deps, instructions, or a capability."
        ) from None
    except BanksmanError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"The agent {loaded.name!r} cannot start a run: {type(error).__name__}: {error}{_hint(error)}"
        ) from error
    troubles = refusals.of_capabilities(looked.capabilities)
    if troubles:
        raise Ungateable(refusals.sentence(loaded.agent, loaded.name, troubles))
    return _tools(loaded, looked)


def refuse(loaded: Loaded, tools: Sequence[Tool]) -> None:
    """`Ungateable`, naming agent, tools and remedies, if no gate can hold one of these."""
    troubles = list(dict.fromkeys(tool.trouble for tool in tools if tool.trouble is not None))
    if troubles:
        raise Ungateable(refusals.sentence(loaded.agent, loaded.name, troubles))


async def _start(loaded: Loaded, workspace: Workspace, looked: _Looked) -> None:
    async with loaded.agent.iter(
        "What can you do?",
        output_type=loaded.output_type,
        model=FunctionModel(_never, profile=_ABLE),
        deps=loaded.deps_for(workspace),
        workspace=workspace,
        capabilities=[_Look(looked)],
        infer_name=False,
    ) as run:
        async for node in run:
            if Agent.is_call_tools_node(node):
                # The run ends here, before its answer would be validated or given to output functions.
                break


def _tools(loaded: Loaded, looked: _Looked) -> list[Tool]:
    tools: list[Tool] = []
    for offered in looked.parameters.function_tools:
        trouble = looked.troubles.get(offered.name) or refusals.of_tool(offered) or _unknown(loaded, offered)
        tools.append(_tool(loaded, offered, trouble))
    for native in looked.parameters.native_tools:
        trouble = refusals.of_native(native)
        if trouble is not None:
            tools.append(_only_named(loaded, native.kind, trouble=trouble))
    for label, why in looked.unlisted.items():
        tools.append(_only_named(loaded, label, unlisted=why))
    return tools


def _tool(loaded: Loaded, offered: ToolDefinition, trouble: str | None) -> Tool:
    schema = cast("Mapping[str, Json]", offered.parameters_json_schema)
    return Tool(
        agent=loaded.name,
        name=offered.name,
        description=offered.description or "",
        effects=deep.declared_effect(offered) or "unknown",
        flagged=offered.kind == "unapproved" or offered.name in loaded.flagged,
        local=(offered.metadata or {}).get("banksman_local") is True,
        schema=b"" if trouble is not None else digest.of_schema(schema),
        external=offered.kind == "external",
        sensitive=sorted({*loaded.sensitive_args.get(offered.name, ()), *agents.declared(offered)}),
        trouble=trouble,
    )


def _unknown(loaded: Loaded, offered: ToolDefinition) -> str | None:
    """What is wrong with the arguments that are named as secret: a misspelled one would be shown."""
    schema = cast("Mapping[str, Json]", offered.parameters_json_schema)
    known = cast("Mapping[str, Json]", schema.get("properties") or {})
    for name in agents.sensitive(loaded, None, offered.name).get(masks.SENSITIVE, []) + agents.declared(offered):
        first, _, rest = name.partition(".")
        if masks.is_code(name):
            return (
                f"the argument {name!r} of {offered.name} is named as secret, and always has to be read: what runs"
                " cannot be secret as a whole"
            )
        if first not in known and (rest or not schema.get("additionalProperties")):
            return f"{offered.name} has no argument {first!r}, which is named as secret; correct the name"
    return None


def _only_named(loaded: Loaded, name: str, *, unlisted: str | None = None, trouble: str | None = None) -> Tool:
    return Tool(loaded.name, name, "", "unknown", flagged=False, schema=b"", unlisted=unlisted, trouble=trouble)


def _hint(error: Exception) -> str:
    if "output validators" in str(error):
        return ". Add DeferredToolRequests to its output_type: output_type=[..., DeferredToolRequests]."
    return ""


def _never(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    del messages, info
    raise AssertionError("The inventory stops before the model is called.")


# Able to do everything that an author may ask of a model, so that nothing hides from the list.
_ABLE = ModelProfile(
    supports_tools=True, supports_json_schema_output=True, supports_json_object_output=True, supports_image_output=True
)


@dataclass(slots=True)
class _Looked:
    """What the run that stops at its first model request has shown."""

    limit: float
    parameters: ModelRequestParameters = field(default_factory=ModelRequestParameters)
    capabilities: list[AbstractCapability[Any]] = field(default_factory=list[AbstractCapability[Any]])
    troubles: dict[str, str] = field(default_factory=dict[str, str])
    unlisted: dict[str, str] = field(default_factory=dict[str, str])


class _Look(AbstractCapability[Any]):
    """Takes the place of the model, within everything that the agent's own capabilities add to the request."""

    def __init__(self, looked: _Looked) -> None:
        self._looked = looked

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return toolset.visit_and_replace(self._patiently)

    async def wrap_model_request(self, ctx: RunContext[Any], *, request_context: Any, handler: Any) -> ModelResponse:
        del handler
        self._looked.parameters = request_context.model_request_parameters
        self._looked.capabilities = [*ctx.capabilities.values()]
        return ModelResponse(parts=[TextPart("")])

    def _patiently(self, leaf: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return leaf if isinstance(leaf, FunctionToolset) else _Patient(leaf, self._looked)


@dataclass
class _Patient(WrapperToolset[Any]):
    """A toolset that may have to be reached: for so long, and no failure of it ends the listing."""

    looked: _Looked
    entered: bool = False

    async def for_run(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        return await self._made(self.wrapped.for_run(ctx))

    async def for_run_step(self, ctx: RunContext[Any]) -> AbstractToolset[Any]:
        made = await self._made(self.wrapped.for_run_step(ctx))
        return self if made.wrapped is self.wrapped else made

    async def __aenter__(self) -> _Patient:  # noqa: PYI034  one class, never inherited
        self.entered = await self._reach(self.wrapped.__aenter__()) is not None
        return self

    async def __aexit__(self, *args: object) -> None:
        if self.entered:
            await self._reach(self.wrapped.__aexit__(*args))

    async def get_instructions(self, ctx: RunContext[Any]) -> None:
        del ctx

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        if self.wrapped.label in self.looked.unlisted:
            return {}
        tools = await self._reach(self.wrapped.get_tools(ctx)) or {}
        for name, tool in tools.items():
            trouble = refusals.of_toolset(tool.toolset)
            if trouble is not None:
                self.looked.troubles[name] = trouble
        return tools

    async def _made(self, making: Awaitable[AbstractToolset[Any]]) -> _Patient:
        made = await self._reach(making)
        return replace(self, wrapped=self.wrapped if made is None else made)

    async def _reach(self, work: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(self.looked.limit):
                return await work
        except TimeoutError:
            self.looked.unlisted[self.wrapped.label] = f"no answer within {self.looked.limit:g} seconds"
        except Exception as error:  # noqa: BLE001  whatever a server fails with, the rest can be listed
            self.looked.unlisted[self.wrapped.label] = f"{type(error).__name__}: {error}"
        return None
