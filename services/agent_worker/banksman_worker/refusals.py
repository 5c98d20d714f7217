"""What an agent may not bring, because no gate can hold it or because it breaks approvals, with a remedy for each.

A tool call that reaches the gate can be held, whatever it does, so very little is refused:

- work that never reaches this agent's gate: tools of the model's provider, subagents, output functions;
- what answers, repeats or rewrites calls behind the gate's back: capabilities that approve in the process, that tell
  the model that finished calls did not happen, or that change the history in which a call's step is counted;
- what lives in one process while the run does not, or would run the same calls a second time.

Things are recognised by the name of their class and of the package that it comes from, along the line of inheritance,
so that nothing has to be imported to be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isroutine
from types import MappingProxyType
from typing import Any, cast, get_origin

from pydantic_ai import Agent, NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.capabilities import AbstractCapability, CombinedCapability, Hooks, WrapperCapability
from pydantic_ai.native_tools import AbstractNativeTool
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset
from pydantic_deep import DeepAgentDeps  # pyright: ignore[reportMissingTypeStubs]

from banksman import digest
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman_worker import deep

_CHILD = (
    "a subagent's calls never reach this agent's gate, and approving the call that started it would start it again."
    " Drop it, and submit the subagent's work as a run of its own"
)
_HISTORY = (
    "it rewrites the history in which the steps of approved calls are counted. Drop it; to send less, shorten the"
    " messages in a wrapper around the model, which leaves the history alone"
)
_CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "pydantic_deep.PatchToolCallsCapability": (
            "it tells the model that approved and executed calls were cancelled, and the model repeats them. Drop it"
            " (patch_tool_calls=False): pydantic-ai repairs histories itself"
        ),
        "pydantic_deep.StuckLoopDetection": (
            "it tells the model that approved and executed calls had no effect when their results are alike. Drop it"
            " (stuck_loop_detection=False), and limit runs with usage limits"
        ),
        "pydantic_deep.CheckpointMiddleware": (
            "its checkpoints live in one process, and going back to one would undo what a person approved. Drop it"
            " (include_checkpoints=False)"
        ),
        "pydantic_deep.LiveForkCapability": f"{_CHILD} (forking=False)",
        "pydantic_ai_summarization.ContextManagerCapability": f"{_HISTORY} (context_manager=False)",
        "pydantic_ai_summarization.SummarizationCapability": _HISTORY,
        "pydantic_ai_summarization.SlidingWindowCapability": _HISTORY,
        "pydantic_ai_harness.SlidingWindowCompaction": _HISTORY,
        "pydantic_ai_harness.TieredCompaction": _HISTORY,
        "pydantic_ai_harness.SummarizingCompaction": _HISTORY,
        "pydantic_ai_harness.FallbackCompaction": _HISTORY,
        "pydantic_ai_harness.RelevanceCompaction": _HISTORY,
        "pydantic_ai_harness.CompactOnRequest": _HISTORY,
        "pydantic_ai.ProcessHistory": _HISTORY,
        "subagents_pydantic_ai.SubAgentCapability": _CHILD,
        "pydantic_ai_harness.SubAgents": _CHILD,
        "pydantic_ai_harness.DynamicWorkflow": _CHILD,
        "pydantic_ai_harness.CodeMode": (
            "the calls inside its run_code cannot wait for a person one by one. Drop it, and let the model call tools"
        ),
        "pydantic_ai_harness.BackgroundTools": (
            "its calls go on after the run has parked. Drop it: a tool that starts long work elsewhere raises"
            " banksman.external()"
        ),
        "pydantic_ai_harness.CapabilityCreation": "the model would write code that no gate sees. Drop it",
        "pydantic_ai_harness.RuntimeAuthoring": "the model would write code that no gate sees. Drop it",
        "pydantic_ai.BaseDurabilityCapability": (
            "two engines would carry one run, and each repeat what the other did. Drop it: Banksman is the engine"
        ),
    }
)
_TOOLSETS: Mapping[str, str] = MappingProxyType(
    {
        "subagents_pydantic_ai.SubAgentToolset": _CHILD,
        "pydantic_ai_harness.SubAgentToolset": _CHILD,
        "pydantic_ai_harness.DynamicWorkflowToolset": _CHILD,
    }
)
_TOOLSET_IDS: Mapping[str, str] = MappingProxyType({"deep-team": _CHILD, "agent_factory": _CHILD})
_KEEPS_FILES = frozenset({"pydantic_ai_backends.StateWorkspace", "banksman_worker._RunsOwnWorkspace"})
"""Workspaces that give way to the run's own: the library's default, and ours."""


def of_agent(agent: Agent[Any, Any], *, harmless_output: bool) -> list[str]:
    """What is wrong with an agent as it was built, before anything of it runs."""
    troubles = of_capabilities([agent.root_capability])
    for toolset in agent.toolsets:
        leaves: list[AbstractToolset[Any]] = []
        toolset.apply(leaves.append)
        troubles += [trouble for leaf in leaves if (trouble := of_toolset(leaf)) is not None]
    if not harmless_output:
        troubles += [_of_output(function) for function in _output_functions(agent.output_type)]
    return _once(troubles)


def of_capabilities(capabilities: Iterable[AbstractCapability[Any]]) -> list[str]:
    """What is wrong with capabilities, and with those inside them."""
    found = [_of_capability(leaf) for capability in capabilities for leaf in _leaves(capability)]
    return _once([trouble for trouble in found if trouble is not None])


def of_toolset(toolset: AbstractToolset[Any]) -> str | None:
    """What is wrong with a toolset, if no call of its tools can be held."""
    why = _known(toolset, _TOOLSETS) or _TOOLSET_IDS.get(toolset.id or "")
    if why is None:
        return None
    names = list(toolset.tools) if isinstance(toolset, FunctionToolset) else []
    tools = f"the tools {', '.join(names)}" if names else f"the toolset {type(toolset).__name__}"
    return f"{tools}: {why}."


def of_native(tool: AbstractNativeTool) -> str | None:
    """What is wrong with a tool of the model's provider: all but the search for tools act where no gate is."""
    if tool.kind == "tool_search":
        return None
    return (
        f"the tool {tool.kind}: it runs at the model's provider, where no gate can hold it. Drop it, or give the agent"
        " a function tool for it (a capability that has both takes native=False)."
    )


