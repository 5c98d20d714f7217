"""Finds the agents that users list in BANKSMAN_AGENTS, and says at once what is wrong with a listing.

An author writes a module with a mapping of names to agents, `agents = {"refunds": agent}`, and names it as
`acme.refunds:agents`. An entry that needs more says so with `Listed(agent, deps=..., version="3")`. The worker builds
everything once, when it starts: a module that does not import, an attribute that is not there or a name that is taken
stops the process with one sentence, before any run is claimed.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TypeAlias, cast

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models import Model
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ToolsetTool
from pydantic_ai.usage import UsageLimits
from pydantic_deep import DeepAgentDeps  # pyright: ignore[reportMissingTypeStubs]

from banksman import masks
from banksman.digest import Json
from banksman.errors import ConfigurationError
from banksman_worker import deep, subagents
from banksman_worker.workspace import Workspace

MakeDeps: TypeAlias = Callable[[Workspace], Any]
"""Makes the deps of one segment. It is called anew for each: deps live no longer than that."""


@dataclass(frozen=True)
class Listed:
    """An agent with what Banksman must know beside it; an agent that needs nothing of this is listed as it is."""

    agent: Agent[Any, Any]
    deps: MakeDeps | None = None
    version: str = "1"
    """Part of what is approved: raise it when a change must void the approvals that runs are waiting for."""
    harmless_output: bool = False
    """The author's word that the output functions only shape the answer: no gate can hold them."""
    sensitive_args: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Of each tool the arguments that are secret, `user.password` for one within another: covered where they are shown.

    A tool of your own may say so itself, in its metadata: `{"banksman_sensitive": ["password"]}`.
    """
    usage_limits: UsageLimits | None = None
    """What a run may use from its beginning to its end, however often it waits; None: the library's 50 requests."""


@dataclass(frozen=True)
class Loaded:
    """One agent of this process, under the name that runs are submitted to."""

    name: str
    agent: Agent[Any, Any]
    version: str
    deps_for: MakeDeps
    flagged: frozenset[str]
    """The tools that the author wants approved (`interrupt_on`), beside those that say so themselves."""
    harmless_output: bool = False
    sensitive_args: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    usage_limits: UsageLimits | None = None
    model: Model | None = None
    """The model of every run, where it is not for the agent itself to say (BANKSMAN_DEMO_MODEL)."""

    @property
    def output_type(self) -> list[Any] | None:
        """What to run the agent with, so that it can wait; None where the agent's own output type says so already.

        An agent with output validators takes no other output type than its own.
        """
        own: Any = self.agent.output_type
        outputs = cast("list[Any]", [*own] if isinstance(own, list | tuple) else [own])
        return None if DeferredToolRequests in outputs else [*outputs, DeferredToolRequests]


def load(specs: Sequence[str]) -> dict[str, Loaded]:
    """Every agent that the specs (`module:attribute`) name, or a `ConfigurationError` that says which one is wrong."""
    if not specs:
        raise ConfigurationError(
            "No agents are listed: set BANKSMAN_AGENTS to module:attribute, for example acme.refunds:agents."
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    found: dict[str, Loaded] = {}
    origin: dict[str, str] = {}
    for spec in specs:
        for name, entry in _entries(spec).items():
            for each in _family(spec, name, entry):
                if each.name in found:
                    raise ConfigurationError(
                        f"Two agents are called {each.name!r}, in {origin[each.name]} and in {spec}: give one of them"
                        " another name."
                    )
                found[each.name] = each
                origin[each.name] = spec
    return found


def _family(spec: str, name: str, entry: object) -> Iterator[Loaded]:
    """An entry and the subagents of a deep agent, each an agent of its own: `parent:child`.

    What is listed beside the parent holds for them too, unless a subagent is listed with its own.
    """
    found = loaded(spec, name, entry)
    yield found
    for child, agent in subagents.of(found.agent).items():
        below = agent
        if not isinstance(agent, Listed):
            held, limits = found.sensitive_args, found.usage_limits
            below = Listed(agent, version=found.version, sensitive_args=held, usage_limits=limits)
        yield from _family(spec, f"{name}:{child}", below)


def _entries(spec: str) -> Mapping[str, object]:
    """The names and agents behind one spec, which may be a mapping, one agent, or a function that makes either."""
    value = _attribute(spec)
    if callable(value) and not isinstance(value, Agent | Mapping):
        value = _called(spec, value)
    if isinstance(value, Listed | Agent):
        agent = value.agent if isinstance(value, Listed) else cast("Agent[Any, Any]", value)
        entry: object = cast("object", value)
        if agent.name is None:
            raise ConfigurationError(
                f"The agent at {spec} has no name: write Agent(..., name='refunds'), or list it in a mapping."
            )
        return {agent.name: entry}
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{spec} is {_a(value)}. It should be a mapping of names to agents, one agent, or a function that takes"
            " nothing and returns the mapping."
        )
    entries = cast("Mapping[object, object]", value)
    if not entries:
        raise ConfigurationError(f"{spec} lists no agents.")
    for name in entries:
        if not isinstance(name, str) or not name or len(name) > 100 or any(c.isspace() for c in name):
            raise ConfigurationError(
                f"{spec} has an agent called {name!r}: a name is a string of 1 to 100 characters, without spaces."
            )
    return cast("Mapping[str, object]", entries)


