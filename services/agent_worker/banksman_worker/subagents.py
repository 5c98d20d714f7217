"""Maps pydantic-deep's subagent configurations onto child runs.

The library would run a subagent inside the call of its `task` tool, where no gate sees what it does, and would start it
anew when that call was approved. Here `task` puts its call off; the subagent is an agent of its own, listed as
`parent:child`, and its work is a child run with requests of its own. What of a configuration has no meaning then is
refused by name; hints to the library's scheduler are let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from pydantic import Field
from pydantic_ai import Agent
from pydantic_ai.toolsets import FunctionToolset

from banksman.errors import ConfigurationError
from banksman_worker.asking import hand_over

_ATTRIBUTE = "banksman_subagents"
_TAKEN = frozenset({"name", "description", "instructions", "model", "agent", "agent_factory", "toolsets"})
_HINTS = frozenset(
    {
        "preferred_mode",
        "typical_complexity",
        "typically_needs_context",
        "contain_errors",
        "max_retries",
        "retry_initial_delay",
        "retry_max_delay",
        "retry_backoff_multiplier",
        "retry_jitter",
        "retry_on",
    }
)
_OWN = "build the agent yourself, with what it needs, and give it as `agent`"
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "can_ask_questions": "a child run asks a person, not its parent: give it toolsets=[questions()]",
        "max_questions": "a child run asks a person, not its parent: give it toolsets=[questions()]",
        "on_failure": "the parent is told how the child run ended; say in its instructions what to do then",
    }
)

Build = Callable[[Mapping[str, Any]], Agent[Any, Any]]


def of(agent: object) -> Mapping[str, Agent[Any, Any]]:
    """The subagents of a deep agent, by name."""
    return cast("Mapping[str, Agent[Any, Any]]", getattr(agent, _ATTRIBUTE, {}))


def give(agent: Agent[Any, Any], found: Mapping[str, Agent[Any, Any]]) -> None:
    """Remember the subagents with their parent, for the listing to find."""
    setattr(agent, _ATTRIBUTE, found)


def read(configs: Sequence[Mapping[str, Any]], build: Build) -> dict[str, Agent[Any, Any]]:
    """An agent for each configuration: the one that it brings, or one built from its instructions."""
    found: dict[str, Agent[Any, Any]] = {}
    for config in configs:
        if not isinstance(cast("object", config), Mapping):
            raise ConfigurationError(f"A subagent is {config!r}: it should be a mapping with a name and instructions.")
        name = _name(config)
        if name in found:
            raise ConfigurationError(f"Two subagents are called {name!r}: give one of them another name.")
        for key in sorted(set(config) - _TAKEN - _HINTS):
            if config[key]:
                raise ConfigurationError(f"The subagent {name!r} cannot take {key}: {_INSTEAD.get(key, _OWN)}.")
        if config.get("preferred_mode") == "async":
            raise ConfigurationError(
                f"The subagent {name!r} cannot run in the background (preferred_mode='async'): its parent waits for"
                " it. Delegate several tasks in one turn, and they run side by side."
            )
        if config.get("agent") is not None:
            found[name] = config["agent"]
        elif config.get("agent_factory") is not None:
            found[name] = config["agent_factory"](config)
        else:
            found[name] = build(config)
    return found


def toolset(configs: Sequence[Mapping[str, Any]]) -> FunctionToolset[Any]:
    """The `task` tool, whose call waits for a child run."""
    made = FunctionToolset[Any](id="banksman-subagents")
    names = tuple(_name(config) for config in configs)

    def task(
        description: Annotated[
            str, Field(min_length=1, max_length=100_000, description="The task, complete in itself.")
        ],
        subagent_type: str,
    ) -> str:
        raise hand_over(subagent_type, description, own=True)

    task.__annotations__["subagent_type"] = Literal[names]
    lines = (f"- {_name(config)}: {config.get('description', '')}" for config in configs)
    about = "\n".join(["Have a subagent do a task, and get its answer. It sees nothing but the task.", *lines])
    made.add_function(task, description=about, metadata={"banksman": "harmless"})
    return made


def _name(config: Mapping[str, Any]) -> str:
    name = config.get("name")
    if not isinstance(name, str) or not name or len(name) > 60 or any(c.isspace() or c == ":" for c in name):
        raise ConfigurationError(
            f"A subagent is called {name!r}: a name is a string of 1 to 60 characters, without spaces and colons."
        )
    return name