def of_tool(tool: ToolDefinition) -> str | None:
    """What is wrong with a tool's arguments, if a reviewer could not be shown what would run."""
    schema = tool.parameters_json_schema
    try:
        digest.of_schema(cast("Mapping[str, Json]", digest.check(schema, what="its argument schema")))
    except InvalidInput as error:
        return f"the tool {tool.name}: {error} Give its arguments types and defaults that JSON holds."
    secret = next(_secrets(schema), None)
    if secret is not None:
        return (
            f"the tool {tool.name}: its argument {secret!r} is a secret type, which is masked when it is written down,"
            " so what a reviewer is shown is not what would run. Take a plain string, or let the tool read the secret"
            " itself."
        )
    return None


def sentence(agent: Agent[Any, Any], name: str, troubles: Sequence[str]) -> str:
    """One message that names the agent, everything wrong with it, and the way out."""
    said = f" {troubles[0]}" if len(troubles) == 1 else "".join(f"\n  - {trouble}" for trouble in troubles)
    return f"The agent {name!r} cannot be gated:{said}{_way_out(agent)}"


def _way_out(agent: Agent[Any, Any]) -> str:
    kind: Any = agent.deps_type
    if not (isinstance(kind, type) and issubclass(kind, DeepAgentDeps)) or hasattr(agent, deep.FLAGGED):
        return ""
    return (
        "\nIt was built by create_deep_agent, whose defaults break approval: build it with banksman.deep_agent(...),"
        " which takes the same arguments and leaves these things out."
    )


