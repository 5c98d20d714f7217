"""Builds pydantic-deep agents whose defaults do not break approval, on a workspace that we keep.

`deep_agent` takes `create_deep_agent`'s arguments. What differs, and why:

- Everything that would act outside the run's gate, or forget what it did when the run parks, is off
  and refused by name (`_REFUSED` says why and what to do instead).
- Files live in the run's own `Workspace`, which each segment passes to the agent.
- `execute` is ours (`execute.py`); the library's would need a workspace that runs commands.
- `interrupt_on` marks any tool, an author's own too, as needing approval. The library's own reading
  of it gates three tools and ignores every other name.
- Each built-in tool declares its effect, so that a tool of the same name elsewhere does not inherit it.

The result is an ordinary pydantic-ai `Agent`; its deps are made for each segment by `deps_for`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

from pydantic import Field, JsonValue
from pydantic_ai import Agent, DeferredToolRequests, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models import Model
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset
from pydantic_ai.workspaces import WorkspaceBackend, WorkspaceRef
from pydantic_deep import DeepAgentDeps, create_deep_agent  # pyright: ignore[reportMissingTypeStubs]
from pydantic_deep.models import DEFAULT_MODEL  # pyright: ignore[reportMissingTypeStubs]
from pydantic_deep.types import Todo, UploadedFile  # pyright: ignore[reportMissingTypeStubs]

from banksman.errors import ConfigurationError
from banksman_worker import execute as commands
from banksman_worker import subagents as below
from banksman_worker.scripted import resolve_model
from banksman_worker.workspace import Workspace

Effect: TypeAlias = Literal["harmless", "workspace", "idempotent"]
"""What an author declares of a tool, as `metadata={"banksman": EFFECT}`; absent means unknown.

`harmless` may run at any time and any number of times: it needs no approval. `workspace` changes
nothing but the run's own files and todos. `idempotent` acts outside, and acting twice is as once.
A call of the first two may be run again after a crash; it must be, if the workspace was lost.
"""

EFFECTS: Mapping[str, Effect] = MappingProxyType(
    {
        "ls": "harmless",
        "read_file": "harmless",
        "glob": "harmless",
        "grep": "harmless",
        "read_todos": "harmless",
        "write_todos": "harmless",
        "add_todo": "harmless",
        "update_todo_status": "harmless",
        "update_todo_statuses": "harmless",
        "remove_todo": "harmless",
        "write_file": "workspace",
        "edit_file": "workspace",
        "hashline_edit": "workspace",
    }
)
"""The library's own tools in a `deep_agent`. A name that is missing here has unknown effects."""

HARMLESS: frozenset[str] = frozenset(name for name, e in EFFECTS.items() if e == "harmless")
_READS = frozenset({"ls", "read_file", "glob", "grep", "read_todos"})
WORKSPACE_TOOLS: frozenset[str] = frozenset(EFFECTS) - _READS
"""Built-in tools whose only effect is on the run's own files and todos."""

FLAGGED = "banksman_flagged"
"""The attribute of a deep agent that holds the tool names of its `interrupt_on`."""