def _attribute(spec: str) -> object:
    module, colon, path = (part.strip() for part in spec.partition(":"))
    if not (module and colon and path):
        raise ConfigurationError(f"{spec!r} does not name agents: write module:attribute, as in acme.refunds:agents.")
    value: object = _module(module)
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ConfigurationError(f"The module {module!r} has no {path!r}, named by {spec}.") from None
    return value


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"There is no module {error.name!r}, named by BANKSMAN_AGENTS: it is neither installed nor in the"
                f" current directory, {Path.cwd()}."
            ) from error
        raise _broken(name, error) from error
    # A module that calls sys.exit() must not pass for a worker that was asked to stop.
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigurationError:
    return ConfigurationError(f"The agents module {name!r} does not import: {_last_words(error)}")


def _called(spec: str, make: Callable[[], object]) -> object:
    try:
        return make()
    except Exception as error:
        raise ConfigurationError(f"{spec} was called for its agents and failed: {_last_words(error)}") from error


def _last_words(error: BaseException) -> str:
    """The last line of an error's traceback, and the file and line that it came from."""
    words = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{words} ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return f"{words} ({frames[-1].filename}:{frames[-1].lineno})" if frames else words


def loaded(spec: str, name: str, entry: object) -> Loaded:
    """One entry of a listing, as this process holds it."""
    listed = entry if isinstance(entry, Listed) else Listed(cast("Agent[Any, Any]", entry))
    agent = cast("object", listed.agent)
    if not isinstance(agent, Agent):
        raise ConfigurationError(
            f"{name!r} in {spec} is {_a(agent)}, not an agent: list a pydantic_ai.Agent, or Listed(agent, ...)."
        )
    if listed.agent.model is None and listed.agent.root_capability.get_model() is None:
        raise ConfigurationError(f"The agent {name!r} in {spec} has no model: write Agent('openai:gpt-4.1', ...).")
    if not isinstance(cast("object", listed.version), str) or not listed.version:
        raise ConfigurationError(f"The version of the agent {name!r} in {spec} should be a string, like '2'.")
    return Loaded(
        name=name,
        agent=listed.agent,
        version=listed.version,
        deps_for=_deps_of(name, listed),
        flagged=deep.flagged_tools(listed.agent),
        harmless_output=listed.harmless_output,
        sensitive_args=_names(name, listed.sensitive_args),
        usage_limits=_limits(name, listed.usage_limits),
    )


def sensitive(loaded: Loaded, tool: ToolsetTool[Any] | None, name: str) -> dict[str, Json]:
    """What an action says of a tool's arguments that are secret: nothing, where none are."""
    found = {*loaded.sensitive_args.get(name, ()), *(declared(tool.tool_def) if tool is not None else ())}
    return {masks.SENSITIVE: sorted(found)} if found else {}


def declared(tool: ToolDefinition) -> Sequence[str]:
    """What a tool's author named as secret in its metadata."""
    named = (tool.metadata or {}).get("banksman_sensitive") or ()
    return [str(item) for item in cast("Sequence[object]", [named] if isinstance(named, str) else named)]


def _limits(agent: str, given: UsageLimits | None) -> UsageLimits | None:
    if given is not None and not isinstance(cast("object", given), UsageLimits):
        raise ConfigurationError(
            f"The usage_limits of the agent {agent!r} are {_a(given)}: write UsageLimits(request_limit=200), from"
            " pydantic_ai.usage."
        )
    return given


def _names(agent: str, given: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    wrong = [tool for tool, names in given.items() if isinstance(names, str)]
    if wrong:
        raise ConfigurationError(
            f"The sensitive_args of the agent {agent!r} name the arguments of {wrong[0]!r} as one string: write a list."
        )
    return given


def _deps_of(name: str, listed: Listed) -> MakeDeps:
    wanted: Any = listed.agent.deps_type
    make = listed.deps
    if make is not None and (not callable(make) or inspect.iscoroutinefunction(make)):
        raise ConfigurationError(
            f"The deps of the agent {name!r} should be an ordinary function of the run's workspace:"
            " Listed(agent, deps=lambda workspace: Deps(...))."
        )
    if make is None:
        if wanted is DeepAgentDeps:
            return deep.deps_for
        if wanted in (None, NoneType, object, Any):
            return _nothing
        raise ConfigurationError(
            f"The agent {name!r} expects deps of type {getattr(wanted, '__name__', wanted)}, and nothing makes them:"
            " list it as Listed(agent, deps=...), with a function of the run's workspace."
        )
    if not (isinstance(wanted, type) and issubclass(wanted, DeepAgentDeps)):
        return make

    def deep_deps(workspace: Workspace) -> Any:
        return deep.deps_for(workspace, make(workspace))

    return deep_deps


def _nothing(workspace: Workspace) -> None:
    del workspace


def _a(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