def _leaves(capability: AbstractCapability[Any]) -> Iterator[AbstractCapability[Any]]:
    found: list[AbstractCapability[Any]] = []
    capability.apply(found.append)
    for leaf in found:
        yield leaf
        # A wrapper does not always show what it wraps.
        if isinstance(leaf, WrapperCapability):
            yield from _leaves(leaf.wrapped)


def _of_capability(capability: AbstractCapability[Any]) -> str | None:
    named = f"the capability {type(capability).__name__}"
    why = _known(capability, _CAPABILITIES)
    if why is not None:
        return f"{named}: {why}."
    if isinstance(capability, CombinedCapability | WrapperCapability):
        return None
    if _answers_itself(capability):
        return (
            f"{named}: it answers waiting calls inside the worker, in place of a person. Drop it; what needs nobody's"
            " approval is allowed by policy (BANKSMAN_ALLOW_TOOLS) or declared harmless."
        )
    if type(capability).get_workspace is not AbstractCapability.get_workspace and not _is_one_of(
        capability, _KEEPS_FILES
    ):
        return (
            f"{named}: a run's files are kept by Banksman, and this workspace would never be used. Drop it, and use"
            " ctx.workspace in tools."
        )
    return None


def _answers_itself(capability: AbstractCapability[Any]) -> bool:
    if isinstance(capability, Hooks):
        registered = capability._get("handle_deferred_tool_calls")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return bool(registered)
    own = type(capability).handle_deferred_tool_calls
    return own is not AbstractCapability.handle_deferred_tool_calls


def _of_output(function: object) -> str:
    name = getattr(function, "__name__", None) or type(function).__name__
    return (
        f"the output function {name}: it runs with the model's arguments when the run ends, and no gate holds it. Make"
        " it a tool; or, if it only shapes the answer, list the agent as Listed(agent, harmless_output=True)."
    )


def _output_functions(output: Any) -> Iterator[object]:
    match output:
        case list() | tuple():
            for item in cast("Sequence[Any]", output):
                yield from _output_functions(item)
        case ToolOutput():
            yield from _output_functions(cast("Any", output).output)
        case NativeOutput() | PromptedOutput():
            yield from _output_functions(cast("Any", output).outputs)
        case TextOutput():
            yield cast("Any", output).output_function
        case _ if isroutine(output) or isinstance(output, partial):
            yield cast("object", output)
        case _ if _is_callable_object(output):
            yield cast("object", output)
        case _:
            return


def _is_callable_object(output: object) -> bool:
    """Whether an instance of somebody's class can be called; types and what typing builds are no functions."""
    if isinstance(output, type) or get_origin(output) is not None or not callable(output):
        return False
    return type(output).__module__ not in {"typing", "typing_extensions", "types"}


def _secrets(schema: Json, name: str = "") -> Iterator[str]:
    """The names of arguments whose type hides its value (`SecretStr`), anywhere in a schema."""
    if isinstance(schema, dict):
        inner = cast("dict[str, Json]", schema)
        if inner.get("format") == "password" and inner.get("writeOnly") is True:
            yield name
        for key, value in inner.items():
            fields = cast("dict[str, Json]", value) if key in ("properties", "$defs") else {name: value}
            for field, body in fields.items():
                yield from _secrets(body, field)
    elif isinstance(schema, list):
        for item in cast("list[Json]", schema):
            yield from _secrets(item, name)


def _known(thing: object, table: Mapping[str, str]) -> str | None:
    return next((table[name] for name in _names(thing) if name in table), None)


def _is_one_of(thing: object, names: frozenset[str]) -> bool:
    return any(name in names for name in _names(thing))


def _names(thing: object) -> Iterator[str]:
    for kind in type(thing).__mro__:
        yield f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _once(troubles: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(troubles))