_LIBRARY_TOOLSETS = frozenset({"deep-todo", "deep-console"})
_NATIVE = "it runs at the model's provider, where no gate can hold it; give the agent a tool for it"
_CHILD = "a subagent's calls never reach this agent's gate; drop it, and start the subagent's work as a run of its own"
_BUILT_IN = _CHILD + ", or name the subagents that you want in subagents=[...], and each is a child run"
_MEMORY = "its state lives in one process, and a parked run has none; drop it"
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "workspace": "a run's files are kept by Banksman; drop it, and use ctx.workspace in tools",
        "include_subagents": _BUILT_IN,
        "include_builtin_subagents": _BUILT_IN,
        "include_plan": "the planner is a subagent; " + _CHILD,
        "include_teams": _CHILD,
        "forking": _CHILD,
        "web_search": _NATIVE,
        "web_fetch": _NATIVE,
        "native_tools": _NATIVE,
        "patch_tool_calls": (
            "it tells the model that approved and executed calls were cancelled, and the model"
            " repeats them; drop it, since pydantic-ai repairs histories itself"
        ),
        "stuck_loop_detection": (
            "it tells the model that approved and executed calls had no effect when their results"
            " are alike; drop it, and limit a run with usage limits"
        ),
        "include_monitoring": ("a monitor runs commands after its call has returned; use execute, or a tool of yours"),
        "include_checkpoints": _MEMORY,
        "checkpoint_store": _MEMORY,
        "message_queue": _MEMORY,
        "context_manager": ("summarising the history moves the calls that decisions are bound to; drop it"),
        "include_history_archive": "all runs would share one file; drop it",
        "include_improve": "it reads other sessions' files from the worker's disk; drop it",
        "cost_tracking": "all runs of a process would share one count; use usage limits",
        "cost_budget_usd": "all runs of a process would share one budget; use usage limits",
        "instrument": ("pydantic-ai no longer takes it; use capabilities=[Instrumentation(settings=...)]"),
    }
)
_SAFE: Mapping[str, Any] = MappingProxyType(
    {
        "include_subagents": False,
        "include_builtin_subagents": False,
        "include_plan": False,
        "patch_tool_calls": False,
        "stuck_loop_detection": False,
        "web_search": False,
        "web_fetch": False,
        "include_monitoring": False,
        "include_history_archive": False,
        "context_manager": False,
        "cost_tracking": False,
    }
)
_QUIET: Mapping[str, Any] = MappingProxyType({"include_memory": False, "include_skills": False, "thinking": False})


def deep_agent(
    model: Model | str | None = None,
    *,
    interrupt_on: Mapping[str, bool] | None = None,
    output_type: Any = str,
    include_execute: bool = True,
    edit_format: Literal["str_replace", "hashline"] = "str_replace",
    toolsets: Sequence[AbstractToolset[DeepAgentDeps]] = (),
    subagents: Sequence[Mapping[str, Any]] | None = None,
    capabilities: Sequence[AbstractCapability[Any]] = (),
    **arguments: Any,
) -> Agent[DeepAgentDeps, Any]:
    """`create_deep_agent`, safe to park, with every tool of `interrupt_on` marked for approval.

    Each of `subagents` (the library's configurations) works as a child run; see `subagents.py` for what maps and what
    is refused. One that brings no agent of its own is built like its parent: same model, same `interrupt_on`.
    """
    for name, value in arguments.items():
        if value is not None and value is not False and name in _REFUSED:
            raise ConfigurationError(f"deep_agent cannot take {name}: {_REFUSED[name]}.")
    accepted = {name: value for name, value in arguments.items() if name not in _REFUSED}
    flagged = frozenset(name for name, wanted in (interrupt_on or {}).items() if wanted)
    extra: list[AbstractToolset[DeepAgentDeps]] = [_commands()] if include_execute else []

    def child(config: Mapping[str, Any]) -> Agent[Any, Any]:
        return deep_agent(
            model if config.get("model") is None else config["model"],
            instructions=config.get("instructions"),
            interrupt_on=interrupt_on,
            include_execute=include_execute,
            edit_format=edit_format,
            toolsets=config.get("toolsets") or (),
        )

    children = below.read(subagents or (), child)
    if subagents:
        extra.append(below.toolset(subagents))
    outputs: list[Any] = [*cast("list[Any]", output_type)] if isinstance(output_type, list) else [output_type]
    if DeferredToolRequests not in outputs:
        outputs.append(DeferredToolRequests)
    agent: Agent[DeepAgentDeps, Any] = create_deep_agent(
        model=resolve_model(DEFAULT_MODEL if model is None else model),
        output_type=outputs,
        workspace=_RunsOwnWorkspace(),
        include_execute=False,
        edit_format=edit_format,
        toolsets=[*toolsets, *extra],
        capabilities=[*capabilities, _AskFirst(flagged)],
        **{**_QUIET, **accepted, **_SAFE},
    )
    _declare_effects(agent, yours=toolsets)
    setattr(agent, FLAGGED, flagged)
    below.give(agent, children)
    return agent


def flagged_tools(agent: object) -> frozenset[str]:
    """The tool names that the author of `agent` wants approved, by `interrupt_on`."""
    return cast("frozenset[str]", getattr(agent, FLAGGED, frozenset[str]()))


def declared_effect(tool: ToolDefinition) -> Effect | None:
    """What the author of `tool` declared of it; None when its effects are unknown."""
    declared = (tool.metadata or {}).get("banksman")
    if declared is None or declared in get_args(Effect):
        return cast("Effect | None", declared)
    raise ConfigurationError(
        f"The tool {tool.name!r} declares the effect {declared!r}: it is one of"
        f" {', '.join(get_args(Effect))}, or absent."
    )


def deps_for(workspace: Workspace, deps: DeepAgentDeps | None = None) -> DeepAgentDeps:
    """The deps of one segment, with the run's todos and uploads; `deps` are an author's own."""
    deps = DeepAgentDeps() if deps is None else deps
    if workspace.todos:
        deps.todos = [Todo.model_validate(todo) for todo in workspace.todos]
    for path, upload in workspace.uploads.items():
        deps.uploads[path] = cast("UploadedFile", upload)
        # It was written when the run began, and belongs to the agent since then.
        deps._upload_bytes.pop(path, None)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return deps


def keep(deps: object, workspace: Workspace) -> None:
    """Bring a segment's todos and uploads back into the workspace, before each snapshot."""
    if isinstance(deps, DeepAgentDeps):
        workspace.todos = [cast("JsonValue", todo.model_dump(mode="json")) for todo in deps.todos]
        workspace.uploads = {path: cast("JsonValue", dict(upload)) for path, upload in deps.uploads.items()}


def _commands() -> FunctionToolset[DeepAgentDeps]:
    toolset = FunctionToolset[DeepAgentDeps](id="banksman-execute")

    # A barrier: what the model wrote before it in the same turn is there when it starts, and what
    # follows sees what it left.
    @toolset.tool(sequential=True)
    async def execute(
        ctx: RunContext[DeepAgentDeps],
        command: Annotated[str, Field(description="A command line for /bin/sh.")],
        timeout: Annotated[  # noqa: ASYNC109  the name that models and reviewers know
            int, Field(ge=1, le=commands.MAX_SECONDS, description="Seconds until it is stopped.")
        ] = commands.DEFAULT_SECONDS,
    ) -> str:
        """Run a shell command on a private copy of the workspace, and keep the changes it makes.

        The command starts in the workspace's root, so the file /backup.sh is backup.sh there:
        use relative paths. Processes left in the background end with the command.
        """
        backend = ctx.workspace.backend
        if not isinstance(backend, Workspace):
            raise ConfigurationError(_MISSING)
        return await commands.execute(backend, command, timeout)

    return toolset


_MISSING = (
    "This agent keeps its files in the run's own workspace, and was run without one: submit the run"
    " to Banksman, or call agent.run(..., workspace=Workspace('test'), deps=deps_for(workspace))."
)


class _RunsOwnWorkspace(AbstractCapability[Any]):
    """Refuses a run that was given no workspace, instead of letting every tool fail quietly."""

    def get_workspace(self, ctx: RunContext[Any], *, ref: WorkspaceRef | None) -> WorkspaceBackend | None:
        del ctx, ref
        raise ConfigurationError(_MISSING)


class _AskFirst(AbstractCapability[Any]):
    """Marks the author's chosen tools as needing approval, wherever they come from."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    async def prepare_tools(self, ctx: RunContext[Any], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
        del ctx
        return [
            replace(tool, kind="unapproved") if tool.name in self._names and tool.kind == "function" else tool
            for tool in tool_defs
        ]


def _declare_effects(agent: Agent[DeepAgentDeps, Any], *, yours: Sequence[AbstractToolset[DeepAgentDeps]]) -> None:
    """Write each built-in tool's effect into its own metadata."""
    for toolset in agent.toolsets:
        if not isinstance(toolset, FunctionToolset) or toolset in yours:
            continue
        if toolset.id not in _LIBRARY_TOOLSETS:
            continue
        for name, tool in cast("FunctionToolset[Any]", toolset).tools.items():
            if name in EFFECTS:
                # It works on the run's own workspace alone: after a crash it is simply run again.
                local = {"banksman": EFFECTS[name], "banksman_local": True}
                tool.metadata = {**(tool.metadata or {}), **local}
